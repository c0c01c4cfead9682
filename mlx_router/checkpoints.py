"""Checkpoints of a run: all that it needs to go on as if it had never stopped.

A run's folder `checkpoints/` holds `run.json`, its resolved recipe, from the start; `state-000120.safetensors` after
every so many updates: weights, optimizer, random state and how far the run is; and `epoch-002.safetensors`, weights
alone. Everything is written aside and renamed, so a file that stands there is whole, unless the disk lost it: each
state carries a digest of its arrays.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from .config import TrainConfig
from .errors import TrainingError

FOLDER = "checkpoints"
RUN = "run.json"
FORMAT = "2"
STATES_KEPT = 2
# Fields that do not change what is learnt: a run may go on with others.
FREE = frozenset({"adapter", "log_every", "policy", "save_every", "test"})


@dataclass
class Progress:
    """How far a run is. `best` is the file of the best weights, `last` of the newest.

    `rank` is what the best ones are sorted by, `figures` what validation said of them, loss included; `stale`
    validations in a row have found none better. Rows were routed last after update `routed`.
    """

    update: int = 0
    best: str | None = None
    last: str | None = None
    rank: list[float] | None = None
    figures: dict[str, float | None] = field(default_factory=dict)
    stale: int = 0
    routed: int = 0


def run_identity(config: TrainConfig, data: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """A hash of what decides a run's weights: recipe, rows and base."""
    recipe = {name: value for name, value in config.model_dump().items() if name not in FREE}
    named = ("model", "train", "valid", "distractors")
    paths = {name: Path(value).name for name, value in recipe.items() if name in named and value}
    hashes = {name: split["hash"] for name, split in data.items()}
    text = json.dumps([recipe | paths | {"catalogue": None}, hashes, dict(base)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_recipe(folder: Path, config: TrainConfig) -> None:
    """Keep the resolved recipe, so that a run can go on by its folder alone."""
    path = folder / FOLDER / RUN
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(config.model_dump(), indent=2) + "\n", encoding="utf-8")
    _rename(aside, path)


def is_unfinished(folder: Path) -> bool:
    """Whether a run began in this folder and did not end."""
    return (folder / FOLDER / RUN).is_file()


def read_recipe(folder: Path) -> TrainConfig:
    """The recipe of a run that has not ended. Raises `TrainingError` where the folder holds none."""
    path = folder / FOLDER / RUN
    if not path.is_file():
        raise TrainingError(f"{folder} holds no run that could go on", hint="start one: mlx-router train --config …")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return TrainConfig.model_validate({**values, "adapter": str(folder)})
    except ValueError as error:
        raise TrainingError(f"{path} can't be read: {error}", hint="begin anew with --overwrite") from None


def save_state(folder: Path, identity: str, network: Any, optimizer: Any, progress: Progress) -> Path:
    """Write the state after an update, then remove all but the newest two, and weights that neither refers to.

    Raises `TrainingError` where it can't be written, as on a full disk; the states before are left as they are.
    """
    arrays = _arrays(network, optimizer)
    path = folder / FOLDER / f"state-{progress.update:06d}.safetensors"
    metadata = {
        "format": FORMAT,
        "run": identity,
        "progress": json.dumps(asdict(progress)),
        "digest": _digest(arrays),
    }
    aside = path.with_name("state.part.safetensors")
    try:
        mx.save_safetensors(str(aside), arrays, metadata)
        _rename(aside, path)
    except (OSError, RuntimeError) as error:
        aside.unlink(missing_ok=True)
        raise TrainingError(
            f"the checkpoint could not be written to {path.parent}: {error}",
            hint="make room; `mlx-router train --resume` goes on from the checkpoint before",
        ) from error
    for old in states(folder)[STATES_KEPT:]:
        old.unlink()
    kept = {name for state in states(folder) for name in _refers_to(state)}
    for weights in (folder / FOLDER).glob("epoch-*.safetensors"):
        if weights.name not in kept:
            weights.unlink()
    return path


def _read(path: Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """A state's arrays and its metadata."""
    found: Any = mx.load(str(path), return_metadata=True)
    return found[0], found[1]


def _refers_to(path: Path) -> tuple[str | None, ...]:
    progress = json.loads(_read(path)[1]["progress"])
    return progress["best"], progress["last"]


def states(folder: Path) -> list[Path]:
    """The folder's states, the newest first."""
    return sorted((folder / FOLDER).glob("state-*.safetensors"), reverse=True)


def load_state(path: Path, identity: str, network: Any, optimizer: Any) -> Progress:
    """Put a state in place and return how far the run was. Raises `TrainingError` where it is torn or another run's."""
    try:
        arrays, metadata = _read(path)
    except (RuntimeError, ValueError, OSError) as error:
        raise TrainingError(f"{path.name} is torn: {str(error).splitlines()[0]}") from None
    if metadata.get("format") != FORMAT or metadata.get("run") != identity:
        raise TrainingError(f"{path.name} belongs to another run: other rows, another base or another recipe")
    if metadata.get("digest") != _digest(arrays):
        raise TrainingError(f"{path.name} is damaged: its digest does not fit")
    progress = Progress(**json.loads(metadata["progress"]))
    for name in (progress.best, progress.last):
        if name is not None and not (path.parent / name).is_file():
            raise TrainingError(f"{path.name} refers to {name}, which is gone")
    network.load_weights(_part(arrays, "weights."), strict=False)
    optimizer.state = tree_unflatten(_part(arrays, "optimizer."))
    # The state of MLX's generator is a key of two 32-bit numbers, which is what a seed of 64 bits becomes.
    high, low = (int(half) for half in np.array(arrays["random"]))
    mx.random.seed(high << 32 | low)
    mx.eval(network.parameters(), optimizer.state)
    return progress


def load_newest(
    folder: Path, identity: str, network: Any, optimizer: Any, refused: Callable[[str], None]
) -> Progress | None:
    """Go on from the newest state that is whole; None where none was written yet.

    `refused` is told why a newer one is not used; such are removed once one could be. Raises `TrainingError` where
    there are states and none can be used.
    """
    problems: dict[Path, str] = {}
    for path in states(folder):
        try:
            progress = load_state(path, identity, network, optimizer)
        except TrainingError as error:
            problems[path] = error.message
            refused(error.message)
            continue
        for other in problems:
            other.unlink()
        return progress
    if not problems:
        return None
    raise TrainingError(
        "no checkpoint of this run can be used:\n" + "\n".join(f"  {problem}" for problem in problems.values()),
        hint="give it the rows, base and recipe that it began with, or begin anew with --overwrite",
    )


def finish(folder: Path) -> None:
    """Remove what only an unfinished run needs, the recipe first: without it there is no run to go on with."""
    (folder / FOLDER / RUN).unlink(missing_ok=True)
    for path in states(folder):
        path.unlink()


def _arrays(network: Any, optimizer: Any) -> dict[str, mx.array]:
    found = {f"weights.{name}": value for name, value in tree_flatten(network.trainable_parameters())}
    found |= {f"optimizer.{name}": value for name, value in tree_flatten(optimizer.state)}
    return found | {"random": _random_key()}


def _random_key() -> mx.array:
    state: Any = mx.random.state
    key: mx.array = state[0]
    return key


def _part(arrays: Mapping[str, mx.array], prefix: str) -> list[tuple[str, mx.array]]:
    return [(name.removeprefix(prefix), value) for name, value in arrays.items() if name.startswith(prefix)]


def _digest(arrays: Mapping[str, mx.array]) -> str:
    """SHA-256 (hex) of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        # NumPy knows no bfloat16; the bytes are the same whatever they are called.
        digest.update(np.array(value.reshape(-1).view(mx.uint8)).tobytes())
    return digest.hexdigest()


def _rename(aside: Path, path: Path) -> None:
    """Put a file in place only once the disk has it."""
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)
