"""A report as one HTML page: no network, no script, readable in light and dark, on a phone and on paper."""

from importlib.resources import files
from typing import Final

from .cards import failures
from .charts import histogram, interval_bar, reliability_chart, risk_chart
from .leaks import shorten
from .markup import banner, breakable, code, interval, own, rated, small, table, text
from .matrix import confusion_matrix
from .metrics import COSTS, FOUR, Metric, by_group, failures_by_reason, per_tool, reason_agreement, share
from .rendering import COMPANY, rate
from .report import ABOUT, COVERAGES, Report

# A browser that shows the page loads nothing and runs nothing, whatever a row holds.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
SECTIONS: Final = {
    "metrics": "Metrics",
    "baselines": "Baselines",
    "confusions": "Confusions",
    "tools": "Tools and arguments",
    "no-tool": "no_tool",
    "confidence": "Confidence",
    "latency": "Latency",
    "failures": "Failures",
}


def html_page(report: Report) -> str:
    """The whole page."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    bodies = {
        "metrics": _metrics(report),
        "baselines": _baselines(report),
        "confusions": confusion_matrix(report.evaluation.rows),
        "tools": _tools(report) + _arguments(report) + _kinds(report),
        "no-tool": _no_tool(report),
        "confidence": _confidence(report) + _policy(report),
        "latency": _latency(report),
        "failures": failures(report),
    }
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in SECTIONS.items())
    sections = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{SECTIONS[key]}</h2>{body}</section>'
        for key, body in bodies.items()
    )
    facts = "".join(f"<div><dt>{text(key)}</dt><dd>{own(value)}</dd></div>" for key, value in report.facts.items())
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        # Without it a browser asks the server for a picture.
        '<link rel="icon" href="data:,">'
        f"<title>{text(report.title)} · mlx-router</title><style>{style}</style></head><body>"
        f'<header><p class="kicker">mlx-router eval</p><h1>{own(report.title)}</h1><dl class="facts">{facts}</dl>'
        f'</header><nav aria-label="Sections">{links}</nav>'
        f"<main>{_verdict(report)}{_tiles(report)}{sections}</main></body></html>\n"
    )


def _verdict(report: Report) -> str:
    """What a reader has to know before any number."""
    first, *others = report.verdict
    measured = any(standing.measured for standing in report.standings)
    parts = [banner("good" if report.beats_all else "bad" if measured else "note", first, others)]
    leaks = report.leaks
    if leaks is not None and leaks.failed:
        parts.append(banner("bad", f"Measured in spite of leaks. {leaks.summary}", shorten(leaks.lines)))
    elif leaks is not None:
        parts.append(banner("note", leaks.summary, shorten(leaks.lines)))
    if report.verdicts:
        missed = [f"{one.name}: {one.problem}" for one in report.verdicts if one.problem is not None]
        met = f"{len(report.verdicts) - len(missed)} of {len(report.verdicts)} gates met"
        parts.append(banner("bad" if missed else "good", met, missed))
    parts += [banner("note", note) for note in report.evaluation.notes]
    return "".join(parts)


def _tiles(report: Report) -> str:
    """The four metrics, large."""
    parts = []
    for name in FOUR:
        metric, best = report.evaluation.metrics[name], report.best[name]
        end = "lowest" if name in COSTS else "highest"
        reach = "" if best is None else f'<p class="small">{end} attainable here: {rate(best)}</p>'
        parts.append(
            f'<div class="tile"><h3>{breakable(name)}</h3><p class="value">{rate(metric.value)}</p>'
            f"{interval_bar(metric, best)}"
            f'<p class="small">95 %: {interval(metric.ci95)}, n = {metric.n}</p>{reach}'
            f'<p class="about">{ABOUT[name]}</p></div>'
        )
    return f'<div class="tiles">{"".join(parts)}</div>'


def _metrics(report: Report) -> str:
    head = ["metric", "", "value", "95 % interval", "n", "best attainable", *report.beside]
    rows = [
        _metric(report, name, report.evaluation.metrics[name], report.best[name], ABOUT[name])
        for name in (*FOUR, *COMPANY)
    ]
    rows.append(_metric(report, "macro_f1", report.f1["macro"], 1.0, "mean over the gold tools of F1; see below"))
    for name, metric in reason_agreement(report.evaluation.rows).items():
        about = "among rows rightly left without a call; no metric above depends on it"
        rows.append(_metric(report, name, metric, 1.0 if metric.n else None, about))
    reasons = failures_by_reason(report.evaluation.rows)
    invalid = ", ".join(f"{code(reason)} {count}" for reason, count in reasons.items())
    note = f"<p>Invalid outputs: {invalid}.</p>" if invalid else ""
    about = (
        '<p class="about">Intervals are Wilson\'s; those of F1, and the second ones of the two ratios whose '
        "denominator depends on the outputs, are the bootstrap's. The tick on a bar is the best value that a router "
        "can reach on these rows.</p>"
    )
    return table("Metrics", head, rows, left=(1,)) + about + note


def _metric(report: Report, name: str, metric: Metric, best: float | None, about: str) -> list[str]:
    ends = interval(metric.ci95)
    if (drawn := report.bootstrap.get(name)) is not None:
        ends += f"<br>{small(f'bootstrap<br>{interval(drawn)}')}"
    return [
        f'<code>{breakable(name)}</code><br><span class="about">{about}</span>',
        interval_bar(metric, best),
        f"<b>{rate(metric.value)}</b>",
        ends,
        str(metric.n),
        rate(best),
        *(rate(values[name]) if name in values else "" for values in report.beside.values()),
    ]


def _baselines(report: Report) -> str:
    if not report.standings:
        return "<p>None was asked for.</p>"
    shown = ("exact_match", "tool_name_accuracy", "wrong_call_rate")
    head = ["way to answer", "the router is", *shown, "gain in exact_match", "only router right", "only it", "p"]
    ours = report.evaluation.metrics
    rows = [["<b>the router</b>", "", *(rated(ours[name]) for name in shown), "", "", "", ""]]
    for one in report.standings:
        name = f'<b>{own(one.baseline.name)}</b><br><span class="about">{own(one.baseline.about)}</span>'
        if one.metrics is None:
            rows.append([name, f'<span class="about">left out: {own(one.baseline.left_out)}</span>', *[""] * 7])
            continue
        found = one.differences["exact_match"]
        kind = {"better": "good", "worse": "bad"}.get(found.verdict, "note")
        gain = "–" if found.difference is None else f"{found.difference:+.3f}"
        ends = "" if found.ci95 is None else f"<br>{small(f'{found.ci95[0]:+.3f} … {found.ci95[1]:+.3f}')}"
        p = "–" if found.p is None else "&lt;0.001" if found.p < 0.001 else f"{found.p:.3f}"
        rows.append(
            [
                name,
                f'<span class="pill {kind}">{text(found.verdict)}</span>',
                *(rated(one.metrics[name]) for name in shown),
                f'<span class="nowrap">{gain}{ends}</span>',
                *(str(count) for count in (found.only_b, found.only_a)),
                p,
            ]
        )
    about = (
        '<p class="about">Held against the router row by row, by whole decisions right: McNemar\'s exact test at 5 %, '
        "the gain's interval by bootstrap. “Can't tell” is not enough: a baseline that may be as good costs nothing to "
        "run.</p>"
    )
    return table("Baselines", head, rows, left=(1,)) + about


def _tools(report: Report) -> str:
    tools = sorted(per_tool(report.evaluation.rows).items(), key=lambda item: (-item[1]["recall"].n, item[0]))
    rows = [
        [
            code(name),
            str(found["recall"].n),
            *(rated(found[key]) for key in ("recall", "precision")),
            rated(report.f1[name]),
            rated(found["exact_match"]),
        ]
        for name, found in tools
    ]
    return "<h3>Per tool</h3>" + table("Per tool", ["gold tool", "n", "recall", "precision", "F1", "exact"], rows)


def _arguments(report: Report) -> str:
    if not report.arguments:
        return "<h3>Per argument</h3><p>No tool was rightly called.</p>"
    rows = [
        [
            code(one.tool),
            code(one.name),
            str(one.rate.n),
            rated(one.rate),
            *(str(count or "") for count in (one.different, one.left_out, one.added)),
        ]
        for one in report.arguments
    ]
    head = ["tool", "argument", "n", "equal", "different", "left out", "added"]
    about = '<p class="about">Over the rows whose tool was rightly called and in which either side gives a value.</p>'
    return "<h3>Per argument</h3>" + table("Per argument", head, rows, left=(1,)) + about


def _kinds(report: Report) -> str:
    found = by_group(report.evaluation.rows, [one.example.kind for one in report.evaluation.scored])
    if not found:
        return ""
    rows = [
        [own(kind), str(metrics["exact_match"].n), rated(metrics["exact_match"]), rated(metrics["wrong_call_rate"])]
        for kind, metrics in found.items()
    ]
    return "<h3>By kind of request</h3>" + table("By kind", ["kind", "n", "exact_match", "wrong_call_rate"], rows)


def _no_tool(report: Report) -> str:
    if not report.no_tool_kinds:
        return "<p>No row of this test wants <code>no_tool</code>: false calls were not measured.</p>"
    rows = []
    for one in report.no_tool_kinds:
        tools = ", ".join(f"{code(name)} {count}" for name, count in list(one.called.items())[:5])
        more = f" and {len(one.called) - 5} more" if len(one.called) > 5 else ""
        counts = [rated(share(one.right, one.n)), rated(share(one.false_calls, one.n)), str(one.invalid or "")]
        rows.append([code(one.code), str(one.n), *counts, tools + more])
    head = ["reason", "n", "rightly no_tool", "false calls", "invalid", "tools called instead"]
    return table("By kind of no_tool", head, rows, left=(5,))


def _confidence(report: Report) -> str:
    found = report.curves
    calls = sum(one.row.calls for one in report.evaluation.scored)
    if found is None:
        why = "the outputs came without it" if calls else "there is none"
        return f"<p>No probability is known of any of the {calls} valid calls ({why}), so there are no curves.</p>"
    figures = [[text(name), rated(metric), str(metric.n)] for name, metric in found.figures.items()]
    risks = [
        [f"{coverage:.0%}", f"{point.threshold:.4f}", str(point.n), str(point.wrong), rated(point.risk)]
        for coverage, point in ((coverage, found.at_coverage(coverage)) for coverage in COVERAGES)
    ]
    bins = [[f"{one.mean:.3f}", str(one.n), str(one.right), rated(one.rate)] for one in found.bins]
    bin_head = ["said", "calls", "right", "share right"]
    risk_head = ["act on at least", "threshold", "calls", "wrong", "wrong among them"]
    return (
        f"<p>By {text(found.source)}. It is known of {len(found.judged)} of {found.calls} valid calls.</p>"
        '<div class="pair">'
        f"<figure>{risk_chart(found.points)}<figcaption>Risk and coverage: how many of the calls are wrong if only the "
        "surest are acted on. The band is the 95 % interval.</figcaption></figure>"
        f"<figure>{reliability_chart(found.bins)}<figcaption>Reliability: on the diagonal calls are as often right as "
        "they were said to be, below it less often. Each dot is a bin of about as many calls.</figcaption></figure>"
        "</div>"
        '<div class="pair">'
        f"<div><h3>Risk and coverage</h3>{table('Risk and coverage', risk_head, risks)}</div>"
        f"<div><h3>Reliability</h3>{table('Reliability', bin_head, bins)}</div></div>"
        f"{table('Figures', ['figure', 'value', 'n'], figures)}"
        '<p class="about">ece: mean gap between said and found; ece_if_calibrated: the gap that chance alone makes '
        "with so many calls; brier: mean squared error; auroc: how often a right call ranks above a wrong one.</p>"
    )


def _policy(report: Report) -> str:
    found = report.policy
    if found is None:
        return ""
    rows = [[code(name), rated(metric), rated(found.after[name])] for name, metric in found.before.items()]
    costs = ", ".join(f"{rate(metric.value)} of {name}" for name, metric in found.costs)
    actions = ", ".join(f"{action} {count}" for action, count in found.actions.items())
    listed = table("Policy", ["metric", "all calls", "acted on only"], rows)
    return f"<h3>Under the router's policy</h3>{listed}<p>Acted on: {costs} ({actions}).</p>"


def _latency(report: Report) -> str:
    times, found = report.latencies, report.percentiles
    if not times:
        return "<p>Not measured: the outputs were made elsewhere, or in batches only.</p>"
    rows = [[name, f"{value:.1f} ms"] for name, value in found.items()]
    drawn = histogram(times, {name: found[name] for name in ("p50", "p95")})
    caption = f"<figcaption>The {len(times)} rows that were routed one at a time.</figcaption>"
    return (
        f'<div class="pair"><figure>{drawn}{caption}</figure>'
        f"<div>{table('Latency', ['percentile', 'time'], rows)}</div></div>"
    )
