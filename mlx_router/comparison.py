"""Two runs over the same test rows: by how much each metric differs, and whether that is more than chance.

Rows are resampled in pairs, and every metric is computed anew from its sums over the rows. Whether a difference is
chance is asked of the rows in which the two runs differ: by McNemar's exact test where a metric is a share of the same
rows in both runs, and else by swapping the two outputs of rows at random, of which that test is a special case.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .calls import NoTool
from .metrics import COSTS, Z95, Row, measure
from .pairing import Pair, changes
from .resampling import chunks, middle95, row_counts

Verdict: TypeAlias = Literal["better", "worse", "can't tell"]
Numbers: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = Callable[[Row], bool]

RESAMPLES: Final = 5000
ALPHA: Final = 0.05
# Of a power of 80 %.
Z80: Final = 0.8416212335729143
# With fewer rows that differ, all in the same direction, McNemar's test can't reach 5 %: 2 / 2⁵ is more.
LEAST_CHANGES: Final = 6
# Up to so many rows all ways to swap are tried.
ENUMERATED: Final = 12

# A metric is the sum of the first over the rows, divided by the sum of the second.
SUMS: Final[dict[str, tuple[Counts, Counts]]] = {
    "valid_tool_call_rate": (lambda row: row.parsed, lambda row: True),
    "tool_name_accuracy": (lambda row: row.right_tool, lambda row: True),
    "argument_match_accuracy": (lambda row: row.arguments_match, lambda row: row.parsed),
    "false_tool_call_rate": (lambda row: row.calls and not row.wants_call, lambda row: True),
    "exact_match": (lambda row: row.right, lambda row: True),
    "exact_match_with_alternatives": (lambda row: row.right_or_alternative, lambda row: True),
    "argument_match_on_calls": (lambda row: row.arguments_match, lambda row: row.calls and row.right_tool),
    "false_call_rate_on_no_tool": (lambda row: row.calls and not row.wants_call, lambda row: not row.wants_call),
    "missed_call_rate": (lambda row: row.wants_call and isinstance(row.output, NoTool), lambda row: row.wants_call),
    "wrong_call_rate": (lambda row: row.calls and not row.right, lambda row: True),
    "parse_failure_rate": (lambda row: not row.parsed, lambda row: True),
}
# What these are shares of depends on the output, so that two runs have different rows in them.
RATIOS: Final = ("argument_match_accuracy", "argument_match_on_calls")
# The one metric that is 0 where there is nothing to divide by.
ZERO_WITHOUT_ROWS: Final = "argument_match_accuracy"


@dataclass(frozen=True)
class Difference:
    """One metric in both runs. What was not measured is None.

    `only_a` and `only_b` count the rows that the metric counts in that run alone; they are None for a metric that is no
    share of the same rows. `more_rows` is about how many more rows like these would show a difference like this one.
    """

    a: float | None
    b: float | None
    difference: float | None
    ci95: tuple[float, float] | None
    test: Literal["mcnemar", "swap"]
    p: float | None
    only_a: int | None
    only_b: int | None
    changed: int
    verdict: Verdict
    more_rows: int | None

    def to_json(self) -> dict[str, Any]:
        """The difference as JSON."""
        return {**vars(self), "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same rows."""

    pairs: tuple[Pair, ...]
    metrics: dict[str, Difference]

    @property
    def changes(self) -> list[Pair]:
        """The rows that came to something else, the gravest first."""
        return changes(self.pairs)

    def to_json(self) -> dict[str, Any]:
        """Everything as one JSON object."""
        return {
            "n": len(self.pairs),
            "metrics": {name: found.to_json() for name, found in self.metrics.items()},
            "changes": [pair.to_json() for pair in self.changes],
        }


def compare(pairs: Sequence[Pair], *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Measure both runs and every difference; the same pairs and seed give the same numbers."""
    rows_a, rows_b = [pair.a.row for pair in pairs], [pair.b.row for pair in pairs]
    values_a, values_b = measure(rows_a), measure(rows_b)
    sums = {name: (_sums(name, rows_a), _sums(name, rows_b)) for name in SUMS}
    draws = _bootstrap(sums, len(pairs), resamples, seed)
    metrics = {
        name: _difference(name, (values_a[name].value, values_b[name].value), sums[name], draws[name], seed)
        for name in values_a
    }
    return Comparison(tuple(pairs), metrics)


def _sums(name: str, rows: Sequence[Row]) -> Numbers:
    """What each row adds to the two sums of a metric: (2, rows)."""
    top, bottom = SUMS[name]
    return np.array([[top(row) for row in rows], [bottom(row) for row in rows]], dtype=np.float64)


def _ratio(name: str, sums: Numbers) -> Numbers:
    """The metric of many pairs of sums, (…, 2); NaN where there is nothing to divide by."""
    top, bottom = sums[..., 0], sums[..., 1]
    if name == ZERO_WITHOUT_ROWS:
        return np.asarray(top / np.maximum(1, bottom))
    with np.errstate(invalid="ignore"):
        return np.asarray(top / bottom)


def _bootstrap(sums: dict[str, tuple[Numbers, Numbers]], n: int, resamples: int, seed: int) -> dict[str, Numbers]:
    """The difference of each metric in each resample of the rows."""
    found: dict[str, list[Numbers]] = {name: [] for name in sums}
    for counts in row_counts(n, resamples, seed):
        for name, (a, b) in sums.items():
            found[name].append(_ratio(name, counts @ b.T) - _ratio(name, counts @ a.T))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _difference(
    name: str,
    values: tuple[float | None, float | None],
    sums: tuple[Numbers, Numbers],
    draws: Numbers,
    seed: int,
) -> Difference:
    a, b = values
    measured = draws[~np.isnan(draws)]
    difference = None if a is None or b is None else b - a
    only_a, only_b = (int((one[0] > other[0]).sum()) for one, other in (sums, sums[::-1]))
    changed = int((sums[0] != sums[1]).any(axis=0).sum())
    p = None
    if difference is not None:
        p = swap_test(name, *sums, seed=seed) if name in RATIOS else mcnemar(only_a, only_b)
    verdict = _verdict(name, difference, p)
    return Difference(
        a=a,
        b=b,
        difference=difference,
        ci95=None if difference is None else middle95(draws),
        test="swap" if name in RATIOS else "mcnemar",
        p=p,
        only_a=None if name in RATIOS else only_a,
        only_b=None if name in RATIOS else only_b,
        changed=changed,
        verdict=verdict,
        more_rows=_more_rows(difference, measured, sums[0].shape[1], changed) if verdict == "can't tell" else None,
    )


def _verdict(name: str, difference: float | None, p: float | None) -> Verdict:
    if not difference or p is None or p >= ALPHA:
        return "can't tell"
    return "better" if (difference < 0) == (name in COSTS) else "worse"


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test, two-sided: the p-value of so many rows in one run alone and in the other alone.

    Under chance each row that differs falls to either side like a coin (McNemar 1947; the binomial form).
    """
    n = only_a + only_b
    tail, ways = 0, 1
    for k in range(min(only_a, only_b) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    # As integers: 2ⁿ is no float for more than a thousand rows.
    return min(1.0, (2 * tail) / (1 << n))


def swap_test(name: str, a: Numbers, b: Numbers, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """The p-value of a difference where a row's two outputs might as well have been swapped (Fisher's randomisation).

    `a` and `b` are what the rows add to the metric's two sums. Up to twelve rows that differ are swapped in all ways.
    """
    moved = (b - a)[:, (a != b).any(axis=0)]
    observed = abs(_swapped(name, a, b, moved, np.zeros((1, moved.shape[1])))[0])
    hits = total = 0
    for swaps in _swaps(moved.shape[1], resamples, np.random.default_rng(seed)):
        # A hair of tolerance: the same difference summed in another order must count as the same.
        hits += int((np.abs(_swapped(name, a, b, moved, swaps)) >= observed - 1e-12).sum())
        total += len(swaps)
    # Drawn at random, the rows as they are count as one more draw, so that no p-value is 0.
    return hits / total if moved.shape[1] <= ENUMERATED else (hits + 1) / (total + 1)


def _swaps(rows: int, resamples: int, generator: np.random.Generator) -> Iterator[Numbers]:
    """Which rows are swapped, 1 or 0, in all ways or at random: (ways, rows)."""
    if rows <= ENUMERATED:
        yield ((np.arange(1 << rows)[:, None] >> np.arange(rows)) & 1).astype(np.float64)
        return
    for size in chunks(resamples):
        yield generator.integers(2, size=(size, rows)).astype(np.float64)


def _swapped(name: str, a: Numbers, b: Numbers, moved: Numbers, swaps: Numbers) -> Numbers:
    """The difference with rows swapped; a swapped row takes what it moved from B's sums to A's."""
    shift = swaps @ moved.T
    return np.asarray(_ratio(name, b.sum(axis=1) - shift) - _ratio(name, a.sum(axis=1) + shift))


def _more_rows(difference: float | None, draws: Numbers, n: int, changed: int) -> int | None:
    """About how many more rows, if they go on like these, give four chances in five to tell; None if none would.

    The usual size for a test at 5 % with a power of 80 %, from the bootstrap's spread.
    """
    if not difference or not len(draws):
        return None
    needed = n * ((Z95 + Z80) * float(draws.std()) / difference) ** 2
    return max(1, math.ceil(max(needed, LEAST_CHANGES * n / changed)) - n)
