"""The sizes of a learning curve: which a list names, and what training on each of them takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from .config import TrainConfig
from .errors import UsageError
from .tables import table

ALL = "all"


def curve_sizes(text: str, rows: int) -> list[int]:
    """The sizes that a list like "50,100,all" names, rising. Raises `UsageError` for what is no such list."""
    found = set()
    for part in text.split(","):
        word = part.strip()
        if word != ALL and not (word.isdecimal() and int(word) > 0):
            raise UsageError(
                f"--curve: {word!r} is no number of rows", hint="list them like this: --curve 50,100,200,all"
            )
        found.add(rows if word == ALL else int(word))
    if too_many := [size for size in sorted(found) if size > rows]:
        raise UsageError(f"--curve: {too_many[0]} rows are wanted, and there are {rows}", hint="end the list with all")
    if len(found) < 2:
        raise UsageError(
            "--curve needs two different sizes or more", hint="list them like this: --curve 50,100,200,all"
        )
    return sorted(found)


def curve_plan(config: TrainConfig, counts: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Epochs and updates of each size of a learning curve."""
    return {count: config.schedule(config.updates_per_epoch(count)) for count in counts}


def plan_json(plan: Mapping[int, tuple[int, int]]) -> dict[str, Any]:
    """The sizes, and the sum of their updates."""
    sizes = [{"rows": count, "epochs": epochs, "updates": updates} for count, (epochs, updates) in plan.items()]
    return {"sizes": sizes, "updates": sum(updates for _, updates in plan.values())}


def render_plan(plan: Mapping[int, tuple[int, int]]) -> str:
    """The same as a table."""
    rows = [("rows", "epochs", "updates")]
    rows += [(f"{count:,}", str(epochs), f"{updates:,}") for count, (epochs, updates) in plan.items()]
    rows.append(("sum", "", f"{plan_json(plan)['updates']:,}"))
    return table(rows, left=[])
