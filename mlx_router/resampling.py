"""The bootstrap: resamples of rows, and the interval that figures of them give."""

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

# Resamples that are held in memory at once.
CHUNK: Final = 250


def chunks(count: int) -> Iterator[int]:
    """A number in parts of at most `CHUNK`."""
    for start in range(0, count, CHUNK):
        yield min(CHUNK, count - start)


def row_counts(rows: int, resamples: int, seed: int = 0) -> Iterator[Floats]:
    """How often each row is drawn in each resample, (some resamples, rows) at a time; by the same seed the same."""
    generator = np.random.default_rng(seed)
    for size in chunks(resamples):
        draws = generator.integers(rows, size=(size, rows))
        yield np.stack([np.bincount(draw, minlength=rows) for draw in draws]).astype(np.float64)


def middle95(draws: Floats) -> tuple[float, float] | None:
    """The middle 95 % of draws, those that are NaN left out; None where all are."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
