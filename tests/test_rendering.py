"""An evaluation as text: what stands first, what is rounded, and what an output can't do to a terminal."""

import json
from pathlib import Path
from typing import Any

from conftest import CATALOGUE, ScriptedDecoder, write_rows

from mlx_router.calls import Generation, Timings
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.data import Example, read
from mlx_router.evaluation import Evaluation, Scored, evaluate, read_predictions
from mlx_router.interop import load_catalogue
from mlx_router.metrics import FOUR
from mlx_router.parsing import parse
from mlx_router.rendering import render_evaluation
from mlx_router.router import Router

CALL = {"tool": "track_order", "arguments": {"order_id": "A-1"}}
REFUND = {"tool": "request_refund", "arguments": {"order_id": "A-1", "reason": "it broke"}}
NO_TOOL = {"tool": "no_tool", "reason": "chitchat"}


def scored(tmp_path: Path, *rows: tuple[str, dict[str, Any], dict[str, Any] | str], **fields: Any) -> list[Scored]:
    """Rows of request, target and output."""
    predictions = [
        {"request": request, "target": target, "output": json.dumps(said) if isinstance(said, dict) else said, **fields}
        for request, target, said in rows
    ]
    return read_predictions(write_rows(tmp_path / "predictions.jsonl", predictions), load_catalogue(CATALOGUE))


def shown(tmp_path: Path, *rows: tuple[str, dict[str, Any], dict[str, Any] | str], **fields: Any) -> str:
    return render_evaluation(Evaluation.of(scored(tmp_path, *rows, **fields)))


def cells(text: str, name: str) -> list[str]:
    """The cells of a table's line."""
    line = next(line for line in text.splitlines() if line.split()[:1] == [name])
    return line.replace(" … ", "…").split()


def test_the_four_metrics_come_first_with_n_interval_and_maximum(tmp_path: Path) -> None:
    text = shown(tmp_path, ("a", CALL, CALL), ("b", CALL, "no"), ("c", NO_TOOL, NO_TOOL))

    assert [line.split()[0] for line in text.splitlines()[1:5]] == list(FOUR)
    assert cells(text, "valid_tool_call_rate") == ["valid_tool_call_rate", "0.667", "0.208…0.939", "3", "0.667"]
    assert cells(text, "argument_match_accuracy")[1::2] == ["0.500", "2", "0.500"]
    assert cells(text, "argument_match_accuracy")[4] == "0.667"
    assert cells(text, "wrong_call_rate") == ["wrong_call_rate", "0.000", "0.000…0.561", "3"]


def test_what_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    text = shown(tmp_path, ("c", NO_TOOL, NO_TOOL))

    assert cells(text, "missed_call_rate") == ["missed_call_rate", "–", "–", "0"]
    assert "latency" not in text
    assert "failures" not in text
    assert "confusions" not in text
    assert "note" not in text


def test_latency_is_shown_where_it_was_measured(tmp_path: Path, catalogue: Catalogue) -> None:
    timings = Timings(12.4, 10.0, 2.4, 10, 5, 5, 5)
    decoder = ScriptedDecoder({"a": Generation(json.dumps(CALL), timings=timings)})
    examples = read(write_rows(tmp_path / "rows.jsonl", [{"request": "a", "target": CALL}]), catalogue)
    text = render_evaluation(Evaluation.of(evaluate(Router(decoder, catalogue), examples)))

    assert "latency: p50 12 ms, p95 12 ms" in text


def test_wrong_calls_are_shown_first_and_fair_alternatives_last(tmp_path: Path) -> None:
    """A wrong call reaches real systems, so it must not hide below the cut."""
    rows = [
        ("no call at all", CALL, "I think so."),
        ("left alone", CALL, NO_TOOL),
        ("almost right", CALL, CALL | {"arguments": {"order_id": "A-2"}}),
        ("another tool", CALL, REFUND),
        ("called for nothing", NO_TOOL, CALL),
    ]
    fair = scored(tmp_path, ("as fair", CALL, REFUND), alternatives=[REFUND])
    evaluation = Evaluation.of([*fair, *scored(tmp_path, *rows)])
    text = render_evaluation(evaluation)

    order = [line.removeprefix("  request  ") for line in text.splitlines() if line.startswith("  request  ")]
    assert order == ["another tool", "called for nothing", "almost right", "left alone", "no call at all", "as fair"]
    assert "  output   I think so.   (not_json)" in text
    assert text.count("(an alternative of the row)") == 1
    few = render_evaluation(evaluation, failures=2)
    assert "6 failures; the worst 2:" in few
    assert "almost right" not in few
    assert "failures" not in render_evaluation(evaluation, failures=0)


def test_confusions_and_reasons_of_failures_are_counted(tmp_path: Path) -> None:
    text = shown(
        tmp_path, ("a", CALL, REFUND), ("b", CALL, REFUND), ("c", CALL, NO_TOOL), ("d", CALL, "no"), ("e", CALL, "{}")
    )
    assert [line.split() for line in text.split("confusions (gold -> output):\n")[1].splitlines()[:3]] == [
        ["2", "track_order", "->", "request_refund"],
        ["2", "track_order", "->", "(invalid)"],
        ["1", "track_order", "->", "no_tool"],
    ]
    assert "invalid outputs: not_json 1, bad_envelope 1" in text


def test_an_output_can_not_steer_the_terminal(tmp_path: Path) -> None:
    text = shown(tmp_path, ("red \x1b[31m\nrequest", CALL, "first\r\nsecond\x07 \u202e é🙂"))

    assert "  request  red \\x1b[31m\\nrequest" in text.splitlines()
    assert "  output   first\\r\\nsecond\\x07 \\u202e é🙂   (not_json)" in text.splitlines()


def test_many_tools_are_cut(tmp_path: Path) -> None:
    tools = Catalogue(tuple(Tool(f"tool_{number:02}", "do it.") for number in range(33)))
    outcomes = [parse(json.dumps({"tool": tool.name, "arguments": {}}), tools) for tool in tools]
    rows = [Scored(Example("x", outcome, tools), "", outcome) for outcome in outcomes]  # type: ignore[arg-type]
    text = render_evaluation(Evaluation.of(rows))

    assert "… and 3 more tools" in text
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("tool_") and "name" not in line]
    assert listed == [f"tool_{number:02}" for number in range(30)]
