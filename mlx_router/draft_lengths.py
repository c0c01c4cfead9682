"""Draft lengths that were measured on this machine, remembered from one process to the next.

A length changes how long an answer takes, never the answer. They stand in one small file in the user's cache folder,
`draft_lengths.json`, by device and by shape of the model, so that what was measured on a laptop does not travel to a
server with the adapter.
"""

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import machine
from .runtime import prepare

if TYPE_CHECKING:
    from .model import Model

logger = logging.getLogger("mlx_router")

FILE = "draft_lengths.json"
LONGEST = 64
# What of a base's configuration decides how long a pass takes.
SHAPE = (
    *("model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size", "quantization", "quantization_config"),
)


def lengths_file() -> Path:
    """Where lengths are remembered: in `$XDG_CACHE_HOME/mlx-router`, else in `~/.cache/mlx-router`."""
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder).expanduser() / "mlx-router" / FILE


def key(model: "Model") -> str:
    """The device and the model's shape, as one line."""
    backend = prepare()
    device = f"{backend.device} {backend.device_name or 'unknown'}, {machine.usable_cpus()} cpus, {backend.blas.name}"
    shape = {name: model.config[name] for name in SHAPE if model.config.get(name) is not None}
    return f"{device}; {model.dtype}; {json.dumps(shape, sort_keys=True)}"


def remembered(model: "Model") -> int | None:
    """The draft length that was measured for this model's shape on this machine; None if none was.

    A file that can't be read is reported in the log, and the default holds.
    """
    path = lengths_file()
    try:
        found = _read(path).get(key(model))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s can't be read, and drafts have their default length: %s", path, error)
        return None
    if found is None or (type(found) is int and 0 <= found <= LONGEST):
        return found
    logger.warning("%s holds no draft length for this model but %r; drafts have their default length", path, found)
    return None


def remember(model: "Model", length: int) -> Path:
    """Note a measured length, by rename; return the file. Raises `OSError` where it can't be written."""
    path = lengths_file()
    try:
        known = _read(path)
    except FileNotFoundError:
        known = {}
    except ValueError as error:
        logger.warning("%s is damaged, and is made again: %s", path, error)
        known = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=FILE, dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(known | {key(model): length}, file, indent=2)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return path


def _read(path: Path) -> dict[str, Any]:
    """The file's lengths by key. Raises `ValueError` where it holds anything else."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found
