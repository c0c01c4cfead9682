"""Frames: the ways to say things that data/frames/*.txt hold, read and filled in with words.

A frame file holds lists and frames:

    ## name                          a list; every line after it is one option
    dark mode => dark_mode           an option with its value, where the value is not its own text
    the ~tax folder                  the value begins after `~`; the whole is a fair alternative
    it ^arrived damaged              the whole is the value; what follows `^` is a fair alternative
    # tool kind                      frames of a tool; `# no_tool kind | reason` for rows without a call
    Where is {order_id=id}?          `{argument=list}` draws the argument, `{list}` only words, `{!…}` capitalises
    (Please|Kindly) stop {x}. :: a=1 `(a|b)` chooses; `::` sets arguments that no word of the request stands for

Built-in lists: `d4` four digits, `L2` two capitals, `n:1-60` a number in digits or words. Lines that begin with `//`
are comments. A share of the frames of each tool, and of the options of each long list, is kept from training.
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_router.grounding import TENS, UNITS

SEED = 20261123
HELD_OUT = 0.15
LONG_LIST = 8
MAX_TRIES = 40

SLOT = re.compile(r"\{(!?)(?:(\w+)=)?([\w:-]+)\}")
CHOICE = re.compile(r"\(([^()]*)\)")
MARKS = str.maketrans("", "", "^~")



@dataclass(frozen=True)
class Frame:
    """One way to say something: its text, and the decision that it stands for."""

    text: str
    tool: str
    kind: str
    reason: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grammar:
    """The lists and frames of one file."""

    lists: Mapping[str, Sequence[str]]
    frames: Sequence[Frame]


@dataclass(frozen=True)
class Segment:
    """A piece of a request. `argument` is what it gives a value to; `value` is None where its text is the value."""

    text: str
    argument: str | None = None
    value: Any = None


def read_grammar(path: Path) -> Grammar:
    """The lists and frames of a file."""
    lists: dict[str, list[str]] = {}
    frames: list[Frame] = []
    head = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and line[:3] in ("## ", "# " + line[2:3]):
            head = line
            if head.startswith("## "):
                lists[head[3:]] = []
        elif line.strip() and not line.startswith("//"):
            if head.startswith("## "):
                lists[head[3:]].append(line.rstrip())
            else:
                frames.append(read_frame(line.strip(), head))
    return Grammar(lists, frames)


def read_frame(line: str, head: str) -> Frame:
    """A frame from its line and the header it stands under."""
    names, _, reason = head.removeprefix("# ").partition(" | ")
    tool, kind = names.split()
    text, _, settings = line.partition(" :: ")
    pairs = (setting.partition("=") for setting in settings.split(", ") if setting)
    return Frame(text, tool, kind, reason, {name: read_value(value) for name, _, value in pairs})


def read_value(text: str) -> Any:
    """A JSON value where the text is one, else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def tried(fill: Callable[[], list[Segment]], what: str) -> list[Segment]:
    """What `fill` gives, called again as long as it draws words that the request has already."""
    for _ in range(MAX_TRIES):
        try:
            return fill()
        except LookupError:
            continue
    raise ValueError(f"can't fill {what!r}")


class Writer:
    """Fills frames with words drawn from the lists that its split may use; of those in `whole`, from all options."""

    def __init__(
        self, grammar: Grammar, rng: random.Random, *, valid: bool, whole: Container[str] = frozenset()
    ) -> None:
        self.lists, self.rng, self.valid, self.whole = grammar.lists, rng, valid, whole
        self.drawn: dict[str, set[str]] = {}

    def render(self, frame: Frame) -> list[Segment]:
        """The frame with every choice made and every slot filled; no list gives the same words twice."""

        def afresh() -> list[Segment]:
            self.drawn = defaultdict(set)
            return self.expand(frame.text)

        return tried(afresh, frame.text)

    def company(self, name: str) -> list[Segment]:
        """One option of a list as segments, with no words that the request holds already."""
        return tried(lambda: self.expand(self.draw(name)), name)

    def expand(self, text: str) -> list[Segment]:
        """Text with slots as segments."""
        segments = []
        end = 0
        text = self.choose(text)
        for match in SLOT.finditer(text):
            segments += [Segment(text[end : match.start()])] if match.start() > end else []
            capital, argument, name = match.groups()
            filled = self.fill(argument, name)
            segments += [replace(filled[0], text=capitalised(filled[0].text)), *filled[1:]] if capital else filled
            end = match.end()
        return segments + ([Segment(text[end:])] if end < len(text) else [])

    def fill(self, argument: str | None, name: str) -> list[Segment]:
        """The segments of one slot: a single one if it gives an argument its value."""
        option, _, value = self.draw(name).partition(" => ")
        option = self.choose(option)
        alone = SLOT.fullmatch(option)
        if argument is not None and alone is not None:
            return self.fill(argument, alone[3])
        parts = self.expand(option)
        if argument is None:
            return parts
        # Marks of a list within a list bound the inner phrase, not this value.
        inner = [part.text if part.text in option else part.text.translate(MARKS) for part in parts]
        return [Segment("".join(inner), argument, read_value(value) if value else None)]

    def draw(self, name: str) -> str:
        """One option of a list. Raises `LookupError` for words already in the request."""
        option = self.built_in(name) or self.rng.choice(self.pool(name))
        words = option.partition(" => ")[0]
        if words in self.drawn[name] and "{" not in words:
            raise LookupError(name)
        self.drawn[name].add(words)
        return option

    def built_in(self, name: str) -> str | None:
        """Digits, capitals and numbers; None for a list of the file."""
        if name in self.lists:
            return None
        if name.startswith("n:"):
            low, high = map(int, name[2:].split("-"))
            number = self.number(low, high)
            return f"{self.spoken(number)} => {number}"
        count = int(name[1:])
        if name[0] == "L":
            return "".join(self.rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=count))
        return self.rng.choice("123456789") + "".join(self.rng.choices("0123456789", k=count - 1))

    def number(self, low: int, high: int) -> int:
        """A number in the range, a round one half of the time."""
        round_ones = [number for number in range(low, high + 1) if number % 5 == 0]
        return self.rng.choice(round_ones) if round_ones and self.rng.random() < 0.5 else self.rng.randint(low, high)

    def spoken(self, number: int) -> str:
        """The number in digits, or sometimes, up to a hundred, in words."""
        return in_words(number, self.rng.choice("- ")) if number <= 100 and self.rng.random() < 0.3 else str(number)

    def pool(self, name: str) -> Sequence[str]:
        """The options of a list that this split may draw; validation prefers those that training never sees."""
        options = self.lists[name]
        if name in self.whole:
            return options
        kept, held = divide_options(options, name)
        if not self.valid:
            return kept
        return held if self.rng.random() < 0.5 else options

    def choose(self, text: str) -> str:
        """Text with every `(a|b)` settled."""
        while CHOICE.search(text):
            text = CHOICE.sub(lambda match: self.rng.choice(match.group(1).split("|")), text)
        return re.sub(" +", " ", text)


def divide(items: Sequence[Any], key: str) -> tuple[list[Any], list[Any]]:
    """What training sees of a list, and what it does not; the same every time."""
    held = random.Random(f"{SEED} {key}").sample(items, max(1, round(HELD_OUT * len(items))))
    return [item for item in items if item not in held], held


def divide_options(options: Sequence[str], name: str) -> tuple[list[str], Sequence[str]]:
    """The same for a list's options. One that stands there often, or only leads to another list, is kept in both."""
    single = [option for option in options if options.count(option) == 1 and not SLOT.fullmatch(option)]
    if len(single) < LONG_LIST:
        return list(options), options
    _, held = divide(single, f"list {name}")
    return [option for option in options if option not in held], held


def in_words(number: int, joint: str) -> str:
    """A number up to a hundred in words."""
    if number < 20:
        return UNITS[number]
    if number == 100:
        return "one hundred"
    ten, one = divmod(number, 10)
    return TENS[ten - 2] + (f"{joint}{UNITS[one]}" if one else "")


def capitalised(text: str) -> str:
    """The text with its first letter a capital."""
    return text[:1].upper() + text[1:]
