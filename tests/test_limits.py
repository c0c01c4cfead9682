"""What the machine allows: weights that a pass reads, tables of times, and that measuring changes nothing."""

from pathlib import Path

import pytest
from tiny_models import make_model

from mlx_router.limits import attention_seconds, interpolate, memory_bandwidth, pass_seconds, weight_bytes
from mlx_router.model import load_base
from mlx_router.prefixes import PrefixCache

SYSTEM = ({"role": "system", "content": "- track_order(order_id: str): get the status of an order. " * 8},)


def test_an_embedding_that_the_head_shares_is_read_once(tmp_path: Path) -> None:
    shared = load_base(str(make_model(tmp_path / "shared", tie_word_embeddings=True))).network
    own = load_base(str(make_model(tmp_path / "own", tie_word_embeddings=False))).network
    assert weight_bytes(shared) == weight_bytes(own)
    assert weight_bytes(shared) > shared.model.embed_tokens.weight.nbytes


def test_the_memorys_speed_is_that_of_a_computer() -> None:
    assert 1e7 < memory_bandwidth(4 * 1024**2, rounds=2) < 1e13


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text"])
def test_passes_are_priced_and_the_prefix_is_left_as_it_was(family: str, tmp_path: Path) -> None:
    """Also where a cache can't be trimmed: gemma3's window goes round."""
    model = load_base(str(make_model(tmp_path / "model", family)))
    prefix = PrefixCache(model).get(SYSTEM)
    before = [layer.offset for layer in prefix.cache]

    found = pass_seconds(model, prefix, sizes=(1, 5), seconds=0)

    assert list(found) == [1, 5]
    assert min(found.values()) > 0
    assert [layer.offset for layer in prefix.cache] == before


def test_attention_is_timed_where_the_architecture_says_its_heads(base: Path) -> None:
    model = load_base(str(base))
    found = attention_seconds(model, 300, sizes=(1, 7), rounds=1)
    assert found is not None and min(found.values()) > 0
    model.config.pop("num_attention_heads")
    assert attention_seconds(model, 300) is None


def test_a_table_is_read_between_its_sizes_and_beyond_them() -> None:
    table = {1: 1.0, 3: 2.0, 5: 6.0}
    assert interpolate(table, 2) == 1.5
    assert interpolate(table, 7) == 10.0
    # A busy machine may time a longer pass shorter; time never goes down for that.
    assert interpolate({1: 2.0, 5: 1.0}, 9) == 1.0
