"""A promise about wrong calls, and how many rows it takes to give it.

    Policy(wrong_call_rate=0.01)    # of all requests, at most 1 % end in a wrong call that is acted on

Of n rows, k ended in a wrong call that would have been acted on. The promise of a rate may be given where so few wrong
calls were unlikely if the true rate were higher: where a binomial of n and the rate is at most k with a probability of
at most 1 - level, which is to say that Clopper and Pearson's upper bound (1934) is not above the rate.
"""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import UsageError


class Policy(BaseModel):
    """What a caller can live with.

    Wrong calls that are acted on: at most `wrong_call_rate` of all requests, held with probability `level` over the
    draw of the rows that calibrate. A call that is not sure enough for this is put to the user (`confirm`) if it is
    right with probability `confirm` or more, and withheld if not. Only the first is a promise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    wrong_call_rate: float = Field(gt=0, lt=1)
    level: float = Field(0.95, ge=0.5, lt=1)
    confirm: float = Field(0.5, ge=0, le=1)

    @field_validator("wrong_call_rate", "level", "confirm", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """Take `0` for a float, which strict validation does not, and `1e-2`, which YAML reads as text."""
        if isinstance(value, bool) or not isinstance(value, str | int):
            return value
        try:
            return float(value)
        except ValueError:
            return value

    @property
    def words(self) -> str:
        """The promise in a sentence's part."""
        return f"wrong calls at most {self.wrong_call_rate:g} of all requests, at level {self.level:g}"

    def allowed(self, rows: int) -> int:
        """How many wrong calls the rows may have among those acted on; -1 where even none would not prove the rate."""
        most, chance = -1, 0.0
        for count in range(rows):
            chance += exactly(count, rows, self.wrong_call_rate)
            if chance > 1 - self.level + SLACK:
                break
            most = count
        return most

    @property
    def rows_needed(self) -> int:
        """The fewest rows that can prove the rate, if none of them ends in a wrong call."""
        exact = math.log(1 - self.level) / math.log1p(-self.wrong_call_rate)
        return max(1, math.ceil(exact - SLACK))


# 1 - 0.95 is a hair above 0.05; the bound is not to hang on that.
SLACK = 1e-12


def smallest_rate(rows: int, level: float) -> float:
    """The lowest rate that so many rows can prove: the upper bound after no wrong call."""
    return upper_bound(0, rows, level)


def upper_bound(count: int, n: int, level: float) -> float:
    """Clopper and Pearson's one-sided upper bound of a rate, by bisection."""
    if count >= n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(count, n, middle) > 1 - level else (low, middle)
    return high


def at_most(count: int, n: int, rate: float) -> float:
    """The probability that a binomial of n and the rate is at most `count`."""
    if count >= n or rate <= 0:
        return 1.0
    return 0.0 if rate >= 1 else math.fsum(exactly(k, n, rate) for k in range(count + 1))


def exactly(count: int, n: int, rate: float) -> float:
    """The probability that a binomial of n and the rate, which is neither 0 nor 1, is `count`."""
    ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    return math.exp(ways + count * math.log(rate) + (n - count) * math.log1p(-rate))


def as_policy(value: "Policy | Mapping[str, Any] | None") -> Policy | None:
    """The policy that a program gives, as it stands or by its fields. Raises `UsageError` for unfit ones."""
    if value is None or isinstance(value, Policy):
        return value
    try:
        return Policy.model_validate(dict(value))
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise UsageError(
            f"the policy can't be used: {'; '.join(problems)}", hint="for example: {wrong_call_rate: 0.01}"
        ) from None
