"""The training benchmark on a random model of kilobytes: both sides run, and what they compute is the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CATALOGUE, ROOT, known_rows, write_rows

# Where mx.compile calls a compiler, that takes longer than the steps here.
UNCOMPILED = {**os.environ, "MLX_DISABLE_COMPILE": "1", "PYTHONPATH": str(ROOT)}


def benchmark(*arguments: object, program: str = "training.py") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "benchmarks" / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=UNCOMPILED, timeout=600)


@pytest.fixture(scope="module")
def found(base: Path) -> Any:
    ran = benchmark("--quick", "--json", "--only", 200, "--steps", 2, "--model", base)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_both_sides_learn_the_same_step_by_step(found: Any) -> None:
    (case,) = found["cases"]
    ours, theirs = case["ours"], case["mlx_lm"]
    assert 2 <= len(ours["losses"]) <= 3
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
    assert case["same_loss_tokens"]
    assert len(set(ours["losses"])) == len(ours["losses"])
    assert found["max_gradient_difference"] < 1e-4 < case["largest_gradient"]


def test_the_figures_are_there_and_fit_each_other(found: Any) -> None:
    (case,) = found["cases"]
    assert found["catalogue_tokens"] == case["catalogue_tokens"] >= 200
    assert 60 <= case["suffix_tokens"] <= 75
    prefix, suffix = case["catalogue_tokens"], case["suffix_tokens"]
    assert found["arithmetic_limit"] == pytest.approx(8 * (prefix + suffix) / (prefix + 8 * suffix))
    for side in ("ours", "mlx_lm"):
        figures = case[side]
        assert figures["rows_per_second"] == pytest.approx(8 / figures["seconds_per_step"])
        assert 0 < figures["peak_memory_gb"] < figures["peak_rss_gb"] * 10
    assert found["rows_per_second_ratio"] == case["ours"]["rows_per_second"] / case["mlx_lm"]["rows_per_second"]
    assert found["peak_memory_ratio"] == case["ours"]["peak_memory_gb"] / case["mlx_lm"]["peak_memory_gb"]
    assert found["peak_memory_ratio"] < 1
    assert case["ours"]["blas"] == case["mlx_lm"]["blas"]


def test_a_side_that_fails_is_shown(tmp_path: Path) -> None:
    ran = benchmark("--quick", "--only", 200, "--model", tmp_path / "nothing")
    assert ran.returncode == 1
    assert "ours failed" in ran.stderr and "there is no model folder" in ran.stderr


def test_two_checkouts_train_in_turn(base: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", known_rows(times=4))
    recipe = tmp_path / "train.yaml"
    recipe.write_text(
        f"model: {base}\ncatalogue: {CATALOGUE}\ntrain: train.jsonl\nadapter: out\nepochs: 2\nbatch_size: 2\n"
        "max_tokens: 80\nrank: 2\n",
        encoding="utf-8",
    )
    ran = benchmark(ROOT, "--config", recipe, "--updates", 8, "--rounds", 2, "--json", program="versions.py")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["loss_this"] == told["loss_other"] > 0
    assert told["seconds_this"] > 0 and len(told["ratios"]) == 2
    assert min(told["ratios"]) <= told["ratio"] <= max(told["ratios"])
    assert not (tmp_path / "out").exists()


def test_a_checkout_that_does_not_train_says_why(tmp_path: Path) -> None:
    ran = benchmark(ROOT, "--config", tmp_path / "nothing.yaml", "--rounds", 1, program="versions.py")
    assert ran.returncode == 1
    assert "did not train" in ran.stderr and "nothing.yaml" in ran.stderr
