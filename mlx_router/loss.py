"""The loss of a batch: cross-entropy of the answers' tokens, the catalogue run once for all rows."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ConcatenateKVCache, create_attention_mask

from .batches import Batch


class SharedPrefixCache:
    """One layer's keys and values of a prefix of batch size 1, broadcast over the rows that go on from it.

    It writes nothing in place, so that gradients flow through the prefix.
    """

    def __init__(self, prefix: ConcatenateKVCache) -> None:
        self.keys, self.values = prefix.keys, prefix.values
        self.offset: int = self.keys.shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Keys and values (B, heads, prefix + suffix, head dim) of the whole rows."""
        joined = tuple(
            mx.concatenate([mx.broadcast_to(before, (new.shape[0], *before.shape[1:])), new], axis=2)
            for before, new in ((self.keys, keys), (self.values, values))
        )
        self.offset = joined[0].shape[2]
        return joined[0], joined[1]

    def make_mask(self, size: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """The causal mask of `size` new positions after the prefix."""
        return create_attention_mask(size, offset=self.offset, return_array=return_array, window_size=window_size)


def answer_loss(network: Any, prefix: mx.array, suffix: mx.array, lengths: mx.array, weight: mx.array) -> Any:
    """Summed cross-entropy of the answers' tokens times `weight`, and their number.

    `prefix` (P,) may be empty; `suffix` (B, S), `lengths` (B, 2) as in `Batch`. With `weight` = micro-batches of the
    group / answer tokens of the group, the trainer's mean over the group is the loss per token.
    """
    cache = _shared_cache(network, prefix) if prefix.size else None
    logits = network(suffix[:, :-1], cache=cache).astype(mx.float32)
    targets = suffix[:, 1:]
    positions = mx.arange(1, targets.shape[1] + 1)
    mask = mx.logical_and(positions >= lengths[:, :1], positions < lengths[:, 1:])
    losses = nn.losses.cross_entropy(logits, targets) * mask
    return losses.sum() * weight, mask.sum()


def _shared_cache(network: Any, prefix: mx.array) -> list[SharedPrefixCache]:
    before = [ConcatenateKVCache() for _ in network.layers]
    # The logits are never used, so that lazy evaluation leaves the head out.
    network(prefix[None], cache=before)
    return [SharedPrefixCache(layer) for layer in before]


def arrays(batch: Batch, weight: float) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """The batch as `answer_loss` takes it."""
    return mx.array(batch.prefix), mx.array(batch.suffix), mx.array(batch.lengths), mx.array(weight, mx.float32)


def mean_loss(network: Any, batches: list[Batch]) -> float:
    """Loss per answer token over batches, without dropout."""
    was_training = network.training
    network.eval()
    total = 0.0
    for batch in batches:
        loss, _ = answer_loss(network, *arrays(batch, 1.0))
        total += float(loss.item())
    network.train(was_training)
    return total / sum(batch.answer_tokens for batch in batches)


def shared_prefix_problem(network: Any, batch: Batch) -> str | None:
    """Why this network can't train with a shared prefix; None if loss and gradients equal those of whole rows.

    Both are computed on `batch` without dropout. The tolerance is rounding's: 1e-3 of the largest gradient in float32,
    ten times that in the shorter types.
    """
    rows = batch.suffix.shape[0]
    prefix = np.broadcast_to(batch.prefix, (rows, batch.prefix.size))
    whole = Batch(
        np.zeros(0, np.int32),
        np.concatenate([prefix, batch.suffix], axis=1),
        batch.lengths + batch.prefix.size,
        batch.rows,
    )
    was_training = network.training
    network.eval()
    value_and_grad = nn.value_and_grad(network, answer_loss)
    try:
        (one, _), shared = value_and_grad(network, *arrays(batch, 1.0 / batch.answer_tokens))
        # One after the other, so that only one graph is in memory.
        mx.eval(one, shared)
        (other, _), plain = value_and_grad(network, *arrays(whole, 1.0 / batch.answer_tokens))
        mx.eval(other, plain)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        return f"this architecture's layers do not take it ({error})"
    finally:
        network.train(was_training)
    pairs = list(zip(tree_flatten(shared), tree_flatten(plain), strict=True))
    difference = max(_largest(left - right) for (_, left), (_, right) in pairs)
    largest = max(_largest(right) for _, (_, right) in pairs) + 1e-8
    exact = all(array.dtype == mx.float32 for _, array in tree_flatten(network.parameters()))
    tolerance = 1e-3 if exact else 1e-2
    if difference <= tolerance * largest and _largest(one - other) <= tolerance * _largest(other):
        return None
    return f"its gradients differ from those of whole rows by {difference / largest:.1e} of the largest"


def _largest(array: mx.array) -> float:
    found: Any = mx.abs(array).max().item()
    return float(found)
