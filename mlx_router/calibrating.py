"""Calibrating a router: which rows may, at the end of a training run or later, and what is then kept in its folder."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .calibration import calls_missing, fit, gold_calls, halve, observe
from .calls import Mode
from .certainty import CALLS_NEEDED, FEATURES, WEIGHTS, Calibration, Certainty, read_calibration
from .data import Example, read
from .errors import DataError, ModelError, UsageError
from .evaluation import evaluate
from .leaks import find_leaks, shorten
from .manifest import Manifest, read_manifest, write_manifest
from .policy import Policy, as_policy, smallest_rate
from .ranks import ALONE, Ranks
from .records import data_record, request_key
from .rendering import rate
from .router import Router


@dataclass(frozen=True)
class Rows:
    """Validation rows by what they may do: choose the checkpoint and weigh the evidence, or calibrate.

    Rows that were `trained_on` too, with whatever catalogue, may choose; a router is far surer on them than on others.
    """

    choosing: Sequence[Example]
    calibrating: Sequence[Example]
    problem: str | None = None
    trained_on: Sequence[Example] = ()


def split_validation(examples: Sequence[Example], training: Sequence[Example] = ()) -> Rows:
    """The halves of a validation split; all of it chooses where a half would be too small to calibrate with."""
    known = {request_key(example.request) for example in training}
    seen = [example for example in examples if request_key(example.request) in known]
    new = [example for example in examples if request_key(example.request) not in known]
    found = gold_calls(new)
    if found < 2 * CALLS_NEEDED:
        missing = 2 * CALLS_NEEDED - found
        rows = f"{len(examples)} validation rows have {found} calls" if examples else "there are no validation rows"
        rows += f" that were not trained on ({len(seen)} rows were)" if seen else ""
        problem = f"{rows}; {missing} more calls are missing (half of the rows choose the checkpoint)"
        return Rows(new, [], problem, seen)
    return Rows(*halve(new), trained_on=seen)


def check_promise(policy: Policy, rows: Rows) -> None:
    """Raise `UsageError` where a recipe promises more than its validation rows can prove."""
    n = len(rows.calibrating)
    if policy.allowed(n) >= 0:
        return
    total = n + len(rows.choosing) + len(rows.trained_on)
    known = f", and {len(rows.trained_on)} were trained on" if rows.trained_on else ""
    why = rows.problem or f"of {total} rows {n} can calibrate, the others choose the checkpoint{known}"
    least = f"promise {lowest_promise(n, policy.level):g}, or " if n else ""
    raise UsageError(
        f"a policy of {policy.words}, takes {2 * policy.rows_needed} validation rows or more: {why}",
        hint=f"{least}leave the policy out and calibrate later by other rows: mlx-router calibrate",
    )


def lowest_promise(rows: int, level: float) -> float:
    """The lowest rate that so many rows can promise, rounded up to four digits."""
    return math.ceil(smallest_rate(rows, level) * 1e4) / 1e4


def calibrate_router(
    router: Router,
    rows: Rows,
    *,
    split: str,
    weights: Sequence[float] = WEIGHTS,
    mode: Mode = "greedy",
    policy: Policy | None = None,
    progress: Callable[[int], None] | None = None,
    ranks: Ranks = ALONE,
) -> Calibration | str:
    """Route the rows and fit; or say what is missing, in words. `progress` is called with the number of rows done."""
    if rows.problem is not None:
        return rows.problem
    scored = evaluate(router, [*rows.choosing, *rows.calibrating], progress, mode=mode, alone=0, ranks=ranks)
    observed = observe(scored)
    ordering, calibrating = observed[: len(rows.choosing)], observed[len(rows.choosing) :]
    if missing := calls_missing(calibrating):
        return (
            f"{len(calibrating)} rows gave {CALLS_NEEDED - missing} valid calls with known scores; "
            f"{missing} more are missing"
        )
    return fit(calibrating, ordering, weights=weights, split=split, mode=mode, policy=policy)


@dataclass(frozen=True)
class Calibrated:
    """A calibration as it was written to a folder, and what its user has to know of it."""

    calibration: Calibration
    notes: tuple[str, ...]


def calibrate_folder(
    folder: Path,
    source: str,
    *,
    policy: Policy | Mapping[str, Any] | None = None,
    mode: Mode = "greedy",
    base: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Calibrate the adapter or fused model in a folder by rows that it has not seen, and keep that in its manifest.

    Rows of `source` that chose the checkpoint weigh the evidence and no more. Without a `policy` the folder keeps its
    own. Calls in another `mode` than this are to be confirmed later. `progress` is called with the rows done and all
    rows. Raises `DataError` for rows that were trained on, and for too few; `UsageError` for a policy that takes more.
    """
    manifest = read_manifest(folder)
    wanted = as_policy(policy) or _own_policy(manifest)
    examples = read(source, manifest.read_catalogue())
    rows, notes = _usable(examples, manifest, folder)
    if wanted is not None and wanted.allowed(len(rows.calibrating)) < 0:
        n = len(rows.calibrating)
        raise UsageError(
            f"a promise of {wanted.words}, takes {wanted.rows_needed} rows that calibrate or more; there are {n}",
            hint=f"give more rows, or promise {lowest_promise(n, wanted.level):g}" if n else "give more rows",
        )
    router = Router.load(folder, base=base, calibrated=False)
    routed = len(rows.choosing) + len(rows.calibrating)
    done = None if progress is None else lambda number: progress(number, routed)
    split = f"{len(rows.calibrating)} rows of their own calibrated"
    if rows.choosing:
        split += f"; {len(rows.choosing)} others, which chose the checkpoint, weighed the evidence"
    weights = WEIGHTS if rows.choosing else _own_weights(manifest, mode)
    found = calibrate_router(router, rows, split=split, weights=weights, mode=mode, policy=wanted, progress=done)
    if isinstance(found, str):
        raise DataError(f"{source} is too small to calibrate by: {found}", hint="give more rows that want a call")
    data = manifest.data | {"calibration": data_record(source, rows.calibrating)}
    kept = manifest.model_copy(update={"data": data, "calibration": found.model_dump(mode="json")})
    write_manifest(folder, kept)
    return Calibrated(found, notes)


def _usable(examples: Sequence[Example], manifest: Manifest, folder: Path) -> tuple[Rows, tuple[str, ...]]:
    """The rows by what they may do, and notes."""
    leaks = find_leaks(examples, {split: manifest.data.get(split) for split in ("train", "valid")})
    if leaks.train:
        lines = shorten([line for line in leaks.lines if line.endswith("was trained on")])
        raise DataError(
            "rows that were trained on can't calibrate:\n" + "\n".join(f"  {line}" for line in lines),
            hint="take them out: a router is far surer, and more often right, on rows that it has learnt",
        )
    taken = {example.where for example in (*leaks.valid, *leaks.other_catalogue)}
    calibrating = [example for example in examples if example.where not in taken]
    if not calibrating:
        raise DataError(
            f"all {len(examples)} rows chose the checkpoint of {folder}, or were trained on with another catalogue, "
            "and can't calibrate it",
            hint="give other rows; training keeps half of its validation rows for this from now on",
        )
    notes = []
    if leaks.valid:
        notes.append(f"{len(leaks.valid)} of {len(examples)} rows chose the checkpoint: they do not calibrate")
    if leaks.other_catalogue:
        notes.append(f"{len(leaks.other_catalogue)} rows were seen in training with another catalogue: left out")
    if not leaks.checked:
        notes.append("nothing says what was trained on: see to it that none of these rows was")
    return Rows(list(leaks.valid), calibrating), tuple(notes)


def _own_policy(manifest: Manifest) -> Policy | None:
    """The policy that the folder has, or was to have by its recipe."""
    kept = manifest.calibration or manifest.config
    return as_policy(kept.get("policy"))


def _own_weights(manifest: Manifest, mode: Mode) -> Sequence[float]:
    """The weights that rows gave which chose the checkpoint, in this mode; where there are none, what is assumed."""
    if manifest.calibration is None:
        return WEIGHTS
    try:
        kept = read_calibration(manifest.calibration)
    except ModelError:
        # It is about to be replaced.
        return WEIGHTS
    return tuple(kept.weights[name] for name in FEATURES) if kept.mode == mode else WEIGHTS


def summary(found: Calibration) -> str:
    """A calibration in a few lines: by which rows, how good it is, and what can be promised."""
    right, wrong = len(found.right), len(found.wrong)
    ece, chance, brier, auroc = (
        rate(found.figures[name]["value"]) for name in ("ece", "ece_if_calibrated", "brier", "auroc")
    )
    lines = [
        f"calibrated ({found.split}): {right + wrong} valid calls, {wrong} wrong",
        f"  {found.curve.kind}, cross-validated: ECE {ece} ({chance} by chance alone), Brier {brier}, AUROC {auroc}",
    ]
    if found.policy is None:
        least = lowest_promise(found.rows, Policy.model_fields["level"].default)
        return "\n".join([*lines, f"  no policy; {found.rows} rows can promise a wrong_call_rate of {least:g} or more"])
    certainty = Certainty(found, found.policy)
    acted = [sum(certainty.action(score) == "act" for score in scores) for scores in (found.right, found.wrong)]
    lines.append(
        f"  {found.policy.words}: acts on {acted[0]} of {right} right calls and on {acted[1]} of {wrong} wrong ones"
    )
    return "\n".join(lines)
