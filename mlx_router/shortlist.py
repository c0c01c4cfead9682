"""A few tools of a large catalogue for each request: those that share most words with it.

    Shortlist(catalogue, 10)("turn the volume down")    # a catalogue of ten tools, in the catalogue's order

Tools are ranked by BM25 (Robertson and Zaragoza 2009) over the words of their names, descriptions, parameters and
example requests. Of tools with the same score, those with none included, the first in the catalogue comes first.
"""

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

from .catalogue import Catalogue, Tool
from .errors import UsageError
from .schemas import SUBSCHEMA_LISTS, SUBSCHEMA_MAPS, SUBSCHEMAS

K1, B = 1.5, 0.75
NAME_COUNTS = 2
STEM = 4
KEPT_CATALOGUES = 8
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Chinese, Japanese and Korean put no spaces between words, so each character is one.
TERM = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


class Shortlist:
    """Picks `size` tools of a catalogue for a request. Made once for a catalogue; safe to call from several threads."""

    def __init__(self, catalogue: Catalogue, size: int) -> None:
        if size < 1:
            raise UsageError(f"a shortlist of {size} tools is none", hint="1 or more; leave it out to show all tools")
        self.catalogue = catalogue
        self.size = size
        counts = [Counter(terms(tool)) for tool in catalogue]
        lengths = [count.total() for count in counts]
        mean = sum(lengths) / len(lengths)
        # What each term adds to the score of each tool that has it.
        self._weights: dict[str, list[tuple[int, float]]] = {}
        having = Counter(term for count in counts for term in count)
        for at, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            for term, times in count.items():
                rarity = math.log1p((len(counts) - having[term] + 0.5) / (having[term] + 0.5))
                weight = rarity * times * (K1 + 1) / (times + K1 * (1 - B + B * length / mean))
                self._weights.setdefault(term, []).append((at, weight))

    def __call__(self, request: str, keep: Sequence[str] = ()) -> Catalogue:
        """The catalogue with the best tools only; the whole of it where it has no more than that.

        Tools whose names are to be kept come before all others, in this order.
        """
        if len(self.catalogue) <= self.size:
            return self.catalogue
        ranked = [self.catalogue.tools[at].name for at in self.ranked(request)]
        names = dict.fromkeys([*(name for name in keep if name in self.catalogue), *ranked])
        # They stand in the catalogue's own order, so that requests about the same get the same text, and with it the
        # same prefix.
        return self.catalogue.only(list(names)[: self.size])

    def ranked(self, request: str) -> list[int]:
        """The places of all tools in the catalogue, the best first."""
        scores = [0.0] * len(self.catalogue)
        for term in dict.fromkeys(_terms(request)):
            for at, weight in self._weights.get(term, ()):
                scores[at] += weight
        return sorted(range(len(scores)), key=lambda at: -scores[at])


class Shortlists:
    """The shortlists of the catalogues that were used last, made as they are asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        # By identity: equal catalogues may differ in what no model sees.
        self._made: OrderedDict[int, Shortlist] = OrderedDict()
        self._lock = Lock()

    def of(self, catalogue: Catalogue) -> Shortlist:
        """The shortlist of a catalogue."""
        with self._lock:
            found = self._made.get(id(catalogue))
            if found is None:
                found = self._made[id(catalogue)] = Shortlist(catalogue, self.size)
                while len(self._made) > KEPT_CATALOGUES:
                    self._made.popitem(last=False)
            self._made.move_to_end(id(catalogue))
            return found


def terms(tool: Tool) -> list[str]:
    """The terms of a tool, as often as they count."""
    name = _terms(tool.name) * NAME_COUNTS
    return name + [term for text in _texts(tool) for term in _terms(text)]


def _terms(text: str) -> list[str]:
    """The beginnings of a text's words: "orders", "ordering" and "ORDER" are all order."""
    return [word.casefold()[:STEM] for word in TERM.findall(CAMEL.sub(" ", text))]


def _texts(tool: Tool) -> Iterator[str]:
    yield tool.description
    yield from _schema_texts(tool.parameters)
    yield from tool.examples


def _schema_texts(schema: Any) -> Iterator[str]:
    """Names and descriptions of parameters at any depth, and the values that they are chosen from."""
    if not isinstance(schema, Mapping):
        return
    if isinstance(schema.get("description"), str):
        yield schema["description"]
    for value in (*_listed(schema.get("enum")), schema.get("const")):
        if isinstance(value, str):
            yield value
    for key in SUBSCHEMA_MAPS:
        children = schema.get(key)
        for name, child in children.items() if isinstance(children, Mapping) else ():
            yield from (name,) if key == "properties" else ()
            yield from _schema_texts(child)
    for key in SUBSCHEMA_LISTS:
        for child in _listed(schema.get(key)):
            yield from _schema_texts(child)
    for key in SUBSCHEMAS:
        yield from _schema_texts(schema.get(key))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
