"""`mlx-router stress`: a test, and harder ones made from it."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import click

from .cli_measure import routing_progress
from .data import Example, read
from .evaluation import Scored, evaluate
from .harder import Slice, harder
from .interop import load_catalogue
from .metrics import Metrics, measure
from .rendering import json_text, rate
from .router import Router
from .tables import table

SHOWN = ("exact_match", "tool_name_accuracy", "wrong_call_rate", "valid_tool_call_rate")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--data", required=True, help="Test rows: .jsonl, .jsonl.gz, or a Hugging Face dataset (name#split).")
@click.option("--catalogue", help="Catalogue of the rows that carry none.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first rows.")
@click.option("--seed", default=0, show_default=True, help="Seed of the changes.")
@click.option("--base", help="Where the base model lies, if not under the name in the adapter's manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stress(
    folder: str, data: str, catalogue: str | None, limit: int | None, seed: int, base: str | None, as_json: bool
) -> None:
    """Measure the router in FOLDER on harder tests made from test rows.

    The right tool taken away, requests negated, tools renamed, reordered and added to, typing errors and more. Every
    slice stands beside the same rows unchanged.

    \b
    Examples:
      mlx-router stress adapters/support --data data/support/test.jsonl
      mlx-router stress adapters/support --data data/support/test.jsonl --limit 100 --json
    """
    router = Router.load(folder, base=base)
    default = load_catalogue(catalogue) if catalogue else router.catalogue
    examples = read(data, default)[:limit]
    slices = harder(examples, seed)
    rows = [*examples, *(row for one in slices for row in one.examples)]
    with routing_progress(len(rows)) as progress:
        scored = _route(router, rows, progress)
    plain, harder_ones = scored[: len(examples)], iter(scored[len(examples) :])
    results = [(one, list(islice(harder_ones, len(one.examples)))) for one in slices]
    if as_json:
        click.echo(json_text(_json(plain, results)))
    else:
        click.echo(_render(plain, results))


def _route(router: Router, rows: Sequence[Example], progress: Callable[[int], None]) -> list[Scored]:
    """The rows' results in their order; those of one catalogue are routed after each other, so that it is read once."""
    order = sorted(range(len(rows)), key=lambda at: rows[at].catalogue.hash)
    found = dict(zip(order, evaluate(router, [rows[at] for at in order], progress), strict=True))
    return [found[at] for at in range(len(rows))]


def _measured(scored: Sequence[Scored]) -> Metrics:
    return measure([one.row for one in scored])


def _plain(metrics: Metrics) -> dict[str, Any]:
    return {name: metric.to_json() for name, metric in metrics.items()}


def _json(plain: list[Scored], results: list[tuple[Slice, list[Scored]]]) -> dict[str, Any]:
    slices = {
        one.name: {
            "about": one.about,
            "n": len(scored),
            "metrics": _plain(_measured(scored)),
            "unchanged": _plain(_measured([plain[at] for at in one.origins])),
        }
        for one, scored in results
    }
    return {"n": len(plain), "metrics": _plain(_measured(plain)), "slices": slices}


def _render(plain: list[Scored], results: list[tuple[Slice, list[Scored]]]) -> str:
    head = ("slice", "n", *(name.replace("_", " ") for name in SHOWN))
    as_it_is = _measured(plain)
    rows = [head, ("as it is", str(len(plain)), *(rate(as_it_is[name].value) for name in SHOWN))]
    for one, scored in results:
        changed, unchanged = _measured(scored), _measured([plain[at] for at in one.origins])
        cells = (f"{rate(changed[name].value)} ({rate(unchanged[name].value)})" for name in SHOWN)
        rows.append((one.name, str(len(scored)), *cells))
    about = "\n".join(f"  {one.name}: {one.about}" for one, _ in results)
    return f"{table(rows, left=[0])}\n\nin brackets: the same rows unchanged\n{about}"
