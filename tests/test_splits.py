"""`data split`: what goes where, what stays together, and rows that stay as they are."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlx_router.catalogue import Catalogue, Tool
from mlx_router.cli_data import data_group
from mlx_router.data import read
from mlx_router.duplicates import fold
from mlx_router.errors import ConfigError, DataError, UsageError
from mlx_router.splits import Source, assign, find, split_name

CATALOGUE = Catalogue((Tool("call", "call someone.", {"properties": {"who": {"type": "string"}}}),))
OTHER = Catalogue((Tool("call", "ring someone up.", {"properties": {"who": {"type": "string"}}}),))
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty", "knoll", "ledge")


def requests(count: int, seed: int = 0) -> list[str]:
    """Requests that are not near each other."""
    rng = random.Random(seed)
    return [f"{' '.join(rng.sample(WORDS, 5))} {number}" for number in range(count)]


def row(request: str, tool: str = "call", **more: Any) -> dict[str, Any]:
    target = {"tool": "no_tool", "reason": "chitchat"} if tool == "no_tool" else {"tool": tool, "arguments": {}}
    return {"request": request, "target": target, **more}


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def everything(folder: Path) -> list[dict[str, Any]]:
    return [line for name in SHARES for line in lines(folder, name)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data_group, ["split", *map(str, arguments)])


def test_every_tool_keeps_its_shares() -> None:
    texts = requests(500)
    tools = ["often"] * 300 + ["seldom"] * 150 + ["no_tool"] * 50
    names = assign(texts, tools, SHARES)
    for tool, count in Counter(tools).items():
        found = Counter(name for name, given in zip(names, tools, strict=True) if given == tool)
        assert found == {"train": count * 0.8, "valid": count * 0.1, "test": count * 0.1}


def test_equal_and_near_requests_stay_together() -> None:
    texts = requests(60)
    variants = [text.upper() + "!" for text in texts] + [text.replace(" ", ", ") for text in texts]
    variants += [f"{text} please" for text in texts if len(text) > 30]
    everything = [*texts, *variants]
    names = assign(everything, ["call"] * len(everything), SHARES)
    split = dict(zip(everything, names, strict=True))
    assert set(names) == set(SHARES)
    for text in everything:
        assert split[text] == split[next(other for other in texts if fold(text).startswith(fold(other)))]


def test_the_split_depends_on_seed_and_rows_not_on_their_order() -> None:
    texts = requests(200)
    tools = ["a" if number % 3 else "b" for number in range(200)]
    first = dict(zip(texts, assign(texts, tools, SHARES, 1), strict=True))
    order = random.Random(5).sample(range(200), 200)
    again = assign([texts[at] for at in order], [tools[at] for at in order], SHARES, 1)
    assert {texts[at]: name for at, name in zip(order, again, strict=True)} == first
    assert dict(zip(texts, assign(texts, tools, SHARES, 2), strict=True)) != first


def test_many_small_tools_share_the_small_splits() -> None:
    texts = requests(200)
    tools = [f"tool{number // 5}" for number in range(200)]
    counts = Counter(assign(texts, tools, SHARES))
    assert counts == {"train": 160, "valid": 20, "test": 20}


def test_a_large_group_goes_where_there_is_room() -> None:
    texts = [*requests(30), *["again and again"] * 20]
    names = assign(texts, ["call"] * 50, SHARES)
    assert set(names[30:]) == {"train"}
    assert Counter(names) == {"train": 40, "valid": 5, "test": 5}


def test_rows_stay_as_they_are(tmp_path: Path) -> None:
    texts = requests(40)
    rows = [row(text, id=number, note={"größe": [1.0, None]}) for number, text in enumerate(texts)]
    rows[3] = {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": json.dumps(rows[3]["target"])},
        ],
        "tools": [{"name": "call"}],
        "catalogue": "nowhere",
    }
    rows[4]["note"] = "half a character: \ud83d"
    result = run(jsonl(tmp_path / "rows.jsonl", rows), "--out", tmp_path / "out")
    assert result.exit_code == 0
    written = everything(tmp_path / "out")
    assert sorted(map(json.dumps, written)) == sorted(map(json.dumps, rows))
    order = [texts.index(line["request"]) for line in lines(tmp_path / "out", "train") if "request" in line]
    assert order == sorted(order)


def test_what_it_says(tmp_path: Path) -> None:
    rows = [row(text, "call" if number < 30 else "no_tool") for number, text in enumerate(requests(40))]
    out = tmp_path / "out"
    result = run(jsonl(tmp_path / "rows.jsonl", rows), "--out", out)
    said = [line.split() for line in result.stdout.splitlines()]
    assert said[0] == ["wrote", f"{out}/train.jsonl:", "32", "rows"]
    assert ["call", "24", "(80%)", "3", "(10%)", "3", "(10%)"] in said
    assert said[-1] == ["all", "32", "(80%)", "4", "(10%)", "4", "(10%)"]


def test_catalogues_mean_the_same_in_the_new_folder(tmp_path: Path) -> None:
    CATALOGUE.save(tmp_path / "catalogue.json")
    texts = requests(60)
    paths = [row(text, catalogue="../catalogue.json") for text in texts[:20]]
    named = [row(text, catalogue="mine") for text in texts[20:40]]
    others = [row(text, catalogue="mine") for text in texts[40:]]
    first = jsonl(tmp_path / "a" / "rows.jsonl", [*paths, *named])
    (tmp_path / "a" / "catalogues.json").write_text(json.dumps({"mine": CATALOGUE.to_json()}), encoding="utf-8")
    second = tmp_path / "b" / "rows.jsonl.gz"
    second.parent.mkdir()
    second.write_bytes(gzip.compress("".join(f"{json.dumps(line)}\n" for line in others).encode()))
    bundle = json.dumps({"mine": OTHER.to_json(), "unused": CATALOGUE.to_json()}).encode()
    (tmp_path / "b" / "catalogues.json.gz").write_bytes(gzip.compress(bundle))
    out = tmp_path / "deep" / "down"
    assert run(first, second, "--out", out).exit_code == 0
    found = {example.request: example.catalogue for name in SHARES for example in read(out / f"{name}.jsonl")}
    assert found == {text: OTHER if text in texts[40:] else CATALOGUE for text in texts}
    assert {line["catalogue"] for line in everything(out)} == {"../../catalogue.json", "mine", "mine (2)"}
    assert set(json.loads((out / "catalogues.json").read_text(encoding="utf-8"))) == {"mine", "mine (2)"}


def test_a_catalogue_that_is_nowhere(tmp_path: Path) -> None:
    rows = [row(text, catalogue="nowhere") for text in requests(30)]
    result = run(jsonl(tmp_path / "rows.jsonl", rows), "--out", tmp_path / "out")
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "rows.jsonl", [row(text) for text in requests(40)])
    out = tmp_path / "out"
    assert run(rows, "--out", out).exit_code == 0
    before = (out / "train.jsonl").read_text(encoding="utf-8")
    again = run(rows, "--out", out, "--seed", 1)
    assert isinstance(again.exception, UsageError)
    assert (out / "train.jsonl").read_text(encoding="utf-8") == before
    # What is left of the old split would leak into the new one.
    assert run(rows, "--out", out, "--seed", 1, "--test", 0, "--train", 0.9, "--force").exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["train.jsonl", "valid.jsonl"]
    assert len(lines(out, "train")) == 36


def test_a_folder_may_be_split_into_itself(tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "train.jsonl", [row(text, catalogue="mine") for text in requests(40)])
    (tmp_path / "catalogues.json").write_text(json.dumps({"mine": CATALOGUE.to_json()}), encoding="utf-8")
    assert run(rows, "--out", tmp_path, "--force").exit_code == 0
    assert len(everything(tmp_path)) == 40
    assert read(tmp_path / "test.jsonl")[0].catalogue == CATALOGUE


def test_a_hugging_face_dataset_is_split_too(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([row(text) for text in requests(30)]).save_to_disk(tmp_path / "set")
    assert run(tmp_path / "set", "--out", tmp_path / "out").exit_code == 0
    assert len(everything(tmp_path / "out")) == 30


@pytest.mark.parametrize(
    "shares", [("--train", 0.9), ("--train", 1.2, "--valid", -0.1, "--test", -0.1), ("--train", 0, "--valid", 0.9)]
)
def test_shares_must_make_a_whole(tmp_path: Path, shares: tuple[object, ...]) -> None:
    rows = jsonl(tmp_path / "rows.jsonl", [row(text) for text in requests(30)])
    result = run(rows, "--out", tmp_path / "out", *shares)
    assert isinstance(result.exception, UsageError)
    assert not (tmp_path / "out").exists()


def test_too_few_rows(tmp_path: Path) -> None:
    result = run(jsonl(tmp_path / "rows.jsonl", [row("hi"), row("call Bo")]), "--out", tmp_path / "out")
    assert isinstance(result.exception, DataError)
    assert "none would be left for valid and test" in result.exception.message


def test_bad_rows_are_named_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    bad = ["{", '{"request": "x"}', '{"request": "x", "target": "no"}', '{"request": "x", "target": {"a": 1}}']
    path.write_text("\n".join([json.dumps(row("hi")), *bad]), encoding="utf-8")
    result = run(path, "--out", tmp_path / "out")
    assert isinstance(result.exception, DataError)
    assert [f":{number}: " in result.exception.message for number in range(1, 6)] == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/train.jsonl", "train"),
        ("a/more_train.jsonl.gz", "train"),
        ("Validation.jsonl", "valid"),
        ("x.dev.jsonl", "valid"),
        ("set#test", "test"),
        ("latest.jsonl", "latest"),
        ("rows.jsonl.gz", "rows"),
    ],
)
def test_the_split_that_a_name_speaks_of(path: str, name: str) -> None:
    assert split_name(path) == name


def test_the_sources_of_a_folder(tmp_path: Path) -> None:
    for name in ("train.jsonl", "validation.jsonl.gz", "notes.jsonl"):
        (tmp_path / name).touch()
    assert find([str(tmp_path)]) == (
        [Source("train", f"{tmp_path}/train.jsonl"), Source("valid", f"{tmp_path}/validation.jsonl.gz")],
        None,
    )
    (tmp_path / "train.yaml").write_text("train: train.jsonl\n", encoding="utf-8")
    sources, config = find([str(tmp_path)])
    assert sources == [Source("train", f"{tmp_path}/train.jsonl")]
    assert config is not None
    (tmp_path / "train.yaml").write_text("trian: train.jsonl\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        find([str(tmp_path)])
