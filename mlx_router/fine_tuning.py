"""What of a base is trained, by `fine_tune_type`: LoRA or DoRA layers put on it, or weights of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from .config import TrainConfig
from .errors import ModelError
from .model import Model, add_lora, lora_keys, trained_blocks


def make_trainable(model: Model, config: TrainConfig, note: Callable[[str], None]) -> dict[str, Any]:
    """Freeze all that is not trained and return the adapter configuration that mlx-lm reads.

    `note` is told what a user should know of the choice. Raises `ModelError` where the base does not allow it.
    """
    if config.fine_tune_type == "full":
        if model.dtype != "float32":
            note(f"full fine-tuning in {model.dtype}: small updates are lost in rounding; float32 takes more memory")
        return unfreeze(model, train_on=config.train_on, layers=config.num_layers)
    return add_lora(
        model,
        train_on=config.train_on,
        rank=config.rank,
        scale=config.scale,
        dropout=config.lora_dropout,
        layers=config.num_layers,
        dora=config.fine_tune_type == "dora",
    )


def unfreeze(model: Model, *, train_on: Sequence[str] | str, layers: int) -> dict[str, Any]:
    """Train weights of the base itself: all of its last blocks, or the layers named; never embeddings and head.

    `tensors` in the configuration, which mlx-lm does not read, tells how many there have to be.
    """
    if model.quantized:
        raise ModelError(
            f"{model.name} is quantized, and packed weights can't be trained",
            hint="set fine_tune_type to lora or dora, which train beside them, or take the base unquantized",
        )
    network = model.network
    blocks = trained_blocks(network, layers)
    keys = None if train_on in ("all_linear", ["all_linear"]) else lora_keys(network, train_on)
    network.freeze()
    for block in blocks:
        if keys is None:
            block.unfreeze()
            continue
        for name, module in block.named_modules():
            if name in keys:
                module.unfreeze()
    mx.eval(network.parameters())
    tensors = len(tree_flatten(network.trainable_parameters()))
    return {
        "fine_tune_type": "full",
        "model": model.name,
        "num_layers": len(blocks),
        "lora_parameters": None,
        "tensors": tensors,
    }
