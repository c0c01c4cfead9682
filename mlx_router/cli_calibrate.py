"""`mlx-router calibrate`."""

from pathlib import Path

import click

from .calls import Mode
from .policy import Policy
from .rendering import json_text

LEVEL = Policy.model_fields["level"].default
CONFIRM = Policy.model_fields["confirm"].default


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--data", required=True, help="Rows that the adapter has not seen: .jsonl, .jsonl.gz, or a dataset.")
@click.option(
    "--wrong-call-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="RATE",
    help="Policy: act so that at most this part of all requests ends in a wrong call. Without it: the folder's own.",
)
@click.option("--level", type=float, default=LEVEL, show_default=True, help="How surely that is promised.")
@click.option("--confirm", type=float, default=CONFIRM, show_default=True, help="Withhold calls less likely right.")
@click.option("--mode", type=click.Choice(["greedy", "constrained"]), default="greedy", show_default=True)
@click.option("--base", help="Where the base model lies, if not under the name in the adapter's manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print the calibration as one JSON object.")
@click.pass_context
def calibrate(
    context: click.Context,
    folder: str,
    data: str,
    wrong_call_rate: float | None,
    level: float,
    confirm: float,
    mode: Mode,
    base: str | None,
    as_json: bool,
) -> None:
    """Calibrate the adapter or fused model in FOLDER by rows that it has not seen, and keep that in its router.json.

    Rows that chose the checkpoint do not calibrate; rows that were trained on end the run. Training calibrates by
    itself where it has validation rows enough: this command is for other rows, more rows or another policy
    (docs/calibration.md).

    \b
    Examples:
      mlx-router calibrate adapters/support --data more.jsonl --wrong-call-rate 0.02
      mlx-router calibrate fused/support --data more.jsonl --json
    """
    from .calibrating import calibrate_folder, summary
    from .cli_measure import tell_routed
    from .policy import as_policy

    if wrong_call_rate is None and any(_given(context, name) for name in ("level", "confirm")):
        raise click.UsageError("--level and --confirm are part of a policy: give --wrong-call-rate with them")
    fields = {"wrong_call_rate": wrong_call_rate, "level": level, "confirm": confirm}
    policy = None if wrong_call_rate is None else as_policy(fields)
    found = calibrate_folder(Path(folder), data, policy=policy, mode=mode, base=base, progress=tell_routed)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        click.echo(json_text(found.calibration.model_dump(mode="json")))
    else:
        click.echo(summary(found.calibration))
        click.echo(f"wrote {Path(folder) / 'router.json'}", err=True)


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
