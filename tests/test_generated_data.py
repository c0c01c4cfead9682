"""The training and validation splits: true to the rules of data/README.md, and made by the committed program but for
the rows written by hand.
"""

import functools
import gzip
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.data import Example, read
from mlx_router.duplicates import fold
from mlx_router.interop import catalogue_from_json
from mlx_router.parsing import parse
from mlx_router.prompts import system_message

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
NAMES = ("support", "desktop")
TRAINING = [(name, split) for name in NAMES for split in ("train", "train_large")]
MADE = [*TRAINING, *((name, "valid") for name in NAMES)]
SPLITS = [*MADE, *((name, "valid_written") for name in NAMES)]
DIGIT = "(?:oh|zero|one|two|three|four|five|six|seven|eight|nine)"
CODES = {
    "out_of_scope",
    "no_matching_tool",
    "chitchat",
    "no_action_requested",
    "missing_information",
    "invalid_parameter",
}


def content(folder: Path, split: str) -> bytes:
    """What a split's file holds, unpacked."""
    packed = folder / f"{split}.jsonl.gz"
    return gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / f"{split}.jsonl").read_bytes()


@functools.cache
def rows(name: str, split: str) -> list[dict[str, Any]]:
    """The JSON rows of one split."""
    return [json.loads(line) for line in content(DATA / name, split).decode("utf-8").splitlines()]


def examples(name: str, split: str) -> list[Example]:
    """The examples of one split, as training reads them."""
    packed = DATA / name / f"{split}.jsonl.gz"
    return read(packed if packed.exists() else DATA / name / f"{split}.jsonl")


def requests(name: str, split: str) -> list[str]:
    """The requests of one split without case and punctuation."""
    return [fold(row["request"] if "request" in row else row["messages"][1]["content"]) for row in rows(name, split)]


def catalogue(name: str) -> Catalogue:
    """The catalogue of one folder."""
    return catalogue_from_json(json.loads((DATA / name / "catalogue.json").read_text(encoding="utf-8")))


def free_text(call: ToolCall, tools: Catalogue) -> Iterator[str]:
    """The arguments that the request must state letter for letter."""
    tool = tools.get(call.tool)
    assert tool is not None
    for name, value in call.arguments.items():
        if isinstance(value, str) and "enum" not in tool.properties[name]:
            yield value


def test_the_program_writes_the_committed_files_byte_for_byte(tmp_path: Path) -> None:
    # Another hash seed than any before, so that no set or dictionary order decides what is written.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    command = [sys.executable, str(DATA / "generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, env=environment, timeout=300)
    for name, split in MADE:
        assert content(tmp_path / name, split) == content(DATA / name, split), (name, split)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_every_target_and_alternative_fits_the_catalogue(name: str, split: str) -> None:
    tools = catalogue(name)
    for row in rows(name, split):
        answers = [row["messages"][2]["content"], *map(json.dumps, row.get("alternatives", ()))]
        for answer in answers:
            assert isinstance(parse(answer, tools), ToolCall | NoTool), row


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_rows_have_the_form_that_the_readme_states(name: str, split: str) -> None:
    system = system_message(catalogue(name))
    for row in rows(name, split):
        assert row.keys() - {"alternatives"} == {"messages", "catalogue", "kind"}
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][0]["content"] == system
        assert row["catalogue"] == "catalogue.json"


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_free_text_stands_in_the_request(name: str, split: str) -> None:
    tools = catalogue(name)
    for example in examples(name, split):
        for target in (example.target, *example.alternatives):
            if isinstance(target, ToolCall):
                for value in free_text(target, tools):
                    assert value and value == value.strip() and value in example.request, example


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_reasons_are_codes_and_name_parameters_in_schema_order(name: str, split: str) -> None:
    parameters = [list(tool.properties) for tool in catalogue(name)]
    for example in examples(name, split):
        if isinstance(example.target, NoTool):
            assert example.target.code in CODES
            missing = list(example.target.missing)
            in_order = [[known for known in names if known in missing] for names in parameters]
            assert not missing or missing in in_order, example.target.reason


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_no_alternative_repeats_the_target(name: str, split: str) -> None:
    for example in examples(name, split):
        everything = [example.target, *example.alternatives]
        assert all(target not in everything[:at] for at, target in enumerate(everything)), example


@pytest.mark.parametrize(("name", "training"), TRAINING)
def test_no_request_stands_twice_or_in_two_splits(name: str, training: str) -> None:
    splits = [requests(name, split) for split in (training, "valid", "valid_written", "test")]
    assert all(len(set(split)) == len(split) for split in splits)
    assert len(set().union(*splits)) == sum(map(len, splits))


@pytest.mark.parametrize(("name", "split"), TRAINING)
@pytest.mark.parametrize("first", [300, None])
def test_the_share_of_no_tool_is_balanced_from_the_first_rows_on(name: str, split: str, first: int | None) -> None:
    everything = examples(name, split)
    some = everything[:first]
    share, whole = (sum(isinstance(row.target, NoTool) for row in part) / len(part) for part in (some, everything))
    assert 0.1 <= whole <= 0.2
    assert abs(share - whole) < 0.01
    assert {example.target.tool for example in some} == {tool.name for tool in catalogue(name)} | {"no_tool"}


def test_values_kept_from_training_are_measured_in_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DATA))
    phrasing = importlib.import_module("phrasing")
    places = phrasing.read_grammar(DATA / "frames" / "desktop.txt").lists["place"]
    kept, held = phrasing.divide_options(places, "place")
    train, large, valid = (" ".join(requests("desktop", split)) for split in ("train", "train_large", "valid"))
    assert all(place.casefold() in train for place in kept)
    assert held and not any(place.casefold() in train or place.casefold() in large for place in held)
    assert any(place.casefold() in valid for place in held)


def test_a_second_file_lengthens_a_list_but_brings_nothing_back_that_is_kept_from_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(DATA))
    phrasing, generate = (importlib.import_module(name) for name in ("phrasing", "generate"))
    first = {"fruit": [f"fruit {number}" for number in range(10)], "colour": ["red"]}
    kept, held = phrasing.divide_options(first["fruit"], "fruit")
    lists = generate.extended(first, {"fruit": [*held, "medlar"], "tree": ["oak"]})
    assert held and lists == {"fruit": [*kept, "medlar"], "colour": ["red"], "tree": ["oak"]}
    writer = phrasing.Writer(phrasing.Grammar(lists, ()), Random(0), valid=False, whole={"fruit"})
    assert writer.pool("fruit") == [*kept, "medlar"]


@pytest.mark.parametrize(
    ("number", "style", "words"),
    [
        ("BR-209", "figures", "B R 2 0 9"),
        ("#41177", "digits", "four one one seven seven"),
        ("4177", "pairs", "forty one seventy seven"),
        ("4007", "pairs", "four oh oh seven"),
        ("KX^7/21", "pairs", "K X seven twenty one"),
    ],
)
def test_order_numbers_are_spoken(monkeypatch: pytest.MonkeyPatch, number: str, style: str, words: str) -> None:
    monkeypatch.syspath_prepend(str(DATA))
    speech = importlib.import_module("speech")
    assert words in {speech.spoken(number, style, Random(seed)) for seed in range(20)}


@pytest.mark.parametrize("split", ["train", "train_large"])
def test_dictation_speaks_the_order_numbers_of_calls_and_of_other_rows(split: str) -> None:
    spoken = [row for row in examples("support", split) if re.search(f"{DIGIT} {DIGIT} {DIGIT}", row.request)]
    calls = [row.target for row in spoken if isinstance(row.target, ToolCall) and "order_id" in row.target.arguments]
    assert min(len(calls), len(spoken) - len(calls)) > 5
    assert any(re.fullmatch(f"{DIGIT}( {DIGIT})+", call.arguments["order_id"]) for call in calls)
