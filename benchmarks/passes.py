"""Drafted against plain greedy decoding with the same weights and prompts: differences, forward passes, time.

    python benchmarks/passes.py adapters/support-demo data/support/test.jsonl

Both sides answer every request in turn, so that a machine that changes its speed changes it for both.
"""

import argparse
import json
import statistics

from mlx_router.data import read
from mlx_router.decoder import GreedyDecoder
from mlx_router.router import Router


def measure(folder: str, data: str, limit: int | None) -> dict[str, float | int]:
    """Route every request both ways and compare."""
    drafted = Router.load(folder)
    assert isinstance(drafted.decoder, GreedyDecoder)
    plain = Router(
        GreedyDecoder(drafted.decoder.model, draft_length=0),
        drafted.catalogue,
        style=drafted.style,
        system=drafted.system,
        max_tokens=drafted.max_tokens,
        manifest=drafted.manifest,
    )
    examples = read(data, drafted.catalogue)[:limit]
    for router in (drafted, plain):
        router.route_example(examples[0])  # the catalogue's prefill is paid once a process
    pairs = [(drafted.route_example(example), plain.route_example(example)) for example in examples]
    timings = [(one.timings, other.timings) for one, other in pairs if one.timings and other.timings]
    ratios = [other.total_ms / one.total_ms for one, other in timings]
    return {
        "requests": len(pairs),
        "differences_from_plain_greedy": sum(one.raw != other.raw for one, other in pairs),
        "passes_per_call_median": statistics.median(one.forward_passes for one, _ in timings),
        "passes_per_call_median_plain": statistics.median(other.forward_passes for _, other in timings),
        "p50_ms": statistics.median(one.total_ms for one, _ in timings),
        "p50_ms_plain": statistics.median(other.total_ms for _, other in timings),
        "speedup_median": statistics.median(ratios),
    }


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description="Drafted against plain greedy decoding.")
    parser.add_argument("folder", help="adapter folder or fused model")
    parser.add_argument("data", help="test rows")
    parser.add_argument("--limit", type=int, help="only the first rows")
    parser.add_argument("--quick", action="store_true", help="the first 50 rows")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure(options.folder, options.data, 50 if options.quick else options.limit)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:32} {value:.1f}" if isinstance(value, float) else f"{name:32} {value}")


if __name__ == "__main__":
    main()
