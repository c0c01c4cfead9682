"""The four metrics of a router and their company: pure functions of gold targets and parsed outputs.

For n rows: `valid_tool_call_rate` = parsed outputs / n; `tool_name_accuracy` = outputs with the gold tool / n;
`argument_match_accuracy` = real calls with the gold tool and equal arguments / max(1, parsed outputs);
`false_tool_call_rate` = rows whose gold is `no_tool` and whose output is a valid real call / n.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .calls import NoTool, Outcome, ParseFailure, Target, ToolCall
from .errors import DataError
from .matching import Comparisons, same_arguments
from .matching import json_equal as json_equal

FOUR = ("valid_tool_call_rate", "tool_name_accuracy", "argument_match_accuracy", "false_tool_call_rate")
# What is shown by declared comparison: whatever depends on when arguments count as equal.
BY_COMPARISON = (*FOUR, "exact_match", "argument_match_on_calls", "wrong_call_rate")
# Of these a lower value is better.
COSTS = (
    "false_tool_call_rate",
    "false_call_rate_on_no_tool",
    "missed_call_rate",
    "wrong_call_rate",
    "parse_failure_rate",
)
Z95 = 1.959963984540054
# What a confusion calls an output that did not parse.
INVALID = "(invalid)"


@dataclass(frozen=True)
class Row:
    """One scored row: what was right, what came out, what else would have been right, and declared comparisons."""

    gold: Target
    output: Outcome
    alternatives: tuple[Target, ...] = ()
    comparisons: Comparisons = field(default_factory=dict)

    @property
    def parsed(self) -> bool:
        return not isinstance(self.output, ParseFailure)

    @property
    def calls(self) -> bool:
        """Whether the output is a valid call of a real tool."""
        return isinstance(self.output, ToolCall)

    @property
    def wants_call(self) -> bool:
        return isinstance(self.gold, ToolCall)

    @property
    def right_tool(self) -> bool:
        return not isinstance(self.output, ParseFailure) and self.output.tool == self.gold.tool

    @property
    def arguments_match(self) -> bool:
        """Whether the output is a real call of the gold tool with equal arguments."""
        return isinstance(self.output, ToolCall) and same_decision(self.output, self.gold)

    @property
    def right(self) -> bool:
        """Whether the whole decision is the gold one; reasons are not compared."""
        return same_decision(self.output, self.gold)

    @property
    def right_or_alternative(self) -> bool:
        return any(same_decision(self.output, target) for target in (self.gold, *self.alternatives))

    @property
    def arguments_match_as_declared(self) -> bool:
        """Whether the output is a real call of the gold tool with arguments that equal the gold ones as declared."""
        return isinstance(self.output, ToolCall) and same_as_declared(self.output, self.gold, self.comparisons)

    @property
    def right_as_declared(self) -> bool:
        """Whether the output equals, as declared, the gold target or an alternative."""
        return any(
            same_as_declared(self.output, target, self.comparisons) for target in (self.gold, *self.alternatives)
        )


@dataclass(frozen=True)
class Metric:
    """A rate. `value` is None where nothing was measured, `ci95` where n is 0; `max` is the highest attainable."""

    value: float | None
    n: int
    ci95: tuple[float, float] | None
    max: float | None = None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"value": self.value, "n": self.n, "ci95": list(self.ci95) if self.ci95 else None}
        return found if self.max is None else {**found, "max": self.max}


Metrics: TypeAlias = dict[str, Metric]


def same_decision(output: Outcome, target: Target) -> bool:
    """Whether an output is this decision: both `no_tool`, or the same tool with equal arguments."""
    if isinstance(output, ToolCall) and isinstance(target, ToolCall):
        return output.tool == target.tool and json_equal(output.arguments, target.arguments)
    return isinstance(output, NoTool) and isinstance(target, NoTool)


def same_as_declared(output: Outcome, target: Target, comparisons: Comparisons) -> bool:
    """Whether an output is this decision where arguments are compared by the rules that their tool declares."""
    if isinstance(output, ToolCall) and isinstance(target, ToolCall) and output.tool == target.tool:
        return same_arguments(comparisons.get(target.tool, {}), target.arguments, output.arguments)
    return same_decision(output, target)


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float] | None:
    """Wilson's score interval of a proportion (Wilson 1927); None for n = 0."""
    if n == 0:
        return None
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    # At the ends the bound is exact; rounding must not leave it a hair inside.
    return (0.0 if successes == 0 else low, 1.0 if successes == n else high)


def measure(rows: Sequence[Row]) -> Metrics:
    """The four metrics and their company. Raises `DataError` for no rows."""
    if not rows:
        raise DataError("there are no rows to measure")
    n = len(rows)
    parsed = sum(row.parsed for row in rows)
    wants_call = sum(row.wants_call for row in rows)
    routed = [row for row in rows if row.calls and row.right_tool]
    negatives = [row for row in rows if not row.wants_call]
    matches = sum(row.arguments_match for row in rows)
    false_calls = sum(row.calls for row in negatives)
    missed = sum(isinstance(row.output, NoTool) for row in rows if row.wants_call)
    return {
        "valid_tool_call_rate": share(parsed, n),
        "tool_name_accuracy": share(sum(row.right_tool for row in rows), n),
        "argument_match_accuracy": Metric(
            matches / max(1, parsed), parsed, wilson(matches, parsed), max=wants_call / n
        ),
        "false_tool_call_rate": share(false_calls, n),
        "exact_match": share(sum(row.right for row in rows), n),
        "exact_match_with_alternatives": share(sum(row.right_or_alternative for row in rows), n),
        "argument_match_on_calls": share(matches, len(routed)),
        "false_call_rate_on_no_tool": share(false_calls, len(negatives)),
        "missed_call_rate": share(missed, wants_call),
        "wrong_call_rate": share(sum(row.calls and not row.right for row in rows), n),
        "parse_failure_rate": share(n - parsed, n),
    }


def share(count: int, n: int) -> Metric:
    """A count among n as a rate with its interval; None of nothing."""
    return Metric(count / n if n else None, n, wilson(count, n))


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of sorted values: the least that so many per cent of them do not exceed."""
    return ordered[-(-percent * len(ordered) // 100) - 1]


def four_with_alternatives(rows: Sequence[Row]) -> dict[str, float | None]:
    """The four metrics where any of a row's acceptable targets may stand for its gold one.

    The target that the output comes nearest to is taken: the one it equals, else one with its tool, else the gold.
    """
    nearest = [Row(_nearest(row), row.output) for row in rows]
    return {name: measure(nearest)[name].value for name in FOUR}


def with_declared_comparison(rows: Sequence[Row]) -> dict[str, float | None] | None:
    """What depends on the equality of arguments, by declared comparison; None where no row's catalogue declares any.

    Alternatives count as well: an output is right that equals, as declared, the gold target or one of them.
    """
    if not any(row.comparisons for row in rows):
        return None
    found = measure([_as_declared(row) for row in rows])
    return {name: found[name].value for name in BY_COMPARISON}


def _as_declared(row: Row) -> Row:
    """The row with the nearest target for gold; the output itself where it is right as declared."""
    if not isinstance(row.output, ParseFailure) and row.right_as_declared:
        return Row(row.output, row.output)
    return Row(_nearest(row), row.output)


def _nearest(row: Row) -> Target:
    targets = (row.gold, *row.alternatives)
    same = [target for target in targets if same_decision(row.output, target)]
    tool = None if isinstance(row.output, ParseFailure) else row.output.tool
    return next(iter([*same, *(target for target in targets if target.tool == tool), row.gold]))


def failures_by_reason(rows: Sequence[Row]) -> dict[str, int]:
    """How many outputs could not be used, by the parser's reason."""
    return dict(Counter(str(row.output.reason) for row in rows if isinstance(row.output, ParseFailure)).most_common())


def reason_agreement(rows: Sequence[Row]) -> dict[str, Metric]:
    """Among rows rightly left without a call: how often the reason's code, and the missing parameters, agree."""
    pairs = [(row.gold, row.output) for row in rows if isinstance(row.gold, NoTool) and isinstance(row.output, NoTool)]
    missing = [(gold, output) for gold, output in pairs if gold.missing]
    return {
        "reason_code_agreement": share(sum(gold.code == output.code for gold, output in pairs), len(pairs)),
        "missing_agreement": share(
            sum(set(gold.missing) == set(output.missing) for gold, output in missing), len(missing)
        ),
    }


def confusion(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Counts by gold tool and then by output: a tool, `no_tool`, or `INVALID`."""
    table: dict[str, Counter[str]] = {}
    for row in rows:
        output = INVALID if isinstance(row.output, ParseFailure) else row.output.tool
        table.setdefault(row.gold.tool, Counter())[output] += 1
    return {gold: dict(table[gold].most_common()) for gold in sorted(table)}


def per_tool(rows: Sequence[Row]) -> dict[str, dict[str, Metric]]:
    """For each gold tool, `no_tool` included: recall of the tool, and whole decisions right; precision of its calls."""
    table = {}
    for tool in sorted({row.gold.tool for row in rows}):
        gold = [row for row in rows if row.gold.tool == tool]
        said = [row for row in rows if not isinstance(row.output, ParseFailure) and row.output.tool == tool]
        table[tool] = {
            "recall": share(sum(row.right_tool for row in gold), len(gold)),
            "precision": share(sum(row.right_tool for row in said), len(said)),
            "exact_match": share(sum(row.right for row in gold), len(gold)),
        }
    return table


def by_group(rows: Sequence[Row], groups: Sequence[str | None]) -> dict[str, dict[str, Metric]]:
    """Whole decisions right and wrong calls by a label of the rows (their kind, say); unlabelled rows are left out."""
    table = {}
    for group in sorted({group for group in groups if group is not None}):
        members = [row for row, label in zip(rows, groups, strict=True) if label == group]
        table[group] = {
            "exact_match": share(sum(row.right for row in members), len(members)),
            "wrong_call_rate": share(sum(row.calls and not row.right for row in members), len(members)),
        }
    return table


@dataclass(frozen=True)
class Gate:
    """A limit on one metric: at least `limit`, or at most for a cost."""

    metric: str
    limit: float

    def verdict(self, metrics: Mapping[str, Metric]) -> str | None:
        """What is missed, in words; None if the gate is met. What was not measured does not pass."""
        value = metrics[self.metric].value
        cost = self.metric in COSTS
        wanted = f"it must be at {'most' if cost else 'least'} {self.limit}"
        if value is None:
            return f"{self.metric} was not measured; {wanted}"
        met = value <= self.limit if cost else value >= self.limit
        return None if met else f"{self.metric} is {value:.4f}; {wanted}"
