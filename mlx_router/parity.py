"""Whether a model made from a router still decides as the router did: both over the same rows, and what may be lost."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .catalogue import Catalogue
from .comparison import Comparison
from .data import Example, scan
from .manifest import Manifest, Parity
from .metrics import COSTS
from .records import data_record, recorded_requests, request_key

# What decides whether a model may take another one's place. All are shares of all rows.
DECISION: Final = ("exact_match", "tool_name_accuracy", "wrong_call_rate", "false_tool_call_rate")
TOLERANCE: Final = 0.01
# Binary fractions: 0.91 - 0.90 is a hair more than 0.01, and one row of a hundred is no more than one.
HAIR: Final = 1e-9


def judge(found: Comparison, data: str, examples: Sequence[Example], tolerance: float = TOLERANCE) -> Parity:
    """What a manifest keeps of a comparison; it failed where a decision metric lost more than the tolerance."""
    metrics = dict(_metrics(found))
    record = data_record(data, examples)
    problems = [_problem(name, *values) for name, values in metrics.items() if loss(name, *values) > tolerance + HAIR]
    return Parity(
        failed=bool(problems),
        data=record["source"],
        data_hash=record["hash"],
        rows=len(examples),
        changed=len(found.changes),
        tolerance=tolerance,
        metrics=metrics,
        problems=[f"{problem}, by more than {tolerance:g}" for problem in problems],
    )


def _metrics(found: Comparison) -> Iterator[tuple[str, tuple[float, float]]]:
    for name in DECISION:
        before, after = found.metrics[name].a, found.metrics[name].b
        assert before is not None and after is not None, name
        yield name, (before, after)


def loss(name: str, before: float, after: float) -> float:
    """By how much a metric is worse; negative where it is better."""
    return after - before if name in COSTS else before - after


def _problem(name: str, before: float, after: float) -> str:
    return f"{name} {'rose' if after > before else 'fell'} from {before:.4f} to {after:.4f}"


def rows_at_hand(folder: Path, manifest: Manifest, catalogue: Catalogue) -> tuple[Path, list[Example]] | None:
    """The recipe's test rows, else its validation rows, if their file lies beside the folder or in `data` there.

    A recipe travels with the names of its files alone. A test leaves no trace in a manifest, so a file of its name that
    can be read has to do; validation rows have to be those of the run. None where there are neither.
    """
    for split in ("test", "valid"):
        name = manifest.config.get(split)
        if not isinstance(name, str) or not name.endswith((".jsonl", ".jsonl.gz")):
            continue
        for path in (folder.resolve().parent / name, folder.resolve().parent / "data" / name):
            if not path.is_file():
                continue
            examples, errors = scan(path, catalogue)
            if examples and not errors and (split == "test" or _recorded(examples, manifest.data)):
                return path, examples
    return None


def _recorded(examples: Sequence[Example], data: Mapping[str, Any]) -> bool:
    """Whether a manifest knows all of these requests as ones that chose the checkpoint, or calibrated it."""
    known: set[str] = set()
    for split in ("valid", "calibration"):
        known.update(*(recorded_requests(data, split) or {}).values())
    return all(request_key(example.request) in known for example in examples)
