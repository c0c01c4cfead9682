"""`mlx-router eval`: measure, show, and hold against gates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import gates
from .calls import Mode
from .cli_measure import Measured, Source, of_predictions, of_router
from .cli_route import SHORTLIST
from .errors import UsageError
from .evaluation import Constrained, Evaluation, Scored, write_predictions
from .leaks import Leaks, render_leaks, shorten
from .metrics import COSTS
from .rendering import json_text, render_constrained, render_evaluation

if TYPE_CHECKING:
    from .cli_report import Wanted
    from .judging import Judgement
    from .report import Report
    from .thresholds import ThresholdReport

FLOORS = (
    "valid_tool_call_rate",
    "tool_name_accuracy",
    "argument_match_accuracy",
    "argument_match_on_calls",
    "exact_match",
)
# The gates that help shows; there are too many to show them all.
SHOWN_GATES = ("tool_name_accuracy", "wrong_call_rate")


def _flag(metric: str) -> str:
    return f"--{'max' if metric in COSTS else 'min'}-{metric.replace('_', '-')}"


def _gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for each metric that can be a gate: `--min-…` for what should be high, `--max-…` for what should not."""
    for metric in reversed((*FLOORS, *COSTS)):
        option = click.option(
            _flag(metric),
            metric,
            type=click.FloatRange(0, 1),
            metavar="RATE",
            hidden=metric not in SHOWN_GATES,
            help="Gate; every metric has such a flag.",
        )
        command = option(command)
    return command


@click.command("eval")
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@click.option("--data", help="Test rows: .jsonl, .jsonl.gz, or a Hugging Face dataset (name#split).")
@click.option("--predictions", type=click.Path(dir_okay=False), help="Score these outputs instead of running a model.")
@click.option("--catalogue", help="Catalogue of the rows or predictions that carry none.")
@click.option("--out", type=click.Path(dir_okay=False), help="Write predictions to this file, as JSONL.")
@click.option(
    "--mode",
    type=click.Choice(["greedy", "constrained"]),
    default="greedy",
    show_default=True,
    help="constrained measures that too, beside the default mode; gates hold for the default mode.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first rows.")
@click.option("--failures", default=10, show_default=True, help="How many failures to show.")
@click.option("--base", help="Where the base model lies, if not under the name in the adapter's manifest.")
@click.option(
    "--wrong-call-rate",
    "promise",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="RATE",
    help="Show what this promise would do, instead of the adapter's own policy.",
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(file_okay=False),
    help="Write report.html, report.md and report.json to this folder, baselines included.",
)
@click.option("--baseline-train", help="Training rows for the report's baselines, if not those of the adapter.")
@click.option("--skip-base", is_flag=True, help="Don't route the report's rows with the untrained base too.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Show what withholding calls of lower confidence would do, beside the metrics.",
)
@click.option("--shortlist", type=click.IntRange(min=0), metavar="K", help=SHORTLIST)
@click.option("--allow-leaks", is_flag=True, help="Measure although rows of the test were trained on.")
@click.option("--near", help="Training rows: list what of the test is near one, and measure without it too.")
@click.option(
    "--gates",
    "gates_file",
    type=click.Path(dir_okay=False),
    envvar="MLX_ROUTER_EVAL_GATES",
    help="Gates as YAML, metric: {min: RATE} or {max: RATE}; flags beat it.",
)
@click.option(
    "--gate-on",
    type=click.Choice(["point", "ci"]),
    default="point",
    show_default=True,
    help="Hold gates against the value, or the worse end of its interval.",
)
@click.option("--junit", type=click.Path(dir_okay=False), help="Write the gates to this file as JUnit XML.")
@click.option("--junit-rows", is_flag=True, help="The rows too, a test case each.")
@click.option("--summary", type=click.Path(dir_okay=False), help="Append a report in GitHub's Markdown to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with everything.")
@_gate_options
def eval_(
    folder: str | None,
    data: str | None,
    predictions: str | None,
    catalogue: str | None,
    out: str | None,
    mode: Mode,
    limit: int | None,
    failures: int,
    base: str | None,
    promise: float | None,
    report_folder: str | None,
    baseline_train: str | None,
    skip_base: bool,
    threshold: float | None,
    shortlist: int | None,
    allow_leaks: bool,
    near: str | None,
    gates_file: str | None,
    gate_on: gates.Basis,
    junit: str | None,
    junit_rows: bool,
    summary: str | None,
    as_json: bool,
    **flags: float | None,
) -> None:
    """Measure the router in FOLDER on test rows, or score anybody's predictions.

    Rows that carry their own tools are routed against these. The exit code is 1 if a row of the test was trained on,
    a gate is missed, or its metric was not measured. For a CI see docs/ci.md, for several machines
    docs/distributed.md.

    \b
    Examples:
      mlx-router eval adapters/support --data data/support/test.jsonl
      mlx-router eval adapters/support --data test.jsonl --min-tool-name-accuracy 0.95 --max-wrong-call-rate 0.02
      mlx-router eval adapters/support --data test.jsonl --gates gates.yaml --gate-on ci --junit gates.xml
      mlx-router eval adapters/support --data data/support/test.jsonl --report out
      mlx-router eval --predictions outputs.jsonl --catalogue tools.json --json
    """
    _check_folders({"predictions": out, "JUnit XML": junit, "a summary": summary})
    limits = gates.merged(gates.read_gates(Path(gates_file)) if gates_file else [], flags)
    pages = Pages(folder or str(predictions), junit, junit_rows, summary, failures)
    wanted = _wanted(report_folder, baseline_train, skip_base)
    if predictions is not None:
        _refuse_for_predictions(mode, promise, shortlist, threshold)
        if folder or data or near:
            raise UsageError("--predictions takes no adapter and no rows", hint="the outputs are already there")
        measured: Measured | None = of_predictions(predictions, catalogue, limit, wanted)
    else:
        if folder is None or data is None:
            raise UsageError("eval needs an adapter folder and --data, or --predictions")
        source = Source(folder, data, base, promise, shortlist, catalogue, near, limit)
        stop = None if allow_leaks else partial(_stop, pages=pages, as_json=as_json)
        measured = of_router(source, mode, wanted, stop)
    if measured is None:
        return
    scored, leaks, constrained, material = measured
    evaluation = Evaluation.of(scored)
    if out is not None:
        write_predictions(scored, Path(out))
    verdicts = gates.judge(limits, evaluation.metrics, gate_on)
    missed = [verdict.problem for verdict in verdicts if verdict.problem is not None]
    report = None if material is None else material.report(evaluation, leaks, verdicts, constrained)
    withheld = None if threshold is None else _threshold(scored, threshold)
    outcome = Outcome(evaluation, leaks, _judgement(scored), constrained, withheld, report, missed)
    found = outcome.to_json()
    click.echo(json_text(found) if as_json else outcome.render(failures))
    if material is not None and report is not None:
        material.write(report, found)
    pages.write(evaluation, verdicts, leaks, passed=not missed)
    for line in missed:
        click.echo(f"gate missed: {line}", err=True)
    if missed:
        raise click.exceptions.Exit(1)


@dataclass(frozen=True)
class Outcome:
    """All that was measured, as far as it was asked for."""

    evaluation: Evaluation
    leaks: Leaks | None
    judged: "Judgement | None"
    constrained: Constrained | None
    withheld: "ThresholdReport | None"
    report: "Report | None"
    gates_missed: list[str]

    def to_json(self) -> dict[str, Any]:
        """One object with everything."""
        found = {**self.evaluation.to_json(), **_leaks_json(self.leaks, self.evaluation)}
        found |= {} if self.judged is None else self.judged.to_json()
        found |= {} if self.constrained is None else {"constrained": self.constrained.to_json()}
        found |= {} if self.withheld is None else {"threshold": self.withheld.to_json()}
        found["gates_missed"] = self.gates_missed
        return found if self.report is None else {**found, "baselines": self.report.baselines_json()}

    def render(self, failures: int) -> str:
        """The same as text, with so many of the failures; gates are told apart from it."""
        parts = [render_evaluation(self.evaluation, failures=failures)]
        parts += [] if self.judged is None else [self.judged.render()]
        parts += [] if self.withheld is None else [self.withheld.render()]
        parts += [] if self.constrained is None else [render_constrained(self.constrained)]
        parts += [] if self.leaks is None else [render_leaks(self.leaks, self.evaluation)]
        parts += [] if self.report is None else [self.report.render_baselines()]
        return "\n\n".join(parts)


def _wanted(folder: str | None, baseline_train: str | None, skip_base: bool) -> "Wanted | None":
    """The report that the flags ask for; what it takes is only loaded where there is one."""
    if folder is None:
        if baseline_train is not None or skip_base:
            raise UsageError("--baseline-train and --skip-base are about the baselines of --report")
        return None
    from .cli_report import Wanted

    return Wanted.of(folder, baseline_train, skip_base)


def _check_folders(files: dict[str, str | None]) -> None:
    """Refuse files that could not be written; an evaluation takes too long to find out at its end."""
    for what, path in files.items():
        if path is not None and not Path(path).parent.is_dir():
            raise UsageError(f"there is no folder {Path(path).parent} to write {what} to")


def _refuse_for_predictions(mode: Mode, promise: float | None, shortlist: int | None, threshold: float | None) -> None:
    """Refuse what only a router can do, where outputs are scored that were made already."""
    if mode != "greedy":
        raise UsageError("--predictions were made already: --mode decodes with an adapter")
    for flag, given in (("--wrong-call-rate", promise), ("--shortlist", shortlist)):
        if given is not None:
            raise UsageError(f"--predictions were made already: {flag} takes an adapter")
    if threshold is not None:
        raise UsageError("--predictions don't say how sure the model was: --threshold takes an adapter")


def _stop(leaks: Leaks, pages: "Pages", as_json: bool) -> NoReturn:
    """Say what leaked, and end; nothing was measured."""
    if as_json:
        click.echo(json_text({"n": leaks.rows, "leaks": leaks.to_json()}))
    pages.write(None, [], leaks, passed=False)
    for line in shorten(leaks.lines):
        click.echo(f"leak: {line}", err=True)
    click.echo(f"Error: {leaks.summary}\n\nhint: take them out of the test, or measure with --allow-leaks", err=True)
    raise click.exceptions.Exit(1)


def _judgement(scored: Sequence[Scored]) -> "Judgement | None":
    """Calibration and policy on these rows; None where no router that has either made the outputs."""
    if not any(one.p_right is not None or one.action is not None for one in scored):
        return None
    # It takes NumPy, which scoring somebody's outputs need not load.
    from .judging import Judgement

    return Judgement.of(scored)


def _threshold(scored: Sequence[Scored], threshold: float) -> "ThresholdReport":
    from .thresholds import ThresholdReport

    return ThresholdReport.of(scored, threshold)


def _leaks_json(leaks: Leaks | None, evaluation: Evaluation) -> dict[str, Any]:
    if leaks is None:
        return {}
    clean = leaks.without(evaluation)
    without = None if clean is None else {key: clean.to_json()[key] for key in ("n", "metrics")}
    return {"leaks": {**leaks.to_json(), "without": without}}


@dataclass(frozen=True)
class Pages:
    """The files for a CI's pages, as far as they are wanted."""

    title: str
    junit: str | None
    junit_rows: bool
    summary: str | None
    failures: int

    def write(
        self, evaluation: Evaluation | None, verdicts: list[gates.Verdict], leaks: Leaks | None, *, passed: bool
    ) -> None:
        """Write them; without an evaluation they say why there is none."""
        if self.junit is not None:
            rows = gates.row_cases(evaluation.scored) if evaluation is not None and self.junit_rows else []
            cases = [*_leak_cases(leaks, stopped=evaluation is None), *gates.gate_cases(verdicts), *rows]
            gates.write_junit(Path(self.junit), cases, _properties(evaluation))
        if self.summary is not None:
            notes = evaluation.notes if evaluation is not None else []
            notes += [f"leaks: {leaks.summary}", *shorten(leaks.lines)] if leaks is not None else []
            text = gates.markdown(self.title, evaluation, verdicts, notes, passed=passed, shown=self.failures)
            gates.append_summary(Path(self.summary), text)


def _leak_cases(leaks: Leaks | None, *, stopped: bool) -> list[gates.Case]:
    """One test case; it is skipped where leaks are allowed or could not be looked for."""
    if leaks is None:
        return []
    problem = leaks.summary if leaks.failed or not leaks.checked else None
    skipped = problem is not None and not stopped
    return [gates.Case("leaks", "no test row was trained on", problem, "\n".join(leaks.lines), skipped=skipped)]


def _properties(evaluation: Evaluation | None) -> dict[str, str]:
    metrics = evaluation.metrics if evaluation is not None else {}
    return {name: "" if metric.value is None else f"{metric.value:.4f}" for name, metric in metrics.items()}
