"""What a training run takes, said before anything is downloaded: download size, disk, updates, and memory by a formula.

    weights      parameters × bytes of the dtype; packed (quantized) tensors as they are stored or widened
    optimizer    LoRA parameters × 16 bytes: weight, gradient and two moments in float32; DoRA has one more parameter an
                 output; full fine-tuning counts the weights that are trained × 3 × bytes of the dtype
    activations  tokens × blocks × (18 × hidden + 7 × feed-forward) × bytes of the dtype; DoRA also keeps
                 tokens × its layers' outputs × 1.25, and their weights unpacked where the base is quantized
    attention    rows × heads × tokens a row × tokens a row × blocks × 1.5 × bytes of the dtype
    logits       tokens × vocabulary × 4 bytes × 4

With gradient checkpointing, activations and attention are those of one block, and hidden × tokens of every other. The
head runs on answers only, so the logits are at most that. A batch's tokens are rows × tokens a row, which are
`max_seq_length`, or where that is auto 512 and what `add_tools` may add. The factors
were fitted to measured peaks of small models. Attention counts on every device: MLX fuses it in routing only, not in
training.
"""

import gzip
import json
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .caution import MOST_ADDED
from .config import TrainConfig
from .machine import free_bytes, inspect
from .storage import WIDENED

GIB = 2**30
FLOATS = {"F64", "F32", "F16", "BF16"}
SIZES = {"F64": 8, "F32": 4, "U32": 4, "I32": 4, "F16": 2, "BF16": 2, "U16": 2, "U8": 1, "I8": 1, "I64": 8, "U64": 8}
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ASSUMED_ROW_TOKENS = 512
# A tool's line in a catalogue, at a generous guess.
TOOL_TOKENS = 32
KEPT_HIDDEN, KEPT_FEED_FORWARD, KEPT_SCORES, KEPT_LOGITS = 18, 7, 1.5, 4
OPTIMIZER_BYTES = 16
FULL_COPIES = 3
KEPT_DORA = 1.25

# Name, type and dimensions.
Tensor: TypeAlias = tuple[str, str, list[int]]


@dataclass(frozen=True)
class Memory:
    """Estimated peak memory of a run in bytes, by part."""

    weights: int
    optimizer: int
    activations: int
    attention: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.activations + self.attention + self.logits


@dataclass(frozen=True)
class Budget:
    """What a run takes against what the machine has; None where it can't be known before the download."""

    model: str
    download_bytes: int | None
    cache_free_bytes: int | None
    memory: Memory | None
    row_tokens: int
    memory_total_bytes: int | None
    rows: int | None = None
    epochs: int | None = None
    updates: int | None = None

    @property
    def warnings(self) -> list[str]:
        """What will not fit."""
        found = []
        if self.memory and self.memory_total_bytes and self.memory.total > 0.75 * self.memory_total_bytes:
            found.append(
                "the run may not fit in memory: lower batch_size (and raise gradient_accumulation_steps), "
                "or take a smaller or 4-bit base"
            )
        if self.download_bytes and self.cache_free_bytes is not None and self.download_bytes > self.cache_free_bytes:
            found.append("the download does not fit on the disk")
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything as one JSON object."""
        memory = {**asdict(self.memory), "total": self.memory.total} if self.memory else None
        return {**asdict(self), "memory": memory, "warnings": self.warnings}

    def render(self) -> str:
        """The same in a few lines."""
        if self.download_bytes is None:
            download = "download: size unknown without network"
        elif self.download_bytes == 0:
            download = "download: none"
        else:
            download = f"download: {_gib(self.download_bytes)}"
        lines = [f"base {self.model}; {download}; free disk for models: {_gib(self.cache_free_bytes)}"]
        if self.memory is None:
            lines.append("memory: unknown until the base is here")
        else:
            lines.append(
                f"memory: about {_gib(self.memory.total)} of {_gib(self.memory_total_bytes)} "
                f"(weights {_gib(self.memory.weights)}, for rows of {self.row_tokens} tokens)"
            )
        if self.rows is not None:
            lines.append(f"about {self.updates:,} updates: {self.rows:,} rows, {self.epochs} epochs")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def estimate(config: TrainConfig) -> Budget:
    """The budget of a recipe. The hub is asked only for sizes, and only for a base that is not here yet."""
    folder = _local_folder(config.model, config.revision)
    row_tokens = _row_tokens(config)
    cache = _cache_folder()
    rows = config.train_rows or count_rows(config.train)
    epochs, updates = config.schedule(config.updates_per_epoch(rows)) if rows else (None, None)
    return Budget(
        model=config.model,
        download_bytes=0 if folder is not None else _download_bytes(config.model, config.revision),
        cache_free_bytes=free_bytes(cache),
        memory=memory_of(folder, config, row_tokens) if folder is not None else None,
        row_tokens=row_tokens,
        memory_total_bytes=inspect().memory_total_bytes,
        rows=rows,
        epochs=epochs,
        updates=updates,
    )


def count_rows(source: str) -> int | None:
    """The lines of a file of rows; None for a dataset, and for a file that is not there or can't be read."""
    path = Path(source)
    if not path.is_file() or not source.endswith((".jsonl", ".jsonl.gz")):
        return None
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            return sum(bool(line.strip()) for line in file) or None
    except (OSError, EOFError):
        # Reading the rows says what is wrong with them.
        return None


def _row_tokens(config: TrainConfig) -> int:
    """How many tokens a row is taken to have at most."""
    if isinstance(config.max_seq_length, int):
        return config.max_seq_length
    return ASSUMED_ROW_TOKENS + (MOST_ADDED * TOOL_TOKENS if config.add_tools else 0)


def memory_of(folder: Path, config: TrainConfig, row_tokens: int, *, gpu: bool | None = None) -> Memory | None:
    """The formula at the head of this module for the base in a folder; None where it has no weights to look at."""
    tensors = list(_tensors(folder))
    if not tensors or not (folder / "config.json").is_file():
        return None
    on_gpu = os.uname().sysname == "Darwin" if gpu is None else gpu
    shape = _shape(folder)
    size = DTYPE_BYTES.get(config.dtype, 2 if on_gpu else 4)
    tokens = config.batch_size * row_tokens
    kept = KEPT_HIDDEN * shape["hidden_size"] + KEPT_FEED_FORWARD * shape["intermediate_size"]
    scores = config.batch_size * shape["num_attention_heads"] * row_tokens**2 * size * KEPT_SCORES
    blocks = shape["num_hidden_layers"]
    # With gradient checkpointing the insides of one block are there at a time, and what went into each of the others.
    whole, inputs = (1, blocks * shape["hidden_size"]) if config.grad_checkpoint else (blocks, 0)
    return Memory(
        weights=sum(math.prod(dims) * (size if kind in FLOATS else SIZES[kind]) for _, kind, dims in tensors),
        optimizer=_optimizer_bytes(tensors, config, blocks, size),
        activations=(tokens * (whole * kept + inputs) + _dora_values(tensors, config, shape, tokens)) * size,
        attention=int(scores * whole),
        logits=tokens * shape["vocab_size"] * 4 * KEPT_LOGITS,
    )


def _optimizer_bytes(tensors: list[Tensor], config: TrainConfig, blocks: int, size: int) -> int:
    """Trained weights, gradients and moments; the base's own weights are counted already, so only the rest of these."""
    if config.fine_tune_type == "full":
        weights = (math.prod(dims) for _, _, dims in _trained(tensors, config, blocks))
        return FULL_COPIES * size * sum(weights)
    total = 0
    for _, kind, dims in _trained(tensors, config, blocks):
        total += config.rank * (dims[0] + _inputs(kind, dims)) + (dims[0] if config.fine_tune_type == "dora" else 0)
    return OPTIMIZER_BYTES * total


def _dora_values(tensors: list[Tensor], config: TrainConfig, shape: dict[str, int], tokens: int) -> int:
    """How many values DoRA's layers keep for the gradients: outputs, and weights that were packed."""
    if config.fine_tune_type != "dora":
        return 0
    found = list(_trained(tensors, config, shape["num_hidden_layers"]))
    unpacked = sum(dims[0] * _inputs(kind, dims) for _, kind, dims in found if kind not in FLOATS)
    return int(KEPT_DORA * tokens * sum(dims[0] for _, _, dims in found)) + unpacked


def _trained(tensors: list[Tensor], config: TrainConfig, blocks: int) -> Iterator[Tensor]:
    """The weights that are trained, or get layers beside them: those of `train_on` in the last `num_layers` blocks."""
    names = [config.train_on] if isinstance(config.train_on, str) else config.train_on
    everything = names == ["all_linear"]
    first = 0 if config.num_layers < 0 else blocks - config.num_layers
    for name, kind, dims in tensors:
        layer = name.removesuffix(".weight")
        block = re.search(r"\.layers\.(\d+)\.", name)
        if block is None or int(block[1]) < first:
            continue
        is_layer = layer != name and len(dims) == 2
        is_named = is_layer and any(layer.endswith(f".{one}") for one in names)
        if is_named or (everything and (is_layer or config.fine_tune_type == "full")):
            yield name, kind, dims


def _inputs(kind: str, dims: list[int]) -> int:
    """A layer's inputs. Packed tensors hold 8 (4-bit) a word; the factor is right for 4 bits and near for others."""
    return dims[1] * (1 if kind in FLOATS else 8)


def _tensors(folder: Path) -> Iterator[Tensor]:
    """Name, type and dimensions of every tensor as it is computed with, from the headers of the safetensors files."""
    config = folder / "config.json"
    storage = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if not storage.get(WIDENED):
        yield from _stored(folder)
        return
    for name, kind, dims in _stored(folder):
        if kind == "U32":
            yield name, "F16", [*dims[:-1], dims[-1] * 32 // storage["quantization"]["bits"]]
        elif not name.endswith((".scales", ".biases")):
            yield name, kind, dims


def _stored(folder: Path) -> Iterator[Tensor]:
    for file in sorted(folder.glob("model*.safetensors")):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield name, tensor["dtype"], tensor["shape"]


def _shape(folder: Path) -> dict[str, int]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {**config, **config.get("text_config", {})}
    hidden = int(config.get("hidden_size", 0))
    defaults = {"intermediate_size": 4 * hidden, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 0}
    return {"hidden_size": hidden, **{name: int(config.get(name, value)) for name, value in defaults.items()}}


def _local_folder(name: str, revision: str | None) -> Path | None:
    """The folder of a base that is here already: the embedded one, a folder, or one in the hub's cache."""
    if name == "tiny":
        return Path(__file__).parent / "tiny"
    if (folder := Path(name).expanduser()).is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        # No name on the hub either; loading it will say so.
        return None
    if not isinstance(found, str) or not any(Path(found).parent.glob("model*.safetensors")):
        return None
    return Path(found).parent


def _cache_folder() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _download_bytes(name: str, revision: str | None) -> int | None:
    """The size of a base's files on the hub; None where the hub can't be asked."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=10)
    except Exception:
        # No network, offline mode, no such name: the client's errors come from an HTTP library that varies by release.
        # Nothing is hidden: the size is reported as unknown, and loading the base says what is wrong.
        return None
    wanted = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken")
    return sum(file.size or 0 for file in info.siblings or () if file.rfilename.endswith(wanted))


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
