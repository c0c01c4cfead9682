"""Power laws through error rates: how errors fall with the number of examples, if they fall by such a law at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .metrics import Z95

# A law is only drawn through so many points.
LEAST_POINTS = 4
# Points that miss the law with a lower probability are not taken to follow it.
ALPHA = 0.05


@dataclass(frozen=True)
class PowerLaw:
    """errors / rows of validation = factor × training rows ^ -exponent, with the exponent's standard error.

    `p` is how likely points that follow such a law miss it by as much as these do.
    """

    factor: float
    exponent: float
    exponent_error: float
    p: float

    @property
    def fits(self) -> bool:
        """Whether the points can follow it, and it falls for more than chance."""
        return self.p >= ALPHA and self.exponent > self.margin

    @property
    def margin(self) -> float:
        """Half the exponent's 95 % interval."""
        return Z95 * self.exponent_error

    def error_rate(self, rows: float) -> float:
        """The share of validation rows that the law has wrong."""
        return float(min(1.0, self.factor * rows**-self.exponent))

    def to_json(self) -> dict[str, Any]:
        """The law, and whether it fits."""
        return {**vars(self), "fits": self.fits}


def fit_power_law(points: Sequence[tuple[int, int, int]]) -> PowerLaw | None:
    """The law through (training rows, errors, validation rows), by weighted least squares of the logarithms.

    The variance of ln(k / n) is (1 - k / n) / k, for k errors of n rows. None with fewer than four points or where a
    point has no error, whose logarithm would be none.
    """
    if len(points) < LEAST_POINTS or any(not 0 < errors < n for _, errors, n in points):
        return None
    x = [math.log(rows) for rows, _, _ in points]
    y = [math.log(errors / n) for _, errors, n in points]
    weights = [errors / (1 - errors / n) for _, errors, n in points]
    total = sum(weights)
    mean_x = sum(w * a for w, a in zip(weights, x, strict=True)) / total
    mean_y = sum(w * b for w, b in zip(weights, y, strict=True)) / total
    spread = sum(w * (a - mean_x) ** 2 for w, a in zip(weights, x, strict=True))
    slope = sum(w * (a - mean_x) * b for w, a, b in zip(weights, x, y, strict=True)) / spread
    misfit = sum(w * (b - mean_y - slope * (a - mean_x)) ** 2 for w, a, b in zip(weights, x, y, strict=True))
    p = chi_square_tail(misfit, len(points) - 2)
    return PowerLaw(math.exp(mean_y - slope * mean_x), -slope, 1 / math.sqrt(spread), p)


def chi_square_tail(value: float, degrees: int) -> float:
    """P(chi² ≥ value), by the incomplete gamma function's recurrence (Abramowitz and Stegun, 26.4.4 and 26.4.5)."""
    half = value / 2
    tail, order = (math.erfc(math.sqrt(half)), 0.5) if degrees % 2 else (math.exp(-half), 1.0)
    while order < degrees / 2:
        tail += half**order * math.exp(-half) / math.gamma(order + 1)
        order += 1
    return tail
