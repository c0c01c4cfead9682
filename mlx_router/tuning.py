"""How far to draft on this machine: the known answers are replayed through the drafter, and each pass has its price.

A longer draft saves passes and makes each of them dearer. How many passes an answer takes at a draft length follows
from the answer alone, so the model is run only to price passes of each size.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .answers import Answer
from .calls import Draft
from .confidence import NameScore
from .decoder import GreedyDecoder
from .limits import interpolate
from .prompts import ChatFormat

LENGTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# The default is kept unless another length is better by more than measurements vary.
WORTH = 0.03


@dataclass(frozen=True)
class Replay:
    """The passes of one answer: how many guesses each of them verified, and the seconds that guessing took."""

    guesses: tuple[int, ...]
    seconds: float

    @property
    def passes(self) -> int:
        return len(self.guesses)


@dataclass(frozen=True)
class Tuning:
    """The best draft length, the default, and the milliseconds expected of an answer at each length."""

    draft_length: int
    default: int
    expected_ms: dict[int, float]


@dataclass(frozen=True)
class Known:
    """A prompt with the answer that the model gives: tokens after the cached prefix, and the answer's own."""

    suffix_tokens: int
    answer: tuple[int, ...]
    draft: Draft


def replay(chat: ChatFormat, answer: Sequence[int], draft: Draft, length: int, max_tokens: int) -> Replay:
    """Decode an answer whose tokens are known, its end included, as `GreedyDecoder` would."""
    start = time.perf_counter()
    known, guesses = list(answer), list[int]()
    going = Answer(chat, max_tokens, NameScore([]), draft)
    while len(going.output) < len(known):
        rest = known[len(going.output) :]
        guess = going.guess(length)
        right = next((at for at, (one, other) in enumerate(zip(guess, rest, strict=False)) if one != other), len(guess))
        guesses.append(len(guess))
        # A guess goes beyond the end only where it is wrong there.
        going.output += rest[: right + 1]
    return Replay(tuple(guesses), time.perf_counter() - start)


def tune(decoder: GreedyDecoder, known: Sequence[Known], prices: Mapping[int, float], max_tokens: int) -> Tuning:
    """The draft length with the least expected time over these answers; `prices` are a pass's seconds by its tokens."""
    default = decoder.draft_length
    expected = {length: _expected_ms(decoder, known, prices, max_tokens, length) for length in {*LENGTHS, default}}
    best = min(expected, key=lambda length: (expected[length], length))
    if expected[best] > (1 - WORTH) * expected[default]:
        best = default
    return Tuning(best, default, dict(sorted(expected.items())))


def _expected_ms(
    decoder: GreedyDecoder, known: Sequence[Known], prices: Mapping[int, float], max_tokens: int, length: int
) -> float:
    total = 0.0
    for one in known:
        found = replay(decoder.model.chat, one.answer, one.draft, length, max_tokens)
        first, *rest = found.guesses
        total += found.seconds + interpolate(prices, one.suffix_tokens + first)
        total += sum(interpolate(prices, 1 + guess) for guess in rest)
    return 1e3 * total / len(known)
