"""Evaluation: the router that ships, over examples, to outcomes and numbers; and the same from anybody's outputs."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .calls import Decision, Failure, Outcome, ParseFailure
from .catalogue import Catalogue
from .data import SHOWN_ERRORS, Example, Reader
from .data import rows as raw_rows
from .errors import CatalogueError, DataError, RequestError
from .metrics import (
    Metrics,
    Row,
    by_group,
    confusion,
    failures_by_reason,
    four_with_alternatives,
    measure,
    per_tool,
    reason_agreement,
)
from .parsing import parse
from .router import Router


@dataclass(frozen=True)
class Scored:
    """One row of an evaluation: the example, the raw output, what it parses to, and how long it took."""

    example: Example
    output: str
    outcome: Outcome
    latency_ms: float | None = None

    @property
    def row(self) -> Row:
        return Row(self.example.target, self.outcome, self.example.alternatives)

    def prediction(self) -> dict[str, Any]:
        """The row as the predictions file holds it; metrics can be computed again from it without a model."""
        example = self.example
        found: dict[str, Any] = {} if example.id is None else {"id": example.id}
        found |= {"request": example.request, "target": _plain(example.target)}
        if example.alternatives:
            found["alternatives"] = [_plain(target) for target in example.alternatives]
        if example.kind is not None:
            found["kind"] = example.kind
        found["tools"] = example.catalogue.to_json()["tools"]
        return {**found, "output": self.output, "finished": not _truncated(self.outcome)}


def evaluate(
    router: Router, examples: Sequence[Example], progress: Callable[[int], None] | None = None
) -> list[Scored]:
    """Route every example against its own catalogue; `progress` is called with the number done.

    A request that the router refuses, one too long for the model, counts as a parse failure.
    """
    scored = []
    for number, example in enumerate(examples, start=1):
        try:
            decision = router.route_example(example)
        except RequestError as error:
            scored.append(Scored(example, "", ParseFailure(Failure.REFUSED, error.message)))
        else:
            scored.append(Scored(example, decision.raw, decision.outcome, _latency(decision)))
        if progress is not None:
            progress(number)
    return scored


def read_predictions(path: Path, default: Catalogue | None = None) -> list[Scored]:
    """Anybody's outputs: one `{"request", "target", "alternatives"?, "tools"?, "output"}` a line.

    A row's catalogue is its `tools` or `catalogue`, else `default`. Raises `DataError` naming the rows at fault.
    """
    reader = Reader(path.parent, default)
    scored: list[Scored] = []
    problems: list[str] = []
    for where, row in raw_rows(path):
        if not isinstance(row, dict) or not isinstance(row.get("output"), str):
            problems.append(f"{where}: a prediction needs an output that is text")
            continue
        try:
            example = reader.example(row, where)
        except (DataError, CatalogueError) as error:
            problems.append(f"{where}: {error.message}")
            continue
        scored.append(Scored(example, row["output"], _parsed(row, example.catalogue)))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems[:SHOWN_ERRORS])
        raise DataError(f"{len(problems)} prediction(s) can't be scored:\n{lines}")
    if not scored:
        raise DataError(f"{path} has no predictions")
    return scored


def write_predictions(scored: Sequence[Scored], path: Path) -> None:
    """Write predictions as JSONL; the file appears whole or not at all."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        for one in scored:
            file.write(json.dumps(one.prediction(), ensure_ascii=False) + "\n")
    aside.replace(path)


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one evaluation, and the rows they were computed from."""

    scored: tuple[Scored, ...]
    metrics: Metrics

    @classmethod
    def of(cls, scored: Sequence[Scored]) -> "Evaluation":
        """Measure scored rows. Raises `DataError` for no rows."""
        return cls(tuple(scored), measure([one.row for one in scored]))

    @property
    def rows(self) -> list[Row]:
        return [one.row for one in self.scored]

    @property
    def failures(self) -> list[Scored]:
        """Rows whose whole decision is not the gold one."""
        return [one for one in self.scored if not one.row.right]

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        templates = sum(one.example.template for one in self.scored)
        if not templates:
            return []
        return [
            f"{templates} of {len(self.scored)} rows were made from templates: "
            "a test of such rows proves little; write requests in your users' words"
        ]

    def latency_ms(self) -> dict[str, float | None]:
        """Median and 95th percentile of the time a decision took, in milliseconds; None where it was not measured."""
        times = [one.latency_ms for one in self.scored if one.latency_ms is not None]
        if not times:
            return {"p50": None, "p95": None}
        ordered = sorted(times)
        return {"p50": statistics.median(ordered), "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]}

    def to_json(self) -> dict[str, Any]:
        """Everything as one JSON object."""
        rows = self.rows
        kinds = by_group(rows, [one.example.kind for one in self.scored])
        return {
            "n": len(rows),
            "metrics": _json(self.metrics),
            "with_alternatives": four_with_alternatives(rows),
            "latency_ms": self.latency_ms(),
            "parse_failures": failures_by_reason(rows),
            "reasons": _json(reason_agreement(rows)),
            "per_tool": {tool: _json(found) for tool, found in per_tool(rows).items()},
            "per_kind": {kind: _json(found) for kind, found in kinds.items()},
            "confusion": confusion(rows),
            "notes": self.notes,
            "failures": [_failure(one) for one in self.failures],
        }


def _json(metrics: Metrics) -> dict[str, Any]:
    return {name: metric.to_json() for name, metric in metrics.items()}


def _failure(one: Scored) -> dict[str, Any]:
    reason = str(one.outcome.reason) if isinstance(one.outcome, ParseFailure) else None
    return {
        "where": one.example.where,
        "id": one.example.id,
        "kind": one.example.kind,
        "request": one.example.request,
        "gold": _plain(one.example.target),
        "output": one.output,
        "parse_failure": reason,
        "is_alternative": one.row.right_or_alternative,
    }


def _parsed(row: dict[str, Any], catalogue: Catalogue) -> Outcome:
    if row.get("finished") is False:
        return ParseFailure(Failure.TRUNCATED, "the answer had not ended at max_tokens")
    return parse(row["output"], catalogue)


def _truncated(outcome: Outcome) -> bool:
    return isinstance(outcome, ParseFailure) and outcome.reason is Failure.TRUNCATED


def _plain(target: Any) -> dict[str, Any]:
    found: dict[str, Any] = target.model_dump()
    return found


def _latency(decision: Decision) -> float | None:
    return None if decision.timings is None else decision.timings.total_ms
