"""From an adapter folder to a standalone model: the LoRA updates added to the base's weights."""

import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from .errors import ModelError
from .loading import load_routing_model
from .manifest import FILE, Manifest, read_manifest, write_manifest
from .model import Model, load_tokenizer_only

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx.utils import tree_unflatten  # isort: skip
from mlx_lm.utils import dequantize_model, save  # isort: skip

CARD = """# {name}

A router fused by mlx-router from an adapter and its base, {base}{revision}. It turns a request into one validated call
of {tools}, or into `no_tool`. The base's licence holds for these weights too.

    mlx-router route . "…"
"""


def fuse_adapter(
    folder: Path,
    out: Path,
    *,
    dequantize: bool = False,
    keep_quantized: bool = False,
    base: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model folder that mlx-lm loads as it is and `Router.load` takes like an adapter's.

    `dequantize` writes full-precision weights where the base is quantized. `keep_quantized` rounds the fused weights to
    the base's bits again, which loses part or all of the adapter. Raises `ModelError` where one of the two has to be
    chosen and is not, or where `out` is in use.
    """
    manifest = read_manifest(folder)
    if manifest.kind == "fused":
        raise ModelError(f"{folder} is a fused model already")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ModelError(f"{out} is not empty", hint="give another folder, or --overwrite to replace it")
    model = load_routing_model(folder, manifest, base)
    if model.quantized and not (dequantize or keep_quantized):
        raise ModelError(
            f"the base {manifest.base.name!r} is quantized; rounding the fused weights to its bits loses the adapter",
            hint="route with the adapter as it is, or fuse with --dequantize (larger, and as good)",
        )
    config = _fuse(model, dequantize=dequantize)
    _write(model, config, manifest, out)


def _fuse(model: Model, *, dequantize: bool) -> dict[str, Any]:
    """Add the updates to the weights in place, and return the configuration that fits them."""
    network = model.network
    layers = [(name, module) for name, module in network.named_modules() if hasattr(module, "fuse")]
    network.update_modules(tree_unflatten([(name, layer.fuse(dequantize=dequantize)) for name, layer in layers]))
    config = dict(model.config)
    if dequantize and model.quantized:
        model.network = dequantize_model(network)
        for key in ("quantization", "quantization_config"):
            config.pop(key, None)
    model.network.set_dtype(getattr(mx, model.dtype))
    config["torch_dtype"] = model.dtype
    mx.eval(model.network.parameters())
    return config


def _write(model: Model, config: dict[str, Any], manifest: Manifest, out: Path) -> None:
    """Write the folder aside and put it in place, its manifest last."""
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    tokenizer = model.chat.tokenizer
    with redirect_stdout(StringIO()):
        save(aside, str(model.folder), model.network, tokenizer, config, donate_model=False)
    # mlx-lm copies a base's Python files along; the embedded base's is a part of this package.
    (aside / "__init__.py").unlink(missing_ok=True)
    _check_template(model, aside)
    tools = ", ".join(f"`{tool['name']}`" for tool in manifest.catalogue["tools"])
    revision = f" at {manifest.base.revision}" if manifest.base.revision else ""
    card = CARD.format(name=out.name, base=manifest.base.name, revision=revision, tools=tools)
    (aside / "README.md").write_text(card, encoding="utf-8")
    if out.exists():
        (out / FILE).unlink(missing_ok=True)
        shutil.rmtree(out)
    aside.rename(out)
    write_manifest(out, manifest.model_copy(update={"kind": "fused"}))


def _check_template(model: Model, folder: Path) -> None:
    if load_tokenizer_only(str(folder)).template_hash != model.chat.template_hash:
        raise ModelError(f"the chat template was not written to {folder} as it is")
