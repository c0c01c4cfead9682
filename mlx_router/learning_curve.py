"""A learning curve: the same recipe trained on more and more of the rows, to say how many examples are needed.

Each size holds the rows of the smaller ones, with every tool's share. Each adapter routes the same validation rows,
none of which is a training row. What was done is kept in a folder and not done again.
"""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .calibrating import split_validation
from .checkpoints import is_unfinished, run_identity, states
from .comparison import Difference, compare
from .config import TrainConfig
from .curve_sizes import curve_plan, curve_sizes, plan_json, render_plan
from .data import Example, read
from .errors import DataError, TrainingError, UsageError
from .evaluation import Evaluation, Scored, evaluate, read_predictions, write_predictions
from .interop import load_catalogue
from .manifest import FILE as MANIFEST
from .pairing import pair_up
from .preparing import Event, Report
from .records import data_record
from .rendering import rate
from .router import Router
from .tables import table
from .training import train
from .trends import LEAST_POINTS, PowerLaw, fit_power_law

RESULT = "curve.json"
PREDICTIONS = "validation.jsonl"
SHOWN = ("exact_match", "wrong_call_rate", "false_call_rate_on_no_tool")
# Beyond so many times the rows nothing is foretold.
FAR = 100


@dataclass(frozen=True)
class Point:
    """One size: the rows trained on, the folder, and how it routed the validation rows."""

    rows: int
    updates: int
    folder: Path
    scored: tuple[Scored, ...]

    @property
    def errors(self) -> int:
        """Validation rows whose whole decision is wrong."""
        return sum(not one.row.right for one in self.scored)

    def to_json(self) -> dict[str, Any]:
        """The size and its metrics."""
        metrics = Evaluation.of(self.scored).metrics
        found = {name: metric.to_json() for name, metric in metrics.items()}
        return {"rows": self.rows, "updates": self.updates, "folder": self.folder.name, "metrics": found}


def curve_folder(config: TrainConfig) -> Path:
    """Where a recipe's curve lies: beside its adapter."""
    adapter = Path(config.adapter).expanduser()
    return adapter.with_name(f"{adapter.name}-curve")


def learning_curve(config: TrainConfig, text: str, report: Report, *, overwrite: bool = False) -> dict[str, Any]:
    """Train and measure every size that is not done yet; return the curve, which lies in `curve.json` too.

    `report` gets the events of `train`, each with `train_rows`; "plan" before them, and "estimate" once updates were
    timed. Raises `UsageError` for a recipe without validation rows, `TrainingError` where the folder holds another
    recipe's curve.
    """
    if config.valid is None:
        raise UsageError(
            "--curve measures on validation rows, and the recipe names none",
            hint="add valid: …; to part rows: mlx-router data split",
        )
    default = load_catalogue(config.catalogue) if config.catalogue else None
    training = read(config.train, default)
    valid = _unseen(read(config.valid, default), training)
    counts = curve_sizes(text, len(training))
    folder = curve_folder(config)
    _claim(folder, _identity(config, training, valid), overwrite)
    plan = curve_plan(config, counts)
    routed = f"each size then routes {len(valid):,} validation rows"
    report({"event": "plan", "message": f"{render_plan(plan)}\n{routed}", **plan_json(plan)})
    clock = _Clock(plan, report)
    points = [_point(config, count, plan[count][1], folder, valid, clock) for count in counts]
    found = summarize(points)
    _write(folder / RESULT, {**_read(folder / RESULT), **found})
    return found


def _unseen(valid: Sequence[Example], training: Sequence[Example]) -> list[Example]:
    rows = split_validation(valid, training)
    found = [*rows.choosing, *rows.calibrating]
    if not found:
        raise DataError("every validation row is a training row too", hint="part them: mlx-router data split")
    return found


def _identity(config: TrainConfig, training: Sequence[Example], valid: Sequence[Example]) -> str:
    data = {"train": data_record(config.train, training), "valid": data_record(str(config.valid), valid)}
    return run_identity(config.model_copy(update={"train_rows": None}), data, {})


def _claim(folder: Path, identity: str, overwrite: bool) -> None:
    if overwrite and (folder / RESULT).is_file():
        shutil.rmtree(folder)
    if (folder / RESULT).is_file() and _read(folder / RESULT).get("run") != identity:
        raise TrainingError(
            f"{folder} holds a curve of another recipe or of other rows",
            hint="give another --adapter, or --overwrite to begin anew",
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RESULT).is_file():
        _write(folder / RESULT, {"run": identity})


def _point(
    config: TrainConfig, count: int, updates: int, folder: Path, valid: Sequence[Example], clock: "_Clock"
) -> Point:
    """A size's result, from its folder where it is done."""
    place = folder / str(count)
    predictions = place / PREDICTIONS
    done = (place / MANIFEST).is_file()
    if done and predictions.is_file():
        clock.skip(count)
        return Point(count, updates, place, tuple(read_predictions(predictions)))
    if not done:
        own = config.model_copy(update={"adapter": str(place), "train_rows": count})
        resume = is_unfinished(place) and bool(states(place))
        clock.note(count, f"training for {updates:,} updates")
        train(own, clock.of(count), resume=resume)
    begun = time.perf_counter()
    clock.note(count, f"routing {len(valid):,} validation rows")
    scored = evaluate(Router.load(place), valid)
    write_predictions(scored, predictions)
    clock.routed(time.perf_counter() - begun, count)
    # Read again, so that a curve that went on from its folder says the same.
    return Point(count, updates, place, tuple(read_predictions(predictions)))


class _Clock:
    """Passes the events on, and says how long all of it takes once the first updates have been timed."""

    def __init__(self, plan: dict[int, tuple[int, int]], report: Report) -> None:
        self.left = {count: updates for count, (_, updates) in plan.items()}
        self.report = report
        self.routing_s: float | None = None
        self.told = False

    def of(self, count: int) -> Report:
        first = 1

        def report(event: Event) -> None:
            nonlocal first
            if event["event"] == "start":
                first = event["first_update"]
            self.report({**event, "train_rows": count})
            if event["event"] == "progress" and not self.told:
                self.told = True
                done = event["update"] - first + 1
                self._estimate(event["elapsed_s"] / done, sum(self.left.values()) - done)

        return report

    def _estimate(self, update_s: float, updates: int) -> None:
        seconds = update_s * updates
        message = f"the whole curve: about {_minutes(seconds)} of training left, and validation"
        if self.routing_s is not None:
            seconds += self.routing_s * len(self.left)
            message = f"the whole curve: about {_minutes(seconds)} left"
        self.report({"event": "estimate", "seconds": seconds, "updates": updates, "message": message})

    def routed(self, seconds: float, count: int) -> None:
        """A size is done: the time of the others is told anew with its routing."""
        self.routing_s, self.told = seconds, False
        del self.left[count]

    def skip(self, count: int) -> None:
        del self.left[count]
        self.note(count, "done already")

    def note(self, count: int, message: str) -> None:
        self.report({"event": "note", "train_rows": count, "message": f"{count:,} rows: {message}"})


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def summarize(points: Sequence[Point]) -> dict[str, Any]:
    """The curve as one JSON object, with what it suggests in words."""
    before, last = points[-2:]
    step = compare(pair_up(before.scored, last.scored)).metrics["exact_match"]
    law = fit_power_law([(point.rows, point.errors, len(point.scored)) for point in points])
    return {
        "n": len(last.scored),
        "points": [point.to_json() for point in points],
        "last_step": {"from": before.rows, "to": last.rows, **step.to_json()},
        "power_law": None if law is None else law.to_json(),
        "suggests": suggest(points, step, law),
    }


def suggest(points: Sequence[Point], step: Difference, law: PowerLaw | None) -> list[str]:
    """What the curve says of more examples, and how far it can be trusted."""
    before, last = points[-2:]
    assert step.difference is not None and step.ci95 is not None
    doublings = math.log2(last.rows / before.rows)
    low, high = (100 * end for end in step.ci95)
    gain = 100 * step.difference
    said = (
        f"from {before.rows:,} to {last.rows:,} rows exact_match changed by {gain:+.1f} points "
        f"({low:+.1f} … {high:+.1f}, the same {len(last.scored)} rows), {gain / doublings:+.1f} a doubling"
    )
    verdicts = {
        "better": "more rows of this kind still help",
        "worse": "more rows made it worse: look at what the later rows say (mlx-router data check)",
        "can't tell": "that may be chance: this curve can't say that more rows of this kind would help",
    }
    return [
        f"{said}: {verdicts[step.verdict]}",
        _foretold(last, law),
        "one run a size (one seed), and the validation rows chose each run's checkpoint: differences of a point or two "
        "mean little, and all values are a little high",
    ]


def _foretold(last: Point, law: PowerLaw | None) -> str:
    if law is None:
        return f"no law is fitted: it takes {LEAST_POINTS} sizes, each with errors among the validation rows"
    exponent = f"{law.exponent:.2f} (± {law.margin:.2f})"
    if not law.fits:
        return f"no power law is drawn: errors as rows^-{exponent} miss the points with p = {law.p:.2g}"
    twice, four = (rate(1 - law.error_rate(times * last.rows)) for times in (2, 4))
    halved = last.rows * 2 ** (1 / law.exponent)
    known = law.exponent > 2 * law.margin and halved < FAR * last.rows
    half = f"half the errors would take about {halved:,.0f} rows" if known else "the exponent is too uncertain for more"
    return (
        f"errors fall as rows^-{exponent}, a law that misses the points by no more than chance (p = {law.p:.2f}); if "
        f"it held, exact_match would be {twice} at {2 * last.rows:,} rows and {four} at {4 * last.rows:,}, "
        f"{half}"
    )


def render(found: dict[str, Any]) -> str:
    """The curve as a table with intervals, and what it suggests."""
    rows = [("rows", "updates", *(text for name in SHOWN for text in (name, "95 %")))]
    for point in found["points"]:
        cells = [_cells(point["metrics"][name]) for name in SHOWN]
        rows.append((f"{point['rows']:,}", f"{point['updates']:,}", *(text for pair in cells for text in pair)))
    lines = [f"- {line}" for line in found["suggests"]]
    return "\n".join([f"{found['n']} validation rows", table(rows, left=[]), "", *lines])


def _cells(metric: dict[str, Any]) -> tuple[str, str]:
    interval = metric["ci95"]
    return rate(metric["value"]), "–" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{path} can't be read: {error}", hint="begin anew with --overwrite") from None
    return found


def _write(path: Path, value: dict[str, Any]) -> None:
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
