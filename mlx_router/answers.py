"""One answer as it is decoded: what is guessed of it, which tokens are taken, and what is known of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .calls import Draft, Generation, Prompt, Scores, Timings
from .confidence import NameScore, scores
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


def read_logits(logits: mx.array) -> list[Pass]:
    """The passes of a batch of logits (B, T, V)."""
    likeliest = mx.argmax(logits, axis=-1)
    rows = logits.astype(mx.float32)
    probabilities = mx.exp(mx.max(rows, axis=-1) - mx.logsumexp(rows, axis=-1))
    mx.eval(logits, likeliest, probabilities)
    tokens: Any = likeliest.tolist()
    found: Any = probabilities.tolist()
    return [Pass(logits[at], tokens[at], found[at]) for at in range(len(tokens))]


class Answer:
    """An answer of at most `max_tokens` tokens; decoding is done once it has `ended` or is that long."""

    def __init__(
        self, chat: ChatFormat, max_tokens: int, names: NameScore, draft: Draft | None = None, path: Path | None = None
    ) -> None:
        self.chat = chat
        self.max_tokens = max_tokens
        self.names = names
        self.draft = draft
        self.path = path
        self.output: list[int] = []
        self.ended = False
        self._probabilities: list[float] = []
        self._left = 1.0
        self._overridden = 0

    @property
    def done(self) -> bool:
        """Whether nothing is to be added."""
        return self.ended or len(self.output) >= self.max_tokens

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
        tokens, probabilities = (
            self._greedy(said, guess) if self.path is None else self._allowed(said, guess, self.path)
        )
        end = next((at for at, token in enumerate(tokens) if token in self.chat.eos_tokens), None)
        self.ended = end is not None
        for at, token in enumerate(tokens[:end]):
            self.names.follow(token, partial(_logits, said.logits[at]))
        self.output += tokens[:end]
        self._probabilities += probabilities[:end]
        return len(tokens) - 1

    def _greedy(self, said: Pass, guess: Sequence[int]) -> tuple[list[int], list[float]]:
        right = next((at for at, token in enumerate(guess) if token != said.likeliest[at]), len(guess))
        return said.likeliest[: right + 1], said.probabilities[: right + 1]

    def _allowed(self, said: Pass, guess: Sequence[int], path: Path) -> tuple[list[int], list[float]]:
        """The same with the likeliest of the allowed tokens."""
        logits = np.asarray(said.logits.astype(mx.float32))
        tokens: list[int] = []
        probabilities: list[float] = []
        for at, row in enumerate(logits):
            mask = path.allowed()
            wanted = int(np.where(mask, row, -np.inf).argmax())
            token = path.take(wanted)
            shares = np.exp(row - row.max(), dtype=np.float64)
            shares /= shares.sum()
            # A token that is taken for want of room leaves nothing else allowed.
            self._left *= float(shares[mask].sum() if token == wanted else shares[token])
            self._overridden += token != said.likeliest[at]
            tokens.append(token)
            probabilities.append(float(shares[token]))
            if token in self.chat.eos_tokens or at >= len(guess) or token != guess[at]:
                break
        return tokens, probabilities

    def generation(self, timings: Timings) -> Generation:
        """The finished answer."""
        decode = self.chat.tokenizer.decode
        found = scores(self.names, self.output, self._probabilities, decode)
        return Generation(decode(self.output), self.ended, timings, self._with_overridden(found))

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
