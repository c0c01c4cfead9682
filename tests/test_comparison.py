"""Two runs over the same rows: p-values by hand, intervals that can be worked out, changed rows, and the command."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CATALOGUE, Run, write_rows

from mlx_router.calls import Failure, NoTool, Outcome, ParseFailure, Target, ToolCall
from mlx_router.comparison import SUMS, Comparison, compare, mcnemar, swap_test
from mlx_router.errors import DataError
from mlx_router.evaluation import read_predictions
from mlx_router.interop import load_catalogue
from mlx_router.metrics import Row, measure
from mlx_router.pairing import pair_up

HELLO = {"tool": "no_tool", "reason": "chitchat"}
ANGRY = {"tool": "escalate", "arguments": {"reason": "angry"}}
LATE = {"tool": "escalate", "arguments": {"reason": "late"}}


def track(order_id: str) -> dict[str, Any]:
    return {"tool": "track_order", "arguments": {"order_id": order_id}}


# How a row that wants `track("A")` can end, by a letter: right, wrong arguments, wrong tool, missed, invalid.
OUTPUTS = {
    "r": json.dumps(track("A")),
    "a": json.dumps(track("B")),
    "w": json.dumps(ANGRY),
    "m": json.dumps(HELLO),
    "i": "no idea",
}


def rows(outputs: str) -> list[dict[str, Any]]:
    return [
        {"request": f"row {number}", "target": track("A"), "output": OUTPUTS[letter]}
        for number, letter in enumerate(outputs)
    ]


def compared(tmp_path: Path, a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> Comparison:
    catalogue = load_catalogue(CATALOGUE)
    one, other = write_rows(tmp_path / "a.jsonl", a), write_rows(tmp_path / "b.jsonl", b)
    return compare(pair_up(read_predictions(one, catalogue), read_predictions(other, catalogue)))


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
        (1, 5, 2 * (1 + 6) / 64),
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (3, 3, 1.0),
        (4, 5, 1.0),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a) == pytest.approx(p)


def test_mcnemar_of_thousands_of_rows_is_a_number() -> None:
    # Near the normal approximation: z = (1100 - 1000 - 1) / √2100 = 2.160, two-sided 0.0307.
    assert mcnemar(1000, 1100) == pytest.approx(0.0307, abs=1e-3)
    assert 0 <= mcnemar(0, 5000) < 1e-300


def test_every_metric_is_its_sums() -> None:
    """What is resampled is what evaluation measures, over all combinations of targets and outputs."""
    call, other, nothing = ToolCall(tool="x", arguments={"a": 1}), ToolCall(tool="y", arguments={}), NoTool(reason="z")
    outputs: list[Outcome] = [call, other, nothing, call.model_copy(update={"arguments": {}})]
    outputs.append(ParseFailure(Failure.NOT_JSON, ""))
    targets: list[Target] = [call, nothing]
    many = [Row(target, output, (other,)) for target, output in product(targets, outputs) for _ in range(3)]
    many += [Row(call, call)] * 4
    metrics = measure(many)
    assert list(SUMS) == list(metrics)
    for name, (top, bottom) in SUMS.items():
        assert metrics[name].value == pytest.approx(sum(map(top, many)) / sum(map(bottom, many))), name
        assert metrics[name].n == sum(map(bottom, many)), name
        assert all(bottom(row) for row in many if top(row)), name


def test_swapping_by_hand() -> None:
    ones, zeros = np.ones(3), np.zeros(3)
    # Three rows get right that were wrong: of 8 ways to swap, two give a difference as large. McNemar's test agrees.
    assert swap_test("argument_match_on_calls", np.array([zeros, ones]), np.array([ones, ones])) == 2 / 8
    assert mcnemar(0, 3) == 2 / 8
    # A parses one row more and does not match it: 1/1 becomes 1/2, and either way is as far.
    a, b = np.array([[1.0, 0], [1, 0]]), np.array([[1.0, 0], [1, 1]])
    assert swap_test("argument_match_accuracy", a, b) == 1.0
    assert swap_test("argument_match_accuracy", a, a) == 1.0


def test_swapping_at_random_nears_the_exact_test() -> None:
    n = 20
    a, b = np.array([[0.0] * n, [1.0] * n]), np.array([[1.0] * 15 + [0.0] * 5, [1.0] * n])
    a[0, 15:] = 1.0
    # 5 against 15: 2 · (1 + 20 + 190 + 1140 + 4845 + 15504) / 2²⁰
    exact = 2 * 21700 / 2**20
    assert mcnemar(5, 15) == pytest.approx(exact)
    assert swap_test("argument_match_on_calls", a, b) == pytest.approx(exact, abs=0.01)
    assert swap_test("argument_match_on_calls", a[:, :15], b[:, :15]) == pytest.approx(1 / 5001, abs=3e-4)


def test_a_run_against_itself(tmp_path: Path) -> None:
    found = compared(tmp_path, rows("rrawmi"), rows("rrawmi"))
    assert found.changes == []
    for name in ("exact_match", "argument_match_accuracy", "argument_match_on_calls", "wrong_call_rate"):
        metric = found.metrics[name]
        assert (metric.difference, metric.ci95, metric.p, metric.changed) == (0, (0, 0), 1, 0)
        assert (metric.verdict, metric.more_rows) == ("can't tell", None)


def test_all_rows_changed(tmp_path: Path) -> None:
    """Whatever is resampled, the difference is the same: the interval is a point."""
    found = compared(tmp_path, rows("w" * 6), rows("r" * 6))
    right, wrong = found.metrics["exact_match"], found.metrics["wrong_call_rate"]
    assert (right.difference, right.ci95, right.p, right.verdict) == (1, (1, 1), 2 / 64, "better")
    assert (wrong.difference, wrong.ci95, wrong.verdict) == (-1, (-1, -1), "better")
    assert (right.only_a, right.only_b, wrong.only_a, wrong.only_b) == (0, 6, 6, 0)
    back = compared(tmp_path, rows("r" * 6), rows("w" * 6))
    assert (back.metrics["exact_match"].verdict, back.metrics["wrong_call_rate"].verdict) == ("worse", "worse")


def test_an_interval_that_can_be_worked_out(tmp_path: Path) -> None:
    """One of two rows changed: a resample holds it 0, 1 or 2 times, with 1/4, 1/2 and 1/4."""
    metric = compared(tmp_path, rows("rw"), rows("rr")).metrics["exact_match"]
    assert (metric.difference, metric.ci95) == (0.5, (0, 1))


def test_an_interval_near_the_normal_one(tmp_path: Path) -> None:
    found = compared(tmp_path, rows("r" * 100 + "w" * 100), rows("r" * 100 + "w" * 60 + "r" * 40))
    metric = found.metrics["exact_match"]
    # 40 of 200 rows got right: 0.2 ± 1.96 · √(0.2 · 0.8 / 200).
    assert metric.ci95 == pytest.approx((0.2 - 0.0554, 0.2 + 0.0554), abs=0.01)
    assert metric.verdict == "better"
    # The same seed draws the same resamples.
    assert compare(found.pairs).to_json() == found.to_json()
    assert compare(found.pairs, seed=1).metrics["exact_match"].ci95 != metric.ci95


def test_how_many_more_rows(tmp_path: Path) -> None:
    # Three rows of three: with no spread at all it still takes six that differ.
    assert compared(tmp_path, rows("www"), rows("rrr")).metrics["exact_match"].more_rows == 3
    # One row of ten: (1.960 + 0.842)² · 0.1 · 0.9 / 0.1² = 70.6 rows, 60.6 more.
    metric = compared(tmp_path, rows("r" * 9 + "w"), rows("r" * 10)).metrics["exact_match"]
    assert metric.verdict == "can't tell"
    assert metric.more_rows == pytest.approx(61, abs=5)
    # Rows that went either way, as many to each side, would never show a difference.
    assert compared(tmp_path, rows("rw"), rows("wr")).metrics["exact_match"].more_rows is None


def test_what_one_run_did_not_measure(tmp_path: Path) -> None:
    found = compared(tmp_path, rows("ii"), rows("rr"))
    metric = found.metrics["argument_match_on_calls"]
    assert (metric.a, metric.b, metric.difference, metric.ci95, metric.p) == (None, 1, None, None, None)
    assert metric.verdict == "can't tell"
    assert found.metrics["argument_match_accuracy"].difference == 1
    assert found.metrics["false_call_rate_on_no_tool"].difference is None


def test_changes_stand_with_the_gravest_first(tmp_path: Path) -> None:
    found = compared(tmp_path, rows("wrrrmwa"), rows("rimwwar"))
    assert [pair.states for pair in found.changes] == [
        ("right", "wrong call"),
        ("right", "missed call"),
        ("right", "invalid"),
        ("missed call", "wrong call"),
        ("wrong call", "wrong call"),
        ("wrong call", "right"),
        ("wrong call", "right"),
    ]


def test_an_alternative_is_no_wrong_call(tmp_path: Path) -> None:
    row = {"request": "now!", "target": ANGRY, "alternatives": [LATE]}
    found = compared(tmp_path, [{**row, "output": json.dumps(ANGRY)}], [{**row, "output": json.dumps(LATE)}])
    assert [pair.states for pair in found.changes] == [("right", "alternative")]
    assert found.metrics["exact_match_with_alternatives"].changed == 0


def test_rows_are_paired_in_any_order(tmp_path: Path) -> None:
    a = [*rows("rwmi"), {**rows("r")[0], "output": OUTPUTS["w"]}]
    b = [{**row, "alternatives": []} for row in reversed(a)]
    # "row 0" stands twice; the first of A and the first of B belong together.
    found = compared(tmp_path, a, b)
    assert [pair.states for pair in found.changes] == [("right", "wrong call"), ("wrong call", "right")]
    assert found.metrics["exact_match"].difference == 0


def test_the_same_decision_in_other_words_is_the_same_row(tmp_path: Path) -> None:
    tools = [{"name": "f", "description": "f.", "parameters": {"properties": {"x": {"type": "number"}}}}]
    a = {"request": "r", "tools": tools, "target": {"tool": "f", "arguments": {"x": 1}}, "output": ""}
    b = {**a, "target": {"arguments": {"x": 1.0}, "tool": "f"}, "tools": {"instructions": "Route.", "tools": tools}}
    assert compared(tmp_path, [a], [b]).changes == []


@pytest.mark.parametrize("name", ["id", "place"])
def test_rows_without_requests_go_by_id_or_by_place(name: str, tmp_path: Path) -> None:
    a = [{"target": track("A"), "output": OUTPUTS[letter]} for letter in "rw"]
    if name == "id":
        a = [{**row, "id": str(number)} for number, row in enumerate(a)]
    b = list(reversed(a)) if name == "id" else a
    assert compared(tmp_path, a, b).changes == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"request": "another"}, "only in A: 'row 0'"),
        ({"request": "another"}, "only in B: 'another'"),
        ({"target": track("Z")}, "differs in target: 'row 0'"),
        ({"target": HELLO}, "differs in target: 'row 0'"),
        ({"alternatives": [ANGRY]}, "differs in alternatives: 'row 0'"),
        ({"tools": [{"name": "track_order", "description": "x.", "parameters": {}}], "target": HELLO},
         "differs in catalogue and target: 'row 0'"),
    ],
)  # fmt: skip
def test_other_rows_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    a = rows("rr")
    with pytest.raises(DataError) as error:
        compared(tmp_path, a, [{**a[0], **change}, a[1]])
    assert words in error.value.message
    assert "row 1" not in error.value.message


def test_a_row_too_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="A has 3 rows and B 2, and they are not the same:\n  only in A: 'row 0'"):
        compared(tmp_path, [*rows("rr"), *rows("r")], rows("rr"))
    with pytest.raises(DataError) as error:
        compared(tmp_path, rows("r" * 40), rows("r"))
    assert "… and 29 more" in error.value.message


# The command.


def command(tmp_path: Path, a: str, b: str, *flags: str) -> list[object]:
    one, other = write_rows(tmp_path / "a.jsonl", rows(a)), write_rows(tmp_path / "b.jsonl", rows(b))
    return ["compare", one, other, "--catalogue", CATALOGUE, *flags]


def test_the_command_shows_verdicts_and_the_worst_rows(run: Run, tmp_path: Path) -> None:
    ran = run(*command(tmp_path, "rrrrrrrw", "wwwwwwmr", "--rows", "1"))
    assert (ran.code, ran.err) == (0, "")
    cells = [line.split() for line in ran.out.splitlines()]
    # 7 rows were right in A alone, 1 in B alone: 2 · (1 + 8) / 256.
    line = next(line for line in cells if line[:1] == ["exact_match"])
    assert line[:4] == ["exact_match", "0.875", "0.125", "-0.750"]
    assert line[7:11] == ["7", "1", "0.070", "can't"]
    assert ["6", "right", "->", "wrong", "call"] in cells
    assert [line[1:] for line in cells if line[:1] == ["request"]] == [["row", "0"]]


def test_the_command_as_json(run: Run, tmp_path: Path) -> None:
    ran = run(*command(tmp_path, "wwwwww", "rrrrrr", "--json"))
    assert (ran.code, ran.json["n"], len(ran.json["changes"])) == (0, 6, 6)
    assert ran.json["metrics"]["exact_match"] == {
        "a": 0, "b": 1, "difference": 1, "ci95": [1, 1], "test": "mcnemar", "p": 2 / 64, "only_a": 0, "only_b": 6,
        "changed": 6, "verdict": "better", "more_rows": None,
    }  # fmt: skip
    assert ran.json["changes"][0]["b"] == {"state": "right", "output": OUTPUTS["r"]}


def test_worse_fails_only_on_request_and_only_if_sure(run: Run, tmp_path: Path) -> None:
    assert run(*command(tmp_path, "rrrrrr", "wwwwww")).code == 0
    failed = run(*command(tmp_path, "rrrrrr", "wwwwww", "--fail-if-worse", "exact_match"))
    assert (failed.code, failed.err) == (1, "worse: exact_match went from 1.000 to 0.000\n")
    both = ["--fail-if-worse", "parse_failure_rate", "--fail-if-worse", "wrong_call_rate"]
    assert run(*command(tmp_path, "rrrrrr", "wwwwww", *both)).code == 1
    assert run(*command(tmp_path, "rrrrrr", "iiiiii", "--fail-if-worse", "wrong_call_rate")).code == 0
    # Five rows can't show it.
    assert run(*command(tmp_path, "rrrrr", "wwwww", "--fail-if-worse", "exact_match")).code == 0


def test_the_command_that_can_not_run(run: Run, tmp_path: Path) -> None:
    misspelt = run(*command(tmp_path, "r", "r", "--fail-if-worse", "exact_mach"))
    assert (misspelt.code, misspelt.out) == (2, "")
    assert "unknown metric 'exact_mach'; did you mean 'exact_match'?" in misspelt.err
    different = run(*command(tmp_path, "rr", "r"))
    assert (different.code, different.out) == (2, "")
    assert "only in A: 'row 1'" in different.err
    assert run("compare", tmp_path / "a.jsonl", tmp_path / "none.jsonl").code == 2


def test_what_eval_writes_can_be_compared(run: Run, tmp_path: Path) -> None:
    one = write_rows(tmp_path / "o.jsonl", rows("rwmi"))
    for name in ("a", "b"):
        arguments = ["--predictions", one, "--catalogue", CATALOGUE, "--out", tmp_path / f"{name}.jsonl"]
        assert run("eval", *arguments).code == 0
    shown = run("compare", tmp_path / "a.jsonl", tmp_path / "b.jsonl").out
    assert "no row changed" in shown
    # All but false calls among no_tool rows, of which there are none.
    assert shown.count("the same in every row") == 10
