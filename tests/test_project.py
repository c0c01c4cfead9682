"""`init`: the folder that it makes, and rows from templates for any catalogue."""

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mlx_router import project, templates
from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.cli_data import data_group, init_command
from mlx_router.config import load_config
from mlx_router.data import Example, read
from mlx_router.errors import CatalogueError, DataError, UsageError
from mlx_router.rules import breaches
from mlx_router.wording import phrases

REPOSITORY = Path(__file__).parent.parent
KINDS = {"missing", "question", "greeting", "out_of_scope", "negation", "near_miss"}


def catalogue(name: str) -> Catalogue:
    return Catalogue.from_json(json.loads((REPOSITORY / "data" / name / "catalogue.json").read_text(encoding="utf-8")))


# Tools of every sort: none of their own words can be counted on.
ODD = Catalogue(
    (
        Tool("weather", "Current weather and forecast for a city.", {"properties": {"city": {"type": "string"}}}),
        Tool("Restaurants_1.FindRestaurants", "", {"properties": {"city": {"type": "string"}}, "required": ["city"]}),
        Tool("ping"),
        Tool("größe.ändern", "Ändert die Größe."),
        Tool(
            "createShipment",
            "Creates a shipment (express only). Needs an account.",
            {
                "properties": {
                    "to": {
                        "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": r"^\d{5}$"}},
                        "required": ["street", "zip"],
                    },
                    "parcels": {"type": "array", "items": {"$ref": "#/$defs/parcel"}, "minItems": 1},
                    "insured": {"type": "boolean"},
                    "pickup": {"type": "string", "format": "date"},
                },
                "required": ["to", "parcels", "pickup"],
                "$defs": {
                    "parcel": {
                        "properties": {"weight_kg": {"type": "number", "minimum": 0.1, "maximum": 30}},
                        "required": ["weight_kg"],
                    }
                },
            },
        ),
        Tool("noop", "does nothing", {"properties": {"mode": {"const": "quick"}}, "required": ["mode"]}),
    )
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(init_command, list(map(str, arguments)))


def check(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(CliRunner().invoke(data_group, ["check", str(folder), "--json"]).stdout)
    return value


def stated(example: Example) -> set[str]:
    """The codes of the rules that a row breaks."""
    return {breach.code for breach in breaches(example)}


@pytest.mark.parametrize("name", ["support", "desktop"])
def test_a_project_from_a_starter_is_ready_to_train(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "my router"
    result = run(folder, "--from", name)
    assert result.exit_code == 0
    tools = len(catalogue(name))
    config = load_config(folder / "train.yaml")
    assert config.catalogue == str(folder / "catalogue.json")
    rows = {split: read(getattr(config, split)) for split in ("train", "valid", "test")}
    everything = [example for examples in rows.values() for example in examples]
    counts = Counter(example.target.tool for example in everything)
    assert all(counts[tool.name] == 20 for tool in catalogue(name))
    assert counts["no_tool"] / len(everything) == pytest.approx(0.15, abs=0.01)
    assert len(everything) == tools * 20 + counts["no_tool"]
    assert all(example.template and example.catalogue == catalogue(name) for example in everything)
    assert {example.kind for example in everything if isinstance(example.target, NoTool)} == KINDS
    report = check(folder)
    assert report["ok"] and report["warnings"] == 0
    assert {finding["code"] for finding in report["findings"]} <= {"template", "near_duplicate"}


@pytest.mark.parametrize("name", ["support", "desktop"])
def test_starters_are_the_catalogues_of_the_data(name: str) -> None:
    assert Catalogue.from_json(json.loads(project.STARTERS[name].read_text(encoding="utf-8"))) == catalogue(name)


def test_it_prints_the_next_three_commands(tmp_path: Path) -> None:
    folder = tmp_path / "my router"
    printed = run(folder, "--from", "support").stdout.splitlines()
    commands = [shlex.split(line) for line in printed if line.startswith("mlx-router")]
    assert [command[1] for command in commands] == ["data", "train", "eval"]
    assert commands[0][-1] == str(folder)
    assert Path(commands[1][-1]).is_file()
    assert Path(commands[2][-1]).is_file()


def test_the_readme_walks_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "mine", "--from", "support")
    monkeypatch.chdir(tmp_path / "mine")
    text = Path("README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("    mlx-router")]
    assert [command[1] for command in commands] == ["data", "train", "eval", "route"]
    assert CliRunner().invoke(data_group, commands[0][2:]).exit_code == 0
    assert all(
        Path(word).is_file()
        for command in commands
        for word in command
        if "." in word and word != "." and command[1] != "route"
    )
    (short,) = [line.strip() for line in text.splitlines() if line.startswith("    {")]
    with Path("data/train.jsonl").open("a", encoding="utf-8") as file:
        file.write(short.replace("ORD-", "XYZ-") + "\n")
    assert check(Path())["ok"]
    assert check(Path())["splits"][0]["unusable"] == 0


def test_the_recipe(tmp_path: Path) -> None:
    project.create(tmp_path / "mine", "support", {"epochs": 4})
    lines = (tmp_path / "mine" / "train.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# mlx-router train --config train.yaml"
    assert yaml.safe_load("\n".join(lines)) == {
        "model": "tiny",
        "catalogue": "catalogue.json",
        "train": "data/train.jsonl",
        "valid": "data/valid.jsonl",
        "test": "data/test.jsonl",
        "adapter": "adapter",
        "epochs": 4,
    }


def test_tools_from_json_and_from_python(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": tool.to_json()} for tool in catalogue("support")]
    (tmp_path / "tools.json").write_text(json.dumps(tools), encoding="utf-8")
    (tmp_path / "my_tools.py").write_text(
        'def lamp(room: str, on: bool) -> None:\n    """Switch a lamp."""\n\n\nTOOLS = [lamp]\n', encoding="utf-8"
    )
    assert run(tmp_path / "a", "--from", tmp_path / "tools.json").exit_code == 0
    assert run(tmp_path / "b", "--from", tmp_path / "my_tools.py").exit_code == 0
    saved = json.loads((tmp_path / "b" / "catalogue.json").read_text(encoding="utf-8"))
    assert [tool["name"] for tool in saved["tools"]] == ["lamp"]
    assert check(tmp_path / "b")["errors"] == 0


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert run(tmp_path / "mine", "--from", "support").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert isinstance(run(tmp_path / "mine", "--from", "desktop").exception, UsageError)
    assert {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()} == before
    (tmp_path / "file").touch()
    assert isinstance(run(tmp_path / "file", "--from", "support").exception, UsageError)


def test_nothing_is_made_of_unusable_tools(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"name": "no_tool"}]', encoding="utf-8")
    assert isinstance(run(tmp_path / "mine", "--from", tmp_path / "tools.json").exception, CatalogueError)
    hopeless = [{"name": "a", "description": "b", "parameters": {"properties": {"c": {"not": {}}}, "required": ["c"]}}]
    (tmp_path / "tools.json").write_text(json.dumps(hopeless), encoding="utf-8")
    assert isinstance(run(tmp_path / "mine", "--from", tmp_path / "tools.json").exception, DataError)
    assert not (tmp_path / "mine").exists()


def test_rows_that_can_not_be_made_are_left_out_and_named(tmp_path: Path) -> None:
    schema = {"properties": {"code": {"type": "string", "pattern": r"^(?=.*\d).+$"}}, "required": ["code"]}
    tools = [*(tool.to_json() for tool in catalogue("support")), Tool("unlock", "unlock it.", schema).to_json()]
    (tmp_path / "tools.json").write_text(json.dumps(tools), encoding="utf-8")
    result = run(tmp_path / "mine", "--from", tmp_path / "tools.json")
    assert result.exit_code == 0
    assert "left out: rows of unlock: no fitting arguments were found" in result.stderr
    assert "unlock" not in {example.target.tool for example in read(tmp_path / "mine/data/train.jsonl")}


@pytest.mark.parametrize("tools", [ODD, catalogue("support"), catalogue("desktop")], ids=["odd", "support", "desktop"])
def test_rows_keep_the_rules_for_gold_values(tools: Catalogue) -> None:
    rows, left_out = templates.rows(tools)
    assert left_out == []
    assert {tool.name for tool in tools} <= {row.target.tool for row in rows}
    assert len({row.request.casefold() for row in rows}) == len(rows)
    for row in rows:
        assert stated(row) == set(), row
        if isinstance(row.target, ToolCall):
            assert tools.by_name[row.target.tool].argument_errors(row.target.arguments) == []


def test_rows_are_the_same_every_time() -> None:
    assert templates.rows(ODD) == templates.rows(ODD)
    assert templates.rows(ODD) != templates.rows(ODD, seed=1)


def test_what_is_missing_is_named_and_not_said() -> None:
    rows, _ = templates.rows(catalogue("support"))
    missing = [row.target.missing for row in rows if isinstance(row.target, NoTool) and row.kind == "missing"]
    assert missing and all(missing)
    assert {name for names in missing for name in names} <= {"order_id", "reason"}


def test_questions_out_of_scope_share_no_word_with_the_catalogue() -> None:
    poems = Catalogue((Tool("write_poem", "write a poem about penguins or the moon."),))
    requests = [row.request for row in templates.rows(poems)[0] if row.kind == "out_of_scope"]
    assert not any(word in request for request in requests for word in ("poem", "penguin", "moon"))


@pytest.mark.parametrize(
    ("name", "description", "said"),
    [
        ("track_order", "get the status of an order.", ["get the status of an order", "track the order"]),
        ("trackOrder", "Gets the status (live) of an order. Slow!", ["get the status of an order", "track the order"]),
        ("Orders.Track", "Status of an order.", ["track"]),
        ("weather", "The weather now.", ["the weather"]),
        ("arrange_window", "maximize, minimize or place a window.", ["arrange the window"]),
        ("escalate", "", ["escalate"]),
    ],
)
def test_what_a_tool_does_in_words(name: str, description: str, said: list[str]) -> None:
    assert [phrase.text for phrase in phrases(Tool(name, description))] == said
