"""Several answers at once: each pass takes every answer on by as many tokens as its guess was right, and one more."""

import copy
import time
from collections.abc import Sequence
from typing import Any

from .answers import Job, read_logits
from .calls import Generation
from .prefixes import Prefix, run
from .ragged import RaggedCache, Rows, ragged

import mlx.core as mx  # isort: skip

# Tokens of all rows together that run at once before the answers begin.
PREFILL_TOKENS = 2048
PADDING = 0
# How far logits may be from those of a row alone, relative to the largest.
TOLERANCE = 1e-3
LOOSE_TOLERANCE = 5e-2


class Lockstep:
    """Rows that go on from one prefix. Raises `ValueError` where a layer keeps anything else than keys and values."""

    def __init__(self, network: Any, prefix: Prefix, count: int) -> None:
        found = ragged(prefix.cache, count, len(prefix.tokens))
        if found is None:
            raise ValueError("its layers keep more than keys and values")
        self.network = network
        self.rows: Rows = found[0]
        self.cache: list[RaggedCache] = found[1]

    def prefill(self, prompts: Sequence[Sequence[int]]) -> None:
        """Run tokens that begin the rows, without the model's head: its logits are never asked for."""
        width = max(1, PREFILL_TOKENS // len(prompts))
        for first in range(0, max(map(len, prompts)), width):
            parts = [prompt[first : first + width] for prompt in prompts]
            self._run(parts)
            self.rows.end([len(part) for part in parts])
            mx.eval([(layer.keys, layer.values) for layer in self.cache])

    def verify(self, parts: Sequence[Sequence[int]]) -> mx.array:
        """Logits (B, T, V) after each of the rows' next tokens; `rows.end` then says how many of them are kept."""
        return self._run(parts)

    def _run(self, parts: Sequence[Sequence[int]]) -> mx.array:
        size = max(map(len, parts))
        padded = [[*part, *[PADDING] * (size - len(part))] for part in parts]
        self.rows.begin(size)
        logits: mx.array = self.network(mx.array(padded), cache=self.cache)
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self.rows.select(rows)
        for layer in self.cache:
            layer.select(mx.array(list(rows)))


def decode_together(network: Any, jobs: Sequence[Job], prefix: Prefix, draft_length: int) -> dict[int, Generation]:
    """The finished answers by their jobs' numbers. All prompts begin with the prefix."""
    start = time.perf_counter()
    lockstep, cached = Lockstep(network, prefix, len(jobs)), len(prefix.tokens)
    lockstep.prefill([job.tokens[cached:-1] for job in jobs])
    prefilled = time.perf_counter()
    found: dict[int, Generation] = {}
    # The jobs by their rows; None for one that is finished and still has its row.
    live: list[Job | None] = list(jobs)
    passes = 1
    while any(job is not None for job in live):
        guesses = [job.answer.guess(draft_length) if job is not None else [] for job in live]
        parts = [
            [(job.answer.output or job.tokens)[-1], *guess] if job is not None else [PADDING]
            for job, guess in zip(live, guesses, strict=True)
        ]
        said = read_logits(lockstep.verify(parts))
        passes += 1
        kept = [0] * len(live)
        for row, job in enumerate(live):
            if job is None:
                continue
            kept[row] = 1 + job.answer.take(said[row], guesses[row])
            if job.answer.done:
                timings = job.timings(start, prefilled, passes, cached, len(jobs))
                found[job.number] = job.answer.generation(timings)
                live[row] = None
        lockstep.rows.end(kept)
        rows = [row for row, job in enumerate(live) if job is not None]
        if rows and 2 * len(rows) <= len(live):
            lockstep.select(rows)
            live = [live[row] for row in rows]
    return found


def lockstep_problem(network: Any, jobs: Sequence[Job], prefix: Prefix, dtype: str) -> str | None:
    """Why this network can't run rows of different lengths together; None if it computes what it does for each alone.

    Its shortest and its longest prompt are run in both ways.
    """
    prompts = [job.tokens[len(prefix.tokens) :] for job in sorted(jobs, key=lambda job: len(job.tokens))]
    pair = [prompts[0], prompts[-1]]
    try:
        lockstep = Lockstep(network, prefix, 2)
        lockstep.prefill([prompt[:-1] for prompt in pair])
        # A row's second column is padding in this pass, and a right guess in the other.
        together = lockstep.verify([pair[0][-1:], [pair[1][-1], PADDING]])
        lockstep.rows.end([1, 2])
        together = mx.concatenate([together[:, 0], lockstep.verify([[PADDING], [PADDING]])[:, 0]])
        mx.eval(together)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        return f"this architecture does not take them ({error})"
    alone = mx.concatenate(
        [run(network, [*prompt], copy.deepcopy(prefix.cache)) for prompt in pair]
        + [
            run(network, [*pair[0], PADDING], copy.deepcopy(prefix.cache)),
            run(network, [*pair[1], PADDING, PADDING], copy.deepcopy(prefix.cache)),
        ]
    )
    difference, largest = _largest(together - alone), _largest(alone)
    if difference <= (TOLERANCE if dtype == "float32" else LOOSE_TOLERANCE) * largest:
        return None
    return f"its logits differ from those of each row alone by {difference / largest:.1e} of the largest"


def _largest(array: mx.array) -> float:
    found: Any = mx.abs(array).max().item()
    return float(found)
