"""Fusing: a standalone model that decides as the adapter does, and what is refused."""

import json
import shutil
from pathlib import Path

import mlx_lm
import pytest
from conftest import CATALOGUE, KNOWN, Run, known_rows, write_rows
from tiny_models import make_model, make_recipe

from mlx_router.config import TrainConfig
from mlx_router.decoder import GreedyDecoder
from mlx_router.errors import ModelError
from mlx_router.fusing import fuse_adapter, quantize_router
from mlx_router.loading import load_routing_model
from mlx_router.manifest import read_manifest, write_manifest
from mlx_router.model import Model, load_base
from mlx_router.router import Router


def lora_layers(model: Model) -> int:
    return sum(hasattr(module, "lora_a") for _, module in model.network.named_modules())


def test_a_fused_model_and_a_loaded_router_decide_as_the_adapter_beside_its_base(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused"
    fuse_adapter(adapter, out)
    manifest = read_manifest(adapter)
    model = load_routing_model(adapter, manifest)
    assert lora_layers(model) > 0
    beside = Router(GreedyDecoder(model), manifest.read_catalogue(), manifest=manifest)
    expected = [beside.route(request).raw for request in KNOWN]
    one, other = Router.load(adapter), Router.load(out)
    assert isinstance(one.decoder, GreedyDecoder) and lora_layers(one.decoder.model) == 0
    assert [one.route(request).raw for request in KNOWN] == expected
    assert [other.route(request).raw for request in KNOWN] == expected
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


def test_an_adapter_is_not_rounded_into_a_quantized_base_by_loading_it(quantized_adapter: Path) -> None:
    decoder = Router.load(quantized_adapter).decoder
    assert isinstance(decoder, GreedyDecoder) and lora_layers(decoder.model) > 0


def test_rounding_to_the_bases_bits_has_to_be_asked_for(quantized_adapter: Path, tmp_path: Path, run: Run) -> None:
    plain = run("fuse", quantized_adapter, tmp_path / "plain", "--no-compare")
    assert plain.code == 0
    assert "the adapter unfused takes less memory" in plain.err
    assert not load_base(str(tmp_path / "plain")).quantized
    assert run("fuse", quantized_adapter, tmp_path / "packed", "--no-compare", "--keep-quantized").code == 0
    assert load_base(str(tmp_path / "packed")).quantized


def test_dequantized_fusing_keeps_the_decisions(quantized_adapter: Path, tmp_path: Path) -> None:
    fuse_adapter(quantized_adapter, tmp_path / "fused")
    one, other = Router.load(quantized_adapter), Router.load(tmp_path / "fused")
    assert not other.decoder.model.quantized  # type: ignore[attr-defined]
    assert [one.route(request).raw for request in KNOWN] == [other.route(request).raw for request in KNOWN]


def test_a_fused_and_rounded_model_has_no_calibration(adapter: Path, tmp_path: Path) -> None:
    """A calibration is of one set of weights; full precision changes nothing of it."""
    calibrated = shutil.copytree(adapter, tmp_path / "adapter")
    manifest = read_manifest(calibrated).model_copy(update={"calibration": {"some": "curve"}})
    write_manifest(calibrated, manifest)
    fused = fuse_adapter(calibrated, tmp_path / "fused")
    assert (fused.manifest.calibration, fused.notes) == (manifest.calibration, ())
    small = quantize_router(calibrated, tmp_path / "small", bits=8, group_size=32)
    assert small.manifest.calibration is None
    assert any("calibration" in note for note in small.notes)
    assert small.manifest.config == manifest.config


def test_a_rounded_model_keeps_the_policy_that_came_with_the_calibration(adapter: Path, tmp_path: Path) -> None:
    """With no calibration left its calls are to be confirmed; without the policy they would be acted on."""
    calibrated = shutil.copytree(adapter, tmp_path / "adapter")
    policy = {"wrong_call_rate": 0.02, "level": 0.95, "confirm": 0.5}
    write_manifest(calibrated, read_manifest(calibrated).model_copy(update={"calibration": {"policy": policy}}))
    small = quantize_router(calibrated, tmp_path / "small", bits=8, group_size=32)
    assert small.manifest.config["policy"] == policy
    assert read_manifest(tmp_path / "small") == small.manifest


@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_and_its_fused_model_quantize_to_the_same(bits: int, adapter: Path, tmp_path: Path) -> None:
    fuse_adapter(adapter, tmp_path / "fused")
    for name, folder in (("a", adapter), ("b", tmp_path / "fused")):
        quantize_router(folder, tmp_path / name, bits=bits, group_size=32)
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b
    assert json.loads((tmp_path / "a" / "config.json").read_text(encoding="utf-8"))["quantization"]["bits"] == bits
    assert len(a) < (tmp_path / "fused" / "model.safetensors").stat().st_size * (bits + 4) / 32
    assert Router.load(tmp_path / "a").route("Hi!").raw == Router.load(tmp_path / "b").route("Hi!").raw


def test_an_adapter_on_a_quantized_base_is_quantized(quantized_adapter: Path, tmp_path: Path) -> None:
    quantize_router(quantized_adapter, tmp_path / "small", bits=8, group_size=32)
    config = load_base(str(tmp_path / "small")).config
    assert (config["quantization"]["bits"], config["quantization"]["group_size"]) == (8, 32)


def test_what_is_quantized_is_not_quantized_again(adapter: Path, tmp_path: Path) -> None:
    quantize_router(adapter, tmp_path / "small", bits=8)
    with pytest.raises(ModelError, match="quantized already"):
        quantize_router(tmp_path / "small", tmp_path / "smaller", bits=4)


def test_groups_that_fit_no_layer_are_refused(tmp_path: Path) -> None:
    from mlx_router.training import train

    shape = {"hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 2, "head_dim": 24}
    base = make_model(tmp_path / "base", "qwen3", **shape)
    narrow = train(make_recipe(tmp_path, model=str(base), epochs=1, max_updates=1), lambda event: None)
    with pytest.raises(ModelError, match=r"no layer of .* groups of 64"):
        quantize_router(narrow, tmp_path / "small", bits=4, group_size=64)
    assert not (tmp_path / "small").exists()


def test_a_model_is_never_put_over_what_it_is_made_from(adapter: Path, base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapter, tmp_path / "project" / "adapter")
    for out in (copy, copy.parent):
        with pytest.raises(ModelError, match="what the new model is made from"):
            fuse_adapter(copy, out, overwrite=True)
    with pytest.raises(ModelError, match="holds the base model"):
        fuse_adapter(copy, base, overwrite=True)
    assert (copy / "router.json").is_file() and (base / "model.safetensors").is_file()
