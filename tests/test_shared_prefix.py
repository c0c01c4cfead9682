"""The loss with a shared prefix against mlx-lm's own default loss on whole rows: by family, type and accumulation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import break_cache, make_model

from mlx_router.batches import Batch, TokenRow, make_batch
from mlx_router.loss import answer_loss, arrays, shared_prefix_problem
from mlx_router.model import BACKEND, add_lora, load_base
from mlx_router.recompute import checkpointed

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
import mlx.nn as nn  # isort: skip
from mlx.utils import tree_flatten  # isort: skip
from mlx_lm.tuner.trainer import default_loss  # isort: skip

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text", "smollm3", "phi3", "lfm2", "gpt_oss")
# Of the largest gradient: rounding in each type, and what is lost where MLX sums in another order.
TYPES: dict[str, tuple[dict[str, Any], float]] = {
    "float32": ({}, 1e-4),
    "bfloat16": ({"dtype": "bfloat16"}, 5e-2),
    "4-bit": ({"bits": 4}, 1e-4),
    "4-bit-bfloat16": ({"bits": 4, "dtype": "bfloat16"}, 5e-2),
}
SIZES = (9, 31, 17, 24, 12)


pytestmark = pytest.mark.usefixtures("uncompiled")


def network_of(folder: Path, family: str, **options: Any) -> Any:
    dtype = options.get("dtype", "float32")
    base = load_base(str(make_model(folder / family, family, **options)), dtype=dtype)
    add_lora(base, train_on="all_linear", rank=4, scale=2.0, dropout=0.0, layers=-1)
    mx.random.seed(1)
    for name, value in tree_flatten(base.network.trainable_parameters()):
        if name.endswith("lora_b"):
            base.network.load_weights([(name, mx.random.normal(value.shape) * 0.05)], strict=False)
    return base.network


def rows_of(sizes: tuple[int, ...] = SIZES) -> list[TokenRow]:
    """Rows of these lengths after a catalogue that is longer than the sliding windows of the models here."""
    random = np.random.default_rng(5)
    catalogue = tuple(map(int, random.integers(5, 200, 70)))
    return [TokenRow(catalogue, tuple(map(int, random.integers(5, 200, size))), size // 2, "") for size in sizes]


def shared_gradients(network: Any, groups: list[list[TokenRow]], loss: Any = answer_loss) -> dict[str, np.ndarray]:
    """What the trainer makes of a group of micro-batches: the mean of their losses and gradients."""
    batches: list[Batch] = [make_batch(rows) for rows in groups]
    weight = len(batches) / sum(batch.answer_tokens for batch in batches)
    total: dict[str, np.ndarray] = {}
    for batch in batches:
        assert batch.prefix.size
        (value, _), found = nn.value_and_grad(network, loss)(network, *arrays(batch, weight))
        for name, part in {"loss": value, **dict(tree_flatten(found))}.items():
            total[name] = total.get(name, 0) + np.array(part.astype(mx.float32)) / len(batches)
    return total


def whole_gradients(network: Any, rows: list[TokenRow]) -> dict[str, np.ndarray]:
    """mlx-lm's default loss; its mask counts one position more than the row has, so its rows end one earlier."""
    batch = make_batch([row.whole() for row in rows])
    lengths = batch.lengths[:, :2] - np.array([0, 1], np.int32)
    given = mx.array(batch.suffix), mx.array(lengths)
    (value, tokens), found = nn.value_and_grad(network, default_loss)(network, *given)
    assert int(tokens.item()) == batch.answer_tokens
    pairs = {"loss": value, **dict(tree_flatten(found))}
    return {name: np.array(part.astype(mx.float32)) for name, part in pairs.items()}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == wanted.keys()
    assert found["loss"] == pytest.approx(wanted["loss"], rel=tolerance)
    largest = max(float(np.abs(value).max()) for name, value in wanted.items() if name != "loss")
    assert largest > 1e-3
    for name, value in wanted.items():
        if name != "loss":
            assert float(np.abs(found[name] - value).max()) < tolerance * largest, name


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_ragged_rows_are_those_of_mlx_lms_loss(family: str, kind: str, tmp_path: Path) -> None:
    if (family, kind) == ("gpt_oss", "bfloat16") and BACKEND.device == "cpu":
        pytest.skip("on a CPU, MLX multiplies gathered experts in float32 only")
    options, tolerance = TYPES[kind]
    network, rows = network_of(tmp_path, family, **options), rows_of()
    assert_same(shared_gradients(network, [rows]), whole_gradients(network, rows), tolerance)
    assert shared_prefix_problem(network, make_batch(rows[:2])) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_accumulated_gradients_are_those_of_one_batch(family: str, tmp_path: Path) -> None:
    """Micro-batches of unlike sizes: the mean is over the tokens of all of them."""
    network, rows = network_of(tmp_path, family), rows_of()
    assert_same(shared_gradients(network, [rows[:1], rows[1:3], rows[3:]]), whole_gradients(network, rows), 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointed_gradients_are_those_of_mlx_lms_loss(family: str, tmp_path: Path) -> None:
    network, rows = network_of(tmp_path, family), rows_of()
    found = shared_gradients(network, [rows], checkpointed(answer_loss))
    assert_same(found, whole_gradients(network, rows), 1e-4)


@pytest.mark.parametrize("kind", TYPES)
def test_the_self_check_notices_wrong_gradients_in_every_type(kind: str, tmp_path: Path) -> None:
    network, rows = network_of(tmp_path, "qwen3", **TYPES[kind][0]), rows_of()
    break_cache(network)
    problem = shared_prefix_problem(network, make_batch(rows[:2]))
    assert problem is not None and "differ from those of whole rows" in problem


def test_this_comparison_notices_a_prefix_that_is_read_wrongly(tmp_path: Path) -> None:
    network, rows = network_of(tmp_path, "qwen3"), rows_of()
    whole = whole_gradients(network, rows)
    break_cache(network)
    with pytest.raises(AssertionError):
        assert_same(shared_gradients(network, [rows]), whole, 5e-2)
