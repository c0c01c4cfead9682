"""Gradient checkpointing: what a block computes inside is computed again in the backward pass instead of kept.

mlx-lm's own checkpoints a block whose cache is written inside it, out of the gradient's sight: the loss is right and
the gradients are not. Here keys, values and states go into the checkpointed function and come out of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache

from .attention import PrefixCache, SharedPrefixCache, fast_kernels

Loss: TypeAlias = Callable[..., Any]


def checkpointed(loss: Loss) -> Loss:
    """The same loss of a network and a batch, the insides of the network's blocks computed twice."""

    def with_checkpoints(network: Any, *batch: mx.array) -> Any:
        with _checkpointed_blocks(network):
            return loss(network, *batch)

    return with_checkpoints


@contextmanager
def _checkpointed_blocks(network: Any) -> Iterator[None]:
    """Checkpoint every call of the network's blocks inside the `with`; a call is looked up in the block's class."""
    calls = {kind: kind.__call__ for kind in {type(block) for block in network.layers}}
    try:
        for kind, call in calls.items():
            kind.__call__ = _checkpointed(call, network)
        yield
    finally:
        for kind, call in calls.items():
            kind.__call__ = call


def _checkpointed(call: Callable[..., Any], network: Any) -> Callable[..., Any]:
    def checkpointed_call(block: Any, *given: Any, **options: Any) -> Any:
        # Gradients flow through arguments only, so every array is one, wherever the architecture hands it over.
        slots: dict[Any, Any] = {**dict(enumerate(given)), **options}
        caches = [slot for slot, value in slots.items() if hasattr(value, "make_mask")]
        arrays = [slot for slot, value in slots.items() if isinstance(value, mx.array)]

        def run(parameters: Any, values: list[mx.array], states: list[list[mx.array]]) -> Any:
            filled = slots | dict(zip(arrays, values, strict=True))
            filled |= {slot: _fresh(slots[slot], state) for slot, state in zip(caches, states, strict=True)}
            kept = block.trainable_parameters()
            block.update(parameters)
            try:
                # The backward pass runs this once more, when the loss's own block of `fast_kernels` has been left.
                with fast_kernels(network):
                    by_name = {name: filled[name] for name in options}
                    found = call(block, *(filled[place] for place in range(len(given))), **by_name)
            finally:
                block.update(kept)
            return found, [_written(filled[slot]) for slot in caches]

        states = [_held(slots[slot]) for slot in caches]
        values = [slots[slot] for slot in arrays]
        found, written = mx.checkpoint(run)(block.trainable_parameters(), values, states)
        for slot, state in zip(caches, written, strict=True):
            _write(slots[slot], state)
        return found

    return checkpointed_call


def _held(cache: Any) -> list[mx.array]:
    """The arrays that a block reads from its cache."""
    if isinstance(cache, ArraysCache):
        return [state for state in cache.cache if state is not None]
    if isinstance(cache, PrefixCache | SharedPrefixCache):
        return [] if cache.keys is None else [cache.keys, cache.values]
    raise TypeError(f"no gradient checkpointing with {type(cache).__name__}")


def _fresh(cache: Any, held: list[mx.array]) -> Any:
    """A cache of the same kind that holds these arrays."""
    if isinstance(cache, ArraysCache):
        states = ArraysCache(len(cache.cache))
        states.cache = held or states.cache
        return states
    prefix = PrefixCache()
    if held:
        prefix.state = held
    return SharedPrefixCache(prefix) if isinstance(cache, SharedPrefixCache) else prefix


def _written(cache: Any) -> list[mx.array]:
    """The arrays that a block left in its cache for whoever comes after; nobody comes after the rows."""
    return [] if isinstance(cache, SharedPrefixCache) else _held(cache)


def _write(cache: Any, written: list[mx.array]) -> None:
    if isinstance(cache, ArraysCache):
        cache.cache = list(written)
    elif written:
        cache.state = written
