"""Requests in capitals: the model reads them in small letters, and values come back as they were written.

A model that has read little knows few words in capitals; a request that is all capitals says nothing by them. Training
rows are changed in the same way.
"""

import re
from collections.abc import Mapping
from typing import Any

from .calls import Target
from .catalogue import Catalogue, Tool
from .grounding import target_with_texts, with_texts

FEWEST_LETTERS = 4
SHARE = 0.9


def quiet(request: str) -> str:
    """The request, in small letters of the same number of characters if nine tenths of its letters are capitals."""
    letters = [letter for letter in request if letter.lower() != letter.upper()]
    capitals = sum(letter != letter.lower() for letter in letters)
    return _small(request) if len(letters) >= FEWEST_LETTERS and capitals >= SHARE * len(letters) else request


def as_written(tool: Tool, arguments: Mapping[str, Any], request: str, shown: str) -> dict[str, Any]:
    """A call's arguments, free texts of the request as it was shown spelled as the request spells them."""

    def spelled(value: str) -> str:
        # Whole words: "it" stands in "with" too, and a language's code "en" in "ken".
        found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", shown)
        return request[found.start() : found.end()] if found else value

    return with_texts(tool, arguments, spelled)


def quiet_target(target: Target, catalogue: Catalogue, shown: str) -> Target:
    """What the model is to answer to a request in small letters: texts as that shows them."""

    def copied(value: str) -> str:
        return _small(value) if _small(value) in shown else value

    return target_with_texts(target, catalogue, copied)


def _small(text: str) -> str:
    """Small letters, but for the few characters whose small form is not one character."""
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
