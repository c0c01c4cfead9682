"""The loss of a batch: cross-entropy of the answers' tokens, the catalogue run once for all rows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from .attention import fast_kernels, prefix_caches, shared_cache
from .batches import Batch
from .exponential import cross_entropy, is_fast
from .heads import logits_at
from .ranks import ALONE, Ranks
from .streams import second_stream

# Answers are read to a multiple of so many tokens, so that few shapes are compiled.
ANSWERS_TO = 8
# What a token of the prefix costs beside one of a suffix: attention to half as many, and nothing after the last keys.
PREFIX_COST = 0.6


def answer_loss(
    network: Any, prefix: mx.array, suffix: mx.array, lengths: mx.array, longest: mx.array, weights: mx.array
) -> Any:
    """Summed cross-entropy of the answers' tokens, each times its weight, and their number.

    `prefix` (P,) may be empty; `suffix` (B, S), `lengths` (B, 3) as in `Batch`; `longest` has the length A of the
    longest answer; `weights` (2,) are those of a token up to the tool's name's end, and of any other. With weights that
    add up to the group's micro-batches over the group, the trainer's mean over it is a weighted mean over tokens.
    """
    with fast_kernels(network):
        if not prefix.size:
            found = _row_loss(network, None, suffix, lengths, longest, weights)
        elif (stream := second_stream(network)) is None:
            found = _row_loss(network, _run_prefix(network, prefix), suffix, lengths, longest, weights)
        else:
            found = _loss_on_two_streams(network, stream, prefix, suffix, lengths, longest, weights)
    return found


def _loss_on_two_streams(
    network: Any,
    stream: Any,
    prefix: mx.array,
    suffix: mx.array,
    lengths: mx.array,
    longest: mx.array,
    weights: mx.array,
) -> tuple[mx.array, mx.array]:
    """The second stream runs the prefix, a layer ahead, and as many rows as make both streams take equally long."""
    rows, size = suffix.shape
    there = round(max(0.0, rows - PREFIX_COST * prefix.size / size) / 2)
    with mx.stream(stream):
        before = _run_prefix(network, prefix)
        some = _row_loss(network, before, suffix[:there], lengths[:there], longest, weights) if there else None
    loss, tokens = _row_loss(network, before, suffix[there:], lengths[there:], longest, weights)
    return (loss, tokens) if some is None else (loss + some[0], tokens + some[1])


def _row_loss(
    network: Any,
    before: list[Any] | None,
    suffix: mx.array,
    lengths: mx.array,
    longest: mx.array,
    weights: mx.array,
) -> tuple[mx.array, mx.array]:
    """The loss of rows that go on from a prefix or from none, and the number of their answers' tokens."""
    cache = [shared_cache(layer, suffix.shape[0]) for layer in before] if before is not None else None
    # The token at position p is foretold at p - 1.
    targets = lengths[:, :1] + mx.arange(longest.size)
    positions = mx.minimum(targets, suffix.shape[1] - 1)
    logits = logits_at(network, suffix[:, :-1], cache, partial(_at, positions=positions - 1)).astype(mx.float32)
    mask = targets < lengths[:, 1:2]
    weight = mx.where(targets < lengths[:, 2:], weights[0], weights[1])
    losses = _cross_entropy(logits, mx.take_along_axis(suffix, positions, axis=1)) * weight * mask
    return losses.sum(), mask.sum()


def _at(values: mx.array, positions: mx.array) -> mx.array:
    return mx.take_along_axis(values, positions[..., None], axis=1)


def _cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    return cross_entropy(logits, targets) if is_fast() else nn.losses.cross_entropy(logits, targets)


def _run_prefix(network: Any, prefix: mx.array) -> list[Any]:
    before = prefix_caches(network)
    # The logits are never used, so that lazy evaluation leaves the head out.
    network(prefix[None], cache=before)
    return before


def arrays(batch: Batch, weight: float, name_weight: float = 1.0) -> tuple[mx.array, ...]:
    """The batch as `answer_loss` takes it; a token up to the tool's name's end weighs `name_weight` times `weight`."""
    longest = int((batch.lengths[:, 1] - batch.lengths[:, 0]).max())
    padded = -(-max(longest, 1) // ANSWERS_TO) * ANSWERS_TO
    return (
        *(mx.array(part) for part in (batch.prefix, batch.suffix, batch.lengths)),
        mx.zeros(padded),
        mx.array([weight * name_weight, weight], mx.float32),
    )


def mean_loss(network: Any, batches: list[Batch], ranks: Ranks = ALONE) -> float:
    """Loss per answer token over batches, without dropout; each rank computes its share of them."""
    was_training = network.training
    network.eval()
    total = 0.0
    for batch in ranks.share(batches):
        loss, _ = answer_loss(network, *arrays(batch, 1.0))
        total += float(loss.item())
    network.train(was_training)
    return ranks.sum(total) / sum(batch.answer_tokens for batch in batches)


def shared_prefix_problem(network: Any, batch: Batch, loss: Callable[..., Any] = answer_loss) -> str | None:
    """Why this network can't train with a shared prefix; None if loss and gradients equal those of whole rows.

    Both are computed on `batch` without dropout, with the shared prefix by `loss`. The tolerance is rounding's: 1e-3 of
    the largest gradient in float32, fifty times that in the shorter types.
    """
    rows = batch.suffix.shape[0]
    prefix = np.broadcast_to(batch.prefix, (rows, batch.prefix.size))
    whole = Batch(
        np.zeros(0, np.int32),
        np.concatenate([prefix, batch.suffix], axis=1),
        batch.lengths + batch.prefix.size,
        batch.rows,
    )
    was_training = network.training
    network.eval()
    try:
        (one, _), shared = nn.value_and_grad(network, loss)(network, *arrays(batch, 1.0 / batch.answer_tokens))
        # One after the other, so that only one graph is in memory.
        mx.eval(one, shared)
        (other, _), plain = nn.value_and_grad(network, answer_loss)(network, *arrays(whole, 1.0 / batch.answer_tokens))
        mx.eval(other, plain)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        return f"this architecture's layers do not take it ({error})"
    finally:
        network.train(was_training)
    pairs = list(zip(tree_flatten(shared), tree_flatten(plain), strict=True))
    difference = max(_largest(left - right) for (_, left), (_, right) in pairs)
    largest = max(_largest(right) for _, (_, right) in pairs) + 1e-8
    exact = all(array.dtype == mx.float32 for _, array in tree_flatten(network.parameters()))
    tolerance = 1e-3 if exact else 5e-2
    if difference <= tolerance * largest and _largest(one - other) <= tolerance * _largest(other):
        return None
    return f"its gradients differ from those of whole rows by {difference / largest:.1e} of the largest"


def _largest(array: mx.array) -> float:
    found: Any = mx.abs(array).max().item()
    return float(found)
