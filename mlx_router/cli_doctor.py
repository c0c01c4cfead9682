"""`mlx-router doctor`."""

import json

import click

from .doctor import examine, render


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quick", is_flag=True, help="Leave the speed measurement out.")
def doctor(as_json: bool, quick: bool) -> None:
    """Show the machine, its backend and versions, and what to do about each weak spot.

    Exits with 1 if something keeps mlx-router from working well.

    \b
    Examples:
      mlx-router doctor
      mlx-router doctor --json
    """
    report = examine(measure=not quick)
    click.echo(json.dumps(report.as_json(), indent=2) if as_json else render(report))
    if report.failed:
        raise click.exceptions.Exit(1)
