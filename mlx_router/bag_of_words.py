"""A classifier as a yardstick: naive Bayes over a request's words, arguments copied out of the request.

It knows nothing of language: which tool by how often its requests had these words, which part of the request by the
words and shapes around the values seen in training. A router that is worth its milliseconds beats it.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from .calls import NO_TOOL, NoTool, Target, ToolCall
from .catalogue import Catalogue, Tool
from .data import Example
from .duplicates import fold

# A word with whatever joins it inside ("ORD-1234", "it's", "5:30"), or a mark.
PIECE = re.compile(r"\w+(?:[^\w\s]+\w+)*|[^\w\s]")
NUMBER = re.compile(r"(?<![\w.,-])-?\d+(?:\.\d+)?(?![\w-])")
# The longest value that is copied, in such pieces.
LONGEST = 12


@dataclass(frozen=True)
class Span:
    """A stretch of a request, `start` to `end` in characters, and what shows whether it is a value."""

    start: int
    end: int
    clues: tuple[str, ...]


@dataclass
class Values:
    """The values that one parameter had in training: each as JSON, and the clues around those that were copied."""

    seen: Counter[str] = field(default_factory=Counter)
    clues: tuple[Counter[str], ...] = field(default_factory=lambda: tuple(Counter() for _ in range(5)))

    def add(self, value: Any, request: str) -> None:
        self.seen[json.dumps(value, ensure_ascii=False)] += 1
        if not isinstance(value, str):
            return
        for span in spans(request):
            if request[span.start : span.end] == value:
                for counter, clue in zip(self.clues, span.clues, strict=True):
                    counter[clue] += 1
                return

    @property
    def usual(self) -> Any:
        """The most frequent value. Raises `LookupError` where none was seen."""
        if not self.seen:
            raise LookupError("this parameter had no value in training")
        return json.loads(self.seen.most_common(1)[0][0])

    def likelihood(self, span: Span) -> float:
        """How well a span's clues fit those of the copied values: the log of naive Bayes' product."""
        return sum(_log_share(counter, clue) for counter, clue in zip(self.clues, span.clues, strict=True))


class BagOfWords:
    """The classifier, trained on rows; tools that these do not have are known by their name and description only."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.rows: Counter[str] = Counter()
        self.words: dict[str, Counter[str]] = defaultdict(Counter)
        self.values: dict[tuple[str, str], Values] = defaultdict(Values)
        for example in examples:
            self._learn(example)
        self.vocabulary = len(set(chain.from_iterable(self.words.values()))) or 1

    def _learn(self, example: Example) -> None:
        target = example.target
        self.rows[target.tool] += 1
        self.words[target.tool].update(words(example.request))
        if isinstance(target, ToolCall):
            for name, value in target.arguments.items():
                self.values[target.tool, name].add(value, example.request)

    def decide(self, request: str, catalogue: Catalogue) -> Target:
        """The likeliest of the catalogue's tools, or `no_tool`."""
        asked = words(request)
        best = max((*(tool.name for tool in catalogue), NO_TOOL), key=lambda name: self._score(name, asked, catalogue))
        tool = catalogue.get(best)
        if tool is None:
            return NoTool(reason="no_matching_tool")
        return ToolCall(tool=best, arguments=self.arguments(tool, request))

    def _score(self, name: str, asked: Sequence[str], catalogue: Catalogue) -> float:
        tool = catalogue.get(name)
        known = self.words.get(name)
        if known is None:
            known = Counter(words(f"{name.replace('_', ' ')} {tool.description if tool else ''}"))
        total = known.total() + self.vocabulary
        prior = math.log(self.rows[name] + 1)
        return prior + sum(math.log((known[word] + 1) / total) for word in asked)

    def arguments(self, tool: Tool, request: str) -> dict[str, Any]:
        """Values for the parameters that a call must have, and for those that most calls had in training."""
        found: dict[str, Any] = {}
        taken: list[Span] = []
        numbers = iter(NUMBER.findall(request))
        for name, schema in tool.properties.items():
            values = self.values.get((tool.name, name), Values())
            if name not in tool.required and 2 * values.seen.total() <= self.rows[tool.name]:
                continue
            try:
                found[name] = _value(schema, values, request, numbers, taken)
            except LookupError:
                # Nothing to go by: the call stays without it, and the parser judges.
                continue
        return found


def _value(schema: Mapping[str, Any], values: Values, request: str, numbers: Iterator[str], taken: list[Span]) -> Any:
    """A parameter's value; what is copied is noted in `taken`, so that no other parameter copies it too."""
    if isinstance(schema.get("enum"), list):
        said = [choice for choice in schema["enum"] if f" {fold(str(choice))} " in f" {fold(request)} "]
        return max(said, key=lambda choice: len(str(choice))) if said else values.usual
    kind = schema.get("type")
    if kind in ("integer", "number"):
        digits = next(numbers, None)
        return values.usual if digits is None else int(digits) if "." not in digits else float(digits)
    if kind != "string":
        return values.usual
    free = [one for one in spans(request) if all(one.end <= other.start or one.start >= other.end for other in taken)]
    if not free:
        return values.usual
    best = max(free, key=values.likelihood)
    taken.append(best)
    return request[best.start : best.end]


def words(text: str) -> list[str]:
    """The words of a text, folded; all words with digits are one."""
    return ["#" if any(character.isdigit() for character in word) else word for word in fold(text).split()]


def spans(request: str) -> Iterator[Span]:
    """Every stretch of a request of up to `LONGEST` pieces."""
    pieces = list(PIECE.finditer(request))
    texts = ["^", *(piece.group().casefold() for piece in pieces), "$"]
    shapes = [_shape(piece.group()) for piece in pieces]
    for first, piece in enumerate(pieces):
        for last in range(first, min(len(pieces), first + LONGEST)):
            clues = (texts[first], texts[last + 2], shapes[first], shapes[last], str(last - first))
            yield Span(piece.start(), pieces[last].end(), clues)


def _shape(text: str) -> str:
    """A piece's kinds of characters: "ORD-1234" is "A-9"; short words in small letters stand for themselves."""
    if text.islower() and len(text) <= 3:
        return text
    for pattern, sign in ((r"[^\W\d_a-z]+", "A"), (r"[a-z]+", "a"), (r"\d+", "9")):
        text = re.sub(pattern, sign, text)
    return text


def _log_share(counter: Counter[str], key: str) -> float:
    return math.log((counter[key] + 0.1) / (counter.total() + 0.1 * (len(counter) + 1)))
