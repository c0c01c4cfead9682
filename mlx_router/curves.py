"""How far probabilities can be trusted: what acting on fewer, surer calls saves, and whether 0.9 means 0.9."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from .calibration import bin_numbers, figures
from .evaluation import Scored
from .metrics import Metric, share

CALIBRATED = "p_right, the calibrated probability that a call is right"
CONFIDENCE = "confidence, the probability of the tool among all names; it is not calibrated and knows no arguments"


@dataclass(frozen=True)
class Judged:
    """A valid call: how probable it was said to be right, and whether it is."""

    probability: float
    right: bool


@dataclass(frozen=True)
class Point:
    """What it means to act on the `n` calls whose probability is at least `threshold`."""

    threshold: float
    n: int
    wrong: int
    coverage: float

    @property
    def risk(self) -> Metric:
        """Wrong calls among those acted on."""
        return share(self.wrong, self.n)


@dataclass(frozen=True)
class Bin:
    """Calls of about the same probability: their mean, and how many of them are right."""

    mean: float
    n: int
    right: int

    @property
    def rate(self) -> Metric:
        """The share that is right."""
        return share(self.right, self.n)


@dataclass(frozen=True)
class Curves:
    """Everything that is known of the probabilities of one run; `source` says which they are."""

    source: str
    calls: int
    judged: tuple[Judged, ...]
    points: tuple[Point, ...]
    bins: tuple[Bin, ...]
    figures: dict[str, Metric]

    def at_coverage(self, least: float) -> Point:
        """The first point that acts on at least this share of the calls."""
        return next(point for point in self.points if point.coverage >= least)


def probability(one: Scored) -> float | None:
    """How probable a row's call was said to be right: calibrated where it can be, else the confidence."""
    if one.p_right is not None:
        return one.p_right
    return one.decision.confidence if one.decision is not None else None


def curves(scored: Sequence[Scored]) -> Curves | None:
    """The curves of the valid calls; None where no probability is known.

    Either all calls go by their calibrated probability or all by their confidence: the two are never mixed.
    """
    calls = [one for one in scored if one.row.calls]
    calibrated = [Judged(one.p_right, one.row.right) for one in calls if one.p_right is not None]
    raw = [Judged(found, one.row.right) for one in calls if (found := probability(one)) is not None]
    judged = calibrated or raw
    if not judged:
        return None
    return Curves(
        source=CALIBRATED if calibrated else CONFIDENCE,
        calls=len(calls),
        judged=tuple(judged),
        points=tuple(_points(judged)),
        bins=tuple(_bins(judged)),
        figures=figures(
            np.array([one.probability for one in judged]), np.array([one.right for one in judged], dtype=float)
        ),
    )


def _points(judged: Sequence[Judged]) -> list[Point]:
    """A point for each probability that occurs; calls of the same one are acted on together."""
    found: list[Point] = []
    n = wrong = 0
    ordered = sorted(judged, key=lambda one: -one.probability)
    for threshold, group in groupby(ordered, key=lambda one: one.probability):
        for one in group:
            n += 1
            wrong += not one.right
        found.append(Point(threshold, n, wrong, n / len(judged)))
    return found


def _bins(judged: Sequence[Judged]) -> list[Bin]:
    """The bins that the calibration error is computed over."""
    numbers = bin_numbers(np.array([one.probability for one in judged]))
    parts: dict[int, list[Judged]] = {}
    for number, one in sorted(zip(numbers.tolist(), judged, strict=True), key=lambda pair: pair[0]):
        parts.setdefault(number, []).append(one)
    return [
        Bin(sum(one.probability for one in part) / len(part), len(part), sum(one.right for one in part))
        for part in parts.values()
    ]
