"""What the machine allows: bytes a second, the time of a pass, and what attention to a longer catalogue costs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .answers import Reading
from .model import BACKEND, Model
from .prefixes import Prefix, run

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx.utils import tree_flatten  # isort: skip
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache  # isort: skip

# Far beyond what a processor's caches hold.
PROBE_BYTES = 256 * 1024**2
PASS_SIZES = (1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65)
ATTENTION_SIZES = (1, 5, 9, 17, 33, 65)
CACHE_STEP = 256
LEAST_ROUNDS, MOST_ROUNDS = 3, 15


def weight_bytes(network: Any) -> int:
    """The bytes of weights that a pass reads: all but an embedding that the head does not share."""
    sizes = {name: int(value.nbytes) for name, value in tree_flatten(network.parameters())}
    if any("lm_head" in name for name in sizes):
        return sum(size for name, size in sizes.items() if "embed_tokens" not in name)
    return sum(sizes.values())


def memory_bandwidth(size: int = PROBE_BYTES, rounds: int = 7) -> float:
    """Bytes a second at which MLX's default device reads a large array, at best."""
    rows = size // 4096
    weights, vector = mx.random.normal((rows, 1024)), mx.random.normal((1, 1024))
    mx.eval(weights, vector)
    reads: list[Callable[[], object]] = [lambda: mx.eval(vector @ weights.T), lambda: mx.eval(mx.sum(weights))]
    if BACKEND.device == "cpu":
        # On x86 MLX's own reading comes nowhere near to what the memory gives.
        same = np.array(weights)
        reads += [same.max, partial(np.matmul, same, np.array(vector)[0])]
    return max(weights.nbytes / min(timed(read) for _ in range(rounds)) for read in reads)


def pass_seconds(
    model: Model, prefix: Prefix, sizes: Sequence[int] = PASS_SIZES, seconds: float = 3.0
) -> dict[int, float]:
    """Median seconds of a pass of so many tokens after a prefix, logits read.

    The sizes take turns, at least three and at most 15 times, until so many `seconds` are over.
    """
    cache = prefix.continued()
    trims = can_trim_prompt_cache(cache)
    times: dict[int, list[float]] = {size: [] for size in sizes}
    start = 0.0
    for number in range(MOST_ROUNDS + 1):
        for size in sizes:
            if not trims:
                cache = prefix.continued()
            taken = timed(partial(_pass, model.network, size, cache))
            if trims:
                trim_prompt_cache(cache, size)
            # The first round makes room, and compiles.
            if number:
                times[size].append(taken)
        if number == 0:
            start = time.perf_counter()
        elif number >= LEAST_ROUNDS and time.perf_counter() - start > seconds:
            break
    return {size: statistics.median(found) for size, found in times.items()}


def _pass(network: Any, size: int, cache: Any) -> None:
    Reading(run(network, [0] * size, cache, rows=size)).passes([size])


def attention_seconds(
    model: Model, prefix_tokens: int, sizes: Sequence[int] = ATTENTION_SIZES, rounds: int = 5
) -> dict[int, float] | None:
    """Median seconds of all layers' attention alone in passes of so many tokens; None for an unknown architecture."""
    config = model.config
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    if not layers or not heads:
        return None
    kept = config.get("num_key_value_heads") or heads
    width = config.get("head_dim") or config["hidden_size"] // heads
    dtype = getattr(mx, model.dtype)
    # As a model's cache holds them: a part of a larger array, one for each layer.
    room = -(-(prefix_tokens + max(sizes)) // CACHE_STEP) * CACHE_STEP
    stored = [mx.ones((1, kept, room, width), dtype) for _ in range(2 * layers)]
    mx.eval(stored)
    queries = {size: mx.ones((1, heads, size, width), dtype) for size in sizes}

    def attend(size: int) -> None:
        mask = "causal" if size > 1 else None
        for keys, values in zip(stored[::2], stored[1::2], strict=True):
            parts = (one[..., : prefix_tokens + size, :] for one in (keys, values))
            mx.eval(mx.fast.scaled_dot_product_attention(queries[size], *parts, scale=width**-0.5, mask=mask))

    attend(sizes[0])
    return {size: statistics.median(timed(partial(attend, size)) for _ in range(rounds)) for size in sizes}


def interpolate(table: Mapping[int, float], size: float) -> float:
    """A table's value between its sizes; beyond the last two it goes on in a line."""
    known = sorted(table)
    if size > known[-1] and len(known) > 1:
        slope = (table[known[-1]] - table[known[-2]]) / (known[-1] - known[-2])
        return table[known[-1]] + max(0.0, slope) * (size - known[-1])
    return float(np.interp(size, known, [table[one] for one in known]))


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
