"""Gradient checkpointing: the same gradients with a shared prefix and without, in less memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import make_model, make_recipe

from mlx_router import training
from mlx_router.batches import TokenRow, make_batch
from mlx_router.loss import answer_loss, arrays
from mlx_router.model import add_lora, load_base
from mlx_router.recompute import checkpointed

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
import mlx.nn as nn  # isort: skip
from mlx.utils import tree_flatten  # isort: skip


pytestmark = pytest.mark.usefixtures("uncompiled")


def network_of(folder: Path, family: str, **shape: Any) -> Any:
    base = load_base(str(make_model(folder / family, family, **shape)))
    add_lora(base, train_on="all_linear", rank=4, scale=2.0, dropout=0.0, layers=-1)
    mx.random.seed(1)
    for name, value in tree_flatten(base.network.trainable_parameters()):
        if name.endswith("lora_b"):
            base.network.load_weights([(name, mx.random.normal(value.shape) * 0.05)], strict=False)
    return base.network


def batch_of(prefix: int, sizes: list[int], *, shared: bool = True) -> Any:
    random = np.random.default_rng(5)
    catalogue = tuple(map(int, random.integers(5, 200, prefix)))
    rows = [TokenRow(catalogue, tuple(map(int, random.integers(5, 200, size))), size // 2, "") for size in sizes]
    return arrays(make_batch(rows if shared else [row.whole() for row in rows]), 1.0)


def gradients(network: Any, loss: Any, batch: Any) -> dict[str, mx.array]:
    (value, tokens), found = nn.value_and_grad(network, loss)(network, *batch)
    return {"loss": value, "tokens": tokens, **dict(tree_flatten(found))}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "phi3", "smollm3", "lfm2", "gpt_oss"])
def test_gradients_are_those_without_it(family: str, shared: bool, tmp_path: Path) -> None:
    network, batch = network_of(tmp_path, family), batch_of(70, [9, 24, 17], shared=shared)
    before = dict(tree_flatten(network.parameters()))
    found = gradients(network, checkpointed(answer_loss), batch)
    wanted = gradients(network, answer_loss, batch)
    largest = max(float(mx.abs(value).max()) for name, value in wanted.items() if "lora" in name)
    assert float(found["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-5)
    for name, value in wanted.items():
        assert float(mx.abs(found[name] - value).max()) <= 1e-5 * max(largest, 1.0), name
    after = dict(tree_flatten(network.parameters()))
    assert all(mx.array_equal(value, after[name]) for name, value in before.items())


def peak(network: Any, loss: Any, batch: Any) -> int:
    mx.reset_peak_memory()
    start = mx.get_active_memory()
    mx.eval(gradients(network, loss, batch))
    return mx.get_peak_memory() - start


@pytest.mark.parametrize("shared", [True, False])
def test_it_takes_less_than_half_of_the_memory(shared: bool, tmp_path: Path) -> None:
    # In a process of its own: one that has trained without checkpoints orders operations in another way.
    program = f"""
from pathlib import Path
from test_recompute import answer_loss, batch_of, checkpointed, network_of, peak
network = network_of(Path({str(tmp_path)!r}), "qwen3", num_hidden_layers=8)
batch = batch_of(300, [60] * 8, shared={shared})
print(peak(network, checkpointed(answer_loss), batch), peak(network, answer_loss, batch))
"""
    environment = {**os.environ, "MLX_DISABLE_COMPILE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with_checkpoints, without = map(int, done.stdout.split())
    assert with_checkpoints < 0.5 * without


def test_a_run_ends_with_the_weights_of_a_run_without_it(tmp_path: Path) -> None:
    found = []
    for on in (True, False):
        # A large epsilon, for near zero Adam turns a gradient's rounding into a whole step.
        fields = {"grad_checkpoint": on, "epochs": 1, "adam_epsilon": 1e-3, "adapter": str(tmp_path / f"{on}")}
        events: list[Any] = []
        folder = training.train(make_recipe(tmp_path, **fields), events.append)
        assert next(event for event in events if event["event"] == "start")["shared_prefix"]
        found.append(mx.load(str(folder / "adapters.safetensors")))
    for name, value in found[0].items():
        assert float(mx.abs(value - found[1][name]).max()) < 1e-5, name
