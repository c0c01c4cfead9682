"""This trainer against mlx-lm's own command, `mlx_lm.lora --mask-prompt`: rows a second, peak memory, losses.

    python benchmarks/training.py                     # a catalogue of 800 tokens, batches of 8, suffixes of 60 tokens
    python benchmarks/training.py --grid              # also 200 and 2,000 tokens, and batches of 1, 4 and 16
    python benchmarks/training.py --quick --json      # fewer steps
    python benchmarks/training.py --with-trl PYTHON   # also TRL's SFTTrainer, by a Python that has trl, peft and torch

The two train the same base (in the same float type) with the same rows in the same order, LoRA layers and first
weights, optimizer, batch size and number of steps, on the same BLAS, each in a process of its own, and take their steps
in turn. mlx-lm's BLAS takes one thread and all cores by turns, and what is faster counts. Both learn the tokens that
mlx-lm learns, so the losses must agree step by step. A step is everything between two reports, batch-making included;
medians are over the steps after the warm-up.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mlx_router.machine import usable_cpus

MAIN = (800, 8)
GRID = [MAIN, (800, 1), (800, 4), (800, 16), (200, 8), (2000, 8)]
SUFFIX = 60
# A process whose products are so many times slower than the other's has another BLAS, not a busy neighbour: MLX's
# reference BLAS is twenty times slower and more.
OTHER_BLAS = 10.0
GIGA = 1e9
# The threads of an OpenBLAS that has done its work look for more so long, in seconds.
REST = 0.2


class Side:
    """A process that trains, step by step."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self.name, self.process, self.log = name, process, log
        self.steps: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def hear(self) -> dict[str, Any]:
        """What it did last. Ends the benchmark with what it printed where it failed."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.log.read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{self.name} failed ({self.process.wait()}):\n{said[-3000:]}")
        return dict(json.loads(line))

    def next(self, word: str = "go") -> dict[str, Any]:
        """Let it do the next thing, or stop taking steps, and wait until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.hear()

    def step(self, threads: int) -> None:
        """Take a step; the other side's BLAS with so many threads, ours with as many as it takes by itself."""
        time.sleep(REST)
        self.steps.append({"threads": threads, **self.next(str(threads))})


@contextmanager
def side(name: str, folder: Path, python: str = sys.executable) -> Iterator[Side]:
    """Start a side; when it is no longer needed, end it."""
    program = Path(__file__).with_name("training_side.py")
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [python, str(program), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield Side(name, process, log)
    finally:
        process.kill()
        process.communicate()


def measure(options: argparse.Namespace, catalogue_tokens: int, batch: int) -> dict[str, Any]:
    """This trainer and mlx-lm's on one shape."""
    recipe = {"train_on": "all_linear", "learning_rate": 1e-4, "lr_schedule": "constant", "warmup_ratio": 0.0}
    recipe |= {"max_grad_norm": None}
    return pair("mlx_lm", sys.executable, options, catalogue_tokens, batch, recipe)


def measure_trl(options: argparse.Namespace) -> dict[str, Any]:
    """This trainer and TRL's, by the brief's recipe (configs/brief.yaml) without dropout."""
    recipe = {"train_on": ["q_proj", "v_proj"], "learning_rate": 2e-4, "lr_schedule": "cosine", "warmup_ratio": 0.03}
    recipe |= {"max_grad_norm": 1.0, "gradient_accumulation_steps": 2}
    return pair("trl", options.with_trl, options, *shapes(options)[0], recipe)


def pair(
    other: str,
    python: str,
    options: argparse.Namespace,
    catalogue_tokens: int,
    batch: int,
    fields: dict[str, Any],
) -> dict[str, Any]:
    """Run ours and another side in turn and compare them."""
    steps, started = options.warm_up + options.steps, time.monotonic()
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        recipe = {
            "model": str(folder / "base"), "adapter": str(folder / "ours"), "train": str(folder / "train.jsonl"),
            "epochs": 1, "num_layers": -1, "rank": 16, "lora_alpha": 32.0, "lora_dropout": 0.0, "batch_size": batch,
            "log_every": 1, "save_every": 10**6, **fields,
        }  # fmt: skip
        rows = batch * steps * recipe.get("gradient_accumulation_steps", 1)
        task = {
            "model": options.model, "catalogue_tokens": catalogue_tokens, "suffix_tokens": options.suffix,
            "rows": rows, "steps": steps, "recipe": recipe, "trl": other == "trl",
            "compared": min(2, batch) if options.quick else batch,
        }  # fmt: skip
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        # Both import their libraries at once, and from then on one waits while the other works.
        ours, theirs = (stack.enter_context(side(*of)) for of in (("ours", folder), (other, folder, python)))
        for one in (ours, theirs):
            one.hear()
        for one in (ours, theirs):
            one.facts = one.next()
        if other == "mlx_lm":
            _check_blas(ours, theirs)
        sizes = ours.next()
        for step in range(steps):
            for one in (ours, theirs) if step % 2 == 0 else (theirs, ours):
                one.step(_threads(step - options.warm_up) if other == "mlx_lm" else usable_cpus())
                _progress(f"{catalogue_tokens} tokens, batch {batch}, {one.name}", step + 1, steps, one.steps[-1])
            if step >= options.warm_up and time.monotonic() - started > options.seconds:
                break
        gradients = ours.next("stop")
        found = {name: _figures(one, options, rows / steps) for name, one in (("ours", ours), (other, theirs))}
    prefix, suffix = sizes["catalogue_tokens"], sizes["suffix_tokens"]
    return {
        **sizes,
        "batch": batch,
        "arithmetic_limit": batch * (prefix + suffix) / (prefix + batch * suffix),
        **_compared(found["ours"], found[other]),
        **gradients,
        **found,
    }


def _threads(measured_step: int) -> int:
    """One and all cores in turn, one in the warm-up."""
    return usable_cpus() if measured_step > 0 and measured_step % 2 else 1


def _check_blas(ours: Side, theirs: Side) -> None:
    if ours.facts["blas"] != theirs.facts["blas"] or ours.facts["gflops"] > OTHER_BLAS * theirs.facts["gflops"]:
        raise SystemExit(f"the two have not the same BLAS: {ours.facts} and {theirs.facts}")


def _progress(what: str, step: int, steps: int, found: dict[str, Any]) -> None:
    print(f"{what}: step {step} of {steps}, {found['seconds']:.2f} s, loss {found['loss']:.4f}", file=sys.stderr)


def _figures(one: Side, options: argparse.Namespace, rows: float) -> dict[str, Any]:
    """One side's figures; `rows` is how many rows a step has."""
    measured = _faster(one.steps[options.warm_up :], one.name)
    seconds = [step["seconds"] for step in measured]
    peak = one.steps[-1]["peak_memory_bytes"]
    return {
        **one.facts,
        "blas_threads": None if one.name == "ours" else measured[0]["threads"],
        "seconds_per_step": statistics.median(seconds),
        "cpu_seconds_per_step": statistics.median(step["cpu_seconds"] for step in measured),
        "seconds_of_steps": [round(value, 4) for value in seconds],
        "rows_per_second": rows / statistics.median(seconds),
        "loss_tokens_per_second": statistics.median(step["loss_tokens"] / step["seconds"] for step in measured),
        "peak_memory_gb": None if peak is None else peak / GIGA,
        "peak_rss_gb": one.steps[-1]["peak_rss_bytes"] / GIGA,
        "loss_tokens": sum(step["loss_tokens"] for step in one.steps),
        "losses": [step["loss"] for step in one.steps],
    }


def _faster(steps: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The other side's steps with the number of threads that suits it better."""
    if name == "ours":
        return steps
    by_threads = [[step for step in steps if step["threads"] == threads] for threads in {s["threads"] for s in steps}]
    return min(by_threads, key=lambda some: statistics.median(step["seconds"] for step in some))


def _compared(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    def ratio(name: str) -> float | None:
        return None if theirs[name] is None else ours[name] / theirs[name]

    losses = zip(ours["losses"], theirs["losses"], strict=True)
    return {
        "rows_per_second_ratio": ratio("rows_per_second"),
        "cpu_seconds_ratio": ratio("cpu_seconds_per_step"),
        "peak_memory_ratio": ratio("peak_memory_gb"),
        "peak_rss_ratio": ratio("peak_rss_gb"),
        "max_loss_difference": max(abs(left - right) for left, right in losses),
        "same_loss_tokens": ours["loss_tokens"] == theirs["loss_tokens"],
    }


def shapes(options: argparse.Namespace) -> list[tuple[int, int]]:
    """The catalogue lengths and batch sizes that were asked for."""
    found = GRID if options.grid else [MAIN]
    if options.only is not None:
        found = [shape for shape in found if shape[0] == options.only] or [(options.only, MAIN[1])]
    return found


def show(case: dict[str, Any], other: str) -> None:
    """Print one shape's figures as text."""
    ours, theirs = case["ours"], case[other]
    sizes = f"catalogue {case['catalogue_tokens']} tokens, suffixes {case['suffix_tokens']:.1f}, batch {case['batch']}"
    print(f"{sizes}\n  {'':32} {'ours':>12} {other:>10} {'ratio':>7}")
    limit = f"   tokens alone allow {case['arithmetic_limit']:.2f}"
    lines = (
        ("rows a second", "rows_per_second", limit),
        ("loss tokens a second", "loss_tokens_per_second", ""),
        ("CPU seconds a step", "cpu_seconds_per_step", ""),
        ("peak memory, MLX's count, GB", "peak_memory_gb", ""),
        ("peak memory, resident, GB", "peak_rss_gb", ""),
        ("f32 products, GFLOP/s", "gflops", ""),
    )
    for title, name, note in lines:
        if ours[name] is not None and theirs[name] is not None:
            print(f"  {title:32} {ours[name]:12.2f} {theirs[name]:10.2f} {ours[name] / theirs[name]:7.2f}{note}")
    for step in sorted({0, len(ours["losses"]) // 2, len(ours["losses"]) - 1}):
        print(f"  {f'loss of step {step + 1}':32} {ours['losses'][step]:12.5f} {theirs['losses'][step]:10.5f}")
    print(f"  losses of all {len(ours['losses'])} steps differ by at most {case['max_loss_difference']:.1e}")
    if "max_gradient_difference" in case:
        largest = f"the largest gradient is {case['largest_gradient']:.1e}"
        print(f"  gradients differ from mlx-lm's by at most {case['max_gradient_difference']:.1e}; {largest}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="base model")
    parser.add_argument("--grid", action="store_true", help="also other catalogues and batches")
    parser.add_argument("--only", type=int, metavar="TOKENS", help="only shapes with a catalogue of this length")
    parser.add_argument("--suffix", type=int, default=SUFFIX, help="tokens of request and answer together")
    parser.add_argument("--steps", type=int, help="measured steps of each side")
    parser.add_argument("--warm-up", type=int, help="steps before those")
    parser.add_argument("--seconds", type=float, help="no further step of a shape after so many, whatever --steps says")
    parser.add_argument("--with-trl", nargs="?", const=sys.executable, metavar="PYTHON", help="also TRL's SFTTrainer")
    parser.add_argument("--quick", action="store_true", help="three steps after one, fewer on a slow machine")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    options.steps = options.steps or (3 if options.quick else 15)
    options.seconds = options.seconds or (25.0 if options.quick else float("inf"))
    options.warm_up = options.warm_up or (1 if options.quick else 3)
    cases = [measure(options, *shape) for shape in shapes(options)]
    names = ("catalogue_tokens", "rows_per_second_ratio", "peak_memory_ratio", "max_gradient_difference")
    found: dict[str, Any] = {name: cases[0][name] for name in (*names, "arithmetic_limit")}
    found |= {"model": options.model, "cases": cases}
    if options.with_trl:
        found["trl"] = measure_trl(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for case in cases:
        show(case, "mlx_lm")
    if options.with_trl:
        show(found["trl"], "trl")


if __name__ == "__main__":
    main()
