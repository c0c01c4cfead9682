"""A report as Markdown. Rows stand in indented code, where nothing is a link, a mention or HTML."""

from collections.abc import Iterator, Sequence

from .calls import ParseFailure
from .curves import probability
from .evaluation import Scored
from .gates import markdown_table, markdown_text
from .leaks import shorten
from .metrics import FOUR, Metric, by_group, confusion, failures_by_reason, per_tool, share
from .prompts import assistant_text
from .rendering import COMPANY, interval, one_line, rate
from .report import COVERAGES, Report


def markdown_report(report: Report) -> str:
    """The whole report."""
    sections = {
        "Metrics": _metrics(report),
        "Baselines": _baselines(report),
        "Confusions": _confusions(report),
        "Tools and arguments": f"{_tools(report)}\n\n{_arguments(report)}\n\n{_kinds(report)}".strip(),
        "no_tool": _no_tool(report),
        "Confidence": _confidence(report),
        "Latency": _latency(report),
        "Failures": _failures(report),
    }
    parts = [f"# {markdown_text(report.title)}", *_top(report)]
    parts += [f"## {title}\n\n{body}" for title, body in sections.items()]
    return "\n\n".join(parts) + "\n"


def _top(report: Report) -> Iterator[str]:
    first, *others = report.verdict
    yield f"**{markdown_text(first)}**"
    notes = list(others)
    if report.leaks is not None:
        notes.append(("Measured in spite of leaks. " if report.leaks.failed else "Leaks: ") + report.leaks.summary)
        notes += shorten(report.leaks.lines)
    notes += [f"gate {one.name}: {one.problem or 'met'}" for one in report.verdicts]
    notes += report.evaluation.notes
    if notes:
        yield _listed(notes)
    yield _listed([f"{key}: {value}" for key, value in report.facts.items()])


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def _rated(metric: Metric) -> str:
    return rate(metric.value) if metric.ci95 is None else f"{rate(metric.value)} ({interval(metric.ci95)})"


def _metrics(report: Report) -> str:
    rows = []
    for name in (*FOUR, *COMPANY):
        metric = report.evaluation.metrics[name]
        drawn = report.bootstrap.get(name)
        ends = interval(metric.ci95) + (f" (bootstrap {interval(drawn)})" if drawn is not None else "")
        beside = (rate(values[name]) if name in values else "" for values in report.beside.values())
        rows.append((f"`{name}`", rate(metric.value), ends, str(metric.n), rate(report.best[name]), *beside))
    macro = report.f1["macro"]
    empty = [""] * len(report.beside)
    rows.append(
        ("`macro_f1`", rate(macro.value), f"{interval(macro.ci95)} (bootstrap)", str(macro.n), "1.000", *empty)
    )
    found = markdown_table(("metric", "value", "95 % interval", "n", "best attainable", *report.beside), rows)
    reasons = ", ".join(f"{reason} {count}" for reason, count in failures_by_reason(report.evaluation.rows).items())
    return found + (f"\n\nInvalid outputs: {markdown_text(reasons)}." if reasons else "")


def _baselines(report: Report) -> str:
    rows = []
    for one in report.standings:
        name = f"{markdown_text(one.baseline.name)}: {markdown_text(one.baseline.about)}"
        if one.metrics is None:
            rows.append((name, f"left out: {markdown_text(one.baseline.left_out or '')}", *[""] * 6))
            continue
        found = one.differences["exact_match"]
        gain = "–" if found.difference is None else f"{found.difference:+.3f}"
        gain += "" if found.ci95 is None else f" ({found.ci95[0]:+.3f} … {found.ci95[1]:+.3f})"
        p = "–" if found.p is None else "<0.001" if found.p < 0.001 else f"{found.p:.3f}"
        shown = (_rated(one.metrics[key]) for key in ("exact_match", "tool_name_accuracy", "wrong_call_rate"))
        counts = f"{found.only_b} : {found.only_a}"
        rows.append((name, found.verdict, *shown, gain, counts, markdown_text(p)))
    head = ("way to answer", "the router is", "exact_match", "tool_name_accuracy", "wrong_call_rate")
    return (
        markdown_table((*head, "gain in exact_match", "only router : only it right", "p"), rows)
        or "None was asked for."
    )


def _confusions(report: Report) -> str:
    counts = confusion(report.evaluation.rows)
    wrong = sorted(((-n, gold, said) for gold, row in counts.items() for said, n in row.items() if gold != said))
    rows = [(markdown_text(gold), markdown_text(said), str(-n)) for n, gold, said in wrong]
    return markdown_table(("gold", "output", "rows"), rows) or "No tool was taken for another."


def _tools(report: Report) -> str:
    rows = [
        (
            markdown_text(name),
            str(found["recall"].n),
            *(
                _rated(metric)
                for metric in (found["recall"], found["precision"], report.f1[name], found["exact_match"])
            ),
        )
        for name, found in per_tool(report.evaluation.rows).items()
    ]
    return markdown_table(("gold tool", "n", "recall", "precision", "F1", "exact"), rows)


def _arguments(report: Report) -> str:
    rows = [
        (
            markdown_text(one.tool),
            markdown_text(one.name),
            str(one.rate.n),
            _rated(one.rate),
            *(str(count) for count in (one.different, one.left_out, one.added)),
        )
        for one in report.arguments
    ]
    head = ("tool", "argument", "n", "equal", "different", "left out", "added")
    return markdown_table(head, rows) or "No tool was rightly called."


def _kinds(report: Report) -> str:
    found = by_group(report.evaluation.rows, [one.example.kind for one in report.evaluation.scored])
    rows = [
        (markdown_text(kind), str(metrics["exact_match"].n), *(_rated(metric) for metric in metrics.values()))
        for kind, metrics in found.items()
    ]
    return markdown_table(("kind of request", "n", "exact_match", "wrong_call_rate"), rows)


def _no_tool(report: Report) -> str:
    rows = [
        (
            markdown_text(one.code),
            str(one.n),
            _rated(share(one.right, one.n)),
            _rated(share(one.false_calls, one.n)),
            str(one.invalid),
            markdown_text(", ".join(f"{name} {count}" for name, count in one.called.items())),
        )
        for one in report.no_tool_kinds
    ]
    head = ("reason", "n", "rightly no_tool", "false calls", "invalid", "tools called instead")
    return markdown_table(head, rows) or "No row of this test wants `no_tool`: false calls were not measured."


def _confidence(report: Report) -> str:
    found = report.curves
    if found is None:
        return "No probability is known of any valid call."
    figures = ", ".join(f"{name} {_rated(metric)}" for name, metric in found.figures.items())
    points = [(coverage, found.at_coverage(coverage)) for coverage in COVERAGES]
    risks = [
        (f"{coverage:.0%}", f"{point.threshold:.4f}", str(point.n), str(point.wrong), _rated(point.risk))
        for coverage, point in points
    ]
    bins = [(f"{one.mean:.3f}", str(one.n), str(one.right), _rated(one.rate)) for one in found.bins]
    parts = [
        f"By {markdown_text(found.source)}; known of {len(found.judged)} of {found.calls} valid calls: "
        f"{markdown_text(figures)}.",
        markdown_table(("act on at least", "threshold", "calls", "wrong", "wrong among them"), risks),
        markdown_table(("said", "calls", "right", "share right"), bins),
    ]
    if report.policy is not None:
        after = report.policy.after
        rows = [(f"`{name}`", _rated(metric), _rated(after[name])) for name, metric in report.policy.before.items()]
        parts.append(markdown_table(("under the router's policy", "all calls", "acted on only"), rows))
    return "\n\n".join(parts)


def _latency(report: Report) -> str:
    if not report.percentiles:
        return "Not measured."
    stated = ", ".join(f"{name} {value:.1f} ms" for name, value in report.percentiles.items())
    return f"{stated}; {len(report.latencies)} rows, routed one at a time."


def _failures(report: Report) -> str:
    parts = [
        f"### {name} ({len(rows)})\n\n" + "\n\n".join(_failure(report, one) for one in rows)
        for name, rows in report.faults.items()
    ]
    return "\n\n".join(parts) or "None: every decision is the gold one."


def _failure(report: Report, one: Scored) -> str:
    example, found = one.example, report.difference(one)
    lines = [("request", example.request), ("gold", assistant_text(example.target, example.catalogue))]
    lines += [("or", assistant_text(other, example.catalogue)) for other in example.alternatives]
    lines.append(("output", one.output))
    if isinstance(one.outcome, ParseFailure):
        lines.append(("invalid", f"{one.outcome.reason}: {one.outcome.detail}"))
    if found is not None:
        said, wanted = found.said or "(its end)", found.wanted or "(its end)"
        lines.append(("wrong from", f"character {found.at + 1} on, {found.part}: {said} instead of {wanted}"))
    if (certain := probability(one)) is not None:
        lines.append(("confidence", f"{certain:.3f}"))
    listed = "\n".join(f"    {name:<11} {one_line(value)}" for name, value in lines)
    return f"{markdown_text(example.where or example.id or 'a row')}\n\n{listed}"
