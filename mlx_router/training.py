"""Training an adapter: `mlx_lm.tuner.trainer.train` with our loss, our batches, and our eyes on it."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from . import history
from .allocator import freed_memory_kept
from .calibrating import calibrate_router, summary
from .choosing import METRICS, chosen_by
from .config import TrainConfig
from .errors import TrainingError
from .manifest import FILE, write_manifest
from .model import ADAPTER_CONFIG, WEIGHTS, parameter_counts
from .preparing import Event, Report, Run, loss_of, prepare_run
from .prompts import compact_json
from .ranks import join, own_folder, send_files, together
from .runtime import inspect, order_broadly

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx_lm.tuner.trainer import TrainingArgs, train as mlx_lm_train  # isort: skip

from .checkpoints import (  # isort: skip
    FOLDER as CHECKPOINTS,
    Progress,
    finish,
    is_unfinished,
    load_newest,
    states,
    write_recipe,
)
from .optimizer import ClippedAdamW  # isort: skip
from .watching import OutOfPatience, Watch, draw  # isort: skip


def train(config: TrainConfig, report: Report, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Train an adapter and return its folder, which is whole once this returns.

    `report` gets one event a dict: "note", "start", "progress", "valid", "checkpoint", "interrupted", "stopped",
    "plot", "calibration", "done". Raises a `RouterError` for everything that would otherwise go wrong in silence.

    `resume` goes on with the run that the folder holds, from its newest whole checkpoint, and ends with the weights
    that the run would have had, to the bit on a CPU. Ctrl-C saves, then raises `KeyboardInterrupt`; pressed twice, it
    does so at once.

    Started by `mlx.launch`, each rank takes its share of every batch; only the first writes to the folder and reports.
    """
    if not config.grad_checkpoint:
        order_broadly()
    folder, ranks = Path(config.adapter).expanduser(), join()
    with freed_memory_kept(), together(ranks), own_folder(ranks, folder) as place:
        if ranks.first and not resume:
            _claim(folder, overwrite)
        if resume:
            send_files(ranks, place / CHECKPOINTS)
        run = prepare_run(config, place, _heard(report) if ranks.first else _unheard, ranks)
        ranks.agree({"recipe, rows and base": run.identity, **_versions(run)})
        watch = _fit(run, resume)
        if watch.update < run.updates:
            waited = {"update": watch.update, "updates": run.updates, "validations": watch.done.stale}
            run.report({"event": "stopped", **waited})
        _finish(run, watch)
        ranks.wait()
    return folder


def _unheard(event: Event) -> None:
    """The report of a rank that does not speak."""


def _heard(report: Report) -> Report:
    """The report with stdout as it is now: the trainer's is taken away, a report's own prints are not."""
    stdout = sys.stdout

    def heard(event: Event) -> None:
        with redirect_stdout(stdout):
            report(event)

    return heard


def _claim(folder: Path, overwrite: bool) -> None:
    if (folder / FILE).exists() and not overwrite:
        raise TrainingError(
            f"{folder} already holds a finished adapter", hint="give another --adapter, or --overwrite to replace it"
        )
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is no folder")
    if is_unfinished(folder) and states(folder) and not overwrite:
        raise TrainingError(
            f"{folder} holds a run that did not end",
            hint=f"go on with: mlx-router train --resume {folder}; or begin anew with --overwrite",
        )


def _versions(run: Run) -> dict[str, str]:
    """What has to be the same on all machines of a run."""
    if run.ranks.size == 1:
        return {}
    return {name: version for name, version in inspect().versions.items() if name.startswith("mlx")}


def _fit(run: Run, resume: bool) -> Watch:
    config, optimizer = run.config, ClippedAdamW(run.config, run.updates)
    progress = _resumed(run, optimizer) if resume else Progress()
    watch = Watch(run, optimizer, progress)
    trainable, parameters = parameter_counts(run.model.network)
    run.report(
        {
            "event": "start",
            "rows": len(run.plan),
            "tools": len(run.catalogue),
            "updates": run.updates,
            "epochs": run.epochs,
            "first_update": progress.update + 1,
            "trainable_parameters": trainable,
            "parameters": parameters,
            "dtype": run.model.dtype,
            "shared_prefix": any(row.prefix for row in run.plan.rows),
        }
    )
    if not resume:
        if run.folder.exists():
            # From here on the folder holds no finished adapter until the manifest is written again.
            (run.folder / FILE).unlink(missing_ok=True)
            shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)
            (run.folder / history.PLOT).unlink(missing_ok=True)
        write_recipe(run.folder, config)
    history.cut(run.folder, progress.update)
    left = run.updates - progress.update
    if left == 0 or watch.out_of_patience:
        return watch
    arguments = TrainingArgs(
        batch_size=config.batch_size,
        iters=left * config.gradient_accumulation_steps,
        steps_per_report=1,
        steps_per_save=2**62,
        adapter_file=str(run.folder / CHECKPOINTS / "last.safetensors"),
        grad_accumulation_steps=config.gradient_accumulation_steps,
        clear_cache_threshold=2**31,
    )
    mx.reset_peak_memory()
    # The trainer draws its own progress on stdout, which belongs to our caller.
    with (
        suppress(OutOfPatience),
        _interruptible(watch),
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
    ):
        mlx_lm_train(
            model=run.model.network,
            optimizer=optimizer,
            train_dataset=run.plan,
            args=arguments,
            loss=loss_of(config),
            iterate_batches=lambda **_: watch.micro_batches(),
            training_callback=watch,
        )
    return watch


def _resumed(run: Run, optimizer: ClippedAdamW) -> Progress:
    """How far the run in the folder was, its state put in place."""

    def note(message: str) -> None:
        run.report({"event": "note", "message": message})

    network = run.model.network
    found = load_newest(run.folder, run.identity, network, optimizer, lambda problem: note(f"not used: {problem}"))
    if found is None:
        note("no checkpoint was written yet: beginning at the first update")
    return found or Progress()


@contextmanager
def _interruptible(watch: Watch) -> Iterator[None]:
    """Let the first Ctrl-C end the run after the update under way, saved; the second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        watch.interrupted = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _finish(run: Run, watch: Watch) -> None:
    """Put the best checkpoint's weights in place and write the manifest, last."""
    name = watch.done.best or watch.done.last
    assert name is not None
    chosen = run.folder / CHECKPOINTS / name
    aside = run.folder / f"{WEIGHTS}.part"
    shutil.copyfile(chosen, aside)
    aside.replace(run.folder / WEIGHTS)
    (run.folder / CHECKPOINTS / "last.safetensors").unlink(missing_ok=True)
    (run.folder / ADAPTER_CONFIG).write_text(compact_json(run.adapter_config) + "\n", encoding="utf-8")
    metrics = {**_choice(run, watch.done), "checkpoint": chosen.name}
    calibration = _calibrate(run, chosen)
    write_manifest(run.folder, run.manifest.model_copy(update={"metrics": metrics, "calibration": calibration}))
    finish(run.folder)
    if (plot := draw(run)) is not None:
        run.report({"event": "plot", "file": str(plot)})
    elapsed = time.perf_counter() - watch.started
    run.report({"event": "done", "adapter": str(run.folder), "elapsed_s": elapsed, **metrics})


def _choice(run: Run, done: Progress) -> dict[str, Any]:
    """What chose the weights that are kept, and what it said of them."""
    if done.best is None:
        return {"valid_loss": None}
    routed = {name: done.figures.get(name) for name in METRICS}
    known = {} if routed["exact_match"] is None else {"valid_rows": len(run.sample), **routed}
    return {"valid_loss": done.figures["loss"], "best_by": chosen_by(run.config.best_by, len(run.sample)), **known}


def _calibrate(run: Run, weights: Path) -> dict[str, Any] | None:
    """Calibrate the router that these weights make, by the validation rows that did not choose them.

    None, and a note of what is missing, where there are too few.
    """
    rows = run.validation
    if rows.problem is None:
        count = len(rows.choosing) + len(rows.calibrating)
        run.report({"event": "note", "message": f"calibrating: routing {count} validation rows"})
        run.model.network.load_weights(str(weights), strict=False)
        run.model.network.eval()
    split = (
        f"validation halved: {len(rows.choosing)} rows chose the checkpoint and weighed the evidence, "
        f"{len(rows.calibrating)} calibrated"
    )
    split += f"; {len(rows.trained_on)} were trained on too and only chose" if rows.trained_on else ""
    found = calibrate_router(run.router(), rows, split=split, policy=run.config.policy, ranks=run.ranks)
    if isinstance(found, str):
        lost = ", so every call is to be confirmed" if run.config.policy is not None else ""
        run.report({"event": "note", "message": f"not calibrated{lost}: {found}"})
        return None
    kept = found.model_dump(mode="json")
    told = {name: kept[name] for name in ("rows", "chose", "split", "figures", "policy")}
    run.report({"event": "calibration", "message": summary(found), "method": found.curve.kind, **told})
    return kept
