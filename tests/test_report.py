"""`mlx-router eval --report`: three files that say the same, for every kind of run, and the baselines of each."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import CATALOGUE, KNOWN, Run, ScriptedDecoder, known_rows, write_rows
from reports import HOSTILE, call, hostile_rows, no_tool, report_of, scored, support_rows

from mlx_router.calls import Generation, Scores, Timings
from mlx_router.evaluation import Scored
from mlx_router.manifest import Base, Manifest
from mlx_router.page import html_page
from mlx_router.records import data_record
from mlx_router.report_text import markdown_report

ORDER = call("track_order", order_id="A-1")
HELLO = no_tool("chitchat")
RATE = re.compile(r"\d\.\d{3}")


def rows_of_a_test() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"request": f"Track A-{at}.", "target": call("track_order", order_id=f"A-{at}")} for at in range(20)
    ]
    return rows + [{"request": f"Hello {at}", "target": HELLO, "kind": "greeting"} for at in range(5)]


def generation(answer: dict[str, Any]) -> Generation:
    timings = Timings(12.0, 4.0, 8.0, 100, 90, 20, 5)
    return Generation(json.dumps(answer), timings=timings, scores=Scores(0.9, "escalate", 0.8))


@pytest.fixture
def routed(scripted: ScriptedDecoder, tmp_path: Path) -> Path:
    """Twenty-five rows, of which the router gets three wrong."""
    rows = rows_of_a_test()
    for at, row in enumerate(rows):
        wrong = call("escalate", reason="A-1") if at in (3, 7) else ORDER if at == 24 else row["target"]
        scripted.answers[row["request"]] = generation(wrong)
    return write_rows(tmp_path / "test.jsonl", rows)


def report_json(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_the_three_files_say_the_same(run: Run, routed: Path, tmp_path: Path) -> None:
    ran = run("eval", "some/adapter", "--data", routed, "--report", tmp_path / "deep" / "out", "--json")
    folder = tmp_path / "deep" / "out"
    found = report_json(folder)

    assert ran.code == 0, ran.err
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    # report.json holds all that --json prints, and more of each failure.
    for key, value in ran.json.items():
        if key != "failures":
            assert found[key] == value, key
    for new, old in zip(found["failures"], ran.json["failures"], strict=True):
        assert {**new, **old} == new
    page, text = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    for metric in found["metrics"].values():
        shown = "–" if metric["value"] is None else f"{metric['value']:.3f}"
        assert shown in page and shown in text
    assert page.count("<article") == text.count("    request ") == len(found["failures"]) == 3
    for line in found["baselines"]["verdict"]:
        assert line.replace("'", "&#x27;") in page


def test_json_tells_every_failure_with_its_first_wrong_token(run: Run, routed: Path, tmp_path: Path) -> None:
    run("eval", "some/adapter", "--data", routed, "--report", tmp_path / "out")
    first, _, last = report_json(tmp_path / "out")["failures"]

    assert (first["fault"], last["fault"]) == ("call of another tool", "false call")
    assert first["first_wrong_token"] | {"text": "", "at": 0} == {
        "text": "", "at": 0, "part": "tool", "said": "escalate", "wanted": "track_order"
    }  # fmt: skip
    assert (first["confidence"], first["weakest_argument"], first["runner_up"]) == (0.9, 0.8, "escalate")
    assert first["probability"] == 0.9 and first["p_right"] is None


def test_baselines_stand_in_the_terminal_too(run: Run, routed: Path, tmp_path: Path) -> None:
    training = write_rows(tmp_path / "train.jsonl", rows_of_a_test()[:10] + rows_of_a_test()[20:])
    ran = run("eval", "a", "--data", routed, "--report", tmp_path / "out", "--baseline-train", training)

    assert "baselines: This router does NOT beat every baseline. Not beaten: bag of words." in ran.out
    assert re.search(r"^bag of words +1\.000 ", ran.out, re.MULTILINE)
    # The scripted router has no manifest, so nobody knows its base.
    assert "untrained base was not measured: the router has no manifest that names its base." in ran.out
    assert report_json(tmp_path / "out")["facts"]["baselines trained on"] == str(training)


def test_near_rows_train_the_baselines_as_well(run: Run, routed: Path, tmp_path: Path) -> None:
    near = write_rows(tmp_path / "near.jsonl", [{"request": "Where might my parcel be?", "target": ORDER}])
    run("eval", "a", "--data", routed, "--report", tmp_path / "out", "--near", near)

    names = {one["name"]: one["left_out"] for one in report_json(tmp_path / "out")["baselines"]["standings"]}
    assert names["bag of words"] is None


def manifest(data: dict[str, Any]) -> Manifest:
    base = Base(name="/no/such/base", model_type="qwen3", tokenizer_hash="x", template_hash="y")
    return Manifest(base=base, catalogue={}, catalogue_hash="", max_tokens=64, dtype="float32", data=data)


def left_out(run: Run, folder: Path, data: Path) -> str | None:
    ran = run("eval", "a", "--data", data, "--report", folder, "--allow-leaks")
    assert ran.code == 0, ran.err
    by_name = {one["name"]: one["left_out"] for one in report_json(folder)["baselines"]["standings"]}
    assert by_name["untrained base"].startswith("it can't be loaded: ")
    return by_name["bag of words"]


def test_the_adapters_own_training_rows_are_found_beside_the_test(
    run: Run, routed: Path, scripted: ScriptedDecoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlx_router.data import read
    from mlx_router.interop import load_catalogue
    from mlx_router.router import Router

    catalogue = load_catalogue(CATALOGUE)
    path = write_rows(tmp_path / "mine.jsonl", rows_of_a_test()[::2])
    known = manifest({"train": data_record(str(path), read(path, catalogue))})
    monkeypatch.setattr(Router, "load", lambda *_, **__: Router(scripted, catalogue, manifest=known))
    out = tmp_path / "out"

    assert left_out(run, out, routed) is None
    assert report_json(out)["facts"]["baselines trained on"].endswith("mine.jsonl, which the adapter was trained on")
    # Another file of that name is not taken for it, nor is none.
    write_rows(path, rows_of_a_test()[1::2])
    assert "mine.jsonl is not what the adapter was trained on, and there are no" in (left_out(run, out, routed) or "")
    path.write_text("no JSON\n", encoding="utf-8")
    assert "can't be read" in (left_out(run, out, routed) or "")
    path.unlink()
    assert "mine.jsonl is not there, and there are no training rows" in (left_out(run, out, routed) or "")


def test_predictions_get_a_report_too(run: Run, tmp_path: Path) -> None:
    rows = [{**row, "output": json.dumps(row["target"])} for row in rows_of_a_test()]
    path = write_rows(tmp_path / "o.jsonl", rows)
    ran = run("eval", "--predictions", path, "--catalogue", CATALOGUE, "--report", tmp_path / "out")
    found = report_json(tmp_path / "out")

    assert ran.code == 0, ran.err
    assert found["confidence"] is None and found["latency_percentiles_ms"] == {}
    assert found["baselines"]["standings"][-1]["left_out"] == "the outputs were made elsewhere, so no base is known"
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "None: every decision is the gold one." in text and "No tool was taken for another." in text


def test_a_report_says_which_gates_were_missed_and_which_rows_were_seen(run: Run, routed: Path, tmp_path: Path) -> None:
    near = write_rows(tmp_path / "near.jsonl", [{"request": "track a-1", "target": ORDER}])
    options = ["--near", near, "--allow-leaks", "--max-wrong-call-rate", "0.01", "--min-exact-match", "0.5"]
    ran = run("eval", "a", "--data", routed, "--report", tmp_path / "out", *options)
    page, text = ((tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))

    assert ran.code == 1
    assert "1 of 2 gates met" in page and "Measured in spite of leaks" in page
    assert "gate exact\\_match ≥ 0.5: met" in text and "Measured in spite of leaks" in text
    assert "without the 1 listed as seen" in page


def test_constrained_decoding_stands_beside_the_default_mode(
    run: Run, routed: Path, scripted: ScriptedDecoder, tmp_path: Path
) -> None:
    scripted.constrained = {row["request"]: generation(row["target"]) for row in rows_of_a_test()}
    ran = run("eval", "a", "--data", routed, "--report", tmp_path / "out", "--mode", "constrained")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")

    assert ran.code == 0, ran.err
    head = next(line for line in text.splitlines() if line.startswith("| metric |")).split("|")
    exact = next(line for line in text.splitlines() if line.startswith("| `exact_match` |")).split("|")
    found = {name.strip(): cell.strip() for name, cell in zip(head, exact, strict=True)}
    assert (found["value"], found["constrained"]) == ("0.880", "1.000")


@pytest.mark.parametrize("options", [["--baseline-train", "x.jsonl"], ["--skip-base"]])
def test_options_of_a_report_want_one(options: list[str], run: Run, routed: Path) -> None:
    ran = run("eval", "a", "--data", routed, *options)
    assert (ran.code, ran.out) == (2, "") and "--report" in ran.err


def test_a_folder_that_can_not_be_made_is_told_before_anything_is_routed(
    run: Run, routed: Path, scripted: ScriptedDecoder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = run("eval", "a", "--data", routed, "--report", tmp_path / "file" / "out")

    assert ran.code == 2 and "can't be made" in ran.err
    assert scripted.asked == []


def test_training_rows_that_can_not_be_read_are_told_before_anything_is_routed(
    run: Run, routed: Path, scripted: ScriptedDecoder, tmp_path: Path
) -> None:
    ran = run("eval", "a", "--data", routed, "--report", tmp_path / "out", "--baseline-train", tmp_path / "no.jsonl")

    assert ran.code == 2 and "no.jsonl does not exist" in ran.err
    assert scripted.asked == []


def test_a_real_adapter_is_held_against_its_base_and_shown_in_its_tokens(
    run: Run, adapter: Path, base: Path, tmp_path: Path
) -> None:
    """The random base says nothing of use; the adapter knows these rows by heart."""
    request = "Where's my order ORD-1234?"
    rows = [*known_rows(2), {"request": request, "target": KNOWN["A human, now!"]}]
    data = write_rows(tmp_path / "test.jsonl", rows)
    options = ["--base", base, "--allow-leaks", "--report", tmp_path / "out"]
    ran = run("eval", adapter, "--data", data, *options)
    found = report_json(tmp_path / "out")
    standing = found["baselines"]["standings"][-1]

    assert ran.code == 0, ran.err
    assert (standing["name"], standing["left_out"], standing["beaten"]) == ("untrained base", None, True)
    assert standing["metrics"]["exact_match"]["value"] == 0.0
    assert [one["request"] for one in found["failures"]] == [request]
    assert found["failures"][0]["first_wrong_token"]["part"] == "tool"
    assert found["confidence"]["judged"] > 0 and found["latency_percentiles_ms"]["p50"] > 0


def test_the_base_can_be_left_out(run: Run, adapter: Path, base: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", known_rows())
    run("eval", adapter, "--data", data, "--base", base, "--allow-leaks", "--report", tmp_path / "out", "--skip-base")

    assert report_json(tmp_path / "out")["baselines"]["standings"][-1]["left_out"] == "--skip-base was given"


EDGES: dict[str, list[Scored]] = {
    "one right row": support_rows(1),
    "nothing parses": [scored(row.example.catalogue, row.example.request, ORDER, "?") for row in support_rows(3)],
    "no call is wanted": [scored(row.example.catalogue, "hi", HELLO, HELLO) for row in support_rows(3)],
    "every row wants a call": [
        scored(row.example.catalogue, "x", ORDER, ORDER, confidence=1.0, latency_ms=0.0) for row in support_rows(3)
    ],
}


@pytest.mark.parametrize("name", EDGES)
def test_a_report_of_an_edge_is_whole(name: str) -> None:
    report = report_of(EDGES[name])
    page, text, found = html_page(report), markdown_report(report), report.to_json()

    assert "nan" not in page.lower() and "nan" not in text.lower()
    json.dumps(found, allow_nan=False)
    assert page.count("<section") == text.count("\n## ") == 8


def test_markdown_shows_hostile_texts_as_text() -> None:
    report = report_of(hostile_rows(), title=HOSTILE[0])
    text = markdown_report(report)

    outside = [line for line in text.splitlines() if not line.startswith("    ")]
    assert not any("<script" in line or "<img" in line or "](" in line for line in outside)
    # What could break a table or a line is escaped.
    assert "\x1b" not in text and "\u202e" not in text and "\ud83d" not in text
    # Every table has as many cells in each line as in its head.
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_tells_of_a_calibrated_router_and_its_policy() -> None:
    from dataclasses import replace

    rows = [
        replace(row, action="act" if (row.p_right or 0) > 0.5 else "confirm") if row.row.calls else row
        for row in support_rows(120, calibrated=True)
    ]
    report = report_of(rows)
    text, page = markdown_report(report), html_page(report)

    assert "p\\_right, the calibrated probability" in text
    assert "acted on only" in text and "Under the router's policy" in page
    assert report.policy is not None and RATE.search(text)
