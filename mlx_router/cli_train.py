"""`mlx-router train`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from .config import TrainConfig, load_config, takes_only_text
from .errors import ConfigError, UsageError
from .rendering import rate

# Shown by --help; the other fields are flags as well, listed in docs/config.md.
SHOWN = ("model", "adapter", "train", "valid", "epochs", "max_updates", "batch_size", "learning_rate", "rank", "seed")
GIB = 2**30


def _field_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every field of the recipe, its value read as YAML."""
    for name, field in reversed(TrainConfig.model_fields.items()):
        default = "" if field.is_required() else f"  [default: {field.default}]"
        text = f"{(field.description or name).capitalize()}.{default}"
        flag = f"--{name.replace('_', '-')}"
        option = click.option(flag, name, metavar="VALUE", help=text, hidden=name not in SHOWN)
        command = option(command)
    return command


@click.command()
@click.option("--config", type=click.Path(dir_okay=False), help="Recipe file, YAML.")
@click.option("--overwrite", is_flag=True, help="Replace a finished adapter in the same folder.")
@click.option("--resume", type=click.Path(file_okay=False), help="Go on with the unfinished run in this folder.")
@click.option("--curve", metavar="SIZES", help="Train on so many rows each, and say whether more help: 50,100,200,all.")
@click.option("--dry-run", is_flag=True, help="Say what the run would take, then stop before any download.")
@click.option("--json", "as_json", is_flag=True, help="Print events as NDJSON on stdout.")
@_field_options
def train(
    config: str | None,
    overwrite: bool,
    resume: str | None,
    curve: str | None,
    dry_run: bool,
    as_json: bool,
    **fields: str | None,
) -> None:
    """Train an adapter by a recipe; every field of the recipe is a flag too (docs/config.md lists them).

    \b
    Examples:
      mlx-router train --config configs/support.yaml
      mlx-router train --config my-router/train.yaml --epochs 5 --learning-rate 1e-3
      mlx-router train --resume my-router/adapter
      mlx-router train --config my-router/train.yaml --curve 50,100,200,all
    """
    if curve is not None and resume is not None:
        raise UsageError("--curve goes on by itself: give the same command again, without --resume")
    if resume is None:
        recipe = load_config(Path(config) if config else None, _overrides(fields))
    else:
        recipe = _resumed(resume, config, fields, overwrite)
    from .budget import estimate

    stream = sys.stdout
    budget = estimate(recipe)
    if dry_run:
        planned = _planned(recipe, curve) if curve is not None else None
        if as_json:
            click.echo(json.dumps(budget.to_json() | ({} if planned is None else {"curve": planned[1]}), indent=2))
        else:
            click.echo("\n".join([budget.render(), *([] if planned is None else [planned[0]])]))
        return
    from .model import BACKEND
    from .ranks import join
    from .training import train as run

    if join().first:
        click.echo(budget.render(), err=True)
    if BACKEND.device == "cpu" and not BACKEND.blas.fast:
        click.echo("note: MLX has only its slow reference BLAS here; what to do: mlx-router doctor", err=True)
    report = _json_reporter(stream) if as_json else _line_reporter()
    if curve is not None:
        _curve(recipe, curve, report, overwrite=overwrite, as_json=as_json)
        return
    run(recipe, report, overwrite=overwrite, resume=resume is not None)


def _planned(recipe: TrainConfig, sizes: str) -> tuple[str, dict[str, Any]]:
    """What a curve would take, as text and as JSON, by the lines of the file of rows."""
    from .budget import count_rows
    from .curve_sizes import curve_plan, curve_sizes, plan_json, render_plan

    rows = count_rows(recipe.train)
    if rows is None:
        raise UsageError(
            f"{recipe.train} is no file whose rows can be counted without reading a dataset",
            hint="start the curve: it says what it takes once it has read the rows",
        )
    plan = curve_plan(recipe, curve_sizes(sizes, rows))
    return render_plan(plan), plan_json(plan)


def _curve(
    recipe: TrainConfig, sizes: str, report: Callable[[dict[str, Any]], None], *, overwrite: bool, as_json: bool
) -> None:
    from .learning_curve import learning_curve, render
    from .ranks import join

    if join().size > 1:
        raise UsageError("--curve runs in one process", hint="start it without mlx.launch")
    found = learning_curve(recipe, sizes, report, overwrite=overwrite)
    if as_json:
        report({"event": "curve", **found})
    else:
        click.echo(render(found))


def _resumed(folder: str, config: str | None, fields: dict[str, str | None], overwrite: bool) -> TrainConfig:
    """The recipe that the run in the folder began with."""
    given = [name for name, value in fields.items() if value is not None]
    if config or overwrite or given:
        raise UsageError("--resume goes on by the run's own recipe; give no other fields or files with it")
    from .checkpoints import read_recipe
    from .ranks import join, together

    # Only the first rank's machine needs to hold the folder.
    ranks = join()
    with together(ranks):
        return TrainConfig.model_validate_json(
            ranks.from_first(lambda: read_recipe(Path(folder).expanduser()).model_dump_json().encode())
        )


def _overrides(fields: dict[str, str | None]) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = {}
    for name, text in fields.items():
        if text is None:
            continue
        try:
            found[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--{name.replace('_', '-')}: {text!r} can't be read") from None
        is_value = isinstance(found[name], bool | int | float | list | dict) and not takes_only_text(name)
        if found[name] is not None and not is_value:
            found[name] = text
    return found


def _json_reporter(stream: IO[str]) -> Callable[[dict[str, Any]], None]:
    return lambda event: print(json.dumps(event), file=stream, flush=True)


def _line_reporter() -> Callable[[dict[str, Any]], None]:
    stream = sys.stderr
    return lambda event: print(_line(event), file=stream, flush=True)


def _line(event: dict[str, Any]) -> str:
    kind = event["event"]
    if kind == "start":
        share = 100 * event["trainable_parameters"] / event["parameters"]
        how = "catalogue run once a batch" if event["shared_prefix"] else "whole rows"
        return (
            f"{event['rows']} rows, {event['tools']} tools, {event['updates']} updates in {event['epochs']} epochs; "
            f"{event['trainable_parameters']:,} of {event['parameters']:,} parameters trained ({share:.1f} %), "
            f"{event['dtype']}, {how}"
        )
    if kind == "progress":
        return (
            f"update {event['update']:>5}/{event['updates']}  epoch {event['epoch']:.2f}  loss {event['loss']:.4f}  "
            f"lr {event['learning_rate']:.1e}  {event['tokens_per_second']:,.0f} tokens/s  "
            f"ETA {_clock(event['eta_s'])}  memory {event['peak_memory_bytes'] / GIB:.2f} GiB"
        )
    if kind == "valid":
        return _valid_line(event)
    if kind == "checkpoint":
        return f"epoch {event['epoch']}: saved {event['file']}"
    if kind == "interrupted":
        return f"stopped after update {event['update']}; saved {event['file']}"
    if kind == "stopped":
        return (
            f"stopped after update {event['update']} of {event['updates']}: "
            f"nothing better in the last {event['validations']} validation(s)"
        )
    if kind == "plot":
        return _plot(Path(event["file"]))
    if kind == "done":
        loss = "" if event["valid_loss"] is None else f", validation loss {event['valid_loss']:.4f}"
        return f"done in {_clock(event['elapsed_s'])}: {event['adapter']} holds {event['checkpoint']}{loss}"
    return str(event["message"])


def _valid_line(event: dict[str, Any]) -> str:
    routed = ""
    if event["rows"]:
        of_no_tool = rate(event["false_call_rate_on_no_tool"])
        routed = (
            f"; {event['rows']} rows routed: exact match {rate(event['exact_match'])}, "
            f"wrong calls {rate(event['wrong_call_rate'])}, false calls {of_no_tool} of no_tool rows"
        )
    best = ", the best so far" if event["best"] else ""
    return (
        f"epoch {event['epoch']}: validation loss {event['loss']:.4f}{routed}{best} "
        f"(validation took {event['seconds']:.1f} s)"
    )


def _plot(path: Path) -> str:
    """Where the plot is, and the same in letters, where stderr can show them."""
    from .history import draw_for_terminal

    said = f"plot: {path}"
    try:
        text = draw_for_terminal(path.parent)
        text.encode(sys.stderr.encoding or "ascii")
    except UnicodeEncodeError:
        return said
    return f"{text}\n{said}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
