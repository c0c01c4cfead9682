"""Requests that say the same: folded text, and clusters of texts with nearly the same character trigrams."""

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

APOSTROPHES = "'’‘`´"
# Two texts are near if they share this much of their trigrams (Jaccard): typing errors and small words apart.
NEAR = 0.8
# How many of the rarest trigrams two texts must share to be compared at all; changes the speed, not the result.
SHARED_PREFIX = 3


class _Folding(dict[int, str]):
    """A table for `str.translate` that is filled as characters occur."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in APOSTROPHES:
            folded = ""
        else:
            # Letters, marks, numbers and symbols stay; punctuation, separators and controls part words.
            folded = character if unicodedata.category(character)[0] in "LMNS" else " "
        self[code] = folded
        return folded


_FOLDING = _Folding()


def fold(text: str) -> str:
    """The text without case, punctuation and extra white space; casefolded only where nothing else would be left."""
    folded = unicodedata.normalize("NFKC", text.casefold())
    return " ".join(folded.translate(_FOLDING).split()) or folded


def clusters(texts: Sequence[str], near: float = NEAR) -> list[int]:
    """A cluster's number for every text; texts that are equal when folded, or near, share one.

    A cluster is what lies near its shortest text, so long chains of small differences do not run together. Texts
    with different numbers in them ("ORD-1", "ORD-2") are never near. The result does not depend on the texts' order.
    """
    folded = [fold(text) for text in texts]
    unique = sorted(set(folded), key=lambda text: (len(text), text))
    leaders = _leaders(unique, near)
    numbers: dict[str, int] = {}
    return [numbers.setdefault(leaders[text], len(numbers)) for text in folded]


def _leaders(texts: Sequence[str], near: float) -> dict[str, str]:
    """Every text's leader: the first text near it, or itself.

    Two sets whose Jaccard index is at least t share k of their first n - ⌈t·n⌉ + k elements in any common order, or
    all they share (prefix filter: Chaudhuri, Ganti and Kaushik 2006). With the rarest elements first, few pairs are
    left to be held against each other.
    """
    trigrams = {text: _trigrams(text) for text in texts}
    counts = Counter(trigram for found in trigrams.values() for trigram in found)
    rank = {trigram: number for number, trigram in enumerate(sorted(counts, key=lambda item: (counts[item], item)))}
    index: dict[tuple[str, str], list[str]] = defaultdict(list)
    leaders: dict[str, str] = {}
    for text in texts:
        own = trigrams[text]
        least = math.ceil(near * len(own))
        numbers = _numbers(text)
        keys = [(numbers, item) for item in sorted(own, key=rank.__getitem__)[: len(own) - least + SHARED_PREFIX]]
        candidates: Counter[str] = Counter()
        for key in keys:
            candidates.update(index.get(key, ()))
        worth = min(SHARED_PREFIX, least)
        likely = (other for other, shared in candidates.items() if shared >= worth and len(trigrams[other]) >= least)
        leaders[text] = next((other for other in likely if _jaccard(own, trigrams[other]) >= near), text)
        if leaders[text] == text:
            for key in keys:
                index[key].append(text)
    return leaders


def _trigrams(text: str) -> frozenset[str]:
    padded = f" {text} "
    return frozenset(padded[start : start + 3] for start in range(len(padded) - 2)) or frozenset((padded,))


def _numbers(text: str) -> str:
    return " ".join(word for word in text.split() if any(character.isdigit() for character in word))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
