"""A base stored in 8 bits: what mlx-router makes of it, and mlx-lm."""

import json
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load

from mlx_router.model import load_base
from mlx_router.tiny.pretrain.store import main


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    main([str(load_base("tiny").folder), "--out", str(folder)])
    return folder


def test_a_stored_base_is_computed_with_in_floats(stored: Path) -> None:
    first, found = load_base("tiny"), load_base(str(stored))
    assert not found.quantized and found.dtype == "float32"
    weights = dict(tree_flatten(first.network.parameters()))
    widened = dict(tree_flatten(found.network.parameters()))
    assert set(widened) == set(weights)
    for name, weight in weights.items():
        assert widened[name].dtype == mx.float32
        assert mx.abs(widened[name] - weight).max() <= mx.abs(weight).max() / 100, name
    tokens = mx.array([first.chat.tokenizer.encode("set a timer for ten minutes")])
    one, other = (mx.softmax(model.network(tokens)[0, -1]) for model in (first, found))
    assert mx.abs(one - other).max() < 0.05


def test_a_stored_base_takes_a_byte_a_weight_and_mlx_lm_loads_it_as_it_is(stored: Path) -> None:
    count = sum(weight.size for _, weight in tree_flatten(load_base(str(stored)).network.parameters()))
    assert (stored / "model.safetensors").stat().st_size < 1.08 * count
    network, tokenizer = load(str(stored))
    tokens = mx.array([tokenizer.encode("set a timer for ten minutes")])
    widened = load_base(str(stored)).network(tokens)
    assert mx.abs(network(tokens).astype(mx.float32) - widened).max() < 0.5
    assert json.loads((stored / "config.json").read_text(encoding="utf-8"))["quantization"]["bits"] == 8
