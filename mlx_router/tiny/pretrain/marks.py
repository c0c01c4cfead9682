"""Marks around the values of a request while it is written, so that what is done to the rest spares them."""

import random
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

# Values stand between these two characters until the request is finished, so that no typing error hits them.
OPEN, CLOSE = "\x02", "\x03"
MARKED = re.compile(f"({OPEN}[^{CLOSE}]*{CLOSE})")


def mark(text: str) -> str:
    """A value, protected from typing errors."""
    return f"{OPEN}{text}{CLOSE}"


def unmarked(text: str) -> str:
    """The request as it is sent."""
    return text.replace(OPEN, "").replace(CLOSE, "")


def changed(arguments: Mapping[str, Any], copied: Collection[str], change: Callable[[str], str]) -> dict[str, Any]:
    """The arguments with those that are copied from a request changed as the request is, in lists too."""

    def of(value: Any) -> Any:
        return [change(item) for item in value] if isinstance(value, list) else change(value)

    return {name: of(value) if name in copied else value for name, value in arguments.items()}


def with_typos(rng: random.Random, text: str) -> str:
    """One or two typing errors in the words around the values."""
    pieces = MARKED.split(text)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(0, len(pieces), 2)
        words = pieces[at].split(" ")
        long = [number for number, word in enumerate(words) if len(word) > 3 and word.isalpha()]
        if long:
            number = rng.choice(long)
            words[number] = _typo(rng, words[number])
            pieces[at] = " ".join(words)
    return "".join(pieces)


def _typo(rng: random.Random, word: str) -> str:
    at = rng.randrange(1, len(word) - 1)
    return rng.choice((
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + rng.choice("aeioustrn") + word[at + 1 :],
    ))  # fmt: skip
