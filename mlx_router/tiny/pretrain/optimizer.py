"""Muon for the matrices, AdamW for embeddings and norms.

Muon: momentum, then each update is replaced by the nearest (semi-)orthogonal matrix, found by five Newton-Schulz steps
(Jordan et al. 2024, coefficients theirs).
"""

from typing import Any

import torch

from .model import EMBEDDING, TRAINING_ONLY, Weights

TABLES = (EMBEDDING, *TRAINING_ONLY)  # these are looked up in, or project: AdamW's
MUON_RATE = 0.02
ADAM_RATE = 3e-3
MOMENTUM = 0.95
DECAY = 0.02
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Optimizer:
    """Both optimizers over one dictionary of weights."""

    def __init__(self, weights: Weights, dtype: Any = torch.float32) -> None:
        self.dtype = dtype
        self.matrices = {name: w for name, w in weights.items() if w.dim() == 2 and name not in TABLES}
        self.rest = [w for name, w in weights.items() if name not in self.matrices]
        self.momenta = {name: torch.zeros_like(w) for name, w in self.matrices.items()}
        self.adam = torch.optim.AdamW(self.rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, scale: float) -> None:
        """One update from the weights' gradients, at a part of the full rates."""
        torch.nn.utils.clip_grad_norm_(self.rest, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_RATE * scale
        self.adam.step()
        rate = MUON_RATE * scale
        with torch.no_grad():
            for name, weight in self.matrices.items():
                momentum = self.momenta[name].mul_(MOMENTUM).add_(weight.grad)
                update = orthogonal(weight.grad.add(momentum, alpha=MOMENTUM), self.dtype)
                height = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - rate * DECAY).add_(update, alpha=-0.5 * rate * height)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        for name, momentum in state["momenta"].items():
            self.momenta[name].copy_(momentum)
        self.adam.load_state_dict(state["adam"])


def orthogonal(gradient: torch.Tensor, dtype: Any = torch.float32) -> torch.Tensor:
    """About the nearest semi-orthogonal matrix; bf16 will do for the steps."""
    a, b, c = NEWTON_SCHULZ
    x = (gradient / (gradient.norm() + 1e-7)).to(dtype)
    tall = x.shape[0] > x.shape[1]
    x = x.t() if tall else x
    for _ in range(5):
        square = x @ x.t()
        x = a * x + (b * square + c * (square @ square)) @ x
    return (x.t() if tall else x).to(gradient.dtype)
