"""The trainer of this checkout against another one's: seconds an update, in turn.

    git worktree add ../before v0.1.0
    python benchmarks/versions.py ../before --config configs/support.yaml

Both are started as `mlx-router train` on the same recipe and stopped after some updates; calibration and validation are
left out. An update's time is the median of a run, in which a few updates trace new shapes, without the first three.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
FIRST = 3
COMMAND = [sys.executable, "-c", "from mlx_router.cli import main; main()", "train", "--json"]


def seconds(checkout: Path, arguments: list[str], updates: int) -> tuple[float, float]:
    """Seconds an update of a checkout's trainer, and the loss after these updates."""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [*COMMAND, *arguments, "--adapter", str(Path(folder) / "adapter")],
            cwd=checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running,
    ):
        assert running.stdout is not None and running.stderr is not None
        found: list[dict[str, Any]] = []
        for line in running.stdout:
            event = json.loads(line)
            if event["event"] == "progress":
                found.append(event)
                if event["update"] >= updates:
                    break
        running.kill()
        if len(found) <= FIRST + 1:
            raise SystemExit(f"{checkout} did not train: {running.stderr.read()[-2000:]}")
    steps = [
        (after["elapsed_s"] - before["elapsed_s"]) / (after["update"] - before["update"])
        for before, after in zip(found[FIRST:], found[FIRST + 1 :], strict=False)
    ]
    return statistics.median(steps), found[-1]["loss"]


def measure(other: Path, arguments: list[str], updates: int, rounds: int) -> dict[str, Any]:
    """Both in turn, so that a busy minute falls on both; the ratio is the median of the rounds' ratios."""
    sides = {"other": other, "this": HERE}
    times: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, float] = {}
    for _ in range(rounds):
        for name, checkout in sides.items():
            took, losses[name] = seconds(checkout, arguments, updates)
            times[name].append(took)
    ratios = [this / before for before, this in zip(times["other"], times["this"], strict=True)]
    return {
        **{f"seconds_{name}": statistics.median(values) for name, values in times.items()},
        **{f"loss_{name}": loss for name, loss in losses.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="another checkout of mlx-router")
    parser.add_argument("--config", type=Path, required=True, help="the recipe that both train by")
    parser.add_argument("--updates", type=int, default=60, help="updates of a run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    arguments = ["--config", str(given.config.resolve()), "--valid-rows", "0", "--log-every", "1"]
    found = measure(given.other.resolve(), arguments, given.updates, given.rounds)
    if given.json:
        print(json.dumps(found))
        return
    for name in ("other", "this"):
        print(f"{name:6} {found[f'seconds_{name}']:.3f} s an update, loss {found[f'loss_{name}']:.4f}")
    print(f"this takes {found['ratio']:.2f} of the time, {', '.join(f'{one:.2f}' for one in found['ratios'])} by round")


if __name__ == "__main__":
    main()
