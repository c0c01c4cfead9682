"""From a finished folder to a model that routes: the base with its adapter, or a fused model."""

from pathlib import Path

from .errors import ModelError
from .manifest import Manifest
from .model import Model, load_adapter, load_base, merge_adapter


def load_routing_model(folder: Path, manifest: Manifest, base: str | None = None, *, merge: bool = False) -> Model:
    """The model of an adapter folder or of a fused one.

    With `merge` the adapter is added to weights that lose nothing by it, those in float32, so that a pass takes fewer
    operations. Raises `ModelError` where the base is not the one that the adapter was trained on, or where the folder
    is marked as failed.
    """
    manifest.check_parity(folder)
    if manifest.kind == "fused":
        return load_base(str(folder))
    model = load_base(base or manifest.base.name, revision=manifest.base.revision)
    _check(model, manifest, folder)
    load_adapter(model, folder)
    if merge and model.dtype == "float32" and not model.quantized:
        merge_adapter(model.network)
    return model


def _check(model: Model, manifest: Manifest, folder: Path) -> None:
    found, wanted = model.base, manifest.base
    both_hashed = found.weights_hash is not None and wanted.weights_hash is not None
    differences = [
        what
        for what, differs in (
            ("weights", both_hashed and found.weights_hash != wanted.weights_hash),
            ("tokenizer", found.tokenizer_hash != wanted.tokenizer_hash),
            ("chat template", found.template_hash != wanted.template_hash),
        )
        if differs
    ]
    if differences:
        raise ModelError(
            f"{folder} was trained on another version of {wanted.name!r}: {', '.join(differences)} differ",
            hint="train it again on this base, or give the right one with --base",
        )
