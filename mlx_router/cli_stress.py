"""`mlx-router stress`: a test, and harder ones made from it."""

import json
from typing import Any

import click

from .cli_eval import routing_progress
from .data import read
from .evaluation import Scored, evaluate
from .harder import Slice, harder
from .interop import load_catalogue
from .metrics import Metrics, measure
from .rendering import rate
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
    with routing_progress(len(examples) + sum(len(one.examples) for one in slices)) as progress:
        done = 0

        def route(rows: Any) -> list[Scored]:
            nonlocal done
            begun, order = done, sorted(range(len(rows)), key=lambda at: rows[at].catalogue.hash)
            # Rows of one catalogue after each other, so that each catalogue is read once.
            scored = evaluate(router, [rows[at] for at in order], lambda number: progress(begun + number))
            done += len(rows)
            by_row = dict(zip(order, scored, strict=True))
            return [by_row[at] for at in range(len(rows))]

        plain = route(examples)
        results = [(one, route(one.examples)) for one in slices]
    if as_json:
        click.echo(json.dumps(_json(plain, results), indent=2))
    else:
        click.echo(_render(plain, results))


def _measured(scored: list[Scored]) -> Metrics:
    return measure([one.row for one in scored])


def _json(plain: list[Scored], results: list[tuple[Slice, list[Scored]]]) -> dict[str, Any]:
    slices = {
        one.name: {
            "about": one.about,
            "n": len(scored),
            "metrics": {name: metric.to_json() for name, metric in _measured(scored).items()},
            "unchanged": {
                name: metric.to_json() for name, metric in _measured([plain[at] for at in one.origins]).items()
            },
        }
        for one, scored in results
    }
    metrics = {name: metric.to_json() for name, metric in _measured(plain).items()}
    return {"n": len(plain), "metrics": metrics, "slices": slices}


def _render(plain: list[Scored], results: list[tuple[Slice, list[Scored]]]) -> str:
    head = ("slice", "n", *(name.replace("_", " ") for name in SHOWN))
    rows = [head, ("as it is", str(len(plain)), *(rate(_measured(plain)[name].value) for name in SHOWN))]
    for one, scored in results:
        harder_, easier = _measured(scored), _measured([plain[at] for at in one.origins])
        cells = (f"{rate(harder_[name].value)} ({rate(easier[name].value)})" for name in SHOWN)
        rows.append((one.name, str(len(scored)), *cells))
    about = "\n".join(f"  {one.name}: {one.about}" for one, _ in results)
    return f"{table(rows, left=[0])}\n\nin brackets: the same rows unchanged\n{about}"
