"""From an adapter to a standalone model: the LoRA updates added to the base's weights, and these quantized."""

import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

from .errors import ModelError
from .loading import load_routing_model
from .manifest import FILE, Manifest, Parity, read_manifest, write_manifest
from .model import Model, load_tokenizer_only, merge_adapter
from .storage import QUANTIZED

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
import mlx.nn as nn  # isort: skip
from mlx_lm.utils import dequantize_model, quantize_model, save  # isort: skip

# Takes the folder of a whole model that is not in its place yet, and says how the model does.
Judge: TypeAlias = Callable[[Path], Parity]

UNFUSED = "the base is quantized, so full-precision weights were written; the adapter unfused takes less memory"
UNCALIBRATED = (
    "the calibration was left out: it is that of the weights before they were rounded; under a policy every call is to "
    "be confirmed until the model is calibrated anew: mlx-router calibrate"
)

CARD = """# {name}

A router made by mlx-router from an adapter and its base, {base}{revision}. It turns a request into one validated call
of {tools}, or into `no_tool`. The base's licence holds for these weights too.

    mlx-router route . "…"
"""


@dataclass(frozen=True)
class Made:
    """What stands in the manifest of a model that was made, and what its user has to know of it."""

    manifest: Manifest
    notes: tuple[str, ...]


def fuse_adapter(
    folder: Path,
    out: Path,
    *,
    keep_quantized: bool = False,
    base: str | None = None,
    overwrite: bool = False,
    judge: Judge | None = None,
) -> Made:
    """Write a model folder that mlx-lm loads as it is and `Router.load` takes like an adapter's.

    Where the base is quantized, full-precision weights are written. `keep_quantized` rounds the fused weights to the
    base's bits again, which loses part or all of the adapter. `judge` looks at the model before it is put in place;
    what it says stands in the manifest. Raises `ModelError` where `out` is in use.
    """
    manifest = read_manifest(folder)
    if manifest.kind == "fused":
        raise ModelError(f"{folder} is a fused model already", hint="mlx-router quantize makes it smaller")
    _check_place(folder, out, overwrite)
    model = load_routing_model(folder, manifest, base)
    rounded = model.quantized and keep_quantized
    notes = [UNFUSED] if model.quantized and not rounded else []
    config = _fuse(model, dequantize=not keep_quantized)
    found = _finish(model, config, _standalone(manifest, rounded=rounded), out, judge)
    return Made(found, (*notes, *_lost_calibration(manifest, found)))


def quantize_router(
    folder: Path,
    out: Path,
    *,
    bits: int,
    group_size: int = 64,
    base: str | None = None,
    overwrite: bool = False,
    judge: Judge | None = None,
) -> Made:
    """Write a fused model whose weights take `bits` each; `folder` holds an adapter, which is fused, or a fused model.

    Weights in groups of `group_size` share a scale; layers whose width is no multiple of it stay as they are. `judge`
    is that of `fuse_adapter`. Raises `ModelError` where `out` is in use, or where nothing can be quantized.
    """
    manifest = read_manifest(folder)
    _check_place(folder, out, overwrite)
    model = load_routing_model(folder, manifest, base)
    if manifest.kind == "fused" and model.quantized:
        raise ModelError(
            f"{folder} is quantized already; rounding it again would only lose more",
            hint="quantize the adapter that it was made from",
        )
    config = _fuse(model, dequantize=True)
    with redirect_stdout(StringIO()):
        model.network, config = quantize_model(model.network, config, group_size, bits)
    if not any(isinstance(module, nn.QuantizedLinear) for module in model.network.modules()):
        raise ModelError(
            f"no layer of {folder} has a width that groups of {group_size} weights divide",
            hint="try a smaller --group-size",
        )
    mx.eval(model.network.parameters())
    found = _finish(model, config, _standalone(manifest, rounded=True), out, judge)
    return Made(found, _lost_calibration(manifest, found))


def _standalone(manifest: Manifest, *, rounded: bool) -> Manifest:
    """The manifest of a fused model. Rounded weights are another model, of whose calls no calibration is known.

    A policy that came with the calibration is kept where a recipe's stands, so that no call is acted on unproven.
    """
    found = manifest.model_copy(update={"kind": "fused", "parity": None})
    if not rounded or manifest.calibration is None:
        return found
    policy = manifest.calibration.get("policy")
    config = manifest.config if policy is None else manifest.config | {"policy": policy}
    return found.model_copy(update={"calibration": None, "config": config})


def _lost_calibration(before: Manifest, after: Manifest) -> tuple[str, ...]:
    return (UNCALIBRATED,) if before.calibration is not None and after.calibration is None else ()


def _check_place(folder: Path, out: Path, overwrite: bool) -> None:
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ModelError(f"{out} holds what the new model is made from", hint="give another folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ModelError(f"{out} is not empty", hint="give another folder, or --overwrite to replace it")


def _fuse(model: Model, *, dequantize: bool) -> dict[str, Any]:
    """Add the updates to the weights in place, and return the configuration that fits them."""
    network = model.network
    merge_adapter(network, dequantize=dequantize)
    config = dict(model.config)
    if dequantize and model.quantized:
        model.network = dequantize_model(network)
        config = {name: value for name, value in config.items() if name not in QUANTIZED}
    model.network.set_dtype(getattr(mx, model.dtype))
    config["torch_dtype"] = model.dtype
    mx.eval(model.network.parameters())
    return config


def _finish(model: Model, config: dict[str, Any], manifest: Manifest, out: Path, judge: Judge | None) -> Manifest:
    """Write the model aside, have it judged there, and put it in place. What was in `out` stays until then."""
    if out.resolve() in (model.folder.resolve(), *model.folder.resolve().parents):
        raise ModelError(f"{out} holds the base model", hint="give another folder")
    aside = out.resolve().with_name(out.resolve().name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _write(model, config, manifest, aside, out.resolve().name)
        # The judge routes with the model as it was written; two of them may not fit the memory.
        model.network = None
        if judge is not None:
            write_manifest(aside, manifest)
            manifest = manifest.model_copy(update={"parity": judge(aside)})
            (aside / FILE).unlink()
        if out.exists():
            (out / FILE).unlink(missing_ok=True)
            shutil.rmtree(out)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    write_manifest(out, manifest)
    return manifest


def _write(model: Model, config: dict[str, Any], manifest: Manifest, aside: Path, name: str) -> None:
    """Write everything but the manifest."""
    with redirect_stdout(StringIO()):
        save(aside, str(model.folder), model.network, model.chat.tokenizer, config, donate_model=False)
    # mlx-lm copies a base's Python files along; the embedded base's is a part of this package.
    (aside / "__init__.py").unlink(missing_ok=True)
    _check_template(model, aside)
    tools = ", ".join(f"`{tool['name']}`" for tool in manifest.catalogue["tools"])
    revision = f" at {manifest.base.revision}" if manifest.base.revision else ""
    card = CARD.format(name=name, base=manifest.base.name, revision=revision, tools=tools)
    (aside / "README.md").write_text(card, encoding="utf-8")


def _check_template(model: Model, folder: Path) -> None:
    if load_tokenizer_only(str(folder)).template_hash != model.chat.template_hash:
        raise ModelError(f"the chat template was not written to {folder} as it is")
