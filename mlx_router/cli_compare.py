"""`mlx-router compare`: two predictions files over the same test rows, paired."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from .comparison import RATIOS, Comparison, Difference, compare
from .errors import UsageError
from .evaluation import read_predictions
from .gates import NAMES, did_you_mean
from .interop import load_catalogue
from .metrics import FOUR
from .pairing import Pair, pair_up
from .prompts import assistant_text
from .rendering import json_text, one_line, rate
from .tables import table


@click.command("compare")
@click.argument("a", metavar="A", type=click.Path(dir_okay=False))
@click.argument("b", metavar="B", type=click.Path(dir_okay=False))
@click.option("--catalogue", help="Catalogue of the predictions that carry none.")
@click.option("--rows", default=10, show_default=True, help="How many changed rows to show.")
@click.option("--fail-if-worse", multiple=True, metavar="METRIC", help="Exit with 1 if B is worse by it; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with everything.")
def compare_(a: str, b: str, catalogue: str | None, rows: int, fail_if_worse: Sequence[str], as_json: bool) -> None:
    """Say by how much B's predictions are better or worse than A's, and whether that is more than chance.

    A and B are files that `mlx-router eval --out` wrote, or anybody's, over the same test rows.

    \b
    Examples:
      mlx-router compare before.jsonl after.jsonl
      mlx-router compare before.jsonl after.jsonl --fail-if-worse exact_match --fail-if-worse wrong_call_rate
    """
    unknown = [f"unknown metric {name!r}{did_you_mean(name)}" for name in fail_if_worse if name not in NAMES]
    if unknown:
        raise UsageError("; ".join(unknown), hint=f"the metrics are {', '.join(NAMES)}")
    default = load_catalogue(catalogue) if catalogue else None
    found = compare(pair_up(read_predictions(Path(a), default), read_predictions(Path(b), default)))
    if as_json:
        click.echo(json_text({"a": a, "b": b, **found.to_json()}))
    else:
        click.echo(f"A  {a}\nB  {b}\n\n{render(found, rows)}")
    worse = [name for name in dict.fromkeys(fail_if_worse) if found.metrics[name].verdict == "worse"]
    for name in worse:
        click.echo(f"worse: {name} went from {rate(found.metrics[name].a)} to {rate(found.metrics[name].b)}", err=True)
    if worse:
        raise click.exceptions.Exit(1)


def render(found: Comparison, shown: int) -> str:
    """The metrics side by side, then how rows changed, then the rows, the gravest first."""
    return "\n\n".join(part for part in (_metrics(found), _changes(found.changes), _rows(found.changes, shown)) if part)


def _metrics(found: Comparison) -> str:
    head = (f"{len(found.pairs)} rows", "A", "B", "B - A", "95 % interval", "only A", "only B", "p", "B is")
    lines = [_line(name, difference) for name, difference in found.metrics.items()]
    text = table([head, *lines], left=[0, 8]).splitlines()
    notes = (
        "only A, only B: rows that the metric counts in one run alone. p: McNemar's exact test of these;\n"
        f"for {' and '.join(RATIOS)} a test by swapping outputs at random.\n"
        "B is better or worse where p is below 0.05; of so many metrics one may be by chance. Interval: bootstrap."
    )
    return "\n".join([*text[: 1 + len(FOUR)], "", *text[1 + len(FOUR) :], "", notes])


def _line(name: str, found: Difference) -> tuple[str, ...]:
    interval = "–" if found.ci95 is None else f"{found.ci95[0]:+.3f} … {found.ci95[1]:+.3f}"
    counts = ("–" if count is None else str(count) for count in (found.only_a, found.only_b))
    difference = "–" if found.difference is None else f"{found.difference:+.3f}"
    p = "–" if found.p is None else f"{found.p:.3f}" if found.p >= 0.001 else "<0.001"
    return name, rate(found.a), rate(found.b), difference, interval, *counts, p, _verdict(found)


def _verdict(found: Difference) -> str:
    if found.verdict != "can't tell":
        return found.verdict
    if found.difference is None:
        return "not measured in both"
    if not found.changed:
        return "the same in every row"
    more = "" if found.more_rows is None else f" (about {_round(found.more_rows)} more rows would)"
    return f"{found.verdict}{more}"


def _round(number: int) -> str:
    """A number of rows with two digits that count: it is no more than a guess."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return f"{-(-number // unit) * unit:,}"


def _changes(changed: Sequence[Pair]) -> str:
    if not changed:
        return "no row changed"
    counts = Counter(_change(pair) for pair in changed)
    lines = [f"  {count:4}  {change}" for change, count in counts.items()]
    return "\n".join([f"{len(changed)} row{'s' if len(changed) > 1 else ''} changed (A -> B):", *lines])


def _change(pair: Pair) -> str:
    before, after = pair.states
    return f"{before} -> {after}" if before != after else f"{before} -> another {after}"


def _rows(changed: Sequence[Pair], shown: int) -> str:
    blocks = [
        f"{_change(pair)}  {pair.a.example.where}\n"
        f"  request  {one_line(pair.a.example.request)}\n"
        f"  gold     {one_line(assistant_text(pair.a.example.target))}\n"
        f"  A        {one_line(pair.a.output)}\n  B        {one_line(pair.b.output)}"
        for pair in changed[: max(0, shown)]
    ]
    return "\n\n".join(blocks)
