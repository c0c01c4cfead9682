"""Several answers at once: each pass takes every answer on by as many tokens as its guess was right, and one more."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from .answers import Job, Reading
from .attention import fast_kernels
from .calls import Generation
from .heads import logits_at
from .model import BACKEND
from .prefixes import Prefix, run
from .ragged import RaggedCache, Rows, ragged
from .streams import second_stream

import mlx.core as mx  # isort: skip

# Tokens of all rows together that run at once before the answers begin.
PREFILL_TOKENS = 2048
PADDING = 0
# Guesses of all rows that a CPU pass has room for before every token costs the same, and the fewest of a row.
PASS_GUESSES = 64
LEAST_GUESS = 4
# Rows from which on two groups of them are worth two passes.
ROWS_FOR_TWO = 4
# How far logits may be from those of a row alone, relative to the largest.
TOLERANCE = 1e-3
LOOSE_TOLERANCE = 5e-2


class Lockstep:
    """Rows that go on from one prefix. Raises `ValueError` where a layer keeps anything else than keys and values."""

    def __init__(self, network: Any, prefix: Prefix, count: int) -> None:
        found = ragged(prefix, count)
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
            mx.async_eval([(layer.keys, layer.values) for layer in self.cache])  # type: ignore[no-untyped-call]

    def verify(self, parts: Sequence[Sequence[int]]) -> mx.array:
        """Logits (tokens of all rows, V) after each of the rows' next tokens, row after row, without padding.

        `rows.end` then says how many of a row's tokens are kept.
        """
        return self._run(parts)

    def _run(self, parts: Sequence[Sequence[int]]) -> mx.array:
        size = max(map(len, parts))
        padded = [[*part, *[PADDING] * (size - len(part))] for part in parts]
        places = mx.array([row * size + at for row, part in enumerate(parts) for at in range(len(part))])
        self.rows.begin(size)
        with fast_kernels(self.network):
            found = logits_at(
                self.network, mx.array(padded), self.cache, lambda rows: rows.reshape(-1, rows.shape[-1])[places][None]
            )
        return found[0]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self.rows.select(rows)
        for layer in self.cache:
            layer.select(mx.array(list(rows)))


class Group:
    """Answers that are decoded in lockstep on one stream; `live` holds their jobs by row, None for a finished one."""

    def __init__(self, network: Any, jobs: Sequence[Job], prefix: Prefix, stream: Any) -> None:
        self.lockstep, self.prefix, self.stream = Lockstep(network, prefix, len(jobs)), prefix, stream
        self.live: list[Job | None] = list(jobs)
        self.passes = 1
        self.parts: list[list[int]] = []
        self.reading: Reading | None = None

    def prefill(self) -> None:
        """Begin all rows with their prompts but for the last token."""
        jobs = (job for job in self.live if job is not None)
        with mx.stream(self.stream):
            self.lockstep.prefill([job.tokens[len(self.prefix.tokens) : -1] for job in jobs])

    def verify(self, draft_length: int) -> Sequence[mx.array]:
        """Guess on, and what has to be computed to know how far the guesses are right; nothing once all are done."""
        if all(job is None for job in self.live):
            self.reading = None
            return ()
        length = guess_length(draft_length, sum(job is not None for job in self.live))
        self.parts = [
            [PADDING] if job is None else [(job.answer.output or job.tokens)[-1], *job.answer.guess(length)]
            for job in self.live
        ]
        with mx.stream(self.stream):
            self.reading = Reading(self.lockstep.verify(self.parts))
        self.passes += 1
        return self.reading.arrays

    def take(self) -> Iterator[Job]:
        """Take every answer on; those that are done."""
        if self.reading is None:
            return
        kept = [0] * len(self.live)
        with mx.stream(self.stream):
            said = self.reading.passes([len(part) for part in self.parts])
            for row, job in enumerate(self.live):
                if job is None:
                    continue
                kept[row] = 1 + job.answer.take(said[row], self.parts[row][1:])
                if job.answer.done:
                    self.live[row] = None
                    yield job
            self.lockstep.rows.end(kept)
            rows = [row for row, job in enumerate(self.live) if job is not None]
            if rows and 2 * len(rows) <= len(self.live):
                self.lockstep.select(rows)
                self.live = [self.live[row] for row in rows]


def guess_length(draft_length: int, rows: int) -> int:
    """How many tokens to guess for each of several rows, where one alone would have `draft_length`."""
    # What a GPU's passes take was not measured.
    return min(draft_length, max(LEAST_GUESS, PASS_GUESSES // rows)) if BACKEND.device == "cpu" else draft_length


def decode_together(network: Any, jobs: Sequence[Job], prefix: Prefix, draft_length: int) -> dict[int, Generation]:
    """The finished answers by their jobs' numbers. All prompts begin with the prefix.

    Where one thread of work leaves a core idle, two groups of rows take turns to be guessed and are computed at once.
    """
    start = time.perf_counter()
    second = second_stream(network) if len(jobs) >= ROWS_FOR_TWO else None
    parts = [(jobs, mx.default_stream(mx.default_device()))]
    if second is not None:
        parts = [(jobs[::2], parts[0][1]), (jobs[1::2], second)]
    groups = [Group(network, some, prefix, stream) for some, stream in parts]
    for group in groups:
        group.prefill()
    mx.eval([(layer.keys, layer.values) for group in groups for layer in group.lockstep.cache])
    prefilled = time.perf_counter()
    found: dict[int, Generation] = {}
    while arrays := [array for group in groups for array in group.verify(draft_length)]:
        mx.eval(arrays)
        for group in groups:
            for job in group.take():
                timings = job.timings(start, prefilled, group.passes, len(prefix.tokens), len(jobs))
                found[job.number] = job.answer.generation(timings)
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
        together = mx.concatenate([together[:2], lockstep.verify([[PADDING], [PADDING]])])
        mx.eval(together)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        return f"this architecture does not take them ({error})"
    alone = mx.concatenate(
        [run(network, [*prompt], prefix.continued()) for prompt in pair]
        + [
            run(network, [*pair[0], PADDING], prefix.continued()),
            run(network, [*pair[1], PADDING, PADDING], prefix.continued()),
        ]
    )
    difference, largest = _largest(together - alone), _largest(alone)
    if difference <= (TOLERANCE if dtype == "float32" else LOOSE_TOLERANCE) * largest:
        return None
    return f"its logits differ from those of each row alone by {difference / largest:.1e} of the largest"


def _largest(array: mx.array) -> float:
    found: Any = mx.abs(array).max().item()
    return float(found)
