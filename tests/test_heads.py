"""The head on chosen positions: the logits of the whole, and the network left as it was."""

from pathlib import Path
from typing import Any

import pytest
from tiny_models import FAMILIES, make_model

from mlx_router.heads import logits_at
from mlx_router.model import load_base

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)

TOKENS = mx.array([[5, 6, 7, 8, 9, 10]])


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_whole(family: str, tmp_path: Path) -> None:
    network = load_base(str(make_model(tmp_path / "model", family))).network
    body = network.model
    whole = network(TOKENS)

    found = logits_at(network, TOKENS, None, lambda values: values[:, -2:])

    assert found.shape == (1, 2, whole.shape[-1])
    assert mx.allclose(found, whole[:, -2:], atol=1e-4).item()
    assert network.model is body


def test_the_head_sees_the_chosen_positions_only(base: Path) -> None:
    network = load_base(str(base)).network
    body, seen = network.model, []

    def chosen(values: mx.array) -> mx.array:
        seen.append(values.shape)
        return values[:, -1:]

    logits_at(network, TOKENS, None, chosen)
    assert seen == [(1, 6, body.args.hidden_size)]


def test_a_network_without_a_body_gives_all_logits_to_choose_from() -> None:
    def network(tokens: mx.array, cache: Any) -> mx.array:
        return mx.broadcast_to(tokens[..., None], (1, 6, 3))

    found = logits_at(network, TOKENS, None, lambda values: values[:, -2:])
    assert found[0, :, 0].tolist() == [9, 10]


def test_the_body_is_put_back_after_an_error(base: Path) -> None:
    network = load_base(str(base)).network
    body = network.model

    def broken(values: mx.array) -> mx.array:
        raise ValueError("no such position")

    with pytest.raises(ValueError, match="no such position"):
        logits_at(network, TOKENS, None, broken)
    assert network.model is body
