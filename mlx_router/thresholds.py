"""What a threshold on confidence does to an evaluation's rows: `Router.route(…, threshold=…)`, without routing twice.

Decoding is greedy, so a call that is not withheld is the one that was made without a threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .confidence import HEAD
from .evaluation import Scored
from .judging import PolicyReport, report_policy
from .rendering import rate
from .tables import table


@dataclass(frozen=True)
class ThresholdReport:
    """Calls as the model makes them, and those that a threshold lets through.

    `unread` invalid outputs would not have been decoded far enough to be invalid. `found` is None without any call.
    """

    threshold: float
    found: PolicyReport | None
    unread: int

    @classmethod
    def of(cls, scored: Sequence[Scored], threshold: float) -> "ThresholdReport":
        """The report on rows that a router made without a threshold."""
        rows = [
            replace(one, action="abstain" if _withheld(one, threshold) else "act") if one.row.calls else one
            for one in scored
        ]
        unread = sum(not one.row.parsed and _names_tool(one) and _withheld(one, threshold) for one in scored)
        return cls(threshold, report_policy(rows), unread)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON; `actions` holds what is done with the calls."""
        found = self.found.to_json() if self.found is not None else {}
        return {"value": self.threshold, **found, "unread_invalid_outputs": self.unread}

    def render(self) -> str:
        """The report, to be read in a terminal."""
        if self.found is None:
            return f"threshold {self.threshold:g}: there are no calls"
        rows = [("", "all calls", "confident ones", "n")]
        for name, after in self.found.after.items():
            rows.append((name, rate(self.found.before[name].value), rate(after.value), str(after.n)))
        kept = [f"{metric.value:.3f} of {name}" for name, metric in self.found.costs if metric.value is not None]
        withheld = self.found.actions["abstain"]
        return (
            f"with a threshold of {self.threshold:g} on confidence:\n{table(rows, left=[0])}\n"
            f"withheld: {withheld} call{'' if withheld == 1 else 's'}; made: {', '.join(kept)}"
        )


def _names_tool(one: Scored) -> bool:
    """Whether an output has a tool's whole name, after which decoding may stop, and its probability is known."""
    names = (tool.name for tool in one.example.catalogue)
    return _confidence(one) is not None and any(one.output.startswith(f'{HEAD}{name}"') for name in names)


def _confidence(one: Scored) -> float | None:
    return one.decision.confidence if one.decision is not None else None


def _withheld(one: Scored, threshold: float) -> bool:
    """Whether a call is withheld; one of unknown confidence is, where there is a threshold at all."""
    confidence = _confidence(one)
    return threshold > 0 and (confidence is None or confidence < threshold)
