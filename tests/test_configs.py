"""The recipes that come with the repository load, say how they are used, and keep to what they promise."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from test_docs import read_command

from mlx_router.budget import GIB, Memory, memory_of
from mlx_router.config import load_config

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
MAC = sorted(set(RECIPES) - {"support", "support-large", "desktop", "brief"})
MAC_SIZES = (8, 16, 32, 64, 96, 128)
BRIEF = {
    "rank": 16,
    "lora_alpha": 32.0,
    "lora_dropout": 0.05,
    "train_on": ["q_proj", "v_proj"],
    "num_layers": -1,
    "batch_size": 8,
    "gradient_accumulation_steps": 2,
    "learning_rate": 2e-4,
    "epochs": 3,
    "max_updates": None,
    "lr_schedule": "cosine",
    "warmup_ratio": 0.03,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "dtype": "auto",
    "log_every": 5,
    "max_seq_length": 1024,
    "max_tokens": 128,
    "shared_prefix": False,
    "group_by_length": False,
    "valid": None,
}


def comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def shapes() -> list[dict[str, str]]:
    """The rows of the table of shapes in docs/recipes.md."""
    lines = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
    head, *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.count("|") == 13)
    return [dict(zip(head, row, strict=True)) for row in rows if not row[0].startswith("---")]


def tensors(row: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Names, types and dimensions of a base with these shapes, packed in groups of 64 where it is quantized."""
    hidden, wide, bits = int(row["hidden"]), int(row["feed-forward"]), int(row["bits"])
    queries, keys = (int(row[name]) * int(row["head size"]) for name in ("heads", "KV heads"))
    layers = {"self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden)}
    layers |= {"self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, queries)}
    layers |= {"mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden), "mlp.down_proj": (hidden, wide)}
    every = {"model.embed_tokens": (int(row["vocabulary"]), hidden)}
    every |= {f"model.layers.{at}.{name}": size for at in range(int(row["blocks"])) for name, size in layers.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, (out, into) in every.items():
        if bits == 16:
            found[f"{name}.weight"] = {"dtype": "BF16", "shape": [out, into]}
        else:
            found[f"{name}.weight"] = {"dtype": "U32", "shape": [out, into * bits // 32]}
            found |= {f"{name}.{kind}": {"dtype": "BF16", "shape": [out, into // 64]} for kind in ("scales", "biases")}
    return found


def memory(folder: Path, row: dict[str, str]) -> Memory:
    """What the estimate says of a recipe on an Apple GPU; only the header of the weights is ever read."""
    header = json.dumps(tensors(row)).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    config = {"hidden_size": "hidden", "num_hidden_layers": "blocks", "intermediate_size": "feed-forward"}
    config |= {"num_attention_heads": "heads", "vocab_size": "vocabulary"}
    (folder / "config.json").write_text(json.dumps({key: int(row[name]) for key, name in config.items()}))
    batch_size, tokens = map(int, row["rows × tokens"].split(" × "))
    recipe = load_config(RECIPES[row["recipe"]])
    assert recipe.batch_size == batch_size
    found = memory_of(folder, recipe, tokens, gpu=True)
    assert found is not None
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_its_data_are_there(name: str) -> None:
    config = load_config(RECIPES[name])

    files = [config.catalogue, config.train, config.valid, config.test]
    assert config.catalogue and config.test
    assert [file for file in files if file and not Path(file).is_file()] == []
    assert Path(config.adapter).resolve().parent == ROOT / "adapters"


def test_no_two_recipes_write_the_same_adapter() -> None:
    assert len({load_config(path).adapter for path in RECIPES.values()}) == len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_line_is_the_command_that_uses_the_recipe(name: str) -> None:
    first = RECIPES[name].read_text(encoding="utf-8").splitlines()[0]

    assert first.startswith("# mlx-router train ")
    assert f"configs/{name}.yaml" in first.split()
    read_command(first.removeprefix("# "))


def test_the_briefs_recipe_has_the_briefs_values() -> None:
    config = load_config(RECIPES["brief"])

    assert {field: getattr(config, field) for field in BRIEF} == BRIEF
    assert config.scale == 2.0


@pytest.mark.parametrize("name", MAC)
def test_a_recipe_for_macs_says_what_it_needs_and_that_it_was_not_run(name: str) -> None:
    said = comment(RECIPES[name])
    config = load_config(RECIPES[name])

    assert "not run on a Mac" in said
    assert re.search(r"Fits a Mac with (8|16|32) GB", said)
    assert re.fullmatch(r"mlx-community/[\w.-]+", config.model)
    assert (config.rank, config.train_on, config.epochs) == (16, "all_linear", 3)
    assert 1e-4 <= config.learning_rate <= 5e-4


def test_every_recipe_for_macs_has_its_shapes_in_the_documents() -> None:
    assert {row["recipe"] for row in shapes()} == {*MAC, "brief"}


@pytest.mark.parametrize("row", shapes(), ids=lambda row: f"{row['recipe']}-{row['rows × tokens']}")
def test_the_memory_that_is_told_is_the_formulas(row: dict[str, str], tmp_path: Path) -> None:
    total = memory(tmp_path, row).total / GIB
    smallest = next(size for size in MAC_SIZES if total <= size * 2 / 3)

    assert f"{total:.1f}" == row["memory, GiB"]
    assert smallest == int(row["Mac, GB"])
    if row["recipe"] in MAC:
        said = comment(RECIPES[row["recipe"]])
        assert f"Fits a Mac with {smallest} GB: about {total:.1f} GiB" in said
    else:
        assert f"{smallest} GB" in comment(RECIPES[row["recipe"]])
