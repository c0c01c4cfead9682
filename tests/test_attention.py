"""The arithmetic of training on x86 processors equals MLX's own, in values and gradients; it runs on any machine."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_models import make_model

from mlx_router import attention, loss, streams
from mlx_router.attention import PrefixCache, SharedPrefixCache, fast_kernels, prefix_attention
from mlx_router.batches import TokenRow, make_batch
from mlx_router.exponential import cross_entropy, exponential, swiglu
from mlx_router.loss import answer_loss, arrays
from mlx_router.model import add_lora, load_base

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
import mlx.nn as nn  # isort: skip
from mlx.utils import tree_flatten  # isort: skip


def drawn(*shape: int, size: float = 1.0) -> mx.array:
    return mx.random.normal(shape) * size


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    mx.random.seed(3)


def assert_same(ours: Callable[..., mx.array], plain: Callable[..., mx.array], *given: mx.array) -> None:
    """Values, and gradients of a weighted sum by every argument, agree to 1e-5 of the largest."""
    expected = plain(*given)
    weights = drawn(*expected.shape)
    arguments = list(range(len(given)))
    found = mx.grad(lambda *given: (ours(*given) * weights).sum(), argnums=arguments)(*given)
    wanted = mx.grad(lambda *given: (plain(*given) * weights).sum(), argnums=arguments)(*given)
    for left, right in zip((ours(*given), *found), (expected, *wanted), strict=True):
        assert left.shape == right.shape
        assert float(mx.abs(left - right).max()) <= 1e-5 * float(mx.abs(right).max())


def test_the_exponential_is_as_exact_as_float32_allows() -> None:
    x = -mx.linspace(0, 44, 100_003)
    exact = np.exp(np.array(x, np.float64))
    error = np.abs(np.array(exponential(x), np.float64) / exact - 1)
    assert error[exact > 1e-6].max() < 1e-6
    assert error.max() < 4e-6
    assert float(exponential(mx.array(0.0))) == pytest.approx(1.0, abs=1e-7)


def test_far_below_the_exponential_is_small_but_no_denormal() -> None:
    found = exponential(mx.array([-50.0, -1e9, -float("inf")]))
    assert ((found > 0) & (found <= 2.0**-63)).all()


def test_the_exponentials_gradient_is_itself() -> None:
    x = -mx.abs(drawn(50, size=5.0))
    found = mx.grad(lambda x: exponential(x).sum())(x)
    assert np.array(found) == pytest.approx(np.exp(np.array(x)), rel=1e-5)


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_swiglu_is_that_of_mlx(size: float) -> None:
    assert_same(swiglu, lambda gate, x: nn.silu(gate) * x, drawn(7, 40, size=size), drawn(7, 40))


@pytest.mark.parametrize("size", [1.0, 40.0])
def test_cross_entropy_is_that_of_mlx(size: float) -> None:
    targets = mx.random.randint(0, 60, (3, 5))
    plain: Any = nn.losses.cross_entropy
    assert_same(lambda x: cross_entropy(x, targets), lambda x: plain(x, targets), drawn(3, 5, 60, size=size))


@pytest.mark.parametrize("heads", [(2, 2), (6, 2)])
@pytest.mark.parametrize("size", [5, attention.BLOCK, 2 * attention.BLOCK + 3])
def test_a_prefix_attends_as_in_mlx(size: int, heads: tuple[int, int]) -> None:
    given = [drawn(1, count, size, 8) for count in (heads[0], heads[1], heads[1])]
    assert_same(
        prefix_attention,
        lambda q, k, v: mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask="causal"),
        *given,
    )


@pytest.mark.parametrize("heads", [(2, 2), (6, 2)])
def test_a_text_that_goes_on_attends_to_what_stands_before_it(heads: tuple[int, int]) -> None:
    given = [drawn(1, heads[0], 200, 8), drawn(1, heads[1], 331, 8), drawn(1, heads[1], 331, 8)]
    assert_same(
        prefix_attention,
        lambda q, k, v: mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask="causal"),
        *given,
    )


def shared(keys: mx.array, values: mx.array) -> SharedPrefixCache:
    prefix = PrefixCache()
    prefix.update_and_fetch(keys, values)
    return SharedPrefixCache(prefix)


@pytest.mark.parametrize("heads", [(2, 2), (6, 2)])
def test_suffixes_attend_to_a_shared_prefix_as_if_it_were_their_own(heads: tuple[int, int]) -> None:
    def ours(q: mx.array, k: mx.array, v: mx.array, new_k: mx.array, new_v: mx.array) -> mx.array:
        cache = shared(k, v)
        found = cache.attend(q, *cache.update_and_fetch(new_k, new_v), "causal")
        assert found is not None
        return found

    def plain(q: mx.array, k: mx.array, v: mx.array, new_k: mx.array, new_v: mx.array) -> mx.array:
        keys, values = shared(k, v).update_and_fetch(new_k, new_v)
        return mx.fast.scaled_dot_product_attention(q, keys, values, scale=1.0, mask="causal")

    before = [drawn(1, heads[1], 11, 8), drawn(1, heads[1], 11, 8)]
    new = [drawn(3, heads[1], 5, 8), drawn(3, heads[1], 5, 8)]
    assert_same(ours, plain, drawn(3, heads[0], 5, 8), *before, *new)


def network_of(folder: Any, family: str = "qwen3") -> Any:
    base = load_base(str(make_model(folder / family, family)))
    add_lora(base, train_on="all_linear", rank=4, scale=2.0, dropout=0.0, layers=-1)
    for name, value in tree_flatten(base.network.trainable_parameters()):
        if name.endswith("lora_b"):
            value[...] = drawn(*value.shape, size=0.05)
    return base.network


def batch_of(rows: int) -> Any:
    random = np.random.default_rng(5)
    return make_batch(
        [
            TokenRow(tuple(range(20, 60)), tuple(map(int, random.integers(5, 200, size))), size // 2, "")
            for size in random.integers(8, 30, rows)
        ]
    )


def gradients(network: Any, batch: Any) -> dict[str, mx.array]:
    (value, _), found = nn.value_and_grad(network, answer_loss)(network, *arrays(batch, 1.0))
    return {"loss": value, **dict(tree_flatten(found))}


def assert_close(found: dict[str, mx.array], wanted: dict[str, mx.array]) -> None:
    largest = max(float(mx.abs(value).max()) for name, value in wanted.items() if name != "loss")
    assert float(found.pop("loss")) == pytest.approx(float(wanted.pop("loss")), rel=1e-5)
    for name, value in wanted.items():
        assert float(mx.abs(found[name] - value).max()) < 1e-4 * largest, name


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text"])
def test_a_loss_has_the_gradients_of_mlx_lms_own_modules(
    family: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = network_of(tmp_path, family), batch_of(6)
    monkeypatch.setattr(attention, "is_fast", lambda: True)
    monkeypatch.setattr(loss, "is_fast", lambda: True)
    ours = gradients(network, batch)
    monkeypatch.setattr(attention, "is_fast", lambda: False)
    monkeypatch.setattr(loss, "is_fast", lambda: False)
    monkeypatch.setattr(streams, "_second", None)
    assert_close(ours, gradients(network, batch))


@pytest.mark.parametrize("cost", [0.0, 1e9])
def test_two_streams_compute_what_one_does(cost: float, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the rows beside the prefix, or none."""
    network, batch = network_of(tmp_path), batch_of(7)
    monkeypatch.setattr(loss, "PREFIX_COST", cost)
    monkeypatch.setattr(streams, "_second", mx.new_stream(mx.cpu))
    two = gradients(network, batch)
    mx.eval(two)
    monkeypatch.setattr(streams, "_second", None)
    assert_close(two, gradients(network, batch))


def test_outside_of_training_mlx_lms_functions_are_in_their_places(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "is_fast", lambda: True)
    network = network_of(tmp_path)
    module: Any = sys.modules[type(network).__module__]
    before = (module.scaled_dot_product_attention, module.swiglu)
    with pytest.raises(ZeroDivisionError), fast_kernels(network):
        assert module.scaled_dot_product_attention not in before and module.swiglu not in before
        raise ZeroDivisionError
    assert (module.scaled_dot_product_attention, module.swiglu) == before
    body = network.model
    gradients(network, batch_of(2))
    assert (module.scaled_dot_product_attention, module.swiglu) == before
    assert network.model is body


def test_the_head_runs_on_the_answers_only(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(tmp_path)
    sizes: list[int] = []
    head, embedding = type(network.model.embed_tokens).as_linear, type(network.model.embed_tokens)

    def counted(self: Any, hidden: mx.array) -> mx.array:
        sizes.append(hidden.shape[0] * hidden.shape[1])
        return head(self, hidden)

    monkeypatch.setattr(embedding, "as_linear", counted)
    monkeypatch.setattr(streams, "_second", None)
    rows = [TokenRow((5, 6, 7), tuple(range(10, 50)), 34, ""), TokenRow((5, 6, 7), tuple(range(10, 45)), 30, "")]
    gradients(network, make_batch(rows))
    # The prefix's own pass is traced and never computed.
    assert sizes == [3, 2 * loss.ANSWERS_TO]
