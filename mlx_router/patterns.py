"""Texts that a regular expression matches, for sample values of parameters with a `pattern`."""

import importlib
import re
import string
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

PRINTABLE = string.ascii_letters + string.digits + " -_.,:/+#@"


class NoSample(Exception):
    """There is no value that this schema allows, or none that can be found here."""


def from_pattern(pattern: str, rng: Random) -> str:
    """A text that the pattern matches. Raises `NoSample` for patterns with look-around or references."""
    try:
        parsed = importlib.import_module("re._parser").parse(pattern)
    except (re.error, RecursionError) as error:
        raise NoSample(f"pattern {pattern!r} can't be read: {error}") from None
    return "".join(_matching(parsed, rng))


def _matching(parsed: Any, rng: Random) -> Iterator[str]:
    """Pieces of a text that a parsed pattern matches."""
    for opcode, argument in parsed:
        kind = str(opcode)
        if kind == "LITERAL":
            yield chr(argument)
        elif kind in ("IN", "NOT_LITERAL", "ANY"):
            yield _one_of(kind, argument, rng)
        elif kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, inner = argument
            for _ in range(rng.randint(least, min(int(most), max(least, 1) + 2))):
                yield from _matching(inner, rng)
        elif kind in ("SUBPATTERN", "ATOMIC_GROUP"):
            yield from _matching(argument[-1] if kind == "SUBPATTERN" else argument, rng)
        elif kind == "BRANCH":
            yield from _matching(rng.choice(argument[1]), rng)
        elif kind != "AT":
            raise NoSample(f"a pattern with {kind.lower()} can't be filled")


def _one_of(kind: str, argument: Any, rng: Random) -> str:
    tests: dict[str, Callable[[str], bool]] = {
        "IN": lambda character: _in_set(argument, character),
        "NOT_LITERAL": lambda character: ord(character) != argument,
        "ANY": str.isalnum,
    }
    likely = [character for character in PRINTABLE if tests[kind](character)]
    if not likely and kind == "IN":
        likely = [chr(code) for code in range(32, 0x3000) if _in_set(argument, chr(code))]
    if not likely:
        raise NoSample("a pattern with a set of no printable characters can't be filled")
    # Letters and digits read better than punctuation.
    return rng.choice([character for character in likely if character.isalnum()] or likely)


def _in_set(items: Any, character: str) -> bool:
    negated = str(items[0][0]) == "NEGATE"
    return negated != any(_in_item(str(kind), argument, character) for kind, argument in items)


def _in_item(kind: str, argument: Any, character: str) -> bool:
    if kind == "LITERAL":
        return character == chr(argument)
    if kind == "RANGE":
        return ord(character) in range(argument[0], argument[1] + 1)
    tests: dict[str, Callable[[str], bool]] = {
        "DIGIT": str.isdigit,
        "SPACE": str.isspace,
        "WORD": lambda character: character.isalnum() or character == "_",
    }
    if kind != "CATEGORY":
        return False
    name = str(argument).removeprefix("CATEGORY_")
    return not tests[name[4:]](character) if name.startswith("NOT_") else tests[name](character)
