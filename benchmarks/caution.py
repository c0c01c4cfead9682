"""What each way of teaching caution does to wrong and false calls, on the validation rows of a data folder.

    python benchmarks/caution.py data/desktop --out RUNS --config configs/desktop.yaml
    python benchmarks/caution.py data/desktop --out RUNS --only none,remove_tools --seeds 3 --stress 100
    python benchmarks/caution.py data/desktop --out RUNS --only none,half --option half no_tool_share=0.5

Trains an adapter per option and seed on the folder's train split, one process after the other, and routes its
validation rows; the test split is never read. Every run keeps its last weights, so the rows that are measured chose
nothing. What is done already is not done again, and a training run that was stopped goes on. `--stress N` routes the
harder tests made from N of these rows, too. RUNS keeps the answers (NAME-SEED.jsonl), for `mlx-router compare`.

Prints a Markdown table: means over the seeds, with Wilson's 95 % interval at one run's number of rows, and the range of
the seeds where there are several.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_router.metrics import wilson
from mlx_router.splits import find

# Options by name: the fields of the recipe that they set.
OPTIONS: dict[str, dict[str, str]] = {
    "none": {},
    "no_tool_share": {"no_tool_share": "0.3"},
    "shuffle_tools": {"shuffle_tools": "0.5"},
    "add_tools": {"add_tools": "0.5"},
    "rename_tools": {"rename_tools": "0.5"},
    "remove_tools": {"remove_tools": "0.1"},
}
OPTIONS["all"] = {field: value for fields in OPTIONS.values() for field, value in fields.items()}
# Columns: heading, metric, and the harder test that it is taken from.
COLUMNS: tuple[tuple[str, str, str | None], ...] = (
    ("wrong calls", "wrong_call_rate", None),
    ("false calls of `no_tool` rows", "false_call_rate_on_no_tool", None),
    ("missed calls", "missed_call_rate", None),
    ("exact", "exact_match", None),
    ("tool", "tool_name_accuracy", None),
    ("wrong calls, tool removed", "wrong_call_rate", "tool removed"),
    ("wrong calls, negated", "wrong_call_rate", "negated"),
    ("exact, tools renamed", "exact_match", "tools renamed"),
    ("exact, tools added", "exact_match", "tools added"),
)


@dataclass(frozen=True)
class Bench:
    """One option and seed: where its files are, and how they are made."""

    name: str
    seed: int
    fields: dict[str, str]
    out: Path

    def path(self, ending: str) -> Path:
        return self.out / f"{self.name}-{self.seed}{ending}"

    def train(self, config: str | None, rows: str) -> None:
        """Train the adapter, or go on with it, unless it is finished."""
        adapter = self.path("")
        wanted = [*(("--config", config) if config else ()), "--train", rows, "--seed", str(self.seed)]
        wanted += ["--valid", "null", "--test", "null"]
        for field, value in self.fields.items():
            wanted += [f"--{field.replace('_', '-')}", value]
        self._keep(wanted)
        if (adapter / "router.json").is_file():
            return
        if any(adapter.glob("checkpoints/state-*.safetensors")):
            command("train", "--resume", str(adapter))
        else:
            command("train", *wanted, "--adapter", str(adapter), "--overwrite")

    def _keep(self, wanted: list[str]) -> None:
        """Write down how the run is made; refuse one that was made otherwise."""
        path = self.path(".command.json")
        if not path.is_file():
            path.write_text(json.dumps(wanted), encoding="utf-8")
        elif json.loads(path.read_text(encoding="utf-8")) != wanted:
            raise SystemExit(f"{path} says that this run was made with other settings: give another --out")

    def measure(self, rows: str) -> dict[str, Any]:
        """Every metric on the rows, routed unless that was done."""
        # A row that stands in both splits counts for all options alike.
        given = ("--data", rows, "--allow-leaks", "--out", str(self.path(".jsonl")))
        return self._once(".eval.json", "eval", str(self.path("")), *given)

    def stress(self, rows: str, limit: int) -> dict[str, Any]:
        """The harder tests made from the first rows."""
        given = ("--data", rows, "--limit", str(limit))
        return self._once(f".stress-{limit}.json", "stress", str(self.path("")), *given)

    def _once(self, ending: str, *arguments: str) -> dict[str, Any]:
        path = self.path(ending)
        if not path.is_file():
            text = command(*arguments, "--json")
            aside = path.with_suffix(".part")
            aside.write_text(text, encoding="utf-8")
            aside.replace(path)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def command(*arguments: str) -> str:
    """What `mlx-router` prints on stdout, in a process of its own; its stderr is shown."""
    program = [sys.executable, "-c", "from mlx_router.cli import main; main()", *arguments]
    print(f"mlx-router {' '.join(arguments)}", file=sys.stderr, flush=True)
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    # 1 says that rows were trained on.
    if done.returncode not in (0, 1) or (arguments[0] == "train" and done.returncode):
        raise SystemExit(f"mlx-router {arguments[0]} failed with exit code {done.returncode}")
    return done.stdout


def cell(metrics: Sequence[dict[str, Any]]) -> str:
    """Mean, interval and range of one metric over the seeds."""
    values = [metric["value"] for metric in metrics if metric["value"] is not None]
    if not values:
        return "not measured"
    mean, n = sum(values) / len(values), metrics[0]["n"]
    interval = wilson(round(mean * n), n)
    assert interval is not None
    text = f"{mean:.3f} ({interval[0]:.3f}–{interval[1]:.3f})"
    return f"{text} [{min(values):.3f}–{max(values):.3f}]" if len(values) > 1 else text


def table(found: dict[str, list[dict[str, dict[str, Any]]]]) -> str:
    """A line an option; `found` has the metrics of each seed by test, "" for the rows themselves."""
    tests = {test for seeds in found.values() for one in seeds for test in one}
    columns = [column for column in COLUMNS if (column[2] or "") in tests]
    lines = [["option", *(heading for heading, _, _ in columns)], ["---"] * (1 + len(columns))]
    for name, seeds in found.items():
        metrics = ([one[test or ""][metric] for one in seeds] for _, metric, test in columns)
        lines.append([f"`{name}`", *map(cell, metrics)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sources(folder: str) -> tuple[str, str]:
    """The train and the validation rows of a data folder."""
    found = {source.split: source.path for source in find([folder])[0]}
    if not {"train", "valid"} <= found.keys():
        raise SystemExit(f"{folder} needs a train and a validation split; it has {', '.join(found) or 'none'}")
    return found["train"], found["valid"]


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with train and valid as .jsonl or .jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder for adapters, answers and figures")
    parser.add_argument("--config", help="recipe for all that is not set here")
    parser.add_argument("--only", help="these options, separated by commas")
    parser.add_argument("--option", nargs="+", action="append", default=[], metavar="NAME FIELD=VALUE", help="one more")
    parser.add_argument("--seeds", type=int, default=1, help="runs an option")
    parser.add_argument("--stress", type=int, default=0, metavar="N", help="harder tests from the first N rows")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    options = dict(OPTIONS)
    for name, *fields in given.option:
        options[name] = dict(field.split("=", 1) for field in fields)
    chosen = given.only.split(",") if given.only else list(options)
    if unknown := [name for name in chosen if name not in options]:
        raise SystemExit(f"there is no option {', '.join(unknown)}; there are {', '.join(options)}")
    train, valid = sources(given.data)
    given.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, dict[str, Any]]]] = {}
    for name in chosen:
        for seed in range(given.seeds):
            bench = Bench(name, seed, options[name], given.out)
            bench.train(given.config, train)
            metrics = {"": bench.measure(valid)["metrics"]}
            if given.stress:
                slices = bench.stress(valid, given.stress)["slices"]
                metrics |= {test: one["metrics"] for test, one in slices.items()}
            found.setdefault(name, []).append(metrics)
    print(json.dumps(found) if given.json else table(found))


if __name__ == "__main__":
    main()
