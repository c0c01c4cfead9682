"""Failed rows as HTML, one card each, the gravest first."""

from collections.abc import Iterator

from .calls import ParseFailure
from .evaluation import Scored
from .faults import Difference
from .markup import code, own, text
from .prompts import assistant_text
from .report import Report

# Kinds that a reader need not see at once.
CLOSED = ("right by an alternative or as declared",)


def failures(report: Report) -> str:
    """Every row whose decision is not the gold one."""
    groups = report.faults
    if not groups:
        return "<p>None: every decision is the gold one.</p>"
    total = sum(map(len, groups.values()))
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in groups.items())
    parts = [
        f"<p>{total} of {len(report.evaluation.scored)} rows: {counts}.</p>",
        '<p class="about">What stands <mark>marked</mark> in an output is the first token that is not the gold '
        "answer's.</p>",
    ]
    for name, rows in groups.items():
        opened = "" if name in CLOSED else " open"
        cards = "".join(_card(report, one) for one in rows)
        parts.append(f"<details{opened}><summary>{name} ({len(rows)})</summary>{cards}</details>")
    return "".join(parts)


def _card(report: Report, one: Scored) -> str:
    example, found = one.example, report.difference(one)
    lines = [("request", own(example.request)), ("gold", code(assistant_text(example.target, example.catalogue)))]
    lines += [("or", code(assistant_text(other, example.catalogue))) for other in example.alternatives]
    lines.append(("output", _output(one, found)))
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in lines)
    facts = "".join(f"<span>{fact}</span>" for fact in _facts(one, found))
    kind = "call" if one.row.calls else "other"
    return f'<article class="{kind}"><dl>{listed}</dl><p class="small facts">{facts}</p></article>'


def _output(one: Scored, found: Difference | None) -> str:
    """The output, its first wrong token marked."""
    if not one.output.strip():
        return '<span class="small">(nothing)</span>'
    if found is None:
        return code(one.output)
    before, after = found.text[: found.at], found.text[found.at + len(found.said) :]
    mark = text(found.said) if found.said else "(its end)"
    return f'<code><bdi dir="auto">{text(before)}<mark>{mark}</mark>{text(after)}</bdi></code>'


def _facts(one: Scored, found: Difference | None) -> Iterator[str]:
    example, decision = one.example, one.decision
    yield own(example.where + (f" ({example.id})" if example.id else ""))
    if example.kind:
        yield f"kind {own(example.kind)}"
    if isinstance(one.outcome, ParseFailure):
        yield f"invalid: {text(one.outcome.reason)}, {own(one.outcome.detail)}"
    if found is not None:
        wanted = code(found.wanted) if found.wanted else "its end"
        yield f"wrong from character {found.at + 1} on, {own(found.part)}: {wanted} was wanted"
    if one.p_right is not None:
        yield f"P(right) {one.p_right:.3f}"
    if one.action is not None:
        yield f"action {text(one.action)}"
    if decision is None:
        return
    if decision.confidence is not None:
        yield f"confidence {decision.confidence:.3f}"
    if decision.runner_up is not None:
        yield f"runner-up {code(decision.runner_up)}"
    if decision.weakest_argument is not None:
        yield f"weakest argument token {decision.weakest_argument:.3f}"
    if decision.grounded is False:
        yield "says what the request does not"
