"""Write the training and validation splits of both catalogues from the frames in data/frames/*.txt.

    python data/generate.py                  # rewrites data/{support,desktop}/{train,valid}.jsonl and the large files
    python data/generate.py --out FOLDER     # the same files elsewhere

How frames are written stands in phrasing.py. The large training files take the frames and lists of
data/frames/{support,desktop}_more.txt too. The same seed gives the same files, byte for byte. A test split and the
validation rows written by hand are opened for one purpose: no request that stands in them is written.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from phrasing import MARKS, SEED, Frame, Grammar, Segment, Writer, capitalised, divide, divide_options, read_grammar
from speech import dictated

from mlx_router.calls import NoTool, Target, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.data import Example, parts, rows, write
from mlx_router.duplicates import fold
from mlx_router.interop import catalogue_from_json

HERE = Path(__file__).resolve().parent
NO_PUNCTUATION = str.maketrans("", "", ",.!?;:'\"’")
QUESTION = re.compile(r"(hey )?(can|could|would|will) you\b", re.IGNORECASE)
WORD = re.compile(r"[A-Za-z]{4,}")
ANY_WORD = re.compile(r"[A-Za-z]{3,}")
# Identifiers and addresses keep their letters under a slip of the keyboard; other values are copied as typed.
PROSE = {None, "reason", "text"}
STARTERS = PROSE | {"when", "date", "repeat", "setting", "area", "file_type"}
NO_SLIPS = {"order_id", "url", "time", "amount", "level", "delay_seconds"}
NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wertyuioiosdfghjkljxcvbnmn", strict=True))

# Rows of each tool, training and validation.
SUPPORT = {"track_order": (820, 81), "request_refund": (880, 87), "escalate": (800, 80), "no_tool": (620, 55)}
DESKTOP = {
    "open_app": (320, 22),
    "open_website": (280, 20),
    "search_web": (340, 25),
    "find_files": (430, 32),
    "set_timer": (360, 26),
    "set_alarm": (340, 25),
    "set_reminder": (430, 32),
    "create_event": (430, 32),
    "send_message": (430, 32),
    "take_note": (330, 24),
    "set_volume": (300, 20),
    "switch_setting": (330, 24),
    "arrange_window": (280, 20),
    "take_screenshot": (260, 18),
    "control_media": (220, 15),
    "lock_screen": (140, 10),
    "no_tool": (1300, 83),
}
PLANS = {"support": SUPPORT, "desktop": DESKTOP}
# Catalogues that have a large training file too, and how many times the rows of the small one it has.
LARGE = {"support": 12, "desktop": 15}
# Kinds of frames of which large files draw more.
OFTEN = {"invalid": 3}


class Dresser:
    """Changes how a request is written, not what it says: company around it, letter case, punctuation, slips.

    With `speak`, dictation speaks order numbers; with `hasty`, more requests have slips, and more of them.
    """

    def __init__(self, writer: Writer, rng: random.Random, *, speak: bool, hasty: bool) -> None:
        self.writer, self.rng, self.speak, self.hasty = writer, rng, speak, hasty

    def dress(self, segments: list[Segment], kind: str) -> tuple[list[Segment], str]:
        """The segments in other clothes, and the kind of row that this makes."""
        roll = self.rng.random()
        if self.rng.random() < 0.7:
            segments = asked(segments)
        if kind == "terse":
            roll = max(roll, 0.2)
        elif roll < 0.2:
            return self.company(segments), "verbose"
        else:
            segments = begun(segments)
        if roll < 0.32:
            segments = dictated(segments) if self.speak else segments
            return changed(segments, str.lower, bare=True), "dictation"
        if roll < 0.4:
            return changed(segments, str.lower), kind
        if roll < 0.42:
            return changed(segments, str.upper), "caps"
        if roll < (0.55 if self.hasty else 0.52):
            return self.slips(segments), "typo"
        return segments, kind

    def company(self, segments: list[Segment]) -> list[Segment]:
        """A sentence before the request, after it, or both."""
        where = self.rng.random()
        if where < 0.65:
            before = self.writer.company("before")
            segments = begun(segments, small=before[-1].text.endswith(","))
            segments = [*before, Segment(" "), *segments]
        else:
            segments = begun(segments)
        if where > 0.45:
            stop = "" if segments[-1].text.endswith((".", "!", "?")) else "."
            segments = [*segments, Segment(f"{stop} "), *self.writer.company("after")]
        return segments

    def slips(self, segments: list[Segment]) -> list[Segment]:
        """One or two words mistyped, of a hasty hand up to four, short ones too."""
        word = ANY_WORD if self.hasty else WORD
        for _ in range(self.rng.choice((1, 1, 2, 2, 3, 4) if self.hasty else (1, 1, 2))):
            words = [
                (at, match.span())
                for at, segment in enumerate(segments)
                if segment.argument not in NO_SLIPS
                for match in word.finditer(segment.text)
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


def asked(segments: list[Segment]) -> list[Segment]:
    """The segments with a question mark, if they are one question that ends in a full stop."""
    last = segments[-1]
    if re.search("[.?!] ", "".join(segment.text for segment in segments)):
        return segments
    if QUESTION.match(segments[0].text) and last.argument is None and last.text.endswith("."):
        return [*segments[:-1], replace(last, text=last.text[:-1] + "?")]
    return segments


def begun(segments: Sequence[Segment], *, small: bool = False) -> list[Segment]:
    """The segments as a sentence begins, or with `small` as one goes on; names and addresses stay as they are."""
    first = segments[0]
    text = first.text
    if small and first.argument in PROSE and not re.match(r"I\b|.[A-Z]", text):
        text = text[:1].lower() + text[1:]
    elif not small and first.argument in STARTERS:
        text = capitalised(text)
    return [replace(first, text=text), *segments[1:]]


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
    shorter += [plain[:-1]] if plain.endswith("?") else []
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
    text = "".join(segment.text for segment in segments).translate(MARKS)
    return re.sub(" +", " ", text).replace(".m..", ".m.").strip()


def examples(name: str, catalogue: Catalogue, *, valid: bool, taken: set[str], large: bool = False) -> list[Example]:
    """One split, or the large training file; its requests are added to `taken`, folded, and none is used again.

    Each tool's rows are spread evenly over the split, so that any first rows of it are balanced as the whole is.
    """
    grammar, more = frames_of(name), frames_of(f"{name}_more") if large else Grammar({}, ())
    times = LARGE[name] if large else 1
    rng = random.Random(f"{SEED} {name} {'valid' if valid else 'train'}")
    # A list that stands in both files has been divided already.
    both = grammar.lists.keys() & more.lists.keys()
    writer = Writer(Grammar(extended(grammar.lists, more.lists), ()), rng, valid=valid, whole=both)
    made: list[tuple[float, Example]] = []
    for tool, counts in PLANS[name].items():
        kept, held = divide([frame for frame in grammar.frames if frame.tool == tool], f"frames {tool}")
        if large:
            kept = [frame for frame in kept for _ in range(OFTEN.get(frame.kind, 1))]
        frames = in_turn(kept, held if valid else (), rng)
        frames = alternating(frames, [frame for frame in more.frames if frame.tool == tool], rng)
        rows, wanted = 0, counts[valid] * times
        while rows < wanted:
            example = fill(next(frames), writer, catalogue, hasty=large)
            if fold(example.request) not in taken:
                taken.add(fold(example.request))
                made.append(((rows + rng.random()) / wanted, example))
                rows += 1
    return [example for _, example in sorted(made, key=lambda placed: placed[0])]


def frames_of(name: str) -> Grammar:
    """The lists and frames of one file in data/frames."""
    return read_grammar(HERE / "frames" / f"{name}.txt")


def extended(lists: Mapping[str, Sequence[str]], more: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The lists of two files; one that stands in both has all options but those that are kept from training."""

    def joined(name: str) -> list[str]:
        kept = divide_options(lists[name], name)[0]
        return [*kept, *(option for option in more[name] if option in kept or option not in lists[name])]

    return {**lists, **more, **{name: joined(name) for name in lists if name in more}}


def in_turn(kept: Sequence[Frame], held: Sequence[Frame], rng: random.Random) -> Iterator[Frame]:
    """Frames of one tool, endlessly, each as often as the others.

    Validation has `held`, which training never sees, and takes one of them every second time.
    """
    if not kept:
        raise ValueError("a tool has no frames")
    while True:
        if not held:
            yield from rng.sample(kept, len(kept))
        for frame in rng.sample(held, len(held)):
            yield frame
            yield rng.choice(kept)


def alternating(frames: Iterator[Frame], more: Sequence[Frame], rng: random.Random) -> Iterator[Frame]:
    """Frames of one tool, each followed by one of `more`; by one of its kind and reason where no tool is called.

    So every kind of request that is not to be acted on keeps its share, however many of its frames are in `more`.
    """

    def group(frame: Frame) -> tuple[str, str]:
        return (frame.kind, frame.reason) if frame.tool == "no_tool" else ("", "")

    groups: dict[tuple[str, str], list[Frame]] = {}
    for frame in more:
        groups.setdefault(group(frame), []).append(frame)
    turns = {key: in_turn(found, (), rng) for key, found in groups.items()}
    for frame in frames:
        yield frame
        if group(frame) in turns:
            yield next(turns[group(frame)])


def fill(frame: Frame, writer: Writer, catalogue: Catalogue, *, hasty: bool = False) -> Example:
    """One row of a frame; `hasty` as for `Dresser`."""
    # Validation's rows stay what they were, so that figures of before can be compared.
    speak = not writer.valid and any("order_id" in tool.properties for tool in catalogue)
    segments, kind = Dresser(writer, writer.rng, speak=speak, hasty=hasty).dress(writer.render(frame), frame.kind)
    gold, *others = targets(frame, segments)
    return Example(
        request=request_of(segments),
        target=gold,
        catalogue=catalogue,
        alternatives=tuple(other for at, other in enumerate(others) if other != gold and other not in others[:at]),
        kind=frame.kind if frame.tool == "no_tool" else kind,
    )


def requests_of(path: Path) -> set[str]:
    """The requests of a split without case and punctuation, only to be kept out of what is made."""
    return {fold(request) for _, _, request, _ in (parts(row) for _, row in rows(path))}


def generate(name: str, out: Path) -> None:
    """Write both splits of one catalogue, and its large training file where there is one."""
    catalogue = catalogue_from_json(json.loads((HERE / name / "catalogue.json").read_text(encoding="utf-8")))
    kept_out = requests_of(HERE / name / "test.jsonl") | requests_of(HERE / name / "valid_written.jsonl.gz")
    taken = set(kept_out)
    (out / name).mkdir(parents=True, exist_ok=True)
    train = examples(name, catalogue, valid=False, taken=taken)
    valid = examples(name, catalogue, valid=True, taken=taken)
    write(train, out / name / "train.jsonl", "catalogue.json")
    write(valid, out / name / "valid.jsonl", "catalogue.json")
    if name in LARGE:
        validated = {fold(example.request) for example in valid}
        many = examples(name, catalogue, valid=False, taken=kept_out, large=True)
        kept = [example for example in many if fold(example.request) not in validated]
        write(kept, out / name / "train_large.jsonl.gz", "catalogue.json")


def main() -> None:
    """Write all splits."""
    parser = argparse.ArgumentParser(description="Write the training and validation splits of both catalogues.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: the one of this program)")
    out = parser.parse_args().out
    for name in PLANS:
        generate(name, out)


if __name__ == "__main__":
    main()
