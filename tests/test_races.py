"""Races: who is called when, and what is made of the calls."""

import itertools

import pytest

from mlx_router import races
from mlx_router.calls import Generation, Timings
from mlx_router.races import Call, Lane, differences, first_token_speedup, race, speedup, summarize


def call(total_ms: float, first_token_ms: float = 1.0, passes: int = 1, output: str = "") -> Call:
    return Call(total_ms, first_token_ms, passes, output)


def recorded(names: str, asked: list[str], **options: object) -> list[Lane]:
    def lane(name: str) -> Lane:
        def answer(number: int) -> Call:
            asked.append(f"{name}{number}")
            return call(number)

        return Lane("here", name, answer, **options)

    return [lane(name) for name in names]


def test_all_lanes_answer_a_request_before_the_next_and_another_begins_each_time() -> None:
    asked: list[str] = []
    found = race(recorded("ab", asked, warm=False), 3)
    assert asked == ["a0", "b0", "b1", "a1", "a2", "b2"]
    assert [one.total_ms for one in found["here", "b"]] == [0, 1, 2]


def test_the_warming_call_is_not_counted() -> None:
    asked: list[str] = []
    found = race(recorded("a", asked), 1)
    assert asked == ["a0", "a0"]
    assert len(found["here", "a"]) == 1


def test_a_lane_stops_at_its_limit() -> None:
    asked: list[str] = []
    found = race([*recorded("a", asked, limit=2), *recorded("b", asked)], 4)
    assert {name: len(calls) for name, calls in found.items()} == {("here", "a"): 2, ("here", "b"): 4}


def test_time_that_is_over_ends_the_race_after_the_least_number(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 10)
    monkeypatch.setattr(races.time, "perf_counter", lambda: float(next(clock)))
    said: list[str] = []
    found = race(recorded("a", []), 100, seconds=5, least=3, progress=said.append)
    assert len(found["here", "a"]) == 3
    assert "stopped after 3 requests" in said[-1]


def test_a_summary_has_medians_and_the_nearest_rank_95th_percentile() -> None:
    found = summarize(
        [
            call(total, first_token_ms=total / 10, passes=passes)
            for total, passes in zip(range(1, 21), [3, 5] * 10, strict=True)
        ]
    )
    assert (found.calls, found.p50_ms, found.p95_ms) == (20, 10.5, 19)
    assert (found.first_token_p50_ms, found.passes_median) == (1.05, 4)


def test_one_call_is_its_own_percentile() -> None:
    assert summarize([call(7.0)]).p95_ms == 7.0


def test_ratios_are_taken_request_by_request_over_those_that_both_answered() -> None:
    slow = [call(10, 4), call(100, 40)]
    fast = [call(5, 1), call(10, 10), call(1, 1)]
    assert speedup(slow, fast) == 6.0
    assert first_token_speedup(slow, fast) == 4.0


def test_differences_count_answers() -> None:
    assert differences([call(1, output="x"), call(1, output="y")], [call(1, output="x"), call(1, output="z")]) == 1


def test_a_call_holds_what_was_spent_around_the_decoder() -> None:
    timings = Timings(10.0, 4.0, 6.0, 100, 90, 12, 3)
    assert Call.of(Generation("text", timings=timings), 2.0) == Call(12.0, 6.0, 3, "text")
