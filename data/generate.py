"""Write the training and validation splits of both catalogues from the frames in data/generate/*.txt.

    python data/generate.py                  # rewrites data/{support,desktop}/{train,valid}.jsonl
    python data/generate.py --out FOLDER     # the same files elsewhere

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

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from mlx_router.calls import NoTool, Target, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.data import Example, write
from mlx_router.interop import catalogue_from_json

HERE = Path(__file__).resolve().parent
SEED = 20261123
HELD_OUT = 0.15
LONG_LIST = 8
MAX_TRIES = 40

SLOT = re.compile(r"\{(!?)(?:(\w+)=)?([\w:-]+)\}")
CHOICE = re.compile(r"\(([^()]*)\)")
MARKS = str.maketrans("", "", "^~")
NO_PUNCTUATION = str.maketrans("", "", ",.!?;:'\"’")
WORD = re.compile(r"[A-Za-z]{4,}")
# Identifiers and addresses keep their letters under a slip of the keyboard; other values are copied as typed.
NO_SLIPS = {"order_id", "url", "time", "amount", "level", "delay_seconds"}
ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wertyuioiosdfghjkljxcvbnmn", strict=True))

# Rows of each tool, training and validation.
SUPPORT = {"track_order": (410, 81), "request_refund": (440, 87), "escalate": (400, 80), "no_tool": (255, 55)}
DESKTOP = {
    "open_app": (160, 22),
    "open_website": (140, 20),
    "search_web": (170, 25),
    "find_files": (215, 32),
    "set_timer": (180, 26),
    "set_alarm": (170, 25),
    "set_reminder": (215, 32),
    "create_event": (215, 32),
    "send_message": (215, 32),
    "take_note": (165, 24),
    "set_volume": (150, 20),
    "switch_setting": (165, 24),
    "arrange_window": (140, 20),
    "take_screenshot": (130, 18),
    "control_media": (110, 15),
    "lock_screen": (70, 10),
    "no_tool": (510, 83),
}
PLANS = {"support": SUPPORT}


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


class Writer:
    """Fills frames with words drawn from the lists that its split may use."""

    def __init__(self, grammar: Grammar, rng: random.Random, *, valid: bool) -> None:
        self.lists, self.rng, self.valid = grammar.lists, rng, valid
        self.drawn: dict[str, set[str]] = {}

    def render(self, frame: Frame) -> list[Segment]:
        """The frame with every choice made and every slot filled; no list gives the same words twice."""
        for _ in range(MAX_TRIES):
            self.drawn = defaultdict(set)
            try:
                return self.expand(frame.text)
            except LookupError:
                continue
        raise ValueError(f"can't fill {frame.text!r}")

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
        parts = self.expand(option)
        if argument is None:
            return parts
        # Marks of a list within a list bound the inner phrase, not this value, unless the option is that list alone.
        keep = SLOT.fullmatch(option) is not None
        inner = [part.text if keep or part.text in option else part.text.translate(MARKS) for part in parts]
        nested = next((part.value for part in parts if part.value is not None), None) if keep else None
        return [Segment("".join(inner), argument, read_value(value) if value else nested)]

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
        return ONES[number]
    if number == 100:
        return "one hundred"
    ten, one = divmod(number, 10)
    return TENS[ten - 2] + (f"{joint}{ONES[one]}" if one else "")


def capitalised(text: str) -> str:
    """The text with its first letter a capital."""
    return text[:1].upper() + text[1:]


class Dresser:
    """Changes how a request is written, not what it says: company around it, letter case, punctuation, slips."""

    def __init__(self, writer: Writer, rng: random.Random) -> None:
        self.writer, self.rng = writer, rng

    def dress(self, segments: list[Segment], kind: str) -> tuple[list[Segment], str]:
        """The segments in other clothes, and the kind of row that this makes."""
        first = segments[0]
        if first.argument is None and kind != "terse":
            segments = [replace(first, text=capitalised(first.text)), *segments[1:]]
        roll = self.rng.random()
        if roll < 0.2 and kind != "terse":
            return self.company(segments), "verbose"
        if roll < 0.32:
            return changed(segments, str.lower, bare=True), "dictation"
        if roll < 0.4:
            return changed(segments, str.lower), kind
        if roll < 0.42:
            return changed(segments, str.upper), "caps"
        if roll < 0.52:
            return self.slips(segments), "typo"
        return segments, kind

    def company(self, segments: list[Segment]) -> list[Segment]:
        """A sentence before the request, after it, or both."""
        where = self.rng.random()
        if where < 0.65:
            before = self.writer.expand(self.writer.draw("before"))
            if before[-1].text.endswith(","):
                segments = [replace(segments[0], text=uncapitalised(segments[0])), *segments[1:]]
            segments = [*before, Segment(" "), *segments]
        if where > 0.45:
            stop = "" if segments[-1].text.endswith((".", "!", "?")) else "."
            segments = [*segments, Segment(f"{stop} "), *self.writer.expand(self.writer.draw("after"))]
        return segments

    def slips(self, segments: list[Segment]) -> list[Segment]:
        """One or two words mistyped."""
        for _ in range(self.rng.choice((1, 1, 2))):
            words = [
                (at, match.span())
                for at, segment in enumerate(segments)
                if segment.argument not in NO_SLIPS
                for match in WORD.finditer(segment.text)
            ]
            if words:
                at, (start, end) = self.rng.choice(words)
                text = segments[at].text
                wrong = text[:start] + self.slip(text[start:end]) + text[end:]
                segments = [*segments[:at], replace(segments[at], text=wrong), *segments[at + 1 :]]
        return segments

    def slip(self, word: str) -> str:
        """The word with one letter wrong."""
        at = self.rng.randrange(1, len(word) - 1)
        wrong = [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] * 2 + word[at + 1 :],
            word[:at] + NEIGHBOURS.get(word[at], "e") + word[at + 1 :],
        ]
        return self.rng.choice(wrong)


def uncapitalised(segment: Segment) -> str:
    """The first segment's text as it continues a sentence."""
    if segment.argument not in (None, "reason") or re.match(r"I\b", segment.text) or segment.text[1:2].isupper():
        return segment.text
    return segment.text[:1].lower() + segment.text[1:]


def changed(segments: Sequence[Segment], case: Any, *, bare: bool = False) -> list[Segment]:
    """Every segment in another letter case; with `bare` also without punctuation outside of values."""

    def text(segment: Segment) -> str:
        spoken = bare and segment.argument is None
        return segment.text.replace(" - ", " ").translate(NO_PUNCTUATION) if spoken else segment.text

    return [replace(segment, text=case(text(segment))) for segment in segments]


def spans(text: str) -> list[str]:
    """The value that marked text states, then the other fair ones."""
    plain = text.translate(MARKS)
    shorter = [text.partition("^")[2].translate(MARKS)] if "^" in text else []
    if "~" in text:
        return [text.partition("~")[2].translate(MARKS), plain, *shorter]
    return [plain, *shorter]


def targets(frame: Frame, segments: Sequence[Segment]) -> list[Target]:
    """The gold target, then the acceptable ones."""
    if frame.tool == "no_tool":
        return [NoTool(reason=frame.reason)]
    options: dict[str, list[Any]] = {name: [value] for name, value in frame.fixed.items()}
    for segment in segments:
        if segment.argument is not None:
            options[segment.argument] = spans(segment.text) if segment.value is None else [segment.value]
    return [
        ToolCall(tool=frame.tool, arguments=dict(zip(options, values, strict=True)))
        for values in product(*options.values())
    ]


def request_of(segments: Sequence[Segment]) -> str:
    """The request's text."""
    return re.sub(" +", " ", "".join(segment.text for segment in segments).translate(MARKS)).strip()


def examples(name: str, catalogue: Catalogue, *, valid: bool, taken: set[str]) -> list[Example]:
    """One split, shuffled; its requests are added to `taken` (casefolded), and none of those is used again."""
    grammar = read_grammar(HERE / "generate" / f"{name}.txt")
    rng = random.Random(f"{SEED} {name} {'valid' if valid else 'train'}")
    writer = Writer(grammar, rng, valid=valid)
    made: list[Example] = []
    for tool, counts in PLANS[name].items():
        frames = frames_in_turn([frame for frame in grammar.frames if frame.tool == tool], rng, valid=valid)
        rows = 0
        while rows < counts[valid]:
            example = fill(next(frames), writer, catalogue)
            if example.request.casefold() not in taken:
                taken.add(example.request.casefold())
                made.append(example)
                rows += 1
    rng.shuffle(made)
    return made


def frames_in_turn(frames: Sequence[Frame], rng: random.Random, *, valid: bool) -> Iterator[Frame]:
    """The split's frames of one tool, endlessly, each as often as the others.

    Validation takes a frame that training never sees every second time.
    """
    if not frames:
        raise ValueError("a tool has no frames")
    kept, held = divide(frames, f"frames {frames[0].tool}")
    while True:
        if valid:
            for frame in rng.sample(held, len(held)):
                yield frame
                yield rng.choice(kept)
        else:
            yield from rng.sample(kept, len(kept))


def fill(frame: Frame, writer: Writer, catalogue: Catalogue) -> Example:
    """One row of a frame."""
    segments, kind = Dresser(writer, writer.rng).dress(writer.render(frame), frame.kind)
    gold, *others = targets(frame, segments)
    return Example(
        request=request_of(segments),
        target=gold,
        catalogue=catalogue,
        alternatives=tuple(other for at, other in enumerate(others) if other != gold and other not in others[:at]),
        kind=frame.kind if frame.tool == "no_tool" else kind,
    )


def test_requests(path: Path) -> set[str]:
    """The casefolded requests of a test split, only to be kept out of what is made."""
    with path.open(encoding="utf-8") as file:
        return {json.loads(line)["request"].casefold() for line in file}


def generate(name: str, out: Path) -> None:
    """Write both splits of one catalogue."""
    catalogue = catalogue_from_json(json.loads((HERE / name / "catalogue.json").read_text(encoding="utf-8")))
    taken = test_requests(HERE / name / "test.jsonl")
    (out / name).mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid"):
        rows = examples(name, catalogue, valid=split == "valid", taken=taken)
        write(rows, out / name / f"{split}.jsonl", "catalogue.json")


def main() -> None:
    """Write all splits."""
    parser = argparse.ArgumentParser(description="Write the training and validation splits of both catalogues.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: the one of this program)")
    out = parser.parse_args().out
    for name in PLANS:
        generate(name, out)


if __name__ == "__main__":
    main()
