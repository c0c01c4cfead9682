"""Calibration: how often calls with such evidence are right, learnt from rows that nothing else was chosen by.

    ordering, calibrating = halve(validation)              # the first half chooses the checkpoint
    found = fit(observe(evaluate(router, calibrating)), observe(evaluate(router, ordering)))

The evidence is weighed by the rows that chose the checkpoint. The others, which nothing was fitted to, give the curve
from score to P(right) and the thresholds of a policy; so a threshold's promise holds for every row that they have.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .calls import Mode, ToolCall
from .certainty import CALLS_NEEDED, FEATURES, WEIGHTS, Calibration, Certainty, Evidence, Isotonic, Platt, add_up
from .data import Example
from .duplicates import clusters, fold
from .errors import DataError
from .evaluation import Scored
from .metrics import Z95, Metric
from .policy import Policy
from .resampling import Floats, middle95

FOLDS = 5
BINS = 10
CALLS_A_BIN = 10
RESAMPLES = 1000

Curve: TypeAlias = Platt | Isotonic


@dataclass(frozen=True)
class Observed:
    """A routed row: the evidence of its call, None where the output is no valid call, and whether it is right."""

    evidence: Evidence | None
    right: bool
    catalogue_seen: bool = True


def observe(scored: Sequence[Scored]) -> list[Observed]:
    """What routed rows show. A call is right if it is not counted by `wrong_call_rate`: by strict comparison."""
    found = []
    for one in scored:
        decision = one.decision
        evidence = None
        if decision is not None and isinstance(one.outcome, ToolCall):
            evidence = Evidence(
                decision.confidence,
                decision.weakest_argument,
                decision.grounded,
                decision.overridden,
                decision.overridden_tokens,
            )
        found.append(Observed(evidence, one.row.right, decision is None or decision.catalogue_seen is not False))
    return found


def halve(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The validation rows in two halves, each with as many rows of every tool as can be, in the rows' order.

    Requests that are the same, or nearly, stay together. The halves do not depend on the order of the rows, and any row
    is as likely to fall into one as into the other: neither gets the harder ones.
    """
    members: dict[int, list[Example]] = defaultdict(list)
    for number, example in zip(clusters([example.request for example in examples]), examples, strict=True):
        members[number].append(example)
    sizes: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    first: set[int] = set()
    for group in sorted(members.values(), key=_deal_order):
        tool = min(example.target.tool for example in group)
        # Where the halves are alike, the last bit of a hash is the coin.
        sides = (0, 1) if int(_digest(group), 16) % 2 else (1, 0)
        half = min(sides, key=lambda side: (sizes[side][tool], sizes[side].total()))
        sizes[half].update(example.target.tool for example in group)
        first |= {id(example) for example in group} if half == 0 else set()
    return [one for one in examples if id(one) in first], [one for one in examples if id(one) not in first]


def _deal_order(group: Sequence[Example]) -> tuple[int, str]:
    """Large clusters first, so that small ones can even them out; else in no order that means anything."""
    return -len(group), _digest(group)


def _digest(group: Sequence[Example]) -> str:
    return min(hashlib.sha256(fold(one.request).encode("utf-8", "replace")).hexdigest() for one in group)


def gold_calls(examples: Sequence[Example]) -> int:
    """How many rows want a call."""
    return sum(isinstance(example.target, ToolCall) for example in examples)


def fit(
    calibrating: Sequence[Observed],
    ordering: Sequence[Observed] = (),
    *,
    weights: Sequence[float] = WEIGHTS,
    split: str,
    mode: Mode = "greedy",
    policy: Policy | None = None,
) -> Calibration:
    """A calibration by rows that were routed; `ordering` rows weigh the evidence, and stand beside these `weights`.

    Raises `DataError` for fewer than `CALLS_NEEDED` valid calls among the calibrating rows, and `UsageError` for a
    policy that takes more rows.
    """
    if missing := calls_missing(calibrating):
        raise DataError(
            f"a calibration takes {CALLS_NEEDED} valid calls; {missing} are missing: "
            f"{len(calibrating)} rows gave {CALLS_NEEDED - missing}",
            hint="give more rows whose answer is a call",
        )
    weighed = weigh(ordering, weights)
    if mode == "greedy":
        # No row shows what a grammar's changes weigh, and calls that it left alone are to score as they do here.
        weighed = (*weighed[: FEATURES.index("overridden")], 0.0)
    known = [(row.evidence, row.right) for row in calibrating if row.evidence is not None]
    scored = [(score, right) for found, right in known if (score := add_up(found, weighed)) is not None]
    scores = np.array([score for score, _ in scored])
    right = np.array([right for _, right in scored], dtype=float)
    curve, expected = choose(scores, right)
    found = Calibration(
        weights=dict(zip(FEATURES, weighed, strict=True)),
        curve=curve,
        rows=len(calibrating),
        right=tuple(sorted(scores[right == 1].tolist())),
        wrong=tuple(sorted(scores[right == 0].tolist())),
        chose=len(ordering),
        other_catalogues=sum(not row.catalogue_seen for row in calibrating),
        mode=mode,
        split=split,
        figures={name: metric.to_json() for name, metric in figures(expected, right, ranks=scores).items()},
        policy=policy,
    )
    Certainty(found, policy)
    return found


def calls_missing(rows: Sequence[Observed]) -> int:
    """How many valid calls with known scores the rows lack for a calibration."""
    known = sum(row.evidence is not None and row.evidence.features is not None for row in rows)
    return max(0, CALLS_NEEDED - known)


def weigh(rows: Sequence[Observed], weights: Sequence[float] = WEIGHTS) -> tuple[float, ...]:
    """Weights of the evidence by logistic regression, drawn towards the ones given: without rows they stay as they are.

    A confident call is never taken for a worse one: no weight turns its sign.
    """
    known = [(found, row.right) for row in rows if row.evidence and (found := row.evidence.features) is not None]
    if not known:
        return tuple(weights)
    features = np.array([found for found, _ in known])
    right = np.array([one for _, one in known], dtype=float)
    start = np.array([*weights, 0.0])
    solved = _newton(np.column_stack([features, np.ones(len(known))]), right, start, penalty=1.0)
    signs = np.sign(WEIGHTS)
    return tuple(float(value) for value in np.where(solved[:-1] * signs > 0, solved[:-1], 0.0))


def choose(scores: Floats, right: Floats) -> tuple[Curve, Floats]:
    """A curve, and what it expected of each call when that was held out.

    Platt's, which has two numbers to fit, unless the isotonic one's Brier score is lower under cross-validation by more
    than two standard errors of the difference.
    """
    smooth, free = (_held_out(way, scores, right) for way in (platt, isotonic))
    gain = (smooth - right) ** 2 - (free - right) ** 2
    if gain.mean() > 2 * gain.std() / math.sqrt(len(gain)):
        return isotonic(scores, right), free
    return platt(scores, right), smooth


def _held_out(way: Callable[[Floats, Floats], Curve], scores: Floats, right: Floats) -> Floats:
    folds = np.empty(len(scores), dtype=int)
    # Right and wrong calls of every size are dealt out evenly.
    folds[np.lexsort((scores, right))] = np.arange(len(scores)) % FOLDS
    expected = np.empty(len(scores))
    for fold_ in range(FOLDS):
        held = folds == fold_
        curve = way(scores[~held], right[~held])
        expected[held] = [curve(float(score)) for score in scores[held]]
    return expected


def platt(scores: Floats, right: Floats) -> Platt:
    """A logistic curve with Platt's targets, which keep it off 0 and 1 also where all calls are right."""
    n_right = float(right.sum())
    n_wrong = len(right) - n_right
    targets = np.where(right == 1, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    spread = float(np.std(scores)) or 1.0
    middle = float(np.mean(scores))
    columns = np.column_stack([(scores - middle) / spread, np.ones(len(scores))])
    slope, intercept = _newton(columns, targets, np.zeros(2), penalty=1e-6)
    if slope <= 0:
        mean = float(targets.mean())
        return Platt(slope=0.0, intercept=float(np.log(mean / (1 - mean))))
    return Platt(slope=float(slope) / spread, intercept=float(intercept - slope * middle / spread))


def isotonic(scores: Floats, right: Floats) -> Isotonic:
    """The rising step function nearest to the outcomes (pool adjacent violators), through the middles of its steps.

    It stays as far from 0 and 1 as so many calls can tell.
    """
    order = np.argsort(scores, kind="stable")
    blocks: list[tuple[float, float, float]] = []
    for score, one in zip(scores[order].tolist(), right[order].tolist(), strict=True):
        blocks.append((score, one, 1.0))
        while len(blocks) > 1 and (_mean(blocks[-2]) >= _mean(blocks[-1]) or blocks[-2][0] >= blocks[-1][0]):
            (left, some, few), (middle, more, many) = blocks[-2:]
            blocks[-2:] = [((left * few + middle * many) / (few + many), some + more, few + many)]
    edge = 1 / (len(scores) + 2)
    probabilities = (min(max(_mean(block), edge), 1 - edge) for block in blocks)
    return Isotonic(scores=tuple(block[0] for block in blocks), probabilities=tuple(probabilities))


def _mean(block: tuple[float, float, float]) -> float:
    return block[1] / block[2]


def _newton(columns: Floats, targets: Floats, start: Floats, *, penalty: float) -> Floats:
    """Logistic regression, `penalty` / 2 times the squared distance from the start added to the loss."""

    def loss(at: Floats) -> float:
        logits = columns @ at
        return float(np.sum(np.logaddexp(0, logits) - targets * logits) + penalty / 2 * np.sum((at - start) ** 2))

    here = start.astype(float)
    for _ in range(100):
        expected = 1 / (1 + np.exp(-np.clip(columns @ here, -700, 700)))
        gradient = columns.T @ (expected - targets) + penalty * (here - start)
        curvature = columns.T @ (columns * (expected * (1 - expected))[:, None]) + penalty * np.eye(len(here))
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-8 and loss(here - size * step) > loss(here):
            size /= 2
        here = here - size * step
        if float(np.abs(size * step).max()) < 1e-9:
            break
    return here


def figures(expected: Floats, right: Floats, *, ranks: Floats | None = None) -> dict[str, Metric]:
    """How well probabilities of being right fit the outcomes, with 95 % intervals.

    `ece`, the mean gap between expected and found shares over bins of equally many calls; `ece_if_calibrated`, the gap
    that chance alone makes at this n; `brier`; and `auroc`, by `ranks` if these are given.
    """
    n = len(right)
    if n == 0:
        return {name: Metric(None, 0, None) for name in ("ece", "ece_if_calibrated", "brier", "auroc")}
    random = np.random.default_rng(0)
    squares = (expected - right) ** 2
    drawn = random.integers(0, n, size=(RESAMPLES, n))
    eces = [ece(expected[rows], right[rows]) for rows in drawn]
    chance = [ece(expected, one) for one in (random.random((RESAMPLES, n)) < expected).astype(float)]
    return {
        "ece": Metric(ece(expected, right), n, middle95(np.array(eces))),
        "ece_if_calibrated": Metric(float(np.mean(chance)), n, middle95(np.array(chance))),
        "brier": Metric(float(squares.mean()), n, middle95(squares[drawn].mean(axis=1))),
        "auroc": auroc(expected if ranks is None else ranks, right),
    }


def ece(expected: Floats, right: Floats) -> float:
    """Expected calibration error, over the bins of `bin_numbers`."""
    gaps = np.bincount(bin_numbers(expected), weights=expected - right)
    return float(np.abs(gaps).sum() / len(right))


def bin_numbers(expected: Floats) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The bin of each call, the least sure ones' first: up to ten bins of equally many calls, ten at the least.

    Calls of the same probability are never parted, so that the order of the rows does not matter; a bin may be empty.
    """
    bins = min(BINS, max(1, len(expected) // CALLS_A_BIN))
    edges = np.sort(expected)[len(expected) * np.arange(1, bins) // bins]
    return np.searchsorted(edges, expected, side="right")


def auroc(ranks: Floats, right: Floats) -> Metric:
    """The probability that a right call ranks above a wrong one; None where there are no calls of one kind.

    The interval is Newcombe's (2006, method 5), which also holds where nothing was ranked wrongly.
    """
    good, bad = ranks[right == 1], ranks[right == 0]
    if len(good) == 0 or len(bad) == 0:
        return Metric(None, len(right), None)
    sorted_bad = np.sort(bad)
    below = np.searchsorted(sorted_bad, good, side="left")
    ties = np.searchsorted(sorted_bad, good, side="right") - below
    value = float((below + ties / 2).sum() / (len(good) * len(bad)))
    ends = [_newcombe(value, len(good), len(bad), outer) for outer in (0.0, 1.0)]
    return Metric(value, len(right), (ends[0], ends[1]))


def _newcombe(value: float, good: int, bad: int, outer: float) -> float:
    """The area between `value` and `outer` that lies 1.96 of its own standard errors from `value`."""

    def too_far(area: float) -> bool:
        pairs = (good + bad) / 2 - 1
        spread = 1 + pairs * (1 - area) / (2 - area) + pairs * area / (1 + area)
        return abs(area - value) > Z95 * math.sqrt(area * (1 - area) * spread / (good * bad))

    near, far = value, outer
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (near, middle) if too_far(middle) else (middle, far)
    return near
