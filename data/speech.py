"""Order numbers as they come out of dictation: "six one nine two", "b r 2 0 9", "forty one seventy seven"."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from phrasing import MARKS, SEED, Segment, in_words

IDENTIFIER = re.compile(r"#?\b(?=[\w/.-]*\d{3})\w+(?:[-_/.]\w+)*")
PIECE = re.compile(r"[A-Za-z]+|\d+")
SPOKEN = 0.6


def dictated(segments: Sequence[Segment]) -> list[Segment]:
    """The segments with all order numbers spoken, or as often as `SPOKEN` leaves it as they are.

    What is drawn depends on the numbers alone, so rows that hold none are drawn as if this were not there.
    """
    whole = joined(segments)
    numbers = [number for segment in whole for number in numbers_of(segment)]
    rng = random.Random(f"{SEED} {numbers}")
    if rng.random() >= SPOKEN:
        return whole
    style = rng.choice(("digits", "digits", "pairs", "figures"))

    def text(segment: Segment) -> str:
        made = segment.text
        for number in numbers_of(segment):
            made = made.replace(number, spoken(number, style, rng), 1)
        return made

    return [replace(segment, text=text(segment)) for segment in whole]


def numbers_of(segment: Segment) -> list[str]:
    """The order numbers of a segment: the argument itself, or what looks like one in the words around."""
    if segment.argument == "order_id":
        return [segment.text]
    return IDENTIFIER.findall(segment.text) if segment.argument is None else []


def joined(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, those between two arguments as one: a number may be drawn in pieces."""
    made: list[Segment] = []
    for segment in segments:
        if made and made[-1].argument is None and segment.argument is None:
            made[-1] = replace(segment, text=made[-1].text + segment.text)
        else:
            made.append(segment)
    return made


def spoken(number: str, style: str, rng: random.Random) -> str:
    """One order number in words: letters one by one or as a word, digits in the style; signs are not spoken."""
    words: list[str] = []
    for piece in PIECE.findall(number.translate(MARKS)):
        if not piece.isdigit():
            words += [piece] if len(piece) > 2 and rng.random() < 0.5 else list(piece)
        elif style == "figures":
            words += list(piece)
        elif style == "pairs" and len(piece) % 2 == 0 and "0" not in piece[::2]:
            words += [in_words(int(piece[at : at + 2]), " ") for at in range(0, len(piece), 2)]
        else:
            words += one_by_one(piece, rng)
    return " ".join(words)


def one_by_one(digits: str, rng: random.Random) -> list[str]:
    """The digits in words; a nought is "oh" or "zero", and two of a kind are sometimes "double"."""
    nought, doubles = rng.choice(("oh", "oh", "zero")), rng.random() < 0.3
    words: list[str] = []
    at = 0
    while at < len(digits):
        word = nought if digits[at] == "0" else in_words(int(digits[at]), " ")
        twice = doubles and digits[at : at + 2] == digits[at] * 2
        words += ["double", word] if twice else [word]
        at += 2 if twice else 1
    return words
