"""Keys and values of rows of different lengths that begin with one prefix, for decoding them in lockstep."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .attention import MASKED, Parts, joined, suffix_attention
from .prefixes import Prefix

import mlx.core as mx  # isort: skip
from mlx_lm.models.cache import KVCache, RotatingKVCache  # isort: skip

STEP = 128
HIDDEN = -1


class Rows:
    """Which token stands in which column of which row, for all layers.

    Each pass writes its tokens (B, T) into the next T columns. Those that a row does not keep, padding or guesses that
    were wrong, are hidden from all later passes. So rows grow at their own pace, and nothing is moved.
    """

    def __init__(self, count: int, prefix: int) -> None:
        self.lengths = np.full(count, prefix)
        self.columns = prefix
        # Positions in the row's text, (B, columns).
        self.positions = np.tile(np.arange(prefix), (count, 1))
        self.offset = mx.array(self.lengths)
        self._masks: dict[int | None, mx.array] = {}

    def begin(self, size: int) -> None:
        """Make columns for a pass of `size` tokens in each row."""
        new = self.lengths[:, None] + np.arange(size)
        self.positions = np.concatenate([self.positions[:, : self.columns], new], axis=1)
        self.offset = mx.array(self.lengths)
        self._masks.clear()

    def end(self, kept: Sequence[int]) -> None:
        """Keep the first `kept` tokens of each row."""
        size = self.positions.shape[1] - self.columns
        dropped = np.arange(size) >= np.asarray(kept)[:, None]
        self.positions[:, self.columns :][dropped] = HIDDEN
        self.lengths = self.lengths + np.asarray(kept)
        self.columns += size

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self.positions, self.lengths = self.positions[list(rows)], self.lengths[list(rows)]

    def mask(self, window: int | None) -> mx.array:
        """What the pass's tokens may see, (B, 1, T, columns): what stands before them, at most `window` back."""
        if window not in self._masks:
            keys, queries = self.positions[:, None, :], self.positions[:, self.columns :, None]
            seen = (keys != HIDDEN) & (keys <= queries)
            if window is not None:
                seen &= keys > queries - window
            self._masks[window] = mx.array(seen[:, None])
        return self._masks[window]


class RaggedCache:
    """One layer's keys and values, (B, heads, columns, head dim); `rows` says what stands where."""

    def __init__(self, rows: Rows, keys: mx.array, values: mx.array, window: int | None) -> None:
        self.rows = rows
        self.window = window
        self.first = 0
        count, missing = len(rows.lengths), rows.columns - keys.shape[2]
        self.keys, self.values = (_spread(one, count, missing) for one in (keys, values))

    @property
    def offset(self) -> mx.array:
        """Positions of the rows' next tokens, (B,)."""
        return self.rows.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write the pass's keys and values; return those of all columns."""
        start, end = self.rows.columns - self.first, self.rows.positions.shape[1] - self.first
        if end > self.keys.shape[2]:
            more = -(-(end - self.keys.shape[2]) // STEP) * STEP
            self.keys, self.values = (
                mx.concatenate([one, mx.zeros((*one.shape[:2], more, one.shape[3]), one.dtype)], axis=2)
                for one in (self.keys, self.values)
            )
        self.keys[..., start:end, :] = keys
        self.values[..., start:end, :] = values
        return self.keys[..., :end, :], self.values[..., :end, :]

    def make_mask(self, size: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """The mask of the pass; `size` is its tokens, known already."""
        return self.rows.mask(window_size or self.window)

    def select(self, rows: mx.array) -> None:
        """Keep only these rows."""
        self.keys, self.values = self.keys[rows], self.values[rows]


class SharedRaggedCache(RaggedCache):
    """The same with one prefix for all rows, which is kept once: `keys` and `values` hold the columns after it.

    The prefix's values have a column of ones.
    """

    def __init__(self, rows: Rows, prefix: Parts) -> None:
        self.rows, self.window, self.first = rows, None, rows.columns
        self.prefix = prefix
        keys = prefix[0]
        self.keys = self.values = mx.zeros((len(rows.lengths), keys.shape[1], 0, keys.shape[3]))
        self.own = (self.keys, self.values)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Parts:
        """Write the pass's keys and values; return those of all columns."""
        self.own = super().update_and_fetch(keys, values)
        return joined((self.prefix[0], self.prefix[1][..., :-1]), self.own)

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, mask: Any) -> mx.array | None:
        """Attention to the whole prefix, and to what the mask shows of the columns after it."""
        if not isinstance(mask, mx.array):
            return None
        return suffix_attention(queries, self.prefix, self.own, mx.where(mask[..., self.first :], 0.0, MASKED))


def ragged(prefix: Prefix, count: int) -> tuple[Rows, list[RaggedCache]] | None:
    """Caches for `count` rows that go on from a prefix; None where a layer keeps anything else than keys."""
    rows = Rows(count, len(prefix.tokens))
    if prefix.parts is not None:
        return rows, [SharedRaggedCache(rows, parts) for parts in prefix.parts]
    found: list[RaggedCache] = []
    for layer in prefix.cache:
        kept = _kept(layer)
        if kept is None:
            return None
        found.append(RaggedCache(rows, *kept))
    return rows, found


def _kept(layer: Any) -> tuple[mx.array, mx.array, int | None] | None:
    """The keys and values of a layer's cache in the order of the text, and its window."""
    if layer.__class__ is KVCache and layer.keys is not None:
        return (*layer.keys_and_values(), None)
    if layer.__class__ is RotatingKVCache and layer.keys is not None and layer.keep == 0:
        keys, values, at = layer.keys, layer.values, layer._idx
        if layer.offset > at and at < keys.shape[2]:
            # It has gone round: the oldest stands where the next would be written.
            keys, values = (mx.concatenate([one[..., at:, :], one[..., :at, :]], axis=2) for one in (keys, values))
        return keys[..., : layer.offset, :], values[..., : layer.offset, :], layer.max_size
    return None


def _spread(array: mx.array, count: int, missing: int) -> mx.array:
    """A prefix's (1, heads, columns, dim) for each row; columns that a window has forgotten are empty."""
    if missing > 0:
        # They are out of every window, so that their content is never seen.
        empty = mx.zeros((1, array.shape[1], missing, array.shape[3]), array.dtype)
        array = mx.concatenate([empty, array], axis=2)
    return mx.contiguous(mx.broadcast_to(array, (count, *array.shape[1:])))
