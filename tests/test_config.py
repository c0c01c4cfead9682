"""Recipes: what a file, the environment and flags make together, and every problem named at once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlx_router.config import TrainConfig, load_config
from mlx_router.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


def recipe(folder: Path, **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({"train": "train.jsonl", **fields}), encoding="utf-8")
    return path


def message(path: Path | None, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value.message


def test_a_file_then_overrides_then_defaults(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path, rank=4, batch_size=2), {"rank": 8})

    assert (config.rank, config.batch_size) == (8, 2)
    assert config.learning_rate == TrainConfig(train="x").learning_rate
    assert load_config(None, {"train": "x.jsonl"}) == TrainConfig(train="x.jsonl")


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    path = recipe(
        tmp_path,
        learning_rte=1e-3,
        epochs=0,
        rank="four",
        lora_dropout=1.0,
        lr_schedule="cosin",
        keep_system="yes, please",
        train_on=7,
        nonsense=None,
    )
    path.write_text(path.read_text(encoding="utf-8").replace("train: train.jsonl", "5: 6"), encoding="utf-8")
    found = message(path, seed=-1)

    assert found.startswith(f"{path} has 11 problem(s):\n")
    for words in (
        "unknown field 'learning_rte'; did you mean 'learning_rate'?",
        "unknown field 'nonsense'",
        "unknown field 5",
        "train is missing: training rows",
        "epochs: ",
        "rank: Input should be a valid integer (got 'four')",
        "lora_dropout: Input should be less than 1 (got 1.0)",
        "lr_schedule: Input should be 'cosine', 'linear' or 'constant' (got 'cosin')",
        "keep_system: Input should be a valid boolean (got 'yes, please')",
        "seed: Input should be greater than or equal to 0 (got -1)",
    ):
        assert f"\n  {words}" in found, words
    assert found.count("\n  train_on: ") == 1


@pytest.mark.parametrize("field", ["learning_rate", "lora_alpha", "weight_decay", "max_grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "-inf", True, "a lot", -1.0])
def test_what_is_no_amount_is_refused(field: str, value: Any) -> None:
    assert f"\n  {field}: " in message(None, train="x", **{field: value})


@pytest.mark.parametrize(("field", "value"), [("rank", 1.5), ("rank", True), ("epochs", "3"), ("seed", "0")])
def test_what_is_no_whole_number_is_refused(field: str, value: Any) -> None:
    assert f"\n  {field}: " in message(None, train="x", **{field: value})


def test_numbers_as_people_write_them_in_yaml(tmp_path: Path) -> None:
    """YAML reads 1e-3 as text and 32 as an integer."""
    path = tmp_path / "train.yaml"
    path.write_text("train: x.jsonl\nlearning_rate: 1e-3\nlora_alpha: 32\nmax_grad_norm: null\n", encoding="utf-8")
    config = load_config(path)

    assert (config.learning_rate, config.lora_alpha, config.max_grad_norm) == (1e-3, 32.0, None)
    assert config.scale == 32 / 16


PATHS: list[tuple[str, str, str]] = [
    ("adapter", "adapter", "{here}/adapter"),
    ("adapter", "out/support", "{here}/out/support"),
    ("adapter", "../adapters/x", "{here}/../adapters/x"),
    ("adapter", "/somewhere/else", "/somewhere/else"),
    ("adapter", "~/adapters/x", "{home}/adapters/x"),
    ("train", "train.jsonl", "{here}/train.jsonl"),
    ("train", "data/train.jsonl.gz", "{here}/data/train.jsonl.gz"),
    ("train", "/data/train.jsonl", "/data/train.jsonl"),
    ("train", "~/train.jsonl", "{home}/train.jsonl"),
    ("train", "saved/dataset", "{here}/saved/dataset"),
    ("train", "saved/dataset#validation", "{here}/saved/dataset#validation"),
    ("valid", "owner/name", "owner/name"),
    ("valid", "owner/name#validation", "owner/name#validation"),
    ("test", "../test.jsonl", "{here}/../test.jsonl"),
    ("catalogue", "tools.json", "{here}/tools.json"),
    ("catalogue", "sub/tools.py:SUPPORT", "{here}/sub/tools.py:SUPPORT"),
    ("catalogue", "plain", "{here}/plain"),
    ("catalogue", "my_package.tools", "my_package.tools"),
    ("catalogue", "my_package.tools:TOOLS", "my_package.tools:TOOLS"),
    ("model", "tiny", "tiny"),
    ("model", "mlx-community/Qwen3-0.6B-4bit", "mlx-community/Qwen3-0.6B-4bit"),
    ("model", "../bases/mine", "{here}/../bases/mine"),
    ("model", "./mine", "{here}/mine"),
]


@pytest.mark.parametrize(("field", "value", "found"), PATHS)
def test_paths_in_a_file_are_relative_to_it(
    field: str, value: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "my router"
    (here / "saved" / "dataset").mkdir(parents=True)
    (here / "tiny").mkdir()
    (here / "plain").write_text("[]", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    config = load_config(recipe(here, **{field: value}))
    assert getattr(config, field) == found.format(here=here, home=tmp_path / "home")


def test_paths_of_flags_are_left_alone(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path), {"adapter": "out", "train": "rows.jsonl", "model": "./mine"})
    assert (config.adapter, config.train, config.model) == ("out", "rows.jsonl", "./mine")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- train\n", "must hold fields and values"),
        ("", "must hold fields and values"),
        ("train: [\n", "is no YAML"),
        ("train: \x00", "is no YAML"),
    ],
)
def test_a_file_that_is_no_recipe(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text, encoding="utf-8")
    assert words in message(path)
    path.write_bytes(b"train: \xff\xfe")
    assert "is no YAML" in message(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert message(tmp_path / "train.yaml") == f"there is no recipe {tmp_path / 'train.yaml'}"
    assert "can't be read" in message(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_that_we_ship(path: Path) -> None:
    config = load_config(path)
    command = path.read_text(encoding="utf-8").splitlines()[0]

    assert command == f"# mlx-router train --config configs/{path.name}"
    for file in (config.train, config.valid, config.test, config.catalogue):
        assert file is None or Path(file).is_file(), file
    assert Path(config.adapter).resolve().parent == ROOT / "adapters"


def test_a_config_says_everything_again() -> None:
    config = TrainConfig(train="x.jsonl", rank=4, train_on=["q_proj"])
    assert TrainConfig.model_validate(config.model_dump()) == config
