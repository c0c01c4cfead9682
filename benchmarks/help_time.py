"""How long `mlx-router --help` takes, held against a bare `import click`.

    python benchmarks/help_time.py
    python benchmarks/help_time.py --json --quick

Prints the median of several processes each, and their ratio, which should stay under 2.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

PROGRAMS = {
    "python_ms": ["-c", "pass"],
    "import_click_ms": ["-c", "import click"],
    "help_ms": ["-c", "from mlx_router.cli import main; main()", "--help"],
}


def seconds(arguments: Sequence[str]) -> float:
    """How long a fresh Python takes for this, in seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(runs: int) -> dict[str, float]:
    """Medians in milliseconds, the programs in turn, so that a busy minute falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for arguments in PROGRAMS.values():
        # The first start compiles what has changed, and is not counted.
        seconds(arguments)
    for _ in range(runs):
        for name, arguments in PROGRAMS.items():
            times[name].append(1e3 * seconds(arguments))
    found = {name: statistics.median(values) for name, values in times.items()}
    return {**found, "runs": runs, "help_over_import_click": found["help_ms"] / found["import_click_ms"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="11 runs instead of 41")
    options = parser.parse_args()
    found = measure(11 if options.quick else 41)
    if options.json:
        print(json.dumps(found))
        return
    for name in PROGRAMS:
        print(f"{name.removesuffix('_ms').replace('_', ' '):14}{found[name]:8.1f} ms")
    print(f"help takes {found['help_over_import_click']:.2f} times a bare import of click (median of {found['runs']})")


if __name__ == "__main__":
    main()
