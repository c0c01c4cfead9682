"""The gate of `fuse` and `quantize`: what counts as a loss, on which rows it is looked for, and what becomes of OUT."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from conftest import CATALOGUE, KNOWN, Run, known_rows, write_rows

from mlx_router import fusing
from mlx_router.comparison import compare
from mlx_router.errors import ModelError
from mlx_router.evaluation import read_predictions
from mlx_router.interop import load_catalogue
from mlx_router.manifest import Parity, read_manifest
from mlx_router.pairing import pair_up
from mlx_router.parity import DECISION, judge
from mlx_router.router import Router

TRACK = {"tool": "track_order", "arguments": {"order_id": "A"}}
HELLO = {"tool": "no_tool", "reason": "chitchat"}
# How a row that wants a call can end, and in capitals one that wants none: right, wrong arguments, wrong tool or false
# call, missed, invalid.
OUTPUTS = {
    "r": json.dumps(TRACK),
    "a": '{"tool":"track_order","arguments":{"order_id":"B"}}',
    "w": '{"tool":"escalate","arguments":{"reason":"angry"}}',
    "m": json.dumps(HELLO),
    "i": "no idea",
    "R": json.dumps(HELLO),
    "W": '{"tool":"escalate","arguments":{"reason":"angry"}}',
    "I": "no idea",
}


def judged(tmp_path: Path, before: str, after: str, tolerance: float = 0.01) -> Parity:
    """What the gate says where rows ended like these letters, before and after."""
    catalogue = load_catalogue(CATALOGUE)
    runs = []
    for name, letters in (("a", before), ("b", after)):
        rows = [
            {"request": f"row {at}", "target": HELLO if letter.isupper() else TRACK, "output": OUTPUTS[letter]}
            for at, letter in enumerate(letters)
        ]
        runs.append(read_predictions(write_rows(tmp_path / f"{name}.jsonl", rows), catalogue))
    found = compare(pair_up(*runs), resamples=10)
    return judge(found, "somewhere/test.jsonl", [one.example for one in runs[0]], tolerance)


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ("r", "r", []),
        ("r", "a", ["exact_match", "wrong_call_rate"]),
        ("r", "i", ["exact_match", "tool_name_accuracy"]),
        ("i", "w", ["wrong_call_rate"]),
        ("a", "m", ["tool_name_accuracy"]),
        # A false call takes the place of a wrong one: as many wrong calls as before.
        ("rIw", "mWi", ["exact_match", "tool_name_accuracy", "false_tool_call_rate"]),
        ("R", "W", list(DECISION)),
        ("w", "m", []),
        ("W", "R", []),
        ("i", "r", []),
    ],
)
def test_each_decision_metric_is_a_gate(before: str, after: str, lost: Sequence[str], tmp_path: Path) -> None:
    found = judged(tmp_path, before, after)
    assert [problem.split()[0] for problem in found.problems] == list(lost)
    assert found.failed == bool(lost)


def test_a_loss_of_the_tolerance_itself_is_borne(tmp_path: Path) -> None:
    """One row of a hundred is 0.01, although 1.0 - 0.99 is a hair more."""
    assert not judged(tmp_path, "r" * 100, "r" * 99 + "w").failed
    assert judged(tmp_path, "r" * 100, "r" * 98 + "ww").failed
    assert not judged(tmp_path, "r" * 100, "r" * 98 + "ww", tolerance=0.02).failed
    assert judged(tmp_path, "r" * 1000, "r" * 999 + "w", tolerance=0).failed


def test_what_the_manifest_keeps(tmp_path: Path) -> None:
    found = judged(tmp_path, "rrri", "rrai")
    assert (found.data, found.rows, found.changed, len(found.data_hash)) == ("test.jsonl", 4, 1, 64)
    assert found.metrics["exact_match"] == (0.75, 0.5)
    assert found.problems[0] == "exact_match fell from 0.7500 to 0.5000, by more than 0.01"
    assert found.problems[1] == "wrong_call_rate rose from 0.0000 to 0.2500, by more than 0.01"


# The commands.


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", known_rows())


@pytest.fixture
def tampered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written has a layer without its weights."""
    write = fusing.save

    def save(folder: Path, *arguments: Any, **flags: Any) -> None:
        write(folder, *arguments, **flags)
        path = str(folder / "model.safetensors")
        weights: Any = mx.load(path)
        spoilt = {name: value * 0 if "layers.1" in name else value for name, value in weights.items()}
        mx.eval(spoilt)
        mx.save_safetensors(path, spoilt, {"format": "mlx"})

    monkeypatch.setattr(fusing, "save", save)


def test_what_is_as_good_passes_and_says_so(adapter: Path, rows: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "fused"
    ran = run("fuse", adapter, out, "--data", rows)
    assert ran.code == 0
    assert f"A  {adapter}\nB  {out}" in ran.out
    assert "no row changed" in ran.out and "0 of 5 outputs differ in their text" in ran.out
    assert ran.err.endswith(f"wrote {out}\n")
    parity = read_manifest(out).parity
    assert parity is not None
    assert (parity.failed, parity.rows, parity.data, parity.metrics["exact_match"]) == (
        False, 5, "rows.jsonl", (1.0, 1.0),
    )  # fmt: skip
    assert Router.load(out).route("Hi!").reason == "chitchat"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("tampered")
@pytest.mark.parametrize("command", [["fuse"], ["quantize", "--bits", "8"]])
def test_what_is_worse_is_kept_but_marked_and_never_loaded(
    command: list[str], adapter: Path, rows: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "made"
    ran = run(*command, adapter, out, "--data", rows, "--rows", "2")
    assert ran.code == 1
    assert "lost: exact_match fell from 1.0000 to " in ran.err
    assert f"Error: {out} decides worse" in ran.err and "--tolerance" in ran.err.partition("hint: ")[2]
    assert "wrote" not in ran.err
    # The rows that changed, as many as were asked for.
    assert sum(line.startswith("  request  ") for line in ran.out.splitlines()) == 2
    assert (out / "model.safetensors").is_file()

    with pytest.raises(ModelError) as caught:
        Router.load(out)
    assert f"{out} is marked as failed" in caught.value.message
    assert "exact_match fell from 1.0000" in caught.value.message
    assert caught.value.hint is not None and "--tolerance" in caught.value.hint
    routed = run("route", out, "Hi!")
    assert (routed.code, routed.out) == (2, "")
    assert "is marked as failed" in routed.err
    # Nor can something else be made of it.
    assert run("quantize", out, tmp_path / "again", "--bits", "4", "--no-compare").code == 2


@pytest.mark.usefixtures("tampered")
def test_a_higher_tolerance_takes_it(adapter: Path, rows: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "fused"
    assert run("fuse", adapter, out, "--data", rows).code == 1
    assert run("fuse", adapter, out, "--data", rows, "--tolerance", "1").code == 2
    again = run("fuse", adapter, out, "--data", rows, "--tolerance", "1", "--overwrite")
    assert again.code == 0
    parity = read_manifest(out).parity
    assert parity is not None and not parity.failed and parity.tolerance == 1
    assert parity.metrics["exact_match"][1] < 1
    assert Router.load(out).route("Hi!").raw is not None


@pytest.mark.usefixtures("tampered")
def test_as_json(adapter: Path, rows: Path, tmp_path: Path, run: Run) -> None:
    ran = run("fuse", adapter, tmp_path / "fused", "--data", rows, "--json")
    assert ran.code == 1
    assert ran.json["parity"]["failed"] is True
    assert ran.json["comparison"]["metrics"]["exact_match"]["a"] == 1
    assert len(ran.json["comparison"]["changes"]) == ran.json["parity"]["changed"] > 0


def test_a_quantized_model_is_compared_with_the_folder_it_was_made_from(
    adapter: Path, rows: Path, tmp_path: Path, run: Run
) -> None:
    assert run("fuse", adapter, tmp_path / "fused", "--data", rows).code == 0
    ran = run("quantize", tmp_path / "fused", tmp_path / "small", "--bits", "8", "--group-size", "32", "--data", rows,
              "--tolerance", "1", "--json")  # fmt: skip
    assert ran.code == 0
    assert ran.json["folder"] == str(tmp_path / "fused")
    small = Router.load(tmp_path / "small")
    outputs = {pair["request"]: pair["b"]["output"] for pair in ran.json["comparison"]["changes"]}
    for request, target in KNOWN.items():
        raw = small.route(request).raw
        assert raw == outputs[request] if request in outputs else json.loads(raw)["tool"] == target["tool"]


def test_an_interrupted_comparison_leaves_the_old_model(
    adapter: Path, rows: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "fused"
    assert run("fuse", adapter, out, "--no-compare").code == 0

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlx_router.cli_fuse.evaluate", interrupt)
    assert run("fuse", adapter, out, "--data", rows, "--overwrite").code == 130
    assert not list(tmp_path.glob("*.part"))
    assert read_manifest(out).parity is None
    assert Router.load(out).route("Hi!").tool == "no_tool"


# On which rows.


def test_the_recipes_validation_rows_are_taken_if_they_are_at_hand(adapter: Path, tmp_path: Path, run: Run) -> None:
    ran = run("fuse", adapter, tmp_path / "fused", "--limit", "3")
    assert ran.code == 0
    assert f"comparing on {adapter.parent / 'valid.jsonl'}, which the recipe names" in ran.err
    parity = read_manifest(tmp_path / "fused").parity
    assert parity is not None and (parity.data, parity.rows) == ("valid.jsonl", 3)
    # It learnt by heart the very rows that chose its checkpoint.
    assert "3 of 3 rows were trained on" in ran.err


def test_without_rows_it_says_that_nothing_was_compared(adapter: Path, tmp_path: Path, run: Run) -> None:
    alone = shutil.copytree(adapter, tmp_path / "elsewhere" / "adapter")
    # A file of that name, with rows that the run has never seen.
    write_rows(alone.parent / "valid.jsonl", [{"request": "Good morning!", "target": HELLO}])
    ran = run("fuse", alone, tmp_path / "fused")
    assert (ran.code, ran.out) == (0, "")
    assert "nothing was compared" in ran.err and "--data TEST" in ran.err
    assert read_manifest(tmp_path / "fused").parity is None


def test_the_recipes_test_is_taken_first(adapter: Path, tmp_path: Path, run: Run) -> None:
    project = tmp_path / "project"
    alone = shutil.copytree(adapter, project / "adapter")
    value = json.loads((alone / "router.json").read_text(encoding="utf-8"))
    value["config"]["test"] = "exam.jsonl"
    (alone / "router.json").write_text(json.dumps(value), encoding="utf-8")
    (project / "data").mkdir()
    write_rows(project / "data" / "exam.jsonl", known_rows()[:2])
    write_rows(project / "data" / "valid.jsonl", known_rows())
    assert run("fuse", alone, tmp_path / "fused").code == 0
    parity = read_manifest(tmp_path / "fused").parity
    assert parity is not None and (parity.data, parity.rows) == ("exam.jsonl", 2)


def test_rows_that_can_not_be_read_stop_it_before_anything_is_made(adapter: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "fused"
    assert run("fuse", adapter, out, "--data", tmp_path / "none.jsonl").code == 2
    both = run("fuse", adapter, out, "--data", tmp_path / "none.jsonl", "--no-compare")
    assert both.code == 2 and "do not go together" in both.err
    assert not out.exists()
