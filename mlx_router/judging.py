"""What calibration and policy are worth on measured rows: how well P(right) fits, and what acting by it changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .calibration import figures
from .evaluation import CALL_ACTIONS, Scored
from .metrics import Metric, share
from .rendering import interval, rate
from .tables import table


@dataclass(frozen=True)
class PolicyReport:
    """Wrong and false calls as the model makes them and as they are acted on, and what that costs."""

    before: dict[str, Metric]
    after: dict[str, Metric]
    coverage: dict[str, Metric]
    actions: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON."""
        parts = {"before": self.before, "after": self.after, "coverage": self.coverage}
        found: dict[str, Any] = {
            part: {name: metric.to_json() for name, metric in metrics.items()} for part, metrics in parts.items()
        }
        return found | {"actions": self.actions}

    @property
    def costs(self) -> list[tuple[str, Metric]]:
        """What part of the calls is still acted on, in words."""
        return [
            ("all valid calls", self.coverage["calls_acted_on"]),
            ("the right ones", self.coverage["right_calls_acted_on"]),
        ]


def report_policy(scored: Sequence[Scored]) -> PolicyReport | None:
    """What a policy changes on these rows; None where no call was made under one."""
    calls = [one for one in scored if one.row.calls and one.action is not None]
    if not calls:
        return None
    acted = [one for one in calls if one.action == "act"]
    right = sum(one.row.right for one in calls)
    return PolicyReport(
        before=_wrong(calls, scored),
        after=_wrong(acted, scored),
        coverage={
            "calls_acted_on": share(len(acted), len(calls)),
            "right_calls_acted_on": share(sum(one.row.right for one in acted), right),
            "right_when_acted_on": share(sum(one.row.right for one in acted), len(acted)),
        },
        actions={action: sum(one.action == action for one in calls) for action in CALL_ACTIONS},
    )


def _wrong(calls: Sequence[Scored], rows: Sequence[Scored]) -> dict[str, Metric]:
    """Wrong and false calls among these, as the metrics of the same names count them over all rows."""
    false = sum(not one.row.wants_call for one in calls)
    return {
        "wrong_call_rate": share(sum(not one.row.right for one in calls), len(rows)),
        "false_tool_call_rate": share(false, len(rows)),
        "false_call_rate_on_no_tool": share(false, sum(not one.row.wants_call for one in rows)),
    }


def judged_figures(scored: Sequence[Scored]) -> dict[str, Metric] | None:
    """How well P(right) fits these rows' calls; None where no call has one."""
    calls = [(one.p_right, one.row.right) for one in scored if one.row.calls and one.p_right is not None]
    if not calls:
        return None
    return figures(np.array([p for p, _ in calls], dtype=float), np.array([right for _, right in calls], dtype=float))


@dataclass(frozen=True)
class Judgement:
    """What calibration and policy are worth on measured rows; None where no call had a P(right), or an action."""

    figures: dict[str, Metric] | None
    policy: PolicyReport | None

    @classmethod
    def of(cls, scored: Sequence[Scored]) -> "Judgement":
        """The same of these rows."""
        return cls(judged_figures(scored), report_policy(scored))

    def to_json(self) -> dict[str, Any]:
        """Both as JSON."""
        found = self.figures
        return {
            "calibration": None if found is None else {name: metric.to_json() for name, metric in found.items()},
            "policy": None if self.policy is None else self.policy.to_json(),
        }

    def render(self) -> str:
        """Both, to be read in a terminal."""
        parts = []
        if (report := self.policy) is not None:
            head = ("under the policy", "all calls", "acted on", "95 % interval", "n")
            lines = [
                (name, rate(report.before[name].value), rate(metric.value), interval(metric.ci95), str(metric.n))
                for name, metric in report.after.items()
            ]
            kept = [f"{metric.value:.3f} of {name}" for name, metric in report.costs if metric.value is not None]
            actions = ", ".join(f"{action} {count}" for action, count in report.actions.items())
            parts.append("\n".join([table([head, *lines], left=[0]), f"acted on: {', '.join(kept)} ({actions})"]))
        if (found := self.figures) is not None:
            shown = [f"{name} {rate(metric.value)} ({interval(metric.ci95)})" for name, metric in found.items()]
            parts.append(f"P(right) of {found['brier'].n} valid calls: {', '.join(shown)}")
        return "\n\n".join(parts)
