"""Store a base in 8 bits: `python -m mlx_router.tiny.pretrain.store RUN/model --out DIR`.

Groups of 64 weights share a scale and an offset, so that a weight takes 8.5 bits: about twice the parameters of f16 in
the same space. mlx-lm loads what is written as it is, and computes with it in 8 bits; mlx-router widens it when it
loads it (`widen_on_load` in config.json), since a CPU multiplies floats several times as fast.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import quantize_model

from ...model import load_base
from ...storage import WIDENED
from .tokenizer import FILES

BITS, GROUP = 8, 64


def store(folder: Path, out: Path) -> None:
    """Write the base in `folder` to `out` in 8 bits, with its tokenizer; scales and norms in f16."""
    model = load_base(str(folder), dtype="float32")
    network, config = quantize_model(model.network, dict(model.config), GROUP, BITS)
    network.set_dtype(mx.float16)
    out.mkdir(parents=True, exist_ok=True)
    tensors = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(out / "model.safetensors"), tensors, metadata={"format": "mlx"})
    (out / "config.json").write_text(json.dumps({**config, WIDENED: True}, indent=2) + "\n", encoding="utf-8")
    for name in FILES:
        shutil.copyfile(folder / name, out / name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Store as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m mlx_router.tiny.pretrain.store", description=__doc__)
    parser.add_argument("model", help="model folder, as training wrote it")
    parser.add_argument("--out", required=True, help="folder for the stored base")
    options = parser.parse_args(arguments)
    store(Path(options.model), Path(options.out))
    size = sum(file.stat().st_size for file in Path(options.out).iterdir())
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
