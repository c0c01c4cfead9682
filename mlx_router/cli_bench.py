"""`mlx-router bench`."""

from pathlib import Path
from random import Random

import click

from .catalogue import Catalogue
from .data import read
from .errors import UsageError
from .interop import load_catalogue
from .manifest import read_manifest
from .rendering import json_text

MADE_REQUESTS = 40


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--data", help="Rows whose requests to take; without them requests are made up from the catalogue.")
@click.option("--catalogue", help="Route against another catalogue than the adapter's own.")
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="About how long it takes.")
@click.option("--limit", type=click.IntRange(min=3), help="Only so many requests.")
@click.option("--no-remember", is_flag=True, help="Forget the draft length that was found to be best.")
@click.option("--no-fresh", is_flag=True, help="Start no fresh processes: no cold start, no peak memory.")
@click.option("--base", help="Where the base model lies, if not under the name in the adapter's manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    folder: str,
    data: str | None,
    catalogue: str | None,
    seconds: float,
    limit: int | None,
    no_remember: bool,
    no_fresh: bool,
    base: str | None,
    as_json: bool,
) -> None:
    """Time the router in FOLDER on this machine, against mlx-lm's own functions with the same weights and prompts.

    First the best length of drafts is measured and remembered for this device and shape of model; answers do not
    depend on it. See docs/routing.md for what is timed and how.

    \b
    Examples:
      mlx-router bench adapters/support
      mlx-router bench adapters/support --data data/support/test.jsonl --seconds 120 --json
    """
    from .bench import bench_folder, render

    own = read_manifest(Path(folder)).read_catalogue()
    other = load_catalogue(catalogue) if catalogue else None
    result = bench_folder(
        folder,
        _requests(data, other or own)[:limit],
        base=base,
        catalogue=other,
        seconds=seconds,
        keep=not no_remember,
        fresh=not no_fresh,
        report=lambda line: click.echo(line, err=True),
    )
    click.echo(json_text(result) if as_json else render(result))


def _requests(data: str | None, catalogue: Catalogue) -> list[str]:
    """The requests of the rows, or some made up from the catalogue, in an order that is the same each time."""
    if data is not None:
        found = [example.request for example in read(data, catalogue)]
        # The rows of a file often lie sorted by tool.
        return Random(0).sample(found, len(found))
    from .templates import rows

    found = [example.request for example in rows(catalogue)[0]]
    if not found:
        raise UsageError("no requests can be made up from this catalogue", hint="give rows with --data")
    return Random(0).sample(found, min(MADE_REQUESTS, len(found)))
