"""Base models and adapters, loaded by mlx-lm: by name, from a folder, with LoRA layers put on."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

from .blas import set_threads
from .errors import ModelError
from .manifest import Base
from .prompts import ChatFormat
from .runtime import prepare
from .storage import QUANTIZED, WIDENED

BACKEND = prepare()

import mlx.core as mx  # noqa: E402  (the BLAS has to be in place first)
import mlx.nn as nn  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters  # noqa: E402
from mlx_lm.utils import dequantize_model, load_model, load_tokenizer  # noqa: E402

TINY = Path(__file__).parent / "tiny"
WEIGHTS = "adapters.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
# Files of a base that mlx-lm may need.
PATTERNS = ["*.json", "model*.safetensors", "*.py", "tokenizer.model", "*.tiktoken", "*.txt", "*.jinja"]
# Mixtures of experts have one such layer for all experts.
LINEAR = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
ADAPTER_TENSORS = ("lora_a", "lora_b", "m")
HASHED_BYTES = 64 * 1024 * 1024
ONE_THREAD_BELOW = 30_000_000


@dataclass
class Model:
    """A loaded base: the network, its chat format, its configuration and where it came from.

    `adapter` is the SHA-256 (hex) of the adapter that was put on it.
    """

    network: Any
    chat: ChatFormat
    config: dict[str, Any]
    folder: Path
    name: str
    revision: str | None
    dtype: str
    adapter: str | None = None

    @property
    def context_length(self) -> int | None:
        """The longest sequence that the model was made for, in tokens; None if it does not say."""
        return context_length(self.config)

    @property
    def quantized(self) -> bool:
        """Whether the base's weights are quantized."""
        return any(name in self.config for name in QUANTIZED)

    @cached_property
    def base(self) -> Base:
        """The base as manifests name it."""
        return Base(
            name=self.name,
            revision=self.revision,
            model_type=str(self.config.get("model_type", "unknown")),
            weights_hash=_weights_hash(self.folder),
            tokenizer_hash=_file_hash(self.folder / "tokenizer.json", self.folder / "tokenizer.model"),
            template_hash=self.chat.template_hash,
        )

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that the numbers it computes depend on, beside its input: weights, adapter, types, versions, device."""
        # Large weights are not read again to be hashed; a file that was changed has another time.
        files = {file.name: file.stat() for file in sorted(self.folder.glob("model*.safetensors"))}
        weights = self.base.weights_hash or {name: [found.st_size, found.st_mtime_ns] for name, found in files.items()}
        return {
            "base": self.base.model_dump(),
            "weights": weights,
            "config": hashlib.sha256(json.dumps(self.config, sort_keys=True, default=str).encode()).hexdigest(),
            "adapter": self.adapter,
            "dtype": self.dtype,
            "device": BACKEND.device,
            "mlx": version("mlx"),
            "mlx_lm": version("mlx-lm"),
        }


def context_length(config: dict[str, Any]) -> int | None:
    """The longest sequence that a base was made for, by its config.json, in tokens; None if that does not say."""
    text_config = config.get("text_config", {})
    found = config.get("max_position_embeddings") or text_config.get("max_position_embeddings")
    return int(found) if found else None


def find_base(name: str, revision: str | None = None) -> tuple[Path, str | None]:
    """The folder of a base and its revision: `tiny`, a folder, or a name on the hub, which is downloaded if need be.

    Raises `ModelError` where it is neither.
    """
    if name == "tiny":
        return TINY, None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, None
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"there is no model folder {name!r}", hint="`tiny` is the embedded base")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{name} could not be fetched: {reason}",
            hint="check the name and the network, or give a folder; `tiny` needs no download",
        ) from error
    return folder, folder.name if folder.parent.name == "snapshots" else revision


def load_base(name: str, *, revision: str | None = None, dtype: str = "auto") -> Model:
    """Load a base model and its tokenizer. `dtype` "auto" is bfloat16 on Apple GPUs and float32 on a CPU."""
    folder, found_revision = find_base(name, revision)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no model folder: it has no config.json")
    dtype = resolve_dtype(dtype)
    try:
        with redirect_stdout(StringIO()):
            network, config = load_model(folder)
            tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    except (ValueError, KeyError, FileNotFoundError, json.JSONDecodeError) as error:
        raise ModelError(f"{name} can't be loaded: {error}") from error
    # Quantized weights keep their packed integers; set_dtype changes only what is floating point.
    network.set_dtype(getattr(mx, dtype))
    if config.pop(WIDENED, False):
        network = dequantize_model(network)
        config = {name: value for name, value in config.items() if name not in QUANTIZED}
    mx.eval(network.parameters(), _constants(network))
    if parameter_counts(network)[1] < ONE_THREAD_BELOW:
        # Its products are too small to gain from a second thread, and on a busy machine each waits for the other.
        set_threads(1)
    chat = ChatFormat(tokenizer, sorted(tokenizer.eos_token_ids))
    return Model(network, chat, config, folder, name, found_revision, dtype)


def _constants(network: Any) -> list[mx.array]:
    """Arrays that are no parameters, rotary frequencies say.

    They are computed on loading, since a lazy array can only be computed by the thread that made it, and any thread may
    route.
    """
    return [value for module in network.modules() for value in module.values() if isinstance(value, mx.array)]


def resolve_dtype(dtype: str) -> str:
    """The dtype to compute in: only float32 reaches a CPU's BLAS, and Apple GPUs are fastest in bfloat16."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if BACKEND.device == "gpu" else "float32"


def load_tokenizer_only(name: str, revision: str | None = None) -> ChatFormat:
    """The chat format of a base without its weights."""
    folder, _ = find_base(name, revision)
    tokenizer = load_tokenizer(folder)
    return ChatFormat(tokenizer, sorted(tokenizer.eos_token_ids))


def lora_keys(network: Any, train_on: Sequence[str] | str) -> list[str]:
    """Layer-relative names of the layers that get LoRA, as mlx-lm wants them ("self_attn.q_proj").

    `train_on` holds short names ("q_proj"), full ones ("self_attn.q_proj"), or is "all_linear". Raises `ModelError`
    naming every one that no layer has.
    """
    linear: dict[str, None] = {}
    for layer in network.layers:
        for name, module in layer.named_modules():
            if isinstance(module, LINEAR) or hasattr(module, "to_lora"):
                linear[name] = None
    names = [train_on] if isinstance(train_on, str) else list(train_on)
    if names == ["all_linear"]:
        return list(linear)
    keys = [key for key in linear if any(key == name or key.endswith(f".{name}") for name in names)]
    unmet = [name for name in names if not any(key == name or key.endswith(f".{name}") for key in linear)]
    if unmet or not keys:
        raise ModelError(
            f"no layer is called {', '.join(map(repr, unmet)) or 'anything'}; there are {', '.join(linear)}",
            hint="set train_on to some of these, or to all_linear",
        )
    return keys


def trained_blocks(network: Any, layers: int) -> list[Any]:
    """The last blocks of a network, all of them for a negative number. Raises `ModelError` for none."""
    count = len(network.layers) if layers < 0 else min(layers, len(network.layers))
    if count == 0:
        # mlx-lm would take 0 for all of them.
        raise ModelError("nothing would be trained: num_layers is 0", hint="-1 stands for all layers")
    return list(network.layers[-count:])


def add_lora(
    model: Model,
    *,
    train_on: Sequence[str] | str,
    rank: int,
    scale: float,
    dropout: float,
    layers: int,
    dora: bool = False,
) -> dict[str, Any]:
    """Freeze the base, put LoRA or DoRA layers on it, and return the adapter configuration that mlx-lm reads."""
    network = model.network
    count = len(trained_blocks(network, layers))
    parameters = {"rank": rank, "scale": scale, "dropout": dropout, "keys": lora_keys(network, train_on)}
    network.freeze()
    try:
        linear_to_lora_layers(network, count, parameters, use_dora=dora)
    except ValueError as error:
        raise ModelError(
            f"{model.name} can't be trained so: {error}",
            hint="name other layers in train_on, or set fine_tune_type: lora",
        ) from error
    trainable = dict(tree_flatten(network.trainable_parameters()))
    if not trainable:
        raise ModelError("nothing would be trained: no tensor is trainable", hint="check train_on and num_layers")
    mx.eval(network.parameters())
    kind = "dora" if dora else "lora"
    return {"fine_tune_type": kind, "model": model.name, "num_layers": count, "lora_parameters": parameters}


def load_adapter(model: Model, folder: Path) -> None:
    """Put a trained adapter on a base. Raises `ModelError` where the two do not fit."""
    try:
        with redirect_stdout(StringIO()):
            load_adapters(model.network, str(folder))
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError, RuntimeError) as error:
        # mlx-lm takes the configuration's fields for granted.
        raise ModelError(f"the adapter in {folder} can't be loaded: {error}") from error
    _check_whole(model.network, folder)
    mx.eval(model.network.parameters())
    model.network.eval()
    model.adapter = _file_hash(folder / WEIGHTS, folder / ADAPTER_CONFIG)


def merge_adapter(network: Any, *, dequantize: bool = False) -> None:
    """Add an adapter's updates to the weights that they stand beside, which takes their layers away.

    Weights of a quantized layer are rounded to its bits again, which loses some of the update, unless `dequantize`.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if hasattr(layer, "fuse")]
    network.update_modules(tree_unflatten([(name, layer.fuse(dequantize=dequantize)) for name, layer in layers]))
    mx.eval(network.parameters())
    network.eval()


def _check_whole(network: Any, folder: Path) -> None:
    """Refuse an adapter that lacks tensors: mlx-lm leaves the layers without them as they were initialised."""
    wanted = {name for name, _ in tree_flatten(network.parameters()) if name.rpartition(".")[2] in ADAPTER_TENSORS}
    found = set(mx.load(str(folder / WEIGHTS)))
    missing = sorted(wanted - found)
    if missing:
        raise ModelError(f"the adapter in {folder} lacks {len(missing)} tensor(s): {', '.join(missing[:3])} …")
    # Weights of the base itself leave no trace in the network; their number was written down.
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if len(found) < int(config.get("tensors", 0)):
        raise ModelError(f"the adapter in {folder} has {len(found)} of its {config['tensors']} tensors")


def parameter_counts(network: Any) -> tuple[int, int]:
    """Numbers of trainable and of all parameters, quantized ones counted as they are stored."""
    trainable = sum(int(value.size) for _, value in tree_flatten(network.trainable_parameters()))
    return trainable, sum(int(value.size) for _, value in tree_flatten(network.parameters()))


def _weights_hash(folder: Path) -> str | None:
    """SHA-256 (hex) of the weights' files; None above 64 MiB, where the revision has to do."""
    files = sorted(folder.glob("model*.safetensors"))
    return _file_hash(*files) if sum(file.stat().st_size for file in files) <= HASHED_BYTES else None


def _file_hash(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
