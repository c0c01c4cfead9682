"""Fusing: a standalone model that decides as the adapter does, and what is refused."""

from pathlib import Path

import mlx_lm
import pytest
from conftest import CATALOGUE, KNOWN, Run, known_rows, write_rows
from tiny_models import make_model

from mlx_router.config import TrainConfig
from mlx_router.errors import ModelError
from mlx_router.fusing import fuse_adapter
from mlx_router.manifest import read_manifest
from mlx_router.router import Router


def test_a_fused_model_decides_as_its_adapter(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused"
    fuse_adapter(adapter, out)
    one, other = Router.load(adapter), Router.load(out)
    assert [one.route(request).raw for request in KNOWN] == [other.route(request).raw for request in KNOWN]
    assert read_manifest(out).kind == "fused"
    assert other.catalogue == one.catalogue
    assert not (out / "__init__.py").exists()


def test_a_fused_model_stands_alone(adapter: Path, tmp_path: Path) -> None:
    """mlx-lm loads it without the base, and it has no LoRA layer left."""
    fuse_adapter(adapter, tmp_path / "fused")
    network, _ = mlx_lm.load(str(tmp_path / "fused"))
    assert not [name for name, module in network.named_modules() if hasattr(module, "lora_a")]


def test_the_command_fuses_and_never_overwrites_unasked(adapter: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "fused"
    assert run("fuse", str(adapter), str(out)).code == 0
    again = run("fuse", str(adapter), str(out))
    assert again.code == 2
    assert "--overwrite" in again.err
    assert run("fuse", str(adapter), str(out), "--overwrite").code == 0


def test_a_fused_model_is_not_fused_again(adapter: Path, tmp_path: Path) -> None:
    fuse_adapter(adapter, tmp_path / "fused")
    with pytest.raises(ModelError, match="fused model already"):
        fuse_adapter(tmp_path / "fused", tmp_path / "twice")


@pytest.fixture(scope="module")
def quantized_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on a base whose weights are packed into four bits."""
    from mlx_lm import convert

    from mlx_router.training import train

    folder = tmp_path_factory.mktemp("quantized")
    plain = make_model(folder / "plain", "qwen3")
    convert(str(plain), str(folder / "base"), quantize=True, q_group_size=32, q_bits=4)
    rows = write_rows(folder / "rows.jsonl", known_rows(2))
    config = TrainConfig(
        model=str(folder / "base"),
        adapter=str(folder / "adapter"),
        catalogue=str(CATALOGUE),
        train=str(rows),
        epochs=1,
        max_updates=2,
    )
    return train(config, lambda event: None)


def test_fusing_into_packed_weights_has_to_be_asked_for(quantized_adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        fuse_adapter(quantized_adapter, tmp_path / "fused")
    assert "--dequantize" in str(caught.value.hint)
    assert not (tmp_path / "fused").exists()


def test_dequantized_fusing_keeps_the_decisions(quantized_adapter: Path, tmp_path: Path) -> None:
    fuse_adapter(quantized_adapter, tmp_path / "fused", dequantize=True)
    one, other = Router.load(quantized_adapter), Router.load(tmp_path / "fused")
    assert not other.decoder.model.quantized  # type: ignore[attr-defined]
    assert [one.route(request).raw for request in KNOWN] == [other.route(request).raw for request in KNOWN]
