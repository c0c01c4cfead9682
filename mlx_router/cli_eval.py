"""`mlx-router eval`: measure, show, and hold against gates."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .data import read
from .errors import UsageError
from .evaluation import Evaluation, Scored, read_predictions, write_predictions
from .interop import load_catalogue
from .metrics import COSTS, Gate
from .rendering import render_evaluation

FLOORS = (
    "valid_tool_call_rate",
    "tool_name_accuracy",
    "argument_match_accuracy",
    "argument_match_on_calls",
    "exact_match",
)


def _flag(metric: str) -> str:
    return f"--{'max' if metric in COSTS else 'min'}-{metric.replace('_', '-')}"


def _gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for each metric that can be a gate: `--min-…` for what should be high, `--max-…` for what should not."""
    for metric in reversed((*FLOORS, *COSTS)):
        option = click.option(_flag(metric), metric, type=click.FloatRange(0, 1), metavar="RATE", help="Gate.")
        command = option(command)
    return command


@click.command("eval")
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@click.option("--data", help="Test rows: .jsonl, .jsonl.gz, or a Hugging Face dataset (name#split).")
@click.option("--predictions", type=click.Path(dir_okay=False), help="Score these outputs instead of running a model.")
@click.option("--catalogue", help="Catalogue of the rows or predictions that carry none.")
@click.option("--out", type=click.Path(dir_okay=False), help="Write predictions to this file, as JSONL.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first rows.")
@click.option("--failures", default=10, show_default=True, help="How many failures to show.")
@click.option("--base", help="Where the base model lies, if not under the name in the adapter's manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with everything.")
@_gate_options
def eval_(
    folder: str | None,
    data: str | None,
    predictions: str | None,
    catalogue: str | None,
    out: str | None,
    limit: int | None,
    failures: int,
    base: str | None,
    as_json: bool,
    **gates: float | None,
) -> None:
    """Measure the router in FOLDER on test rows, or score anybody's predictions.

    Rows that carry their own tools are routed against these. A gate that is missed, or whose metric was not measured,
    makes the exit code 1.

    \b
    Examples:
      mlx-router eval adapters/support --data data/support/test.jsonl
      mlx-router eval adapters/support --data test.jsonl --min-tool-name-accuracy 0.95 --max-wrong-call-rate 0.02
      mlx-router eval --predictions outputs.jsonl --catalogue tools.json --json
    """
    if out is not None and not Path(out).parent.is_dir():
        raise UsageError(f"there is no folder {Path(out).parent} to write predictions to")
    if predictions is not None:
        if folder or data:
            raise UsageError("--predictions takes no adapter and no --data", hint="the outputs are already there")
        scored = read_predictions(Path(predictions), load_catalogue(catalogue) if catalogue else None)[:limit]
    else:
        if folder is None or data is None:
            raise UsageError("eval needs an adapter folder and --data, or --predictions")
        scored = _run(folder, data, catalogue, base, limit)
    evaluation = Evaluation.of(scored)
    if out is not None:
        write_predictions(scored, Path(out))
    missed = _missed(evaluation, gates)
    if as_json:
        click.echo(_json({**evaluation.to_json(), "gates_missed": missed}))
    else:
        click.echo(render_evaluation(evaluation, failures=failures))
    for line in missed:
        click.echo(f"gate missed: {line}", err=True)
    if missed:
        raise click.exceptions.Exit(1)


def _run(folder: str, data: str, catalogue: str | None, base: str | None, limit: int | None) -> list[Scored]:
    from .evaluation import evaluate
    from .router import Router

    router = Router.load(folder, base=base)
    examples = read(data, load_catalogue(catalogue) if catalogue else router.catalogue)[:limit]
    with _progress(len(examples)) as progress:
        return evaluate(router, examples, progress)


def _json(value: dict[str, Any]) -> str:
    """JSON in UTF-8; half a character, which an output of somebody's may hold, as an escape."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line every tenth of the rows elsewhere; both on stderr."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label="routing", file=sys.stderr, show_pos=True) as bar:
            yield lambda _: bar.update(1)
        return
    step = max(1, total // 10)
    yield lambda done: click.echo(f"routed {done}/{total}", err=True) if done % step == 0 or done == total else None


def _missed(evaluation: Evaluation, gates: dict[str, float | None]) -> list[str]:
    found = (Gate(metric, limit).verdict(evaluation.metrics) for metric, limit in gates.items() if limit is not None)
    return [verdict for verdict in found if verdict is not None]
