"""Attention to a catalogue whose keys and values are computed once and never copied row by row.

mlx-lm's models call `scaled_dot_product_attention` and `swiglu` by their names in the architecture's module. While a
loss, a catalogue, or a pass of several requests is traced on an x86 processor, `fast_kernels` puts ours in their
places: same results, without the scores above the diagonal, the copies and MLX's slow exponential. Elsewhere MLX's own
kernels run.

A layer's cache that can do better than mlx-lm's attention has a method `attend`: it takes scaled queries, all keys and
values, and the mask, and returns what the queries attend to, or None where mlx-lm's is to be used.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, ConcatenateKVCache, KVCache, create_attention_mask

from .exponential import exponential, is_fast, swiglu

# Queries of the prefix that are run together; the keys after them are left out.
BLOCK = 128
# Tokens of a text from which on its scores above the diagonal are worth leaving out.
AT_LENGTH = 24
MASKED = -1e9

# Keys and values.
Parts: TypeAlias = tuple[mx.array, mx.array]


class PrefixCache(ConcatenateKVCache):  # type: ignore[misc]
    """One layer's keys and values of a prefix of batch size 1, empty before its pass."""

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, mask: Any) -> mx.array | None:
        """Attention of the prefix to itself."""
        return prefix_attention(queries, keys, values) if _is_causal(mask) else None


class SharedPrefixCache:
    """One layer's keys and values of a prefix of batch size 1, broadcast over the rows that go on from it.

    It writes nothing in place, so that gradients flow through the prefix.
    """

    def __init__(self, prefix: PrefixCache) -> None:
        self.keys, self.values = prefix.keys, prefix.values
        self.new_keys, self.new_values = prefix.keys, prefix.values
        self.offset: int = self.keys.shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Parts:
        """Keys and values (B, heads, prefix + suffix, head dim) of the whole rows."""
        self.new_keys, self.new_values = keys, values
        self.offset = self.keys.shape[2] + keys.shape[2]
        return joined((self.keys, self.values), (keys, values))

    def make_mask(self, size: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """The causal mask of `size` new positions after the prefix."""
        return create_attention_mask(size, offset=self.offset, return_array=return_array, window_size=window_size)

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, mask: Any) -> mx.array | None:
        """Attention of the rows to the prefix and to themselves."""
        if not _is_causal(mask):
            return None
        prefix, own = (self.keys, with_ones(self.values)), (self.new_keys, self.new_values)
        return suffix_attention(queries, prefix, own, causal(0, queries.shape[2]))


class ContinuedCache:
    """One layer's keys and values of one text that goes on from a prefix, which is neither copied nor changed.

    `prefix` holds the prefix's keys, and its values with a column of ones. What is written can be taken back again.
    """

    def __init__(self, prefix: Parts) -> None:
        self.prefix = prefix
        self.own = KVCache()
        self.own_parts: Parts = prefix

    @property
    def offset(self) -> int:
        """The position of the next token."""
        return int(self.prefix[0].shape[2] + self.own.offset)

    @property
    def state(self) -> Parts:
        """What the passes have written."""
        keys, values = self.own.state
        return keys, values

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Parts:
        """Keys and values (1, heads, tokens, head dim) of the whole text."""
        self.own_parts = self.own.update_and_fetch(keys, values)
        return joined((self.prefix[0], self.prefix[1][..., :-1]), self.own_parts)

    def make_mask(self, size: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """The causal mask of `size` new positions."""
        return create_attention_mask(size, offset=self.offset, return_array=return_array, window_size=window_size)

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, mask: Any) -> mx.array | None:
        """Attention of new tokens to the prefix and to what was written after it."""
        if mask is not None and not _is_causal(mask):
            return None
        end = self.own.offset
        found = suffix_attention(queries, self.prefix, self.own_parts, causal(end - queries.shape[2], end))
        # It is computed while Python goes on to the next layer.
        mx.async_eval(found)  # type: ignore[no-untyped-call]
        return found

    def is_trimmable(self) -> bool:
        """Whether written tokens can be taken back."""
        return True

    def trim(self, count: int) -> int:
        """Take the last tokens back, at most all that were written; return how many."""
        return int(self.own.trim(count))


def continuable(layer: Any) -> bool:
    """Whether a text can go on from this layer's cache by a `ContinuedCache`, and fast."""
    return type(layer) is KVCache and layer.keys is not None and layer.keys.dtype == mx.float32 and is_fast()


def prefix_parts(layer: KVCache) -> Parts:
    """What a `ContinuedCache` begins with, of a layer's cache; both hold the same memory afterwards."""
    keys, values = layer.keys_and_values()
    keys, values = mx.contiguous(keys), with_ones(values)
    layer.keys, layer.values = keys, values[..., :-1]
    return keys, values


def prefix_caches(network: Any) -> list[Any]:
    """A cache for every layer, empty: keys and values, or states where the layer has those (convolutions, say)."""
    made = network.make_cache() if hasattr(network, "make_cache") else []
    if len(made) != len(network.layers):
        return [PrefixCache() for _ in network.layers]
    return [cache if isinstance(cache, ArraysCache) else PrefixCache() for cache in made]


def shared_cache(prefix: Any, rows: int) -> Any:
    """One layer's cache for rows that go on from a prefix, whose own cache stays as it is."""
    if not isinstance(prefix, ArraysCache):
        return SharedPrefixCache(prefix)
    cache = ArraysCache(len(prefix.cache))
    cache.cache = [mx.broadcast_to(state, (rows, *state.shape[1:])) for state in prefix.cache]
    return cache


@contextmanager
def fast_kernels(network: Any) -> Iterator[None]:
    """Run the network's attention and SwiGLU by this module inside the block, where that is faster."""
    if not is_fast():
        yield
        return
    # An architecture may take its blocks from another one's module.
    modules = {sys.modules[type(part).__module__] for part in (network, *network.layers[:1])}
    originals = [(module, name, getattr(module, name)) for module in modules for name in OURS if hasattr(module, name)]
    try:
        for module, name, original in originals:
            setattr(module, name, OURS[name](original))
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


def _attention(original: Callable[..., Any]) -> Callable[..., Any]:
    """mlx-lm's attention, but for caches that attend by themselves, in float32."""

    def attention(
        queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, **options: Any
    ) -> Any:
        attend = getattr(cache, "attend", None) or _attend_at_length(cache, queries)
        if attend is not None and queries.dtype == mx.float32 and options.get("sinks") is None:
            found = attend(queries * scale, keys, values, mask)
            if found is not None:
                return found
        return original(queries, keys, values, cache=cache, scale=scale, mask=mask, **options)

    return attention


def _attend_at_length(cache: Any, queries: mx.array) -> Callable[..., Any] | None:
    """What a plain cache attends by while many tokens of one text are run."""
    if type(cache) is not KVCache or queries.shape[0] > 1 or queries.shape[2] < AT_LENGTH:
        return None
    return lambda queries, keys, values, mask: prefix_attention(queries, keys, values) if _is_causal(mask) else None


def _is_causal(mask: Any) -> bool:
    """Whether a mask is plainly causal: neither a window nor an array of its own."""
    return isinstance(mask, str) and mask == "causal"


def _swiglu(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda gate, x: swiglu(gate, x) if gate.dtype == x.dtype == mx.float32 else original(gate, x)


# What takes the place of mlx-lm's functions, by their names.
OURS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "scaled_dot_product_attention": _attention,
    "swiglu": _swiglu,
}


def prefix_attention(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """Causal attention of tokens (1, heads, P, dim) to themselves and to what stands before them in the keys.

    The scale is in the queries.
    """
    kv_heads, size = keys.shape[1], queries.shape[2]
    before = keys.shape[2] - size
    grouped = queries.reshape(kv_heads, -1, size, queries.shape[-1])
    keys, values = keys.swapaxes(0, 1), with_ones(values.swapaxes(0, 1))
    blocks = []
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        seen = before + end
        scores = mx.matmul(grouped[:, :, start:end], keys[:, :, :seen].swapaxes(-1, -2)) + causal(before + start, seen)
        largest = mx.stop_gradient(scores.max(axis=-1, keepdims=True))
        blocks.append(_normalised(exponential(scores - largest) @ values[:, :, :seen]))
    return mx.concatenate(blocks, axis=2).reshape(1, -1, size, values.shape[-1] - 1)


def suffix_attention(queries: mx.array, prefix: Parts, own: Parts, mask: mx.array) -> mx.array:
    """Attention of rows (B, heads, T, dim) to one prefix and to keys and values of their own, in one softmax.

    The prefix's scores are one product for all rows. The prefix's values have a column of ones
    (`with_ones`). The scale is in the queries; `mask`, (T, columns) or (B, 1, T, columns), is added to the scores of
    the rows' own columns.
    """
    rows, heads, size, dim = queries.shape
    kv_heads = prefix[0].shape[1]
    # (kv heads, B, heads of a group, T, dim), and the same with all the prefix's queries in one matrix.
    grouped = queries.reshape(rows, kv_heads, -1, size, dim).swapaxes(0, 1)
    together = grouped.reshape(kv_heads, -1, dim)
    own_keys, own_values = (new.swapaxes(0, 1)[:, :, None] for new in own)
    before = mx.matmul(together, prefix[0][0].swapaxes(-1, -2))
    after = mx.matmul(grouped, own_keys.swapaxes(-1, -2)) + mask
    largest = mx.stop_gradient(mx.maximum(before.max(axis=-1), after.max(axis=-1).reshape(kv_heads, -1))[..., None])
    attended = exponential(before - largest) @ prefix[1][0]
    attended_own = exponential(after - largest.reshape(*after.shape[:-1], 1)) @ with_ones(own_values)
    found = _normalised(attended + attended_own.reshape(attended.shape))
    return found.reshape(kv_heads, rows, -1, size, found.shape[-1]).swapaxes(0, 1).reshape(rows, heads, size, -1)


def joined(prefix: Parts, own: Parts) -> Parts:
    """Keys and values (B, heads, columns, dim) of rows behind those of a prefix of batch size 1.

    Both are lazy: where `attend` takes the parts instead, the copies are never made.
    """
    keys, values = (
        mx.concatenate([mx.broadcast_to(before, (new.shape[0], *before.shape[1:])), new], axis=2)
        for before, new in zip(prefix, own, strict=True)
    )
    return keys, values


def with_ones(values: mx.array) -> mx.array:
    """A column of ones beside the values: the product with it is the softmax's denominator."""
    return mx.concatenate([values, mx.ones((*values.shape[:-1], 1), values.dtype)], axis=-1)


def _normalised(sums: mx.array) -> mx.array:
    return sums[..., :-1] / sums[..., -1:]


def causal(start: int, end: int) -> mx.array:
    """What is added to the scores of positions from `start` for all positions up to `end`."""
    return mx.where(mx.arange(start, end)[:, None] >= mx.arange(end)[None], 0.0, MASKED)
