"""One optimizer update of a recipe: our loss against the same loss written plainly, with mlx-lm's own modules.

    python benchmarks/update.py --config configs/desktop.yaml

Both sides take the same batches in turn and share the catalogue's prefix. It counts CPU seconds, which a busy machine
does not stretch, and those of the busiest thread, which is what an update takes on idle cores at best (Linux only).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mlx_router.attention import PrefixCache, SharedPrefixCache
from mlx_router.config import load_config
from mlx_router.loss import answer_loss, arrays
from mlx_router.optimizer import ClippedAdamW
from mlx_router.training import Run, prepare_run

import mlx.core as mx  # isort: skip
import mlx.nn as nn  # isort: skip
from mlx.utils import tree_flatten  # isort: skip


def plain_loss(network: Any, prefix: Any, suffix: Any, lengths: Any, _: Any, weights: Any) -> Any:
    """The keys and values of the prefix copied for every row, the head on every position."""
    before = [PrefixCache() for _ in network.layers]
    network(prefix[None], cache=before)
    cache = [SharedPrefixCache(layer) for layer in before]
    logits = network(suffix[:, :-1], cache=cache).astype(mx.float32)
    targets = suffix[:, 1:]
    positions = mx.arange(1, targets.shape[1] + 1)
    mask = mx.logical_and(positions >= lengths[:, :1], positions < lengths[:, 1:2])
    weight = mx.where(positions < lengths[:, 2:], weights[0], weights[1])
    return (nn.losses.cross_entropy(logits, targets) * weight * mask).sum(), mask.sum()


def updater(run: Run, loss: Callable[..., Any]) -> Callable[[tuple[mx.array, ...]], Any]:
    """A compiled update of the run's network, as mlx-lm's trainer makes it."""
    network, optimizer = run.model.network, ClippedAdamW(run.config, 10_000)
    value_and_grad = nn.value_and_grad(network, loss)
    state = [network.state, optimizer.state, mx.random.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(batch: tuple[mx.array, ...]) -> Any:
        (value, _), gradients = value_and_grad(network, *batch)
        optimizer.update(network, gradients)
        return value

    def update(batch: tuple[mx.array, ...]) -> Any:
        value = step(batch)
        mx.eval(value, state)
        return value

    return update


def thread_seconds() -> dict[str, float]:
    """CPU seconds of every thread; empty where the system does not tell."""
    found = {}
    for task in Path("/proc/self/task").glob("*"):
        try:
            found[task.name] = int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
        except FileNotFoundError:
            continue  # a thread that has just ended
    return found


def timed(update: Callable[[Any], Any], batch: Any) -> tuple[float, float | None]:
    """CPU seconds of one update, and those of the busiest thread."""
    threads, start = thread_seconds(), time.process_time()
    update(batch)
    seconds = time.process_time() - start
    spent = [value - threads.get(name, 0.0) for name, value in thread_seconds().items()]
    return seconds, max(spent, default=None)


def measure(run: Run, updates: int) -> dict[str, Any]:
    """Time both sides on one batch of middling size, in turn."""
    batches = sorted((batch for group in run.plan.epoch(0) for batch in group), key=lambda batch: batch.suffix.size)
    batch = batches[len(batches) // 2]
    given = arrays(batch, 1.0 / batch.answer_tokens, run.config.name_weight)
    sides = {"ours": answer_loss, "plain": plain_loss}
    network = run.model.network
    gradients = {name: nn.value_and_grad(network, loss)(network, *given)[1] for name, loss in sides.items()}
    pairs = [(left, right) for (_, left), (_, right) in zip(*map(tree_flatten, gradients.values()), strict=True)]
    difference = max(float(mx.abs(left - right).max()) for left, right in pairs)
    largest = max(float(mx.abs(right).max()) for _, right in pairs)
    steps = {name: updater(run, loss) for name, loss in sides.items()}
    for step in steps.values():
        step(given)  # compiles
    times = {name: [] for name in sides}
    for _ in range(updates):
        for name, step in steps.items():
            times[name].append(timed(step, given))
    found: dict[str, Any] = {
        "prefix_tokens": int(batch.prefix.size),
        "suffix_shape": list(batch.suffix.shape),
        "answer_tokens": batch.answer_tokens,
        "max_gradient_difference": difference / largest,
    }
    for name, pairs_of in times.items():
        found[f"cpu_seconds_{name}"] = statistics.median(seconds for seconds, _ in pairs_of)
        busiest = [thread for _, thread in pairs_of if thread is not None]
        found[f"busiest_thread_seconds_{name}"] = statistics.median(busiest) if busiest else None
    found["cpu_ratio"] = found["cpu_seconds_plain"] / found["cpu_seconds_ours"]
    return found


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a recipe with one catalogue")
    parser.add_argument("--model", help="another base than the recipe's")
    parser.add_argument("--updates", type=int, default=10, help="updates of each side")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    overrides = {"valid": None, "lora_dropout": 0.0} | ({"model": given.model} if given.model else {})
    with tempfile.TemporaryDirectory() as folder:
        run = prepare_run(load_config(given.config, overrides), Path(folder), lambda event: None)
    found = measure(run, given.updates)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:30} {value:.3g}" if isinstance(value, float) else f"{name:30} {value}")


if __name__ == "__main__":
    main()
