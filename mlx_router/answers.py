"""One answer as it is decoded: what is guessed of it, which tokens are taken, and what is known of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .calls import Draft, Generation, Prompt, Scores, Stop, Timings
from .confidence import HEAD, NameScore, scores
from .exponential import exponential, is_fast
from .grammar import Path
from .prompts import ChatFormat

import mlx.core as mx  # isort: skip


@dataclass(frozen=True)
class Pass:
    """What one forward pass says after each of its tokens (T of them).

    `likeliest` holds the tokens with the highest logits, `probabilities` theirs.
    """

    logits: mx.array  # (T, V)
    likeliest: list[int]
    probabilities: list[float]


class Reading:
    """What is read from logits (tokens, V): lazy, so that several can be computed at once."""

    def __init__(self, logits: mx.array) -> None:
        rows = logits.astype(mx.float32)
        below = rows - mx.max(rows, axis=-1, keepdims=True)
        probabilities = 1.0 / (exponential(below) if is_fast() else mx.exp(below)).sum(axis=-1)
        self.arrays = (logits, mx.argmax(logits, axis=-1), probabilities)

    def passes(self, sizes: Sequence[int]) -> list[Pass]:
        """The passes that stand in the logits one after the other; `sizes` are their numbers of tokens."""
        logits, likeliest, probabilities = self.arrays
        mx.eval(self.arrays)
        tokens: Any = likeliest.tolist()
        found: Any = probabilities.tolist()
        passes, end = [], 0
        for size in sizes:
            start, end = end, end + size
            passes.append(Pass(logits[start:end], tokens[start:end], found[start:end]))
        return passes


@dataclass(frozen=True)
class Taken:
    """A token with its probability over the whole vocabulary.

    Under a grammar also the probability of all that was allowed in its place, and whether the model's own choice was
    another token.
    """

    token: int
    probability: float
    left: float = 1.0
    overridden: bool = False


class Answer:
    """An answer of at most `max_tokens` tokens; decoding is done once it has `ended`, has `stopped` or is that long."""

    def __init__(
        self,
        chat: ChatFormat,
        max_tokens: int,
        names: NameScore,
        draft: Draft | None = None,
        path: Path | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.chat = chat
        self.max_tokens = max_tokens
        self.names = names
        self.draft = draft
        self.path = path
        self.stop = stop
        self.output: list[int] = []
        self.ended = False
        self.stopped: str | None = None
        self._probabilities: list[float] = []
        self._left = 1.0
        self._overridden = 0

    @property
    def done(self) -> bool:
        """Whether nothing is to be added."""
        return self.ended or self.stopped is not None or len(self.output) >= self.max_tokens

    def guess(self, length: int) -> list[int]:
        """The drafted continuation as tokens, at most `length` of them and no more than there is room for."""
        room = min(length, self.max_tokens - len(self.output) - 1)
        if self.draft is None or room <= 0:
            return []
        encode = self.chat.tokenizer.encode
        text = self.chat.tokenizer.decode(self.output)
        continuation = self.draft(text)
        if not continuation:
            return []
        whole = encode(text + continuation, add_special_tokens=False)
        if whole[: len(self.output)] == self.output:
            return whole[len(self.output) :][:room]
        return encode(continuation, add_special_tokens=False)[:room]

    def take(self, said: Pass, guess: Sequence[int]) -> int:
        """Take the guess as far as the pass says the same, and one token more; return how much of the guess was right.

        The pass begins with what is said after the token before the guess.
        """
        found = self._greedy(said, guess) if self.path is None else self._allowed(said, guess, self.path)
        for at, taken in enumerate(found):
            self._left *= taken.left
            self._overridden += taken.overridden
            if taken.token in self.chat.eos_tokens:
                self.ended = True
                break
            self.names.follow(taken.token, partial(_logits, said.logits[at]))
            self.output.append(taken.token)
            self._probabilities.append(taken.probability)
            # What the pass says beyond the name is dropped, so that guesses don't change where an answer stops.
            if self._stops():
                break
        return len(found) - 1

    def _stops(self) -> bool:
        """Whether the caller wants no more, asked once, when the answer has the whole name."""
        name = self.names.chosen
        if self.stop is None or name is None:
            return False
        text = self.chat.tokenizer.decode(self.output)
        if not text.startswith(f'{HEAD}{name}"'):
            return False
        stop, self.stop = self.stop, None
        self.stopped = name if stop(name, self.names.probability) else None
        return self.stopped is not None

    def _greedy(self, said: Pass, guess: Sequence[int]) -> list[Taken]:
        right = next((at for at, token in enumerate(guess) if token != said.likeliest[at]), len(guess))
        return [Taken(said.likeliest[at], said.probabilities[at]) for at in range(right + 1)]

    def _allowed(self, said: Pass, guess: Sequence[int], path: Path) -> list[Taken]:
        """The same with the likeliest of the allowed tokens."""
        logits = np.asarray(said.logits.astype(mx.float32))
        found: list[Taken] = []
        for at, row in enumerate(logits):
            mask = path.allowed()
            wanted = int(np.where(mask, row, -np.inf).argmax())
            token = path.take(wanted)
            shares = np.exp(row - row.max(), dtype=np.float64)
            shares /= shares.sum()
            # A token that is taken for want of room leaves nothing else allowed.
            left = float(shares[mask].sum() if token == wanted else shares[token])
            found.append(Taken(token, float(shares[token]), left, token != said.likeliest[at]))
            if token in self.chat.eos_tokens or at >= len(guess) or token != guess[at]:
                break
        return found

    def generation(self, timings: Timings) -> Generation:
        """The finished answer."""
        decode = self.chat.tokenizer.decode
        found = scores(self.names, self.output, self._probabilities, decode)
        finished = self.ended or self.stopped is not None
        return Generation(decode(self.output), finished, timings, self._with_overridden(found), self.stopped)

    def _with_overridden(self, found: Scores) -> Scores:
        if self.path is None:
            return found
        return replace(found, overridden=max(0.0, 1.0 - self._left), overridden_tokens=self._overridden)


@dataclass(frozen=True)
class Job:
    """A prompt to decode: its number among others, its tokens, and the answer to it."""

    number: int
    prompt: Prompt
    tokens: list[int]
    answer: Answer

    def timings(self, start: float, prefilled: float, passes: int, cached: int, batch_size: int = 1) -> Timings:
        """Timings of an answer that is finished now; `start` and `prefilled` are readings of `time.perf_counter`."""
        finish = time.perf_counter()
        return Timings(
            total_ms=(finish - start) * 1e3,
            prefill_ms=(prefilled - start) * 1e3,
            decode_ms=(finish - prefilled) * 1e3,
            prompt_tokens=len(self.tokens),
            cached_tokens=cached,
            output_tokens=len(self.answer.output),
            forward_passes=passes,
            batch_size=batch_size,
        )


def _logits(row: mx.array, tokens: Sequence[int]) -> list[float]:
    found: Any = row[mx.array(list(tokens))].astype(mx.float32).tolist()
    return [float(value) for value in found]
