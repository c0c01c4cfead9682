"""This trainer against mlx-lm's own command, `mlx_lm.lora --mask-prompt`: rows a second, peak memory, loss.

    python benchmarks/training.py                  # 200, 800 and 2,000 catalogue tokens; batches of 1, 4, 8, 16
    python benchmarks/training.py --quick --json   # 800 tokens, batches of 8

Both sides train the same base with the same rows, LoRA layers, batch size and number of steps, on the same BLAS, each
in a process of its own, one after the other. The rows are made here: a catalogue of the wanted length, and suffixes
(request and answer together) of some 60 tokens. Rows a second come from the median step, the first three left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from mlx_router.calls import ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.data import Example
from mlx_router.model import find_base, load_tokenizer_only

SUFFIX = 60
STEPS, WARM_UP = 12, 3
RANK, SCALE, RATE = 16, 2.0, 1e-4
SOME_WORDS = "green river seven stone light paper window garden market winter yellow simple quiet under over north"
WORDS = SOME_WORDS.split()

# mlx-lm's command as it is, with a callback that writes down what it reports, on the BLAS that this package finds.
MLX_LM = """
import functools, json, sys
from mlx_router.runtime import prepare
prepare()
from mlx_lm import lora
from mlx_lm.tuner.callbacks import TrainingCallback

class Keep(TrainingCallback):
    def on_train_loss_report(self, info):
        print("REPORT", json.dumps({name: float(value) for name, value in info.items()}), file=sys.stderr, flush=True)

lora.run = functools.partial(lora.run, training_callback=Keep())
lora.main()
"""
OURS = """
import json, sys, time
from mlx_router.config import TrainConfig
from mlx_router.training import train
import mlx.core as mx

since = [time.perf_counter()]
def report(event):
    if event["event"] == "progress":
        now = time.perf_counter()
        found = {"train_loss": event["loss"], "peak_memory": event["peak_memory_bytes"] / 1e9,
                 "iterations_per_second": 1 / (now - since[0])}
        print("REPORT", json.dumps(found), file=sys.stderr, flush=True)
    since[0] = time.perf_counter()
train(TrainConfig.model_validate_json(sys.argv[1]), report, overwrite=True)
"""
DIFFERENCE = """
import sys
from mlx_router.config import TrainConfig
from mlx_router.training import prepare_run
from mlx_router.loss import answer_loss, arrays
import mlx.core as mx, mlx.nn as nn
from mlx.utils import tree_flatten
found = []
for shared in (True, False):
    config = TrainConfig.model_validate_json(sys.argv[1]).model_copy(update={"shared_prefix": shared})
    run = prepare_run(config, __import__("pathlib").Path(config.adapter), lambda event: None)
    group = next(iter(run.plan.epoch(0)))
    mx.random.seed(1)
    network = run.model.network
    for name, value in tree_flatten(network.trainable_parameters()):
        if name.endswith("lora_b"):
            network.load_weights([(name, mx.random.normal(value.shape) * 0.01)], strict=False)
    network.eval()
    _, gradients = nn.value_and_grad(network, answer_loss)(network, *arrays(group[0], 1.0 / group[0].answer_tokens))
    found.append(dict(tree_flatten(gradients)))
print(max(float(mx.abs(found[0][name] - found[1][name]).max()) for name in found[0]))
"""


def make_rows(folder: Path, base: str, catalogue_tokens: int, rows: int) -> dict[str, float]:
    """Write catalogue and rows; return how many tokens they really have."""
    chat, rng = load_tokenizer_only(base), Random(1)
    schema = {"properties": {"text": {"type": "string"}}}
    tools = [Tool("note", "Keep a note.", schema)]

    def example(said: list[str]) -> Example:
        return Example(" ".join(said), ToolCall(tool="note", arguments={"text": " ".join(said[-4:])}), catalogue)

    def prefix() -> int:
        return len(chat.shared_prefix(example(WORDS).messages()[0]))

    catalogue = Catalogue(tuple(tools))
    while prefix() < catalogue_tokens:
        name = "_".join([*rng.sample(WORDS, 2), str(len(tools))])
        tools.append(Tool(name, " ".join(rng.choices(WORDS, k=6)) + ".", schema))
        catalogue = Catalogue(tuple(tools))
    catalogue.save(folder / "catalogue.json")
    lines, lengths = [], []
    for _ in range(rows):
        said, suffix = rng.choices(WORDS, k=4), 0
        while suffix < SUFFIX:
            said = [rng.choice(WORDS), *said]
            row = example(said)
            suffix = len(chat.row_tokens(row.messages(), row.answer).tokens) - prefix()
        lengths.append(suffix)
        lines.append(json.dumps(example(said).to_json("catalogue.json")) + "\n")
    for name in ("train", "valid"):
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {"catalogue_tokens": prefix(), "suffix_tokens": statistics.mean(lengths)}


def reports(code: str, *arguments: str) -> list[dict[str, float]]:
    """Run one side and read what it reported."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"a run failed:\n{done.stderr[-3000:]}")
    return [json.loads(line.partition(" ")[2]) for line in done.stderr.splitlines() if line.startswith("REPORT ")]


def measure(base: str, catalogue_tokens: int, batch: int) -> dict[str, Any]:
    """Both sides on one shape."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        sizes = make_rows(folder, base, catalogue_tokens, batch * STEPS)
        recipe = {
            "model": base, "adapter": str(folder / "ours"), "train": str(folder / "train.jsonl"), "epochs": 1,
            "batch_size": batch, "learning_rate": RATE, "rank": RANK, "lora_alpha": RANK * SCALE, "log_every": 1,
            "lr_schedule": "constant", "warmup_ratio": 0.0, "max_grad_norm": None, "save_every": 10_000,
        }  # fmt: skip
        ours = reports(OURS, json.dumps(recipe))
        lora = {"lora_parameters": {"rank": RANK, "scale": SCALE, "dropout": 0.0}, "optimizer": "adamw"}
        (folder / "lora.yaml").write_text(json.dumps(lora), encoding="utf-8")
        flags = {
            "--model": str(find_base(base)[0]), "--data": str(folder), "--batch-size": batch, "--iters": STEPS,
            "--num-layers": -1, "--learning-rate": RATE, "--steps-per-report": 1, "--steps-per-eval": 10_000,
            "--val-batches": 0, "--max-seq-length": 4096, "--adapter-path": str(folder / "theirs"),
            "--save-every": 10_000, "--config": str(folder / "lora.yaml"),
        }  # fmt: skip
        theirs = reports(MLX_LM, "--train", "--mask-prompt", *(str(part) for pair in flags.items() for part in pair))
        difference = None
        if (catalogue_tokens, batch) == (800, 8):
            done = subprocess.run(
                [sys.executable, "-c", DIFFERENCE, json.dumps(recipe)], capture_output=True, text=True, check=True
            )
            difference = float(done.stdout)
    prefix, suffix = sizes["catalogue_tokens"], sizes["suffix_tokens"]
    found = {"ours": _side(ours, batch, suffix), "mlx_lm": _side(theirs, batch, suffix)}
    return {
        **sizes,
        "batch": batch,
        **found,
        "rows_per_second_ratio": found["ours"]["rows_per_second"] / found["mlx_lm"]["rows_per_second"],
        "peak_memory_ratio": found["ours"]["peak_memory_gb"] / found["mlx_lm"]["peak_memory_gb"],
        "ratio_of_tokens": batch * (prefix + suffix) / (prefix + batch * suffix),
        "max_gradient_difference": difference,
    }


def _side(steps: list[dict[str, float]], batch: int, suffix: float) -> dict[str, Any]:
    rate = batch * statistics.median(step["iterations_per_second"] for step in steps[WARM_UP:])
    return {
        "rows_per_second": rate,
        "suffix_tokens_per_second": rate * suffix,
        "peak_memory_gb": max(step["peak_memory"] for step in steps),
        "losses": [round(step["train_loss"], 4) for step in steps],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="This trainer against mlx_lm.lora.")
    parser.add_argument("--base", default="tiny", help="base model")
    parser.add_argument("--quick", action="store_true", help="800 tokens and batches of 8 only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    shapes = [(800, 8)]
    if not options.quick:
        shapes += [(200, 8), (2000, 8), (800, 1), (800, 4), (800, 16)]
    results = [measure(options.base, *shape) for shape in shapes]
    main_case = results[0]
    if options.json:
        names = ("rows_per_second_ratio", "peak_memory_ratio", "max_gradient_difference", "ratio_of_tokens")
        print(json.dumps({**{name: main_case[name] for name in names}, "cases": results}, indent=2))
        return
    for one in results:
        ours, theirs = one["ours"], one["mlx_lm"]
        tokens = f"catalogue {one['catalogue_tokens']} tokens, suffix {one['suffix_tokens']:.0f}, batch {one['batch']}"
        limit = f"(tokens alone: {one['ratio_of_tokens']:.2f})"
        print(tokens)
        for name, key, note in (("rows/s", "rows_per_second", limit), ("peak GB", "peak_memory_gb", "")):
            print(f"  {name:8} {ours[key]:8.2f}  mlx-lm {theirs[key]:8.2f}  ratio {ours[key] / theirs[key]:.2f} {note}")
        print(f"  losses   {ours['losses'][:3]} … {ours['losses'][-1]}")
        print(f"  mlx-lm   {theirs['losses'][:3]} … {theirs['losses'][-1]}")
        if one["max_gradient_difference"] is not None:
            print(f"  gradients of shared and whole rows differ by at most {one['max_gradient_difference']:.1e}")


if __name__ == "__main__":
    main()
