"""Evaluation: the router that ships, over examples, to outcomes and numbers; and the same from anybody's outputs."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from .calls import Abstention, Decision, Failure, Mode, Outcome, ParseFailure, ToolCall
from .catalogue import Catalogue
from .data import SHOWN_ERRORS, Example, Reader, RowError
from .data import rows as raw_rows
from .errors import DataError, RequestError, RouterError
from .metrics import (
    Metric,
    Metrics,
    Row,
    by_group,
    confusion,
    failures_by_reason,
    four_with_alternatives,
    measure,
    per_tool,
    percentile,
    reason_agreement,
    share,
    with_declared_comparison,
)
from .parsing import parse
from .ranks import ALONE, Ranks
from .router import Router

NOT_GIVEN = "(not given)"
# So many rows are routed alone, for the latency that a user sees; the rest in batches.
LATENCY_ROWS = 50
# What a policy says of valid calls.
CALL_ACTIONS = ("act", "confirm", "abstain")
# Decisions as ranks pass them on; a request that was refused is the message of its error.
PASSED = TypeAdapter(list[Decision | str])


@dataclass(frozen=True)
class Scored:
    """One row of an evaluation: the example, the raw output, what it parses to, and how long it took.

    `latency_ms` is None for a row of a batch; `overridden` is a constrained decision's. `p_right` and `action` are a
    calibrated router's, for a valid call; `decision` is there where a router made it. `shortlist` names the tools that
    the model was shown, None where these were all.
    """

    example: Example
    output: str
    outcome: Outcome
    latency_ms: float | None = None
    overridden: float | None = None
    p_right: float | None = None
    action: str | None = None
    decision: Decision | None = None
    shortlist: tuple[str, ...] | None = None

    @property
    def row(self) -> Row:
        example = self.example
        return Row(example.target, self.outcome, example.alternatives, example.catalogue.comparisons)

    def prediction(self) -> dict[str, Any]:
        """The row as the predictions file holds it; metrics can be computed again from it without a model."""
        example = self.example
        found: dict[str, Any] = {} if example.id is None else {"id": example.id}
        found |= {"request": example.request, "target": _plain(example.target)}
        if example.alternatives:
            found["alternatives"] = [_plain(target) for target in example.alternatives]
        if example.kind is not None:
            found["kind"] = example.kind
        if example.template:
            found["template"] = True
        found["tools"] = example.catalogue.to_json()["tools"]
        found |= {"output": self.output, "finished": not _failed(self.outcome, Failure.TRUNCATED)}
        if self.shortlist is not None:
            found["shortlist"] = list(self.shortlist)
        if self.p_right is not None:
            found["p_right"] = self.p_right
        if self.action is not None:
            found["action"] = self.action
        return found | {"refused": True} if _failed(self.outcome, Failure.REFUSED) else found


def evaluate(
    router: Router,
    examples: Sequence[Example],
    progress: Callable[[int], None] | None = None,
    *,
    mode: Mode | None = None,
    alone: int = LATENCY_ROWS,
    ranks: Ranks = ALONE,
) -> list[Scored]:
    """Route every example against its own catalogue; `progress` is called with the number done.

    The first rows are routed `alone` and give the latency, the rest in batches, which give the same decisions. A
    request that the router refuses, one too long for the model, counts as a parse failure. Of several ranks each
    routes its share, and all get the outcomes of all rows.
    """

    def tell(done: int) -> None:
        if progress is not None:
            progress(min(done * ranks.size, len(examples)))

    single: list[Decision | RequestError] = []
    for example in ranks.share(examples[:alone]):
        try:
            single.append(router.route_example(example, mode=mode))
        except RequestError as error:
            single.append(error)
        tell(len(single))
    rest = ranks.share(examples[alone:])
    more = router.route_examples(rest, mode=mode, progress=lambda done: tell(len(single) + done))
    decisions = [*_of_all(ranks, single), *_of_all(ranks, more)]
    return [_scored(example, decision) for example, decision in zip(examples, decisions, strict=True)]


def _of_all(ranks: Ranks, own: Sequence[Decision | RequestError]) -> list[Decision | RequestError]:
    """The decisions of all ranks, from each rank's own; without the values that only Python can hold."""
    if ranks.size == 1:
        return list(own)
    shares = [PASSED.validate_json(data) for data in ranks.gather(_plain_decisions(own))]
    return [RequestError(one) if isinstance(one, str) else one for one in ranks.merge(shares)]


def _plain_decisions(decisions: Sequence[Decision | RequestError]) -> bytes:
    return PASSED.dump_json(
        [one.message if isinstance(one, RequestError) else replace(one, typed_arguments=None) for one in decisions]
    )


def _scored(example: Example, decision: Decision | RequestError) -> Scored:
    if isinstance(decision, RequestError):
        return Scored(example, "", ParseFailure(Failure.REFUSED, decision.message))
    outcome = decision.outcome
    assert not isinstance(outcome, Abstention), "rows are routed without a threshold"
    action = decision.action if isinstance(outcome, ToolCall) else None
    return Scored(
        example,
        decision.raw,
        outcome,
        _latency(decision),
        decision.overridden,
        p_right=decision.p_right,
        action=action,
        decision=decision,
        shortlist=decision.shortlist,
    )


def read_predictions(path: Path, default: Catalogue | None = None) -> list[Scored]:
    """Anybody's outputs: one `{"request"?, "target", "alternatives"?, "tools"?, "output"}` a line.

    A row's catalogue is its `tools` or `catalogue`, else `default`. Raises `DataError` naming the rows at fault.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    reader = Reader(path.parent, default)
    scored: list[Scored] = []
    problems: list[str] = []
    for where, row in raw_rows(path):
        try:
            scored.append(_read_prediction(reader, row, where))
        except RouterError as error:
            problems.append(f"{where}: {error.message}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems[:SHOWN_ERRORS])
        raise DataError(f"{len(problems)} prediction(s) can't be scored:\n{lines}")
    if not scored:
        raise DataError(f"{path} has no predictions")
    return scored


def _read_prediction(reader: Reader, row: object, where: str) -> Scored:
    if isinstance(row, RowError):
        raise DataError(row.message)
    if not isinstance(row, dict) or not isinstance(row.get("output"), str):
        raise DataError("a prediction needs an output that is text")
    # Only outputs and targets are compared, so whoever has no right to pass requests on can leave them out.
    with_request = row if "messages" in row else {"request": NOT_GIVEN, **row}
    example = reader.example(with_request, where)
    shortlist = _shortlist(row, example.catalogue)
    outcome = _parsed(row, example.catalogue if shortlist is None else example.catalogue.only(shortlist))
    p_right, action = row.get("p_right"), row.get("action")
    # Another program's fields of these names may mean anything.
    known = isinstance(outcome, ToolCall) and isinstance(p_right, float) and 0 <= p_right <= 1
    under_policy = isinstance(outcome, ToolCall) and action in CALL_ACTIONS
    return Scored(
        example,
        row["output"],
        outcome,
        p_right=p_right if known else None,
        action=str(action) if under_policy else None,
        shortlist=shortlist,
    )


def _shortlist(row: Mapping[str, Any], catalogue: Catalogue) -> tuple[str, ...] | None:
    """The names of tools under "shortlist"; another program may mean anything by it."""
    found = row.get("shortlist")
    usable = isinstance(found, list) and found and all(isinstance(one, str) and one in catalogue for one in found)
    return tuple(found) if usable and isinstance(found, list) else None


def write_predictions(scored: Sequence[Scored], path: Path) -> None:
    """Write predictions as JSONL; the file appears whole or not at all."""
    aside = path.with_name(path.name + ".part")
    # An output of somebody's may hold half a character, which JSON can only hold as an escape.
    with aside.open("w", encoding="utf-8", errors="backslashreplace") as file:
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
        times = sorted(one.latency_ms for one in self.scored if one.latency_ms is not None)
        if not times:
            return {"p50": None, "p95": None}
        return {"p50": statistics.median(times), "p95": percentile(times, 95)}

    def to_json(self) -> dict[str, Any]:
        """Everything as one JSON object."""
        rows = self.rows
        kinds = by_group(rows, [one.example.kind for one in self.scored])
        return {
            "n": len(rows),
            "metrics": _json(self.metrics),
            "with_alternatives": four_with_alternatives(rows),
            "with_declared_comparison": with_declared_comparison(rows),
            "shortlist": None if (recall := Recall.of(self.scored)) is None else recall.to_json(),
            "latency_ms": self.latency_ms(),
            "parse_failures": failures_by_reason(rows),
            "reasons": _json(reason_agreement(rows)),
            "per_tool": {tool: _json(found) for tool, found in per_tool(rows).items()},
            "per_kind": {kind: _json(found) for kind, found in kinds.items()},
            "confusion": confusion(rows),
            "notes": self.notes,
            "failures": [failure_json(one) for one in self.failures],
        }


@dataclass(frozen=True)
class Recall:
    """How often a shortlist of `size` tools has the gold one, over the gold calls that were shown a shortlist.

    Without its tool on the list a request can't be routed rightly. `missed` counts the gold tools that were not.
    """

    size: int
    recall: Metric
    missed: dict[str, int]

    @classmethod
    def of(cls, scored: Sequence[Scored]) -> "Recall | None":
        """The recall over these rows; None where all were shown whole catalogues."""
        lists = [one.shortlist for one in scored if one.shortlist is not None]
        if not lists:
            return None
        calls = [one for one in scored if one.shortlist is not None and one.row.wants_call]
        gold = [(one.example.target.tool, one.shortlist or ()) for one in calls]
        missed = Counter(tool for tool, names in gold if tool not in names)
        return cls(max(map(len, lists)), share(len(calls) - missed.total(), len(calls)), dict(missed.most_common()))

    def to_json(self) -> dict[str, Any]:
        """The recall as JSON."""
        return {"k": self.size, "recall": self.recall.to_json(), "missed": self.missed}


@dataclass(frozen=True)
class Constrained:
    """The same rows in mode "constrained": only to be shown beside the default mode's numbers.

    `became` says what the parse failures of the default mode turned into; `overridden` is the mean over the rows of the
    probability that the grammar took from the model.
    """

    default: Metrics
    metrics: Metrics
    became: dict[str, int]
    overridden: float | None

    @classmethod
    def of(cls, default: Sequence[Scored], constrained: Sequence[Scored]) -> "Constrained":
        """Compare the two; the rows are the same, in the same order."""
        became = dict.fromkeys(("right", "wrong_call", "wrong_no_tool", "parse_failure"), 0)
        for before, after in zip(default, constrained, strict=True):
            if isinstance(before.outcome, ParseFailure):
                became[_verdict(after)] += 1
        masses = [one.overridden for one in constrained if one.overridden is not None]
        return cls(
            measure([one.row for one in default]),
            measure([one.row for one in constrained]),
            became,
            statistics.fmean(masses) if masses else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The constrained numbers; those of the default mode stand at the top level of the evaluation's JSON."""
        return {
            "metrics": _json(self.metrics),
            "parse_failures_became": self.became,
            "mean_overridden": self.overridden,
        }


def _verdict(one: Scored) -> str:
    if isinstance(one.outcome, ParseFailure):
        return "parse_failure"
    if one.row.right:
        return "right"
    return "wrong_call" if isinstance(one.outcome, ToolCall) else "wrong_no_tool"


def _json(metrics: Metrics) -> dict[str, Any]:
    return {name: metric.to_json() for name, metric in metrics.items()}


def failure_json(one: Scored) -> dict[str, Any]:
    """A row whose decision is not the gold one, as JSON."""
    reason = str(one.outcome.reason) if isinstance(one.outcome, ParseFailure) else None
    found = {
        "where": one.example.where,
        "id": one.example.id,
        "kind": one.example.kind,
        "request": one.example.request,
        "gold": _plain(one.example.target),
        "output": one.output,
        "parse_failure": reason,
        "is_alternative": one.row.right_or_alternative,
    }
    return found | {"right_as_declared": one.row.right_as_declared} if one.row.comparisons else found


def _parsed(row: dict[str, Any], catalogue: Catalogue) -> Outcome:
    if row.get("finished") is False:
        return ParseFailure(Failure.TRUNCATED, "the answer had not ended at max_tokens")
    if row.get("refused") is True:
        return ParseFailure(Failure.REFUSED, "the request was not routed")
    return parse(row["output"], catalogue)


def _failed(outcome: Outcome, reason: Failure) -> bool:
    return isinstance(outcome, ParseFailure) and outcome.reason is reason


def _plain(target: Any) -> dict[str, Any]:
    found: dict[str, Any] = target.model_dump()
    return found


def _latency(decision: Decision) -> float | None:
    timings = decision.timings
    return timings.total_ms if timings is not None and timings.batch_size == 1 else None
