"""`mlx-router bench`: a small adapter timed against mlx-lm, in this process and in fresh ones."""

from pathlib import Path
from typing import Any

import pytest
from conftest import KNOWN, Run, known_rows, write_rows

from mlx_router import bench
from mlx_router.bench import CONTESTANTS, GENERATE, ROUTER, bench_folder, compare, render, times
from mlx_router.draft_lengths import remembered
from mlx_router.errors import RouterError, UsageError
from mlx_router.fresh import PROGRAM, run_fresh
from mlx_router.races import Call
from mlx_router.router import Router


@pytest.fixture(autouse=True)
def small_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory's speed is measured on a small array."""
    monkeypatch.setattr(bench, "memory_bandwidth", lambda: 1e9)
    prices = {1: 0.001, 65: 0.002}
    monkeypatch.setattr(bench, "pass_seconds", lambda model, prefix: prices)


def measured(adapter: Path, **options: Any) -> dict[str, Any]:
    return bench_folder(adapter, list(KNOWN), seconds=1, fresh=False, report=lambda line: None, **options)


def test_a_folder_is_timed_against_mlx_lm_and_says_the_same(adapter: Path) -> None:
    found = measured(adapter)

    assert list(found["contestants"]) == list(CONTESTANTS)
    assert found["contestants"][ROUTER]["calls"] >= 3
    assert found["differences_from_plain_greedy"] == found["differences_from_mlx_lm_generate"] == 0
    assert found["batch"]["differences_from_one_by_one"] == 0
    assert 1 <= found["passes_per_call_median"] < found["passes_per_call_median_plain"]
    assert found["speedup_vs_mlx_lm_generate"] > 0
    assert found["batch_speedup"] > 0
    limit = found["limit"]
    assert limit["limit_ms"] == pytest.approx(1e3 * limit["passes"] * limit["weight_bytes"] / 1e9)
    assert found["catalogue"]["tools"] == 3


def test_the_draft_length_is_tuned_and_remembered(adapter: Path, draft_lengths: Path) -> None:
    found = measured(adapter)
    assert found["draft_length"]["remembered_in"] == str(draft_lengths)
    assert remembered(Router.load(adapter).decoder.model) == found["draft_length"]["draft_length"]


def test_nothing_is_remembered_against_the_users_will(adapter: Path, draft_lengths: Path) -> None:
    found = measured(adapter, keep=False)
    assert found["draft_length"]["remembered_in"] is None
    assert not draft_lengths.exists()


def test_too_few_requests_are_refused(adapter: Path) -> None:
    with pytest.raises(UsageError, match="1 of 2 requests fit"):
        bench_folder(adapter, ["Hi!", "long " * 8000], seconds=1, report=lambda line: None)


def test_the_command_measures_made_up_requests(adapter: Path, run: Run, draft_lengths: Path) -> None:
    ran = run("bench", adapter, "--seconds", 1, "--limit", 3, "--no-fresh", "--no-remember")
    assert ran.code == 0, ran.err
    assert all(name in ran.out for name in CONTESTANTS)
    assert "limit: " in ran.out and "best here" in ran.out
    assert "warm after" in ran.err
    assert not draft_lengths.exists()


def test_the_command_measures_rows_and_fresh_processes(adapter: Path, run: Run, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", known_rows())
    found = run("bench", adapter, "--data", rows, "--seconds", 1, "--json").json
    assert found["contestants"][GENERATE]["calls"] >= 3
    assert list(found["fresh"]) == [ROUTER, f"{ROUTER}, catalogue on disk", GENERATE]
    for fresh in found["fresh"].values():
        assert 0 < fresh["first_request_ms"] < fresh["cold_start_ms"]
        assert fresh["loaded_ms"] < fresh["cold_start_ms"]
        assert fresh["peak_memory_bytes"] > 10_000_000
    assert "fresh process" in render(found)


def test_a_fresh_process_that_fails_says_why(tmp_path: Path) -> None:
    given = {"folder": str(tmp_path / "nothing"), "base": None, "cache_dir": None, "mlx_lm": False, "requests": ["Hi!"]}
    with pytest.raises(RouterError, match="there is no folder"):
        run_fresh(PROGRAM, given)


def test_what_did_not_take_part_is_not_measured() -> None:
    found = compare({("here", ROUTER): [Call(1.0, 1.0, 3, "x")], ("there", GENERATE): [Call(1.0, 1.0, 3, "x")]}, "here")
    assert found["speedup_vs_mlx_lm_generate"] is None
    assert found["differences_from_plain_greedy"] is None
    assert "not measured against mlx_lm.generate" in bench.render_comparison(found)


def test_a_peer_that_is_ahead_is_named_so() -> None:
    assert times(2.0) == "2.0 times as fast as"
    assert times(0.5) == "2.0 times SLOWER than"
