"""Axes of charts have a few round ticks, whatever the numbers."""

from itertools import pairwise

import pytest

from mlx_router.charts import histogram, interval_bar, ticks
from mlx_router.metrics import Metric


@pytest.mark.parametrize("high", [0.002, 0.03, 0.15, 0.6000000000000001, 0.8, 1.0, 1.5, 3, 6, 8, 15, 100, 4000, 80000])
def test_ticks_are_few_and_even(high: float) -> None:
    found = ticks(high)
    steps = {round((after - before) / high, 9) for before, after in pairwise(found)}

    assert found[0] == 0 and high * 0.8 <= found[-1] <= high * 1.001
    assert 3 <= len(found) <= 7 and len(steps) == 1


@pytest.mark.parametrize("values", [[0.0], [12.5], [0.001, 5000.0], [3.0] * 500, [float(at) for at in range(1000)]])
def test_every_value_falls_into_a_bar(values: list[float]) -> None:
    drawn = histogram(values, {"p50": values[len(values) // 2]})

    assert drawn.count('class="bar"') == 24
    assert "nan" not in drawn and "inf" not in drawn


def test_a_rate_that_was_not_measured_is_not_drawn() -> None:
    assert interval_bar(Metric(None, 0, None), 1.0) == ""
    assert interval_bar(Metric(0.5, 2, (0.1, 0.9)), None).count("<circle") == 1
