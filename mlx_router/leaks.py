"""Test rows that an adapter has already seen: found by hashes in its manifest, or by the training rows themselves."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from typing import Any, TypeAlias

from .data import Example
from .duplicates import clusters, fold
from .evaluation import Evaluation
from .findings import excerpt
from .records import recorded_requests, row_key
from .rendering import rate
from .tables import table

# A catalogue's hash, as a manifest shortens it, and a request's key.
Seen: TypeAlias = set[tuple[str, str]]

SHOWN = 20


@dataclass(frozen=True)
class Near:
    """A test row and the most alike of the training rows that it is near."""

    example: Example
    other: Example


@dataclass(frozen=True)
class Leaks:
    """The rows of a test that prove little, each in one list only.

    `train`, `valid` and `calibration` were seen with the same catalogue, `other_catalogue` with another one. `checked`
    is false where nothing says what the adapter was trained on, `near` is None where no training rows were given to
    look at.
    """

    rows: int
    checked: bool
    train: tuple[Example, ...] = ()
    valid: tuple[Example, ...] = ()
    calibration: tuple[Example, ...] = ()
    other_catalogue: tuple[Example, ...] = ()
    near: tuple[Near, ...] | None = None

    @property
    def failed(self) -> bool:
        """Whether rows of the test were trained on, chose the checkpoint or calibrated: exit code 1."""
        return bool(self.train or self.valid or self.calibration)

    @property
    def _seen(self) -> tuple[Example, ...]:
        return (*self.train, *self.valid, *self.calibration)

    @property
    def doubtful(self) -> frozenset[str]:
        """Where the listed rows stand, of all kinds."""
        near = (found.example for found in self.near or ())
        return frozenset(row.where for row in (*self._seen, *self.other_catalogue, *near))

    def to_json(self) -> dict[str, Any]:
        """Everything found, as JSON; `near` is null where it was not looked for."""
        near = None if self.near is None else [_row(found.example) | _beside(found.other) for found in self.near]
        return {
            "checked": self.checked,
            "train": [_row(example) for example in self.train],
            "valid": [_row(example) for example in self.valid],
            "calibration": [_row(example) for example in self.calibration],
            "other_catalogue": [_row(example) for example in self.other_catalogue],
            "near": near,
        }

    @property
    def summary(self) -> str:
        """What was found, in a sentence."""
        counts = [
            (len(self.train), "trained on"),
            (len(self.valid), "in the validation rows, which chose the checkpoint"),
            (len(self.calibration), "calibrated by"),
            (len(self.other_catalogue), "trained on with another catalogue"),
            (len(self.near or ()), "near a training row"),
        ]
        found = [f"{count} {what}" for count, what in counts if count]
        if not self.checked:
            found.append("not checked against training rows, which the adapter does not name (--near FILE reads them)")
        if not found:
            found.append("none trained on" + ("" if self.near is None else ", none near a training row"))
        return f"{self.rows} test row{'s' if self.rows != 1 else ''}: {'; '.join(found)}"

    @property
    def lines(self) -> list[str]:
        """Every row listed, in words, the gravest first."""
        found = [f"{_shown(example)} was trained on" for example in self.train]
        found += [f"{_shown(example)} is a validation row, which chose the checkpoint" for example in self.valid]
        found += [f"{_shown(example)} was calibrated by" for example in self.calibration]
        found += [f"{_shown(example)} was trained on with another catalogue" for example in self.other_catalogue]
        near = ((found.example, found.other) for found in self.near or ())
        return found + [f"{_shown(row)} is near {other.where}: {excerpt(other.request)}" for row, other in near]

    def without(self, evaluation: Evaluation) -> Evaluation | None:
        """The evaluation without the rows listed; None where it would be the same, or nothing would be left."""
        doubtful = self.doubtful
        kept = [one for one in evaluation.scored if one.example.where not in doubtful]
        return Evaluation.of(kept) if kept and len(kept) < len(evaluation.scored) else None


def find_leaks(
    examples: Sequence[Example], data: Mapping[str, Any], training: Sequence[Example] | None = None
) -> Leaks:
    """What of a test is in the data of a manifest, or in training rows that are given.

    Requests are compared with case, punctuation and white space folded. Hashes show no near requests: these are looked
    for in `training` alone.
    """
    train, valid, calibration = (_seen(data, split) for split in ("train", "valid", "calibration"))
    if training is not None:
        train = (train or set()) | {row_key(example) for example in training}
    valid, calibration = valid or set(), calibration or set()
    known = train or set()
    requests = {request for _, request in known | valid | calibration}
    kinds = ("train", "valid", "calibration", "other_catalogue", "new")
    lists: dict[str, list[Example]] = {kind: [] for kind in kinds}
    for example in examples:
        pair = row_key(example)
        found = (pair in known, pair in valid, pair in calibration, pair[1] in requests, True)
        lists[kinds[found.index(True)]].append(example)
    return Leaks(
        len(examples),
        train is not None,
        tuple(lists["train"]),
        tuple(lists["valid"]),
        tuple(lists["calibration"]),
        tuple(lists["other_catalogue"]),
        None if training is None else tuple(_near(lists["new"], training)),
    )


def _seen(data: Mapping[str, Any], split: str) -> Seen | None:
    """The requests of a split that a manifest keeps; None where it keeps none."""
    recorded = recorded_requests(data, split)
    if recorded is None:
        return None
    return {(catalogue, request) for catalogue, keys in recorded.items() for request in keys}


def _near(examples: Sequence[Example], training: Sequence[Example]) -> Iterator[Near]:
    numbers = clusters([example.request for example in (*training, *examples)])
    members: dict[int, list[Example]] = defaultdict(list)
    for number, other in zip(numbers, training, strict=False):
        members[number].append(other)
    for number, example in zip(numbers[len(training) :], examples, strict=True):
        if number in members:
            yield Near(example, max(members[number], key=partial(_likeness, example)))


def _likeness(one: Example, other: Example) -> float:
    """How alike two requests are, to choose from those that are near which to show."""
    return SequenceMatcher(None, fold(one.request), fold(other.request), autojunk=False).ratio()


def _row(example: Example) -> dict[str, Any]:
    return {"where": example.where, "id": example.id, "request": example.request}


def _beside(other: Example) -> dict[str, Any]:
    return {"near": other.where, "near_request": other.request}


def _shown(example: Example) -> str:
    return f"{example.where}: {excerpt(example.request)}"


def render_leaks(leaks: Leaks, evaluation: Evaluation) -> str:
    """A note for the report: what was found, the rows, and the metrics with them and without them."""
    text = "\n".join([f"leaks: {leaks.summary}", *(f"  {line}" for line in shorten(leaks.lines))])
    clean = leaks.without(evaluation)
    if clean is None:
        return text
    lines: list[tuple[str, ...]] = [("", f"all {len(evaluation.scored)} rows", f"the {len(clean.scored)} others")]
    pairs = ((name, metric, clean.metrics[name]) for name, metric in evaluation.metrics.items())
    lines += [(name, rate(metric.value), rate(other.value)) for name, metric, other in pairs]
    return f"{text}\n\n{table(lines, left=[0])}"


def shorten(lines: Sequence[str], shown: int = SHOWN) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - shown
    return [*lines[:shown], f"… and {more} more"] if more > 0 else list(lines)
