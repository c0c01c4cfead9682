"""The optimizer of a run: AdamW with clipped gradients, and its learning rate update by update."""

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from .config import TrainConfig


def learning_rates(config: TrainConfig, updates: int) -> Callable[[mx.array], mx.array]:
    """The learning rate by number of updates done: linear warm-up from 0, rounded up, then the schedule down to 0."""
    warmup = math.ceil(config.warmup_ratio * updates)

    def rate(step: mx.array) -> mx.array:
        done = step.astype(mx.float32)
        progress = mx.clip((done - warmup) / max(1, updates - warmup), 0.0, 1.0)
        shapes = {
            "cosine": 0.5 * (1.0 + mx.cos(math.pi * progress)),
            "linear": 1.0 - progress,
            "constant": mx.ones_like(progress),
        }
        return config.learning_rate * mx.where(done < warmup, done / max(1, warmup), shapes[config.lr_schedule])

    return rate


class ClippedAdamW(optim.AdamW):  # type: ignore[misc]
    """AdamW with bias correction that first clips the gradients' global norm."""

    def __init__(self, config: TrainConfig, updates: int) -> None:
        super().__init__(
            learning_rate=learning_rates(config, updates),
            betas=[config.adam_beta1, config.adam_beta2],
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
            bias_correction=True,
        )
        self.max_grad_norm = config.max_grad_norm

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        if self.max_grad_norm is not None:
            gradients, _ = optim.clip_grad_norm(gradients, self.max_grad_norm)
        return super().apply_gradients(gradients, parameters)
