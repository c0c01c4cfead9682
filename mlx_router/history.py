"""What a run reported, kept in its folder: `training.jsonl`, a line an event, and `training.png`, drawn from it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .plots import Line, Panel, draw_panel, spread, write_png

Event: TypeAlias = Mapping[str, Any]

FILE = "training.jsonl"
PLOT = "training.png"
KEPT = ("progress", "valid")
# What routing tells: name in the file, name and letter in a chart, and one of Okabe and Ito's colours, for all eyes.
ROUTED = (
    ("exact_match", "exact match", "e", "#009e73"),
    ("wrong_call_rate", "wrong calls", "w", "#d55e00"),
    ("false_call_rate_on_no_tool", "false calls of no_tool rows", "f", "#cc79a7"),
)


def append(folder: Path, event: Event) -> None:
    """Keep an event, if it is of a kind that a chart is drawn from."""
    if event["event"] in KEPT:
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The events kept, in their order, up to a line that a killed run or the disk left torn."""
    path = folder / FILE
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def cut(folder: Path, update: int) -> None:
    """Forget what came after an update, where a run goes on from there."""
    kept = [event for event in read(folder) if event["update"] <= update]
    aside = folder / f"{FILE}.part"
    aside.write_text("".join(json.dumps(event) + "\n" for event in kept), encoding="utf-8")
    aside.replace(folder / FILE)


def panels(events: Sequence[Event]) -> list[Panel]:
    """Loss, and below it what routing gave, over epochs; none for a run that has reported nothing."""
    progress = [(event["epoch"], event["loss"]) for event in events if event["event"] == "progress"]
    valid = [event for event in events if event["event"] == "valid"]
    lines = [Line("training", "#0072b2", progress), Line("validation", "#e69f00", _points(valid, "loss"), "o")]
    lines = [line for line in lines if line.points]
    found = []
    if lines:
        losses = [loss for line in lines for _, loss in line.points]
        found.append(Panel("loss", lines, spread(losses), log=True))
    routed = [Line(name, color, points, mark) for key, name, mark, color in ROUTED if (points := _points(valid, key))]
    if routed:
        rows = max(event["rows"] for event in valid)
        found.append(Panel(f"{rows} validation rows routed", routed, (0.0, 1.0)))
    return found


def _points(events: Sequence[Event], name: str) -> list[tuple[float, float]]:
    return [(event["epochs_trained"], event[name]) for event in events if event[name] is not None]


def best_epoch(events: Sequence[Event]) -> float | None:
    """Where the best checkpoint was made."""
    return next((event["epochs_trained"] for event in reversed(events) if event.get("best")), None)


def draw(folder: Path) -> Path | None:
    """Draw the run so far to `training.png`; None where there is nothing to draw."""
    events = read(folder)
    if not (found := panels(events)):
        return None
    epoch = best_epoch(events)
    write_png(folder / PLOT, found, "epoch", None if epoch is None else (epoch, "best"))
    return folder / PLOT


def draw_for_terminal(folder: Path, width: int = 72) -> str:
    """The same in letters; empty where there is nothing to draw."""
    return "\n\n".join(draw_panel(panel, width) for panel in panels(read(folder)))
