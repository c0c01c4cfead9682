"""Rows of a test that an adapter has seen: how they are found, and what `mlx-router eval` does about them."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import CATALOGUE, KNOWN, Run, ScriptedDecoder, known_rows, write_rows

from mlx_router.catalogue import Catalogue
from mlx_router.data import Example, read
from mlx_router.interop import load_catalogue
from mlx_router.leaks import find_leaks, shorten
from mlx_router.manifest import Base, Manifest
from mlx_router.records import data_record
from mlx_router.router import Router

HELLO = {"tool": "no_tool", "reason": "chitchat"}
SAID = '{"tool":"no_tool","reason":"chitchat"}'
WRONG = '{"tool":"escalate","arguments":{"reason":"angry"}}'
OTHER_TOOLS = [{"name": "open_door", "description": "open a door.", "parameters": {}}]

TRAINED = ["Where is my order?", "good morning to you all"]
CHOSEN = ["hello there", "Where is my order?"]
# A test of six rows: said in training but for case and stops, in validation, in training with other tools; three new.
TEST = ["where is  MY order", "Hello there!", "Good morning, to you all.", "good morning to you al", "ORD-1?", "ORD-2?"]


def examples(path: Path, requests: Sequence[str], tools: object = None) -> list[Example]:
    rows = [{"request": request, "target": HELLO, **({"tools": tools} if tools else {})} for request in requests]
    return read(write_rows(path, rows), load_catalogue(CATALOGUE))


@pytest.fixture
def manifest_data(tmp_path: Path) -> dict[str, Any]:
    """What a manifest keeps of a training run: the first request with our tools, the second with others."""
    train = [
        *examples(tmp_path / "train.jsonl", TRAINED[:1]),
        *examples(tmp_path / "other.jsonl", TRAINED[1:], OTHER_TOOLS),
    ]
    valid = examples(tmp_path / "valid.jsonl", CHOSEN)
    return {"train": data_record("train.jsonl", train), "valid": data_record("valid.jsonl", valid)}


def requests(found: Sequence[Example]) -> list[str]:
    return [example.request for example in found]


def test_each_row_stands_in_one_list_the_gravest(tmp_path: Path, manifest_data: dict[str, Any]) -> None:
    test = examples(tmp_path / "test.jsonl", TEST)
    leaks = find_leaks(test, manifest_data)

    assert (leaks.checked, leaks.failed, leaks.near) == (True, True, None)
    assert requests(leaks.train) == ["where is  MY order"]
    assert requests(leaks.valid) == ["Hello there!"]
    assert requests(leaks.other_catalogue) == ["Good morning, to you all."]
    assert leaks.doubtful == {example.where for example in test[:3]}
    assert [line.partition("test.jsonl:")[2] for line in leaks.lines] == [
        "1: 'where is  MY order' was trained on",
        "2: 'Hello there!' is a validation row, which chose the checkpoint",
        "3: 'Good morning, to you all.' was trained on with another catalogue",
    ]


def test_a_row_that_calibrated_fails_a_test_too(tmp_path: Path, manifest_data: dict[str, Any]) -> None:
    calibrated = examples(tmp_path / "rows.jsonl", ["ORD-2?", "hello there"])
    leaks = find_leaks(
        examples(tmp_path / "test.jsonl", TEST[1:]), manifest_data | {"calibration": data_record("rows", calibrated)}
    )
    assert leaks.failed
    assert (requests(leaks.valid), requests(leaks.calibration)) == (["Hello there!"], ["ORD-2?"])
    assert any(line.endswith("'ORD-2?' was calibrated by") for line in leaks.lines)
    assert "1 calibrated by" in leaks.summary


def test_the_same_request_with_other_tools_fails_nothing(tmp_path: Path, manifest_data: dict[str, Any]) -> None:
    leaks = find_leaks(examples(tmp_path / "test.jsonl", TEST[2:]), manifest_data)
    assert not leaks.failed
    assert leaks.summary == "4 test rows: 1 trained on with another catalogue"


def test_training_rows_show_what_is_near_and_stand_in_for_hashes(tmp_path: Path) -> None:
    train = examples(tmp_path / "train.jsonl", [*TRAINED, "ORD-3?"])
    test = examples(tmp_path / "test.jsonl", TEST)
    leaks = find_leaks(test, {}, train)

    assert leaks.checked
    assert requests(leaks.train) == ["where is  MY order", "Good morning, to you all."]
    assert leaks.near is not None
    # A slip of the keyboard is near; another number is another request.
    assert [(near.example.request, near.other.request) for near in leaks.near] == [
        ("good morning to you al", "good morning to you all")
    ]
    assert find_leaks(test, {}, examples(tmp_path / "far.jsonl", ["play some music"])).near == ()


@pytest.mark.parametrize("data", [{}, {"train": {"rows": 5}}, {"train": None}, {"train": {"requests": None}}])
def test_a_manifest_without_keys_is_not_taken_for_a_clean_one(tmp_path: Path, data: dict[str, Any]) -> None:
    leaks = find_leaks(examples(tmp_path / "test.jsonl", TEST), data)
    assert (leaks.checked, leaks.failed) == (False, False)
    assert leaks.summary.startswith("6 test rows: not checked")
    lists: dict[str, list[object]] = {"train": [], "valid": [], "calibration": [], "other_catalogue": []}
    assert leaks.to_json() == {"checked": False, **lists, "near": None}


def test_of_several_near_rows_the_most_alike_is_shown(tmp_path: Path) -> None:
    alike = ["please turn on the kitchen lamps!", "please turn on the kitchen lamp", "please turn the kitchen lamp on"]
    test = examples(tmp_path / "test.jsonl", ["please turn on the kitchen lampp"])
    near = find_leaks(test, {}, examples(tmp_path / "train.jsonl", alike)).near
    assert near is not None
    assert [found.other.request for found in near] == ["please turn on the kitchen lamp"]


def test_many_lines_are_cut() -> None:
    assert shorten([str(number) for number in range(22)]) == [*map(str, range(20)), "… and 2 more"]
    assert shorten(["a"] * 20) == ["a"] * 20


# The command: six rows, of which the router gets the first three right, those that it has seen.


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue, manifest_data: dict[str, Any]) -> ScriptedDecoder:
    return install(monkeypatch, catalogue, manifest_data)


def install(monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue, data: dict[str, Any]) -> ScriptedDecoder:
    """`Router.load` gives a router whose manifest holds this record of its data."""
    decoder = ScriptedDecoder(dict.fromkeys([*TEST[:3], "where is MY order"], SAID), otherwise=WRONG)
    base = Base(name="x", model_type="x", tokenizer_hash="x", template_hash="x")
    manifest = Manifest(
        base=base, catalogue=catalogue.to_json(), catalogue_hash=catalogue.hash, max_tokens=64, dtype="x", data=data
    )
    monkeypatch.setattr(Router, "load", lambda *_, **__: Router(decoder, catalogue, manifest=manifest))
    return decoder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "test.jsonl", [{"request": request, "target": HELLO} for request in TEST])


def test_a_leak_ends_the_run_before_anything_is_routed(
    run: Run, decoder: ScriptedDecoder, data: Path, tmp_path: Path
) -> None:
    junit, summary, out = tmp_path / "x.xml", tmp_path / "x.md", tmp_path / "o.jsonl"
    ran = run("eval", "a", "--data", data, "--json", "--junit", junit, "--summary", summary, "--out", out)

    assert (ran.code, decoder.asked, out.exists()) == (1, [], False)
    assert [row["request"] for row in ran.json["leaks"]["train"]] == ["where is  MY order"]
    assert ran.json["leaks"]["train"][0]["where"] == f"{data}:1"
    assert f"leak: {data}:1: 'where is  MY order' was trained on" in ran.err.splitlines()
    assert "--allow-leaks" in ran.err
    case = ET.parse(junit).getroot().find("testsuite/testcase")
    assert case is not None and case.get("classname") == "mlx_router.leaks"
    failure = case.find("failure")
    assert failure is not None and "where is  MY order" in (failure.text or "")
    assert "failed" in summary.read_text(encoding="utf-8").splitlines()[0]


def test_allowed_leaks_stamp_the_report(run: Run, decoder: ScriptedDecoder, data: Path, tmp_path: Path) -> None:
    shown = run("eval", "a", "--data", data, "--allow-leaks", "--junit", tmp_path / "x.xml")
    found = run("eval", "a", "--data", data, "--allow-leaks", "--json").json

    assert shown.code == 0
    assert "leaks: 6 test rows: 1 trained on; 1 in the validation rows" in shown.out
    lines = [line.split() for line in shown.out.splitlines()]
    # Three rows right of six, all of which had been seen.
    assert ["exact_match", "0.500", "0.000"] in lines
    assert found["metrics"]["exact_match"]["value"] == 0.5
    assert (found["leaks"]["without"]["n"], found["leaks"]["without"]["metrics"]["exact_match"]["value"]) == (3, 0.0)
    suite = ET.parse(tmp_path / "x.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")


def test_near_rows_are_listed_and_fail_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue, tmp_path: Path
) -> None:
    install(monkeypatch, catalogue, {})
    train = write_rows(tmp_path / "train.jsonl", [{"request": TRAINED[1], "target": HELLO}])
    data = write_rows(tmp_path / "t.jsonl", [{"request": request, "target": HELLO} for request in [TEST[3], TEST[0]]])
    ran = run("eval", "a", "--data", data, "--near", train, "--json")

    assert ran.code == 0
    assert ran.json["leaks"]["near"] == [
        {
            "where": f"{data}:1",
            "id": None,
            "request": "good morning to you al",
            "near": f"{train}:1",
            "near_request": "good morning to you all",
        }
    ]
    # The near row is routed wrongly, the other one rightly.
    assert ran.json["metrics"]["exact_match"]["value"] == 0.5
    assert ran.json["leaks"]["without"]["metrics"]["exact_match"] == {
        "value": 1.0, "n": 1, "ci95": pytest.approx([0.2065, 1.0], abs=1e-4)
    }  # fmt: skip
    text = run("eval", "a", "--data", data, "--near", train).out
    assert f"{data}:1: 'good morning to you al' is near {train}:1: 'good morning to you all'" in text
    assert ["all", "2", "rows", "the", "1", "others"] in [line.split() for line in text.splitlines()]


def test_an_adapter_that_does_not_say_is_not_checked(
    run: Run, monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue, data: Path, tmp_path: Path
) -> None:
    install(monkeypatch, catalogue, {"train": {"source": "train.jsonl", "rows": 3}})
    ran = run("eval", "a", "--data", data, "--junit", tmp_path / "x.xml")
    assert ran.code == 0
    assert "leaks: 6 test rows: not checked" in ran.out
    skipped = ET.parse(tmp_path / "x.xml").getroot().find("testsuite/testcase/skipped")
    assert skipped is not None and "not checked" in str(skipped.get("message"))


def test_a_clean_test_says_so(run: Run, decoder: ScriptedDecoder, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "t.jsonl", [{"request": "ORD-1?", "target": HELLO}])
    assert "leaks: 1 test row: none trained on" in run("eval", "a", "--data", data).out
    assert run("eval", "a", "--data", data, "--json").json["leaks"] == {
        "checked": True, "train": [], "valid": [], "calibration": [], "other_catalogue": [], "near": None,
        "without": None,
    }  # fmt: skip


def test_rows_beyond_the_limit_leak_nothing(run: Run, decoder: ScriptedDecoder, tmp_path: Path) -> None:
    rows = [{"request": request, "target": HELLO} for request in ["ORD-1?", *TRAINED]]
    data = write_rows(tmp_path / "t.jsonl", rows)
    assert run("eval", "a", "--data", data, "--limit", 1).code == 0
    assert run("eval", "a", "--data", data, "--limit", 2).code == 1


def test_a_trained_adapter_knows_its_rows(run: Run, adapter: Path, tmp_path: Path) -> None:
    """The keys that training writes are those that evaluation looks for."""
    data = write_rows(tmp_path / "t.jsonl", known_rows())
    ran = run("eval", adapter, "--data", data, "--json")
    assert ran.code == 1
    assert [row["request"] for row in ran.json["leaks"]["train"]] == list(KNOWN)
    new = write_rows(tmp_path / "new.jsonl", [{"request": "What a lovely day.", "target": HELLO}])
    assert run("eval", adapter, "--data", new).code == 0


def test_predictions_take_no_training_rows(run: Run, tmp_path: Path) -> None:
    ran = run("eval", "--predictions", tmp_path / "o.jsonl", "--near", "train.jsonl")
    assert (ran.code, ran.out) == (2, "")
    assert "--predictions takes no adapter and no rows" in ran.err
