"""What users of plain mlx-lm get: our rows train with its own loader, and our adapters load with it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import KNOWN, ROOT

from mlx_router.data import Example, read, write
from mlx_router.interop import load_catalogue
from mlx_router.model import load_base
from mlx_router.prompts import conversation, system_message

from mlx_lm import generate, load  # isort: skip  (model.py has put the BLAS in place)
from mlx_lm.tuner.datasets import ChatDataset, create_dataset  # isort: skip

SPLITS = [ROOT / "data" / name / f"{split}.jsonl" for name in ("support", "desktop") for split in ("train", "valid")]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", SPLITS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_our_rows_are_chat_rows_for_mlx_lm(path: Path) -> None:
    """Every row, prompt masked: the tokens after the offset are the answer and the end of the turn."""
    chat = load_base("tiny").chat
    dataset = create_dataset(rows(path), chat.tokenizer, SimpleNamespace(mask_prompt=True))

    assert isinstance(dataset, ChatDataset)
    assert len(dataset) > 100
    for at in range(0, len(dataset), max(1, len(dataset) // 100)):
        row = dataset[at]
        tokens, offset = dataset.process(row)
        answer = chat.tokenizer.decode(tokens[offset:])
        assert answer.startswith(row["messages"][2]["content"] + "<|im_end|>"), row


def test_mlx_lm_learns_the_prompt_that_we_route_with(tmp_path: Path) -> None:
    """The two roads meet: mlx-lm's prompt of a row is token for token the one that routing shows the model."""
    chat = load_base("tiny").chat
    catalogue = load_catalogue(ROOT / "data" / "support" / "catalogue.json")
    examples: list[Example] = read(ROOT / "data" / "support" / "valid.jsonl")[:20]
    write(examples, tmp_path / "rows.jsonl", str(ROOT / "data" / "support" / "catalogue.json"))
    dataset = create_dataset(rows(tmp_path / "rows.jsonl"), chat.tokenizer, SimpleNamespace(mask_prompt=True))

    for at, example in enumerate(examples):
        tokens, offset = dataset.process(dataset[at])
        ours = chat.row_tokens(example.messages(), example.answer)
        assert (tokens[: len(ours.tokens)], offset) == (ours.tokens, ours.prompt_length)
        assert chat.prompt_tokens(conversation(system_message(catalogue), example.request)) == tokens[:offset]


def test_an_adapter_loads_with_plain_mlx_lm(adapter: Path, base: Path) -> None:
    model, tokenizer = load(str(base), adapter_path=str(adapter))[:2]
    system = system_message(load_catalogue(ROOT / "data" / "support" / "catalogue.json"))
    for request, target in KNOWN.items():
        prompt = tokenizer.apply_chat_template(
            list(conversation(system, request)), add_generation_prompt=True, enable_thinking=False, tokenize=True
        )
        assert json.loads(generate(model, tokenizer, prompt, max_tokens=80)) == target
