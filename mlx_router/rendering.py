"""Numbers as text for a terminal. Rounding happens here and nowhere else."""

import json
from collections.abc import Mapping
from typing import Any

from .calls import NO_TOOL, ParseFailure
from .evaluation import Constrained, Evaluation, Recall, Scored
from .metrics import (
    FOUR,
    Metric,
    confusion,
    failures_by_reason,
    four_with_alternatives,
    per_tool,
    with_declared_comparison,
)
from .prompts import assistant_text
from .tables import table

COMPANY = (
    "exact_match",
    "exact_match_with_alternatives",
    "argument_match_on_calls",
    "false_call_rate_on_no_tool",
    "missed_call_rate",
    "wrong_call_rate",
    "parse_failure_rate",
)
LISTED_TOOLS = 30
LISTED_MISSED = 5


def rate(value: float | None) -> str:
    """A rate with three digits; "–" where it was not measured."""
    return "–" if value is None else f"{value:.3f}"


def interval(ends: tuple[float, float] | None) -> str:
    """The ends of a 95 % interval; "–" where there is none."""
    return "–" if ends is None else f"{ends[0]:.3f} … {ends[1]:.3f}"


def json_text(value: Mapping[str, Any]) -> str:
    """JSON in UTF-8; half a character, which an output of somebody's may hold, as an escape."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """Text whose line breaks and control characters are escaped, so that it can't break a line or steer a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def render_evaluation(evaluation: Evaluation, *, failures: int = 10) -> str:
    """The four metrics first, then their company, tools, confusions, and failures one by one."""
    parts = [_metrics(evaluation), _recall(evaluation), _latency(evaluation)]
    parts += [_tools(evaluation), _confusions(evaluation)]
    parts += [_parse_failures(evaluation), _failures(evaluation.failures, failures)]
    parts += [f"note: {note}" for note in evaluation.notes]
    return "\n\n".join(part for part in parts if part)


def render_constrained(constrained: Constrained) -> str:
    """The constrained metrics beside the default mode's, and what became of its parse failures."""
    rows = [("", "default", "constrained")]
    rows += [
        (name, rate(constrained.default[name].value), rate(constrained.metrics[name].value))
        for name in (*FOUR, *COMPANY)
    ]
    became = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in constrained.became.items())
    return (
        f"constrained decoding, beside the default mode:\n{table(rows, left=[0])}\n"
        f"the default mode's parse failures became: {became}\n"
        f"mean probability that the grammar took from the model: {rate(constrained.overridden)}"
    )


def _metrics(evaluation: Evaluation) -> str:
    beside = {"with alternatives": four_with_alternatives(evaluation.rows)}
    if (as_declared := with_declared_comparison(evaluation.rows)) is not None:
        beside["by declared comparison"] = as_declared
    head = ("", "value", "95 % interval", "n", "max", *beside)
    found = [_line(name, evaluation.metrics[name], *beside.values()) for name in (*FOUR, *COMPANY)]
    lines = table([head, *found], left=[0]).splitlines()
    return "\n".join([*lines[: 1 + len(FOUR)], "", *lines[1 + len(FOUR) :]])


def _line(name: str, metric: Metric, *beside: Mapping[str, float | None]) -> tuple[str, ...]:
    highest = "" if metric.max is None else rate(metric.max)
    others = [rate(values[name]) if name in values else "" for values in beside]
    return name, rate(metric.value), interval(metric.ci95), str(metric.n), highest, *others


def _recall(evaluation: Evaluation) -> str:
    found = Recall.of(evaluation.scored)
    if found is None:
        return ""
    metric = found.recall
    missed = ", ".join(f"{tool} {count}" for tool, count in list(found.missed.items())[:LISTED_MISSED])
    value = f"{rate(metric.value)} ({interval(metric.ci95)}, n {metric.n})"
    text = f"shortlist of {found.size} tools: recall of the gold tool {value}"
    return f"{text}; not on it: {missed}" if missed else text


def _latency(evaluation: Evaluation) -> str:
    found = evaluation.latency_ms()
    if found["p50"] is None or found["p95"] is None:
        return ""
    return f"latency: p50 {found['p50']:.0f} ms, p95 {found['p95']:.0f} ms"


def _tools(evaluation: Evaluation) -> str:
    tools = sorted(per_tool(evaluation.rows).items(), key=lambda item: (-item[1]["recall"].n, item[0]))
    rows: list[tuple[str, ...]] = [("gold tool", "n", "recall", "precision", "exact")]
    rows += [
        (name, str(found["recall"].n), *(rate(found[key].value) for key in ("recall", "precision", "exact_match")))
        for name, found in tools[:LISTED_TOOLS]
    ]
    more = f"\n… and {len(tools) - LISTED_TOOLS} more tools" if len(tools) > LISTED_TOOLS else ""
    return table(rows, left=[0]) + more


def _confusions(evaluation: Evaluation) -> str:
    wrong = sorted(
        ((count, gold, said) for gold, row in confusion(evaluation.rows).items() for said, count in row.items()),
        reverse=True,
    )
    lines = [f"  {count:4}  {gold} -> {said}" for count, gold, said in wrong if gold != said][:10]
    return "\n".join(["confusions (gold -> output):", *lines]) if lines else ""


def _parse_failures(evaluation: Evaluation) -> str:
    found = failures_by_reason(evaluation.rows)
    return "invalid outputs: " + ", ".join(f"{reason} {count}" for reason, count in found.items()) if found else ""


def _failures(failures: list[Scored], shown: int) -> str:
    if not failures or shown <= 0:
        return ""
    # A wrong call of a real tool is the worst that can happen, so it is shown first.
    ordered = sorted(failures, key=_severity)[:shown]
    lines = [f"{len(failures)} failures; the worst {len(ordered)}:"]
    for one in ordered:
        lines += ["", f"  request  {one_line(one.example.request)}"]
        lines += [f"  gold     {one_line(assistant_text(one.example.target))}"]
        lines += [f"  output   {one_line(one.output)}{_remark(one)}"]
    return "\n".join(lines)


def _severity(one: Scored) -> int:
    if one.row.right_as_declared:
        return 4
    if isinstance(one.outcome, ParseFailure):
        return 3
    if one.outcome.tool == NO_TOOL:
        return 2
    return 0 if one.outcome.tool != one.example.target.tool else 1


def _remark(one: Scored) -> str:
    if isinstance(one.outcome, ParseFailure):
        return f"   ({one.outcome.reason})"
    if one.row.right_or_alternative:
        return "   (an alternative of the row)"
    return "   (right by declared comparison)" if one.row.right_as_declared else ""
