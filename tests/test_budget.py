"""The budget: parts of the formula by hand, and peak memory of real steps."""

import json
from pathlib import Path

import pytest
from conftest import Run
from tiny_models import make_model

from mlx_router import budget
from mlx_router.budget import GIB, Budget, Memory, estimate, memory_of
from mlx_router.config import TrainConfig


def recipe(model: str, **fields: object) -> TrainConfig:
    return TrainConfig.model_validate({"model": model, "train": "rows.jsonl", **fields})


def test_the_parts_of_the_embedded_base_by_hand() -> None:
    folder = Path(budget.__file__).parent / "tiny"
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden, blocks, heads = shape["hidden_size"], shape["num_hidden_layers"], shape["num_attention_heads"]
    width = heads * shape["head_dim"]
    found = memory_of(folder, recipe("tiny", batch_size=2, rank=4, train_on=["q_proj"]), 100, gpu=False)
    assert found is not None
    assert found.optimizer == 16 * 4 * (hidden + width) * blocks
    assert found.logits == 200 * shape["vocab_size"] * 4 * 4
    assert found.attention == 2 * heads * 100 * 100 * 4 * 1.5 * blocks
    linear = 4 * hidden * width + 3 * hidden * shape["intermediate_size"]
    norms = 2 * hidden + 2 * shape["head_dim"]
    # Stored in one byte, run in four.
    assert found.weights == 4 * (shape["vocab_size"] * hidden + blocks * (linear + norms) + hidden)
    # Half the bytes on a GPU, where the dtype is bfloat16.
    halved = memory_of(folder, recipe("tiny", batch_size=2), 100, gpu=True)
    assert halved is not None and halved.attention == found.attention / 2


def test_what_is_trained_decides_the_optimizers_part(tmp_path: Path) -> None:
    """A random base of hidden size 64, feed-forward 128, 4 heads and 2 key-value heads of size 32, 2 blocks."""
    folder = make_model(tmp_path / "model")

    def found(**fields: object) -> Memory:
        memory = memory_of(folder, recipe(str(folder), batch_size=2, **fields), 100, gpu=False)
        assert memory is not None
        return memory

    q_proj = {"train_on": ["q_proj"], "rank": 4}
    assert found(**q_proj).optimizer == 16 * 4 * (64 + 128) * 2
    assert found(**q_proj, num_layers=1).optimizer == 16 * 4 * (64 + 128)
    assert found(**q_proj, fine_tune_type="dora").optimizer == 16 * (4 * (64 + 128) + 128) * 2
    dora = found(**q_proj, fine_tune_type="dora").activations - found(**q_proj).activations
    assert dora == 200 * 128 * 2 * 1.25 * 4
    assert found(train_on=["q_proj"], fine_tune_type="full").optimizer == 3 * 4 * (64 * 128) * 2
    linear, norms = 2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 128, 2 * 64 + 2 * 32
    assert found(fine_tune_type="full").optimizer == 3 * 4 * (linear + norms) * 2
    packed = make_model(tmp_path / "packed", bits=4)
    config = recipe(str(packed), train_on=["q_proj"], fine_tune_type="dora", batch_size=2)
    memory = memory_of(packed, config, 100, gpu=False)
    assert memory is not None
    assert memory.activations - found(train_on=["q_proj"]).activations == dora + 64 * 128 * 2 * 4


def test_tools_that_are_added_make_rows_longer() -> None:
    assert estimate(recipe("tiny", add_tools=0.5)).row_tokens == estimate(recipe("tiny")).row_tokens + 8 * 32
    assert estimate(recipe("tiny", add_tools=0.5, max_seq_length=300)).row_tokens == 300


def test_nothing_is_downloaded_for_a_base_that_is_here(tmp_path: Path) -> None:
    assert estimate(recipe("tiny")).download_bytes == 0
    assert estimate(recipe(str(make_model(tmp_path / "model", "llama")))).download_bytes == 0


def test_a_base_out_of_reach_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = estimate(recipe("somebody/some-model"))
    assert found.download_bytes is None and found.memory is None
    assert "unknown" in found.render()


def test_what_does_not_fit_is_warned_of() -> None:
    small = Memory(GIB, 0, 0, 0, 0)
    assert Budget("m", 0, GIB, small, 512, 8 * GIB).warnings == []
    assert "memory" in Budget("m", 0, GIB, Memory(7 * GIB, 0, 0, 0, 0), 512, 8 * GIB).warnings[0]
    assert "disk" in Budget("m", 2 * GIB, GIB, small, 512, 8 * GIB).warnings[0]


def test_a_dry_run_stops_before_anything_is_read_or_written(tmp_path: Path, run: Run) -> None:
    files = ("--train", str(tmp_path / "none.jsonl"), "--adapter", str(tmp_path / "a"))
    done = run("train", *files, "--dry-run", "--json")
    assert done.code == 0
    assert done.json["memory"]["total"] > 0
    assert not (tmp_path / "a").exists()


def test_gradient_checkpointing_needs_less_for_activations_and_attention_only() -> None:
    folder = Path(__file__).parents[1] / "mlx_router" / "tiny"
    whole, less = (memory_of(folder, recipe("tiny", grad_checkpoint=on), 512, gpu=False) for on in (False, True))
    assert whole is not None and less is not None
    assert less.activations < 0.4 * whole.activations and less.attention < 0.4 * whole.attention
    assert (less.weights, less.optimizer, less.logits) == (whole.weights, whole.optimizer, whole.logits)


@pytest.mark.parametrize(("rows", "tokens", "kind"), [(8, 256, "lora"), (4, 512, "lora"), (4, 256, "dora")])
def test_the_estimate_is_not_below_a_step_nor_far_above_it(rows: int, tokens: int, kind: str) -> None:
    """One step of loss and gradients on whole rows of the embedded base."""
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np

    from mlx_router.batches import Batch
    from mlx_router.fine_tuning import make_trainable
    from mlx_router.loss import answer_loss, arrays
    from mlx_router.model import load_base

    config = recipe("tiny", batch_size=rows, fine_tune_type=kind)
    model = load_base("tiny")
    make_trainable(model, config, lambda message: None)
    suffix = np.full((rows, tokens + 1), 5, np.int32)
    lengths = np.array([[tokens - 20, tokens, tokens - 16]] * rows, np.int32)
    batch = Batch(np.zeros(0, np.int32), suffix, lengths, ("",) * rows)
    mx.clear_cache()
    mx.reset_peak_memory()
    mx.eval(nn.value_and_grad(model.network, answer_loss)(model.network, *arrays(batch, 1.0)))
    estimated = memory_of(model.folder, config, tokens, gpu=False)
    assert estimated is not None
    # The head runs on answers only, and the formula counts every token, which weighs most where a small base has many
    # words: rather too much than too little.
    assert 0.8 < estimated.total / mx.get_peak_memory() < 3.5
