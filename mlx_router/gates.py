"""Limits that a router has to keep, read from a file or from flags, and how it kept them, for a CI's pages."""

import difflib
import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import yaml

from .calls import ParseFailure
from .errors import ConfigError
from .evaluation import Evaluation, Scored
from .metrics import COSTS, FOUR, Gate, Metric, Metrics
from .prompts import assistant_text
from .rendering import COMPANY, interval, one_line, rate

NAMES = (*FOUR, *COMPANY)

# What a gate is held against: the measured value, or the worse end of its interval.
Basis: TypeAlias = Literal["point", "ci"]


def read_gates(path: Path) -> list[Gate]:
    """The gates of a YAML file, `metric: {min: 0.95}` or `{max: 0.02}` each.

    Raises `ConfigError` naming all its problems.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the gates in {path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from None
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"{path} has no gates", hint="one a line: exact_match: {min: 0.9}")
    found = [_read_gate(name, value) for name, value in values.items()]
    problems = [gate for gate in found if isinstance(gate, str)]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{path} has {len(problems)} problem(s):\n{lines}")
    return [gate for gate in found if isinstance(gate, Gate)]


def _read_gate(name: object, value: object) -> Gate | str:
    """A gate, or what is wrong with it."""
    if name not in NAMES:
        return f"unknown metric {name!r}{did_you_mean(str(name))}"
    wanted = "max" if name in COSTS else "min"
    if not isinstance(value, dict) or list(value) not in (["min"], ["max"]):
        return f"{name}: must be {{{wanted}: RATE}}, not {value!r}"
    if wanted not in value:
        which = "lower" if wanted == "max" else "higher"
        return f"{name}: takes {wanted}, since a {which} value is better"
    limit = _rate(value[wanted])
    if limit is None:
        return f"{name}: {wanted} must be a number from 0 to 1, not {value[wanted]!r}"
    return Gate(name, limit)


def _rate(value: object) -> float | None:
    """The number from 0 to 1 that a YAML value is; `2e-2` is text in YAML."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None


def did_you_mean(name: str) -> str:
    """A suggestion for a metric that does not exist; empty if none is close."""
    close = difflib.get_close_matches(name, NAMES, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def merged(gates: Sequence[Gate], flags: Mapping[str, float | None]) -> list[Gate]:
    """The gates of a file and of flags; a flag takes the place of the file's gate on its metric."""
    given = {metric: limit for metric, limit in flags.items() if limit is not None}
    limits = {gate.metric: gate.limit for gate in gates} | given
    return [Gate(metric, limit) for metric, limit in limits.items()]


@dataclass(frozen=True)
class Verdict:
    """A gate held against what was measured; `problem` is None where it was met."""

    gate: Gate
    metric: Metric
    problem: str | None

    @property
    def name(self) -> str:
        """The gate as a formula."""
        return f"{self.gate.metric} {self.condition}"

    @property
    def condition(self) -> str:
        """What the gate wants of its metric."""
        return f"{'≤' if self.gate.metric in COSTS else '≥'} {self.gate.limit}"


def judge(gates: Sequence[Gate], metrics: Metrics, basis: Basis = "point") -> list[Verdict]:
    """Hold every gate against the metrics, or against the worse ends of their intervals."""
    held = metrics if basis == "point" else {name: _worse_end(name, metric) for name, metric in metrics.items()}
    verdicts = []
    for gate in gates:
        problem = gate.verdict(held)
        where = "at the worse end of its 95 % interval, " if basis == "ci" and problem else ""
        verdicts.append(Verdict(gate, metrics[gate.metric], None if problem is None else f"{where}{problem}"))
    return verdicts


def _worse_end(name: str, metric: Metric) -> Metric:
    ends = metric.ci95
    return replace(metric, value=None if ends is None else ends[1 if name in COSTS else 0])


@dataclass(frozen=True)
class Case:
    """A test case of a JUnit file; `problem` is None where it passed."""

    group: str
    name: str
    problem: str | None = None
    detail: str = ""
    seconds: float = 0.0
    skipped: bool = False


def gate_cases(verdicts: Iterable[Verdict]) -> list[Case]:
    """A test case for each gate."""
    return [Case("gates", verdict.name, verdict.problem) for verdict in verdicts]


def row_cases(scored: Iterable[Scored]) -> list[Case]:
    """A test case for each row; an alternative of the row is as good as its target here."""
    return [_row_case(one) for one in scored]


def _row_case(one: Scored) -> Case:
    name = f"{one.example.where}: {one.example.request}"
    seconds = (one.latency_ms or 0.0) / 1000
    if one.row.right_or_alternative:
        return Case("rows", name, seconds=seconds)
    kind = f"invalid output ({one.outcome.reason})" if isinstance(one.outcome, ParseFailure) else "another decision"
    detail = f"request  {one.example.request}\nwanted   {assistant_text(one.example.target)}\noutput   {one.output}"
    return Case("rows", name, kind, detail, seconds)


def write_junit(path: Path, cases: Sequence[Case], properties: Mapping[str, str]) -> None:
    """Write test cases as JUnit XML, as Ant's and as Jenkins' schema want it."""
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", _suite_attributes(cases))
    listed = ET.SubElement(suite, "properties")
    for name, value in properties.items():
        ET.SubElement(listed, "property", {"name": _xml(name), "value": _xml(value)})
    for case in cases:
        _add_case(suite, case)
    ET.SubElement(suite, "system-out")
    ET.SubElement(suite, "system-err")
    ET.indent(root)
    aside = path.with_name(path.name + ".part")
    ET.ElementTree(root).write(aside, encoding="utf-8", xml_declaration=True)
    aside.replace(path)


def _suite_attributes(cases: Sequence[Case]) -> dict[str, str]:
    return {
        "name": "mlx-router eval",
        "package": "mlx_router",
        "id": "0",
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "hostname": "localhost",
        "tests": str(len(cases)),
        "failures": str(sum(case.problem is not None and not case.skipped for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.skipped for case in cases)),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _add_case(suite: ET.Element, case: Case) -> None:
    attributes = {"classname": f"mlx_router.{case.group}", "name": _xml(one_line(case.name))}
    element = ET.SubElement(suite, "testcase", {**attributes, "time": f"{case.seconds:.3f}"})
    if case.skipped:
        ET.SubElement(element, "skipped", {"message": _xml(case.problem or "")})
    elif case.problem is not None:
        failure = ET.SubElement(element, "failure", {"type": case.group, "message": _xml(case.problem)})
        failure.text = _xml(case.detail) or None


def _xml(text: str) -> str:
    """Text without the characters that XML can't hold, not even escaped."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def append_summary(path: Path, text: str) -> None:
    """Add Markdown to a file, which need not exist."""
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{text}\n\n")


def markdown(
    title: str,
    evaluation: Evaluation | None,
    verdicts: Sequence[Verdict],
    notes: Sequence[str] = (),
    *,
    passed: bool,
    shown: int = 10,
) -> str:
    """An evaluation as GitHub's Markdown: the gates, the metrics, notes, and the wrong calls; None if none was made."""
    parts = [f"### mlx-router eval {markdown_text(title)}: {'passed' if passed else 'failed'}", _gates_table(verdicts)]
    parts += [_metrics_table(evaluation.metrics)] if evaluation is not None else []
    parts += ["\n".join(f"- {markdown_text(note)}" for note in notes)]
    parts += [_wrong_calls(evaluation, shown)] if evaluation is not None else []
    return "\n\n".join(part for part in parts if part)


def _gates_table(verdicts: Sequence[Verdict]) -> str:
    rows = [
        (f"`{one.gate.metric}` {one.condition}", *_measured(one.metric), "❌ missed" if one.problem else "✅ met")
        for one in verdicts
    ]
    return markdown_table(("gate", "value", "95 % interval", "n", ""), rows)


def _metrics_table(metrics: Metrics) -> str:
    rows = [(f"`{name}`", *_measured(metric)) for name, metric in metrics.items()]
    return markdown_table(("metric", "value", "95 % interval", "n"), rows)


def _measured(metric: Metric) -> tuple[str, str, str]:
    return rate(metric.value), interval(metric.ci95), str(metric.n)


def _wrong_calls(evaluation: Evaluation, shown: int) -> str:
    wrong = [one for one in evaluation.scored if one.row.calls and not one.row.right_or_alternative]
    if not wrong or shown <= 0:
        return ""
    rows = [
        tuple(markdown_text(text) for text in (one.example.request, assistant_text(one.example.target), one.output))
        for one in wrong[:shown]
    ]
    first = f", the first {shown} of them" if len(wrong) > shown else ""
    summary = f"{len(wrong)} wrong call{'s' if len(wrong) > 1 else ''}{first}"
    table = markdown_table(("request", "wanted", "output"), rows)
    return f"<details><summary>{summary}</summary>\n\n{table}\n\n</details>"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; empty without rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """Text on one line in which nothing is Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(one_line(text), quote=False))
