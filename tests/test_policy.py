"""Promises of a rate: binomial bounds against tables and exact sums, rows needed, and what is no policy."""

import math
from fractions import Fraction
from typing import Any

import pytest

from mlx_router.errors import UsageError
from mlx_router.policy import Policy, as_policy, at_most, smallest_rate, upper_bound


def exact_tail(count: int, n: int, rate: Fraction) -> float:
    return float(sum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(count + 1)))


@pytest.mark.parametrize(("count", "n", "rate"), [(0, 1, "1/2"), (3, 20, "1/10"), (7, 400, "1/100"), (150, 300, "1/2")])
def test_the_binomial_is_summed_exactly(count: int, n: int, rate: str) -> None:
    assert at_most(count, n, float(Fraction(rate))) == pytest.approx(exact_tail(count, n, Fraction(rate)), rel=1e-9)


def test_the_ends_of_the_binomial() -> None:
    assert [at_most(5, 5, 0.3), at_most(0, 5, 0.0), at_most(4, 5, 1.0)] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    # One-sided bounds as published tables have them; two-sided ones at 95 % are one-sided at 97.5 %.
    ("count", "n", "level", "bound"),
    [(0, 59, 0.95, 0.0495), (0, 299, 0.95, 0.00997), (1, 10, 0.975, 0.4450), (5, 20, 0.975, 0.4910), (3, 3, 0.95, 1.0)],
)
def test_the_upper_bound_is_clopper_and_pearsons(count: int, n: int, level: float, bound: float) -> None:
    assert upper_bound(count, n, level) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(
    # The sizes of zero- and one-failure sampling plans: 59 and 93 for 5 %, 299 and 473 for 1 %.
    ("rate", "rows", "allowed"),
    [(0.05, 58, -1), (0.05, 59, 0), (0.05, 92, 0), (0.05, 93, 1), (0.01, 298, -1), (0.01, 299, 0), (0.01, 473, 1)],
)
def test_so_many_wrong_calls_are_allowed(rate: float, rows: int, allowed: int) -> None:
    policy = Policy(wrong_call_rate=rate)
    assert policy.allowed(rows) == allowed
    assert policy.allowed(0) == -1
    # What is allowed is what the bound allows, and one more is not.
    if allowed >= 0:
        assert upper_bound(allowed, rows, 0.95) <= rate + 1e-9 < upper_bound(allowed + 1, rows, 0.95)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.05, 0.02, 0.01, 0.001])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_rows_needed_are_the_fewest_that_allow_none(rate: float, level: float) -> None:
    policy = Policy(wrong_call_rate=rate, level=level)
    assert policy.allowed(policy.rows_needed) >= 0
    assert policy.rows_needed == 1 or policy.allowed(policy.rows_needed - 1) == -1
    assert smallest_rate(policy.rows_needed, level) <= rate + 1e-9


@pytest.mark.parametrize("value", [{"wrong_call_rate": 0.01}, {"wrong_call_rate": "1e-2", "level": 0.95}])
def test_a_policy_is_given_by_its_fields(value: dict[str, Any]) -> None:
    assert as_policy(value) == Policy(wrong_call_rate=0.01) == as_policy(Policy(wrong_call_rate=0.01))
    assert as_policy(None) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "wrong_call_rate: Field required"),
        ({"wrong_call_rate": 0}, "wrong_call_rate: "),
        ({"wrong_call_rate": 1}, "wrong_call_rate: "),
        ({"wrong_call_rate": True}, "wrong_call_rate: "),
        ({"wrong_call_rate": "low"}, "wrong_call_rate: "),
        ({"wrong_call_rate": 0.1, "level": 1.0}, "level: "),
        ({"wrong_call_rate": 0.1, "confirm": 1.5}, "confirm: "),
        ({"wrong_call_rate": 0.1, "wrong_calls": 0.1}, "wrong_calls: Extra inputs"),
    ],
)
def test_what_is_no_policy_is_said(value: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        as_policy(value)
    assert words in caught.value.message
    assert "wrong_call_rate: 0.01" in str(caught.value.hint)
