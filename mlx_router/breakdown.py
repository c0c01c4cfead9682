"""Finer counts of an evaluation: what each metric could be at best, per argument, per kind of `no_tool`, F1."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .calls import NoTool, ParseFailure, ToolCall
from .metrics import COSTS, Metric, Metrics, Row, json_equal, share
from .resampling import Floats, middle95, row_counts

RESAMPLES: Final = 2000


def attainable(rows: Sequence[Row], metrics: Metrics) -> dict[str, float | None]:
    """The best value of each metric that a perfect router gets on these rows; None where no row could measure it."""
    calls = sum(row.wants_call for row in rows)
    measurable = {
        "argument_match_on_calls": calls > 0,
        "missed_call_rate": calls > 0,
        "false_call_rate_on_no_tool": calls < len(rows),
    }
    best: dict[str, float | None] = {}
    for name, metric in metrics.items():
        highest = 0.0 if name in COSTS else 1.0 if metric.max is None else metric.max
        best[name] = highest if measurable.get(name, True) else None
    return best


@dataclass(frozen=True)
class ArgumentCounts:
    """One parameter of one tool, over the rows whose tool was rightly called and in which either side has a value."""

    tool: str
    name: str
    equal: int
    different: int
    left_out: int
    added: int

    @property
    def rate(self) -> Metric:
        """How often the value is the gold one."""
        return share(self.equal, self.equal + self.different + self.left_out + self.added)

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {**vars(self), "rate": self.rate.to_json()}


def per_argument(rows: Sequence[Row]) -> list[ArgumentCounts]:
    """Every parameter that occurs, by tool and name."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if isinstance(row.gold, ToolCall) and isinstance(row.output, ToolCall) and row.right_tool:
            gold, said = row.gold.arguments, row.output.arguments
            for name in gold.keys() | said.keys():
                counts.setdefault((row.gold.tool, name), Counter())[_compared(gold, said, name)] += 1
    kinds = ("equal", "different", "left_out", "added")
    return [ArgumentCounts(tool, name, *(counts[tool, name][kind] for kind in kinds)) for tool, name in sorted(counts)]


def _compared(gold: dict[str, Any], said: dict[str, Any], name: str) -> str:
    if name not in gold:
        return "added"
    if name not in said:
        return "left_out"
    return "equal" if json_equal(gold[name], said[name]) else "different"


@dataclass(frozen=True)
class NoToolKind:
    """Rows whose gold is `no_tool` for one reason: what came of them, and which tools were called instead."""

    code: str
    n: int
    right: int
    invalid: int
    called: dict[str, int]

    @property
    def false_calls(self) -> int:
        return sum(self.called.values())

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON."""
        rates = {"right_rate": share(self.right, self.n), "false_call_rate": share(self.false_calls, self.n)}
        return {**vars(self), **{name: metric.to_json() for name, metric in rates.items()}}


def no_tool_kinds(rows: Sequence[Row]) -> list[NoToolKind]:
    """The rows whose gold is `no_tool` by the code of their reason, the most frequent first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if isinstance(row.gold, NoTool):
            groups.setdefault(row.gold.code, []).append(row)
    return [_kind(code, groups[code]) for code in sorted(groups, key=lambda code: (-len(groups[code]), code))]


def _kind(code: str, rows: Sequence[Row]) -> NoToolKind:
    called = Counter(row.output.tool for row in rows if isinstance(row.output, ToolCall))
    invalid = sum(isinstance(row.output, ParseFailure) for row in rows)
    return NoToolKind(code, len(rows), sum(row.right for row in rows), invalid, dict(called.most_common()))


def tool_f1(rows: Sequence[Row]) -> dict[str, Metric]:
    """F1 of every gold tool, `no_tool` included, and their mean as "macro"; the intervals are the bootstrap's."""
    tools = sorted({row.gold.tool for row in rows})
    sums = np.array([[_hits(row, tool) for tool in tools] for row in rows], dtype=np.float64)
    drawn = _resampled(sums.reshape(len(rows), -1)).reshape(RESAMPLES, len(tools), 3)
    values, draws = _f1(sums.sum(axis=0)), _f1(drawn)
    found = {
        tool: Metric(float(values[at]), int(sums[:, at, 1].sum()), middle95(draws[:, at]))
        for at, tool in enumerate(tools)
    }
    return {"macro": Metric(float(values.mean()), len(rows), middle95(np.nanmean(draws, axis=1))), **found}


def _hits(row: Row, tool: str) -> tuple[bool, bool, bool]:
    """Whether the tool was rightly said, wanted, said."""
    said = not isinstance(row.output, ParseFailure) and row.output.tool == tool
    wanted = row.gold.tool == tool
    return said and wanted, wanted, said


def _f1(sums: Floats) -> Floats:
    """F1 from counts of rightly said, wanted, said; NaN for a tool that a resample lacks altogether."""
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * sums[..., 0] / (sums[..., 1] + sums[..., 2]))


def bootstrap(rows: Sequence[Row]) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of the two metrics whose denominator depends on the outputs, by resampling the rows."""
    top = [row.arguments_match for row in rows]
    bottoms = {"argument_match_accuracy": [row.parsed for row in rows]}
    bottoms["argument_match_on_calls"] = [row.calls and row.right_tool for row in rows]
    found: dict[str, tuple[float, float] | None] = {}
    for name, bottom in bottoms.items():
        drawn = _resampled(np.array([top, bottom], dtype=np.float64).T)
        with np.errstate(invalid="ignore"):
            found[name] = middle95(drawn[:, 0] / drawn[:, 1])
    return found


def _resampled(values: Floats) -> Floats:
    """The sums of the columns in resamples of the rows: (resamples, columns). The same rows give the same draws."""
    return np.concatenate([counts @ values for counts in row_counts(len(values), RESAMPLES)])
