"""Everything that a report says, as numbers; `page` and `report_text` write it down, and `to_json` is report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from .baselines import Standing, render_baselines, verdict
from .breakdown import ArgumentCounts, NoToolKind, attainable, bootstrap, no_tool_kinds, per_argument, tool_f1
from .curves import Curves, curves, probability
from .evaluation import Constrained, Evaluation, Scored, failure_json
from .faults import Difference, Pieces, by_fault, difference, fault, words
from .gates import Verdict
from .judging import PolicyReport, report_policy
from .leaks import Leaks
from .metrics import Metric, four_with_alternatives, percentile, with_declared_comparison

# Points of the risk–coverage curve that stand in a table, by the share of the calls that is acted on.
COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
ABOUT = {
    "valid_tool_call_rate": "outputs that parse and fit the catalogue",
    "tool_name_accuracy": "outputs with the gold tool, no_tool included",
    "argument_match_accuracy": "calls of the gold tool with equal arguments, of all valid outputs",
    "false_tool_call_rate": "calls where the gold is no_tool, of all rows",
    "exact_match": "whole decisions right",
    "exact_match_with_alternatives": "right by the target or by an alternative",
    "argument_match_on_calls": "equal arguments, where the gold tool is called",
    "false_call_rate_on_no_tool": "calls, where the gold is no_tool",
    "missed_call_rate": "no_tool, where the gold is a call",
    "wrong_call_rate": "calls that are not right, false calls included, of all rows",
    "parse_failure_rate": "outputs that did not parse",
}


@dataclass(frozen=True)
class Report:
    """An evaluation with all that belongs to it; the rest is computed from these, once and when it is asked for.

    `facts` says what was measured, and with what. `pieces` cuts a text into the model's tokens.
    """

    title: str
    facts: Mapping[str, str]
    evaluation: Evaluation
    standings: Sequence[Standing] = ()
    leaks: Leaks | None = None
    verdicts: Sequence[Verdict] = ()
    constrained: Constrained | None = None
    pieces: Pieces = field(default=words, repr=False)

    @cached_property
    def verdict(self) -> list[str]:
        """How the router stands beside the baselines, in words."""
        return verdict(self.standings)

    @property
    def beats_all(self) -> bool:
        """Whether every baseline that was measured is beaten."""
        measured = [standing for standing in self.standings if standing.measured]
        return bool(measured) and all(standing.beaten for standing in measured)

    @cached_property
    def best(self) -> dict[str, float | None]:
        """What a perfect router gets on these rows, by metric."""
        return attainable(self.evaluation.rows, self.evaluation.metrics)

    @cached_property
    def bootstrap(self) -> dict[str, tuple[float, float] | None]:
        """Bootstrap intervals of the two metrics whose denominator depends on the outputs."""
        return bootstrap(self.evaluation.rows)

    @cached_property
    def f1(self) -> dict[str, Metric]:
        """F1 by tool, and "macro"."""
        return tool_f1(self.evaluation.rows)

    @cached_property
    def arguments(self) -> list[ArgumentCounts]:
        return per_argument(self.evaluation.rows)

    @cached_property
    def no_tool_kinds(self) -> list[NoToolKind]:
        return no_tool_kinds(self.evaluation.rows)

    @cached_property
    def curves(self) -> Curves | None:
        """What is known of the calls' probabilities; None where nothing is."""
        return curves(self.evaluation.scored)

    @cached_property
    def policy(self) -> PolicyReport | None:
        """What the router's policy changes; None without one."""
        return report_policy(self.evaluation.scored)

    @cached_property
    def latencies(self) -> list[float]:
        """Milliseconds of the rows that were routed alone, sorted."""
        return sorted(one.latency_ms for one in self.evaluation.scored if one.latency_ms is not None)

    @cached_property
    def percentiles(self) -> dict[str, float]:
        """The latency's percentiles by nearest rank; empty where it was not measured."""
        times = self.latencies
        if not times:
            return {}
        ranks = {f"p{percent}": percentile(times, percent) for percent in (50, 90, 95, 99)}
        return {**ranks, "longest": times[-1]}

    @cached_property
    def beside(self) -> dict[str, dict[str, float | None]]:
        """Columns that stand beside the metrics: the same rows looked at otherwise."""
        rows = self.evaluation.rows
        found: dict[str, dict[str, float | None]] = {}
        if any(row.alternatives for row in rows):
            found["with alternatives"] = four_with_alternatives(rows)
        if (as_declared := with_declared_comparison(rows)) is not None:
            found["by declared comparison"] = as_declared
        if self.constrained is not None:
            found["constrained"] = {name: metric.value for name, metric in self.constrained.metrics.items()}
        clean = self.leaks.without(self.evaluation) if self.leaks is not None else None
        if clean is not None:
            left = len(self.evaluation.scored) - len(clean.scored)
            found[f"without the {left} listed as seen"] = {name: metric.value for name, metric in clean.metrics.items()}
        return found

    @cached_property
    def faults(self) -> dict[str, list[Scored]]:
        """The failed rows by their fault, the gravest first."""
        return by_fault(self.evaluation.scored)

    def difference(self, one: Scored) -> Difference | None:
        """The first wrong token of a row."""
        return difference(one, self.pieces)

    def render_baselines(self) -> str:
        """The baselines for a terminal."""
        return render_baselines(self.standings)

    def baselines_json(self) -> dict[str, Any]:
        """The baselines, and in words whether they are beaten."""
        return {"verdict": self.verdict, "standings": [standing.to_json() for standing in self.standings]}

    def to_json(self) -> dict[str, Any]:
        """What the report adds to the evaluation's JSON; `failures` takes the place of the evaluation's."""
        curve = self.curves
        return {
            "title": self.title,
            "facts": dict(self.facts),
            "baselines": self.baselines_json(),
            "attainable": self.best,
            "bootstrap_ci95": {name: None if ends is None else list(ends) for name, ends in self.bootstrap.items()},
            "f1": {tool: metric.to_json() for tool, metric in self.f1.items()},
            "per_argument": [counts.to_json() for counts in self.arguments],
            "no_tool_kinds": [kind.to_json() for kind in self.no_tool_kinds],
            "confidence": None if curve is None else _curves_json(curve),
            "latency_percentiles_ms": self.percentiles,
            "latencies_ms": self.latencies,
            "gates": [{"gate": one.name, "problem": one.problem} for one in self.verdicts],
            "failures": self._failures(),
        }

    def _failures(self) -> list[dict[str, Any]]:
        return [{**failure_json(one), **self._about(one)} for one in self.evaluation.failures]

    def _about(self, one: Scored) -> dict[str, Any]:
        found, decision = self.difference(one), one.decision
        return {
            "alternatives": [target.model_dump() for target in one.example.alternatives],
            "fault": fault(one),
            "detail": getattr(one.outcome, "detail", None),
            "probability": probability(one),
            "confidence": None if decision is None else decision.confidence,
            "p_right": one.p_right,
            "runner_up": None if decision is None else decision.runner_up,
            "weakest_argument": None if decision is None else decision.weakest_argument,
            "grounded": None if decision is None else decision.grounded,
            "first_wrong_token": None if found is None else asdict(found),
        }


def _curves_json(found: Curves) -> dict[str, Any]:
    risks = [{**asdict(point), "risk": point.risk.to_json()} for point in found.points]
    bins = [{**asdict(one), "rate": one.rate.to_json()} for one in found.bins]
    return {
        "source": found.source,
        "calls": found.calls,
        "judged": len(found.judged),
        "figures": {name: metric.to_json() for name, metric in found.figures.items()},
        "risk_coverage": risks,
        "reliability": bins,
    }
