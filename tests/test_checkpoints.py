"""Runs that are stopped, killed or damaged, and go on as if they had never been."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import make_recipe

from mlx_router import Router, checkpoints
from mlx_router.checkpoints import read_recipe, states
from mlx_router.config import TrainConfig
from mlx_router.errors import TrainingError
from mlx_router.training import train

import mlx.core as mx  # isort: skip  (training has put the BLAS in place)

# One row is routed after every epoch.
SETTINGS: dict[str, Any] = {"epochs": 3, "lora_dropout": 0.1, "save_every": 2, "batch_size": 2, "valid_rows": 1}
KILLED = """
import os, signal, sys
from pathlib import Path
from mlx_router import checkpoints, training
from mlx_router.config import TrainConfig

update, config = int(sys.argv[1]), TrainConfig.model_validate_json(Path(sys.argv[2]).read_text(encoding="utf-8"))

def report(event):
    if event["event"] == "progress" and event["update"] == update:
        os.kill(os.getpid(), signal.SIGKILL)

training.train(config, report)
"""


def nowhere(event: dict[str, Any]) -> None:
    """A report that nobody reads."""


def weights(folder: str | Path) -> dict[str, np.ndarray]:
    found: Any = mx.load(f"{folder}/adapters.safetensors")
    return {name: np.array(value) for name, value in found.items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def two_recipes(folder: Path, **settings: Any) -> tuple[TrainConfig, TrainConfig]:
    """The same recipe for an unbroken run and a broken one, with validation rows."""
    config = make_recipe(folder, **(SETTINGS | {"log_every": 1} | settings))
    config = config.model_copy(update={"valid": config.train})
    return config, config.model_copy(update={"adapter": str(folder / "broken")})


def stop_at(update: int) -> Any:
    """A report that presses Ctrl-C after an update."""

    def report(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["update"] == update:
            os.kill(os.getpid(), signal.SIGINT)

    return report


@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 3, "batch_size": 1}], ids=["plain", "accumulated"]
)
@pytest.mark.parametrize("update", [1, 5, 6, 11])
def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(
    update: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    unbroken, broken = two_recipes(tmp_path, **settings)
    train(unbroken, nowhere)
    with pytest.raises(KeyboardInterrupt):
        train(broken, stop_at(update))
    assert not (Path(broken.adapter) / "router.json").exists()
    events: list[dict[str, Any]] = []
    train(broken, events.append, resume=True)
    assert events[0]["first_update"] == update + 1
    assert same(weights(unbroken.adapter), weights(broken.adapter))
    metrics = [
        json.loads((Path(c.adapter) / "router.json").read_text(encoding="utf-8"))["metrics"] for c in (unbroken, broken)
    ]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("update", [1, 4, 7])
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(update: int, tmp_path: Path) -> None:
    unbroken, broken = two_recipes(tmp_path)
    train(unbroken, nowhere)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(broken.model_dump_json(), encoding="utf-8")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(update), str(recipe)], check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    train(read_recipe(Path(broken.adapter)), nowhere, resume=True)
    assert same(weights(unbroken.adapter), weights(broken.adapter))


def interrupted(folder: Path, update: int = 7) -> tuple[TrainConfig, TrainConfig]:
    unbroken, broken = two_recipes(folder)
    with pytest.raises(KeyboardInterrupt):
        train(broken, stop_at(update))
    return unbroken, broken


@pytest.mark.parametrize("damage", ["cut short", "a byte changed", "empty"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(damage: str, tmp_path: Path) -> None:
    unbroken, broken = interrupted(tmp_path)
    newest, before = states(Path(broken.adapter))
    content = newest.read_bytes()
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    newest.write_bytes({"cut short": content[:middle], "a byte changed": changed, "empty": b""}[damage])
    events: list[dict[str, Any]] = []
    train(broken, events.append, resume=True)
    assert events[0]["event"] == "note" and newest.name in events[0]["message"]
    assert events[1]["first_update"] == int(before.stem[-6:]) + 1
    train(unbroken, nowhere)
    assert same(weights(unbroken.adapter), weights(broken.adapter))


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    _, broken = interrupted(tmp_path)
    rows = Path(broken.train).read_text(encoding="utf-8").splitlines(keepends=True)
    Path(broken.train).write_text("".join(rows[:-1]), encoding="utf-8")
    kept = {path: path.read_bytes() for path in states(Path(broken.adapter))}
    with pytest.raises(TrainingError, match="belongs to another run") as caught:
        train(broken, nowhere, resume=True)
    assert caught.value.hint and "--overwrite" in caught.value.hint
    assert {path: path.read_bytes() for path in states(Path(broken.adapter))} == kept


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, broken = two_recipes(tmp_path)
    save = mx.save_safetensors

    def full(path: str, *rest: Any) -> None:
        if "state" in path and states(Path(broken.adapter)):
            Path(path).write_bytes(b"the beginning")
            raise OSError(28, "No space left on device")
        save(path, *rest)

    monkeypatch.setattr(checkpoints.mx, "save_safetensors", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        train(broken, nowhere)
    monkeypatch.undo()
    assert [path.name for path in states(Path(broken.adapter))] == ["state-000002.safetensors"]
    train(broken, nowhere, resume=True)
    train(unbroken, nowhere)
    assert same(weights(unbroken.adapter), weights(broken.adapter))


def test_an_unfinished_run_is_not_begun_anew_unasked(tmp_path: Path) -> None:
    _, broken = interrupted(tmp_path)
    with pytest.raises(TrainingError, match="a run that did not end") as caught:
        train(broken, nowhere)
    assert caught.value.hint and f"--resume {broken.adapter}" in caught.value.hint
    train(broken, nowhere, overwrite=True)
    assert Router.load(broken.adapter).route("Hi!").raw


def test_old_checkpoints_are_pruned_and_a_finished_run_leaves_no_state(tmp_path: Path) -> None:
    _, broken = interrupted(tmp_path, update=11)
    folder = Path(broken.adapter) / "checkpoints"
    assert len(states(Path(broken.adapter))) == 2
    assert len(list(folder.glob("epoch-*"))) <= 2
    train(broken, nowhere, resume=True)
    assert all(path.name.startswith("epoch-") for path in folder.iterdir())
    with pytest.raises(TrainingError, match="holds no run that could go on"):
        read_recipe(Path(broken.adapter))
