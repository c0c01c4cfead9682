"""Training an adapter: `mlx_lm.tuner.trainer.train` with our loss, our batches, and our eyes on it."""

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from .batches import Batch, Plan, TokenRow, make_batch, token_rows
from .calibrating import Rows, calibrate_router, check_promise, split_validation, summary
from .catalogue import Catalogue, union
from .caution import distractor_record, repeated, varying
from .config import PATHS, TrainConfig
from .data import Example, read
from .errors import CatalogueError, TrainingError
from .interop import load_catalogue
from .manifest import FILE, Manifest, write_manifest
from .model import ADAPTER_CONFIG, WEIGHTS, Model, load_base, parameter_counts
from .prompts import compact_json
from .records import data_record
from .router import Router
from .runtime import inspect
from .tuning import make_trainable

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx.utils import tree_flatten  # isort: skip
from mlx_lm.tuner.callbacks import TrainingCallback  # isort: skip
from mlx_lm.tuner.trainer import TrainingArgs, train as mlx_lm_train  # isort: skip

from .checkpoints import (  # isort: skip
    FOLDER as CHECKPOINTS,
    Progress,
    finish,
    is_unfinished,
    load_newest,
    run_identity,
    save_state,
    states,
    write_recipe,
)
from .decoder import GreedyDecoder  # isort: skip
from .optimizer import ClippedAdamW  # isort: skip
from .loss import answer_loss, arrays, mean_loss, shared_prefix_problem  # isort: skip

CHECK_ROWS = 2
# What `epochs: auto` aims at: small data are seen more often, large ones at least twice.
AUTO_UPDATES = 600
AUTO_EPOCHS = (2, 20)

Event: TypeAlias = dict[str, Any]
Report: TypeAlias = Callable[[Event], None]


@dataclass
class Run:
    """What a run works on: the model with what is trainable, the plan of its batches, the folder it writes."""

    config: TrainConfig
    model: Model
    catalogue: Catalogue
    adapter_config: dict[str, Any]
    plan: Plan
    valid: list[Batch]
    folder: Path
    report: Report
    data: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    validation: Rows = field(default_factory=lambda: Rows([], []))

    @property
    def identity(self) -> str:
        """A hash of what decides the weights that the run ends with."""
        return run_identity(self.config, self.data, self.model.base.model_dump(exclude={"name", "revision"}))

    @property
    def updates(self) -> int:
        """Optimizer updates of the whole run."""
        wanted = self.plan.updates_per_epoch * self.epochs
        return min(wanted, self.config.max_updates or wanted)

    @property
    def epochs(self) -> int:
        """Passes over the training rows."""
        if self.config.epochs != "auto":
            return self.config.epochs
        return min(max(round(AUTO_UPDATES / self.plan.updates_per_epoch), AUTO_EPOCHS[0]), AUTO_EPOCHS[1])


def train(config: TrainConfig, report: Report, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Train an adapter and return its folder, which is whole once this returns.

    `report` gets one event a dict: "note", "start", "progress", "valid", "checkpoint", "interrupted", "calibration",
    "done". Raises a `RouterError` for everything that would otherwise go wrong in silence.

    `resume` goes on with the run that the folder holds, from its newest whole checkpoint, and ends with the weights
    that the run would have had, to the bit on a CPU. Ctrl-C saves, then raises `KeyboardInterrupt`; pressed twice, it
    does so at once.
    """
    folder = Path(config.adapter).expanduser()
    if not resume:
        _claim(folder, overwrite)
    run = prepare_run(config, folder, _heard(report))
    watch = _fit(run, resume)
    _finish(run, watch)
    return folder


def prepare_run(config: TrainConfig, folder: Path, report: Report) -> Run:
    """Read the data, load the base, make trainable what is trained and plan the batches; nothing is written."""
    default = load_catalogue(config.catalogue) if config.catalogue else None
    training = read(config.train, default)
    validation = split_validation(read(config.valid, default) if config.valid else [], training)
    if config.policy is not None:
        check_promise(config.policy, validation)
    catalogue = default if default is not None else _union(training)
    model = load_base(config.model, revision=config.revision, dtype=config.dtype)
    choosing = [*validation.choosing, *validation.trained_on]
    rows, valid_rows = (_tokens(config, model, examples) for examples in (training, choosing))
    # Rows that calibrate are not learnt; what is wrong with one has to be known before the run none the less.
    _tokens(config, model, validation.calibrating)
    mx.random.seed(config.seed)
    note = partial(_note, report)
    adapter_config = make_trainable(model, config, note)
    shared = config.shared_prefix and _may_share(model, rows, report)
    numbers, again = repeated(training, config.no_tool_share, note)
    plan = Plan(
        rows,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation_steps,
        seed=config.seed,
        group_by_length=config.group_by_length,
        shared_prefix=shared,
        repeated=numbers,
        again=again,
        vary=varying(config, training, partial(_tokens, config, model), note),
    )
    valid = _valid_batches(valid_rows, config, shared)
    data = {"train": data_record(config.train, training), **distractor_record(config)}
    if config.valid:
        data["valid"] = data_record(config.valid, choosing)
    if config.valid and validation.calibrating:
        data["calibration"] = data_record(config.valid, validation.calibrating)
    system = _own_system(training) if config.keep_system else None
    return Run(config, model, catalogue, adapter_config, plan, valid, folder, report, data, system, validation)


def _note(report: Report, message: str) -> None:
    report({"event": "note", "message": message})


def _own_system(examples: Sequence[Example]) -> str | None:
    """The system text to route with: the rows' own, if they all have the same."""
    texts = {example.system for example in examples}
    return texts.pop() if len(texts) == 1 else None


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


def _union(examples: Sequence[Example]) -> Catalogue:
    try:
        return union(list({example.catalogue.hash: example.catalogue for example in examples}.values()))
    except CatalogueError as error:
        raise TrainingError(
            f"the training rows' catalogues do not make one: {error.message}",
            hint="name the adapter's own catalogue with catalogue: …; rows still use theirs",
        ) from error


def _tokens(config: TrainConfig, model: Model, examples: Sequence[Example]) -> list[TokenRow]:
    return token_rows(
        examples,
        model.chat,
        style=config.prompt_style,
        keep_system=config.keep_system,
        max_seq_length=config.max_seq_length if isinstance(config.max_seq_length, int) else None,
        max_tokens=config.max_tokens,
        context_length=model.context_length,
    )


def _may_share(model: Model, rows: Sequence[TokenRow], report: Report) -> bool:
    """Whether this model trains rightly with a shared prefix: computed both ways on two rows before the run."""
    first = next((row for row in rows if row.prefix), None)
    if first is None:
        return False
    same = [row for row in rows if row.prefix == first.prefix][:CHECK_ROWS]
    problem = shared_prefix_problem(model.network, make_batch(same))
    if problem is not None:
        report({"event": "note", "message": f"training on whole rows, the catalogue run once a row: {problem}"})
    return problem is None


def _valid_batches(rows: list[TokenRow], config: TrainConfig, shared: bool) -> list[Batch]:
    if not rows:
        return []
    plan = Plan(rows, batch_size=config.batch_size, accumulation=1, seed=0, shared_prefix=shared)
    return [batch for group in plan.epoch(0) for batch in group]


class _Watch(TrainingCallback):  # type: ignore[misc]
    """Sees every micro-batch's loss: reports, validates and saves at the end of an epoch, and stops on NaN."""

    def __init__(self, run: Run, optimizer: ClippedAdamW, progress: Progress) -> None:
        self.run, self.optimizer, self.done = run, optimizer, progress
        self.first = progress.update
        self.losses: list[float] = []
        self.tokens = self.answer_tokens = 0
        self.last_rows: tuple[str, ...] = ()
        self.started = self.since = time.perf_counter()
        self.interrupted = False

    @property
    def update(self) -> int:
        """Optimizer updates done."""
        return self.done.update

    def micro_batches(self) -> Iterator[tuple[mx.array, ...]]:
        """The plan's batches as the loss takes them, epoch after epoch, from where the run is."""
        begun, skipped = divmod(self.done.update, self.run.plan.updates_per_epoch)
        for epoch in range(begun, self.run.epochs):
            for group in self.run.plan.epoch(epoch, skipped if epoch == begun else 0):
                weight = len(group) / sum(batch.answer_tokens for batch in group)
                for batch in group:
                    self.last_rows = batch.rows
                    self.tokens += batch.prefix.size + batch.suffix.size
                    self.answer_tokens += batch.answer_tokens
                    yield arrays(batch, weight)

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        loss = float(info["train_loss"])
        if not math.isfinite(loss):
            rows = "\n".join(f"  {row}" for row in self.last_rows)
            raise TrainingError(
                f"the loss is {loss} at update {self.update + 1}, on these rows:\n{rows}",
                hint="lower learning_rate, or look at these rows",
            )
        self.losses.append(loss)
        accumulation = self.run.config.gradient_accumulation_steps
        if info["iteration"] % accumulation:
            return
        self.done.update += 1
        if self.update % self.run.config.log_every == 0 or self.update == self.run.updates:
            self._progress(info)
        ended = self.update % self.run.plan.updates_per_epoch == 0 or self.update == self.run.updates
        if ended:
            self._end_of_epoch()
        if ended or self.interrupted or self.update % self.run.config.save_every == 0:
            begun = time.perf_counter()
            path = save_state(self.run.folder, self.run.identity, self.run.model.network, self.optimizer, self.done)
            # Saving is no training time.
            self.since += time.perf_counter() - begun
            if self.interrupted:
                self.run.report({"event": "interrupted", "update": self.update, "file": str(path)})
                raise KeyboardInterrupt

    def _progress(self, info: dict[str, Any]) -> None:
        now = time.perf_counter()
        elapsed = now - self.started
        self.run.report(
            {
                "event": "progress",
                "update": self.update,
                "updates": self.run.updates,
                "epoch": self.update / self.run.plan.updates_per_epoch,
                "loss": sum(self.losses) / len(self.losses),
                "learning_rate": float(info["learning_rate"]),
                "tokens_per_second": self.tokens / (now - self.since),
                "answer_tokens_per_second": self.answer_tokens / (now - self.since),
                "peak_memory_bytes": mx.get_peak_memory(),
                "elapsed_s": elapsed,
                "eta_s": elapsed / (self.update - self.first) * (self.run.updates - self.update),
            }
        )
        self.losses, self.tokens, self.answer_tokens, self.since = [], 0, 0, now

    def _end_of_epoch(self) -> None:
        run, begun = self.run, time.perf_counter()
        epoch = -(-self.update // run.plan.updates_per_epoch)
        loss = mean_loss(run.model.network, run.valid) if run.valid else None
        if not _finite(run.model):
            raise TrainingError(f"the weights are no longer numbers after epoch {epoch}", hint="lower learning_rate")
        path = run.folder / CHECKPOINTS / f"epoch-{epoch:03d}.safetensors"
        _save_weights(run.model, path)
        self.done.last = path.name
        if loss is not None:
            if not math.isfinite(loss):
                raise TrainingError(f"the validation loss is {loss} after epoch {epoch}", hint="lower learning_rate")
            run.report({"event": "valid", "epoch": epoch, "update": self.update, "loss": loss})
            if self.done.best_loss is None or loss < self.done.best_loss:
                self.done.best_loss, self.done.best = loss, path.name
        run.report({"event": "checkpoint", "epoch": epoch, "file": str(path)})
        # Validation is no training time.
        self.since += time.perf_counter() - begun


def _fit(run: Run, resume: bool) -> "_Watch":
    config, optimizer = run.config, ClippedAdamW(run.config, run.updates)
    progress = _resumed(run, optimizer) if resume else Progress()
    watch = _Watch(run, optimizer, progress)
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
        write_recipe(run.folder, config)
    left = run.updates - progress.update
    if left == 0:
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
        _interruptible(watch),
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
    ):
        mlx_lm_train(
            model=run.model.network,
            optimizer=optimizer,
            train_dataset=run.plan,
            args=arguments,
            loss=answer_loss,
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
def _interruptible(watch: "_Watch") -> Iterator[None]:
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


def _finish(run: Run, watch: "_Watch") -> None:
    """Put the best checkpoint's weights in place and write the manifest, last."""
    name = watch.done.best or watch.done.last
    assert name is not None
    chosen = run.folder / CHECKPOINTS / name
    aside = run.folder / f"{WEIGHTS}.part"
    shutil.copyfile(chosen, aside)
    aside.replace(run.folder / WEIGHTS)
    (run.folder / CHECKPOINTS / "last.safetensors").unlink(missing_ok=True)
    (run.folder / ADAPTER_CONFIG).write_text(compact_json(run.adapter_config) + "\n", encoding="utf-8")
    metrics = {"valid_loss": watch.done.best_loss, "checkpoint": chosen.name}
    found = inspect()
    manifest = Manifest(
        base=run.model.base,
        catalogue=run.catalogue.to_json(),
        catalogue_hash=run.catalogue.hash,
        prompt_style=run.config.prompt_style,
        keep_system=run.config.keep_system,
        system=run.system,
        max_tokens=run.config.max_tokens,
        dtype=run.model.dtype,
        config=_recipe(run),
        data=run.data,
        versions={"python": found.python, **found.versions},
        metrics=metrics,
    )
    write_manifest(run.folder, manifest.model_copy(update={"calibration": _calibrate(run, manifest, chosen)}))
    finish(run.folder)
    elapsed = time.perf_counter() - watch.started
    run.report({"event": "done", "adapter": str(run.folder), "elapsed_s": elapsed, **metrics})


def _calibrate(run: Run, manifest: Manifest, weights: Path) -> dict[str, Any] | None:
    """Calibrate the router that these weights make, by the validation rows that did not choose them.

    None, and a note of what is missing, where there are too few.
    """
    rows = run.validation
    if rows.problem is None:
        count = len(rows.choosing) + len(rows.calibrating)
        run.report({"event": "note", "message": f"calibrating: routing {count} validation rows"})
        run.model.network.load_weights(str(weights), strict=False)
        run.model.network.eval()
    router = Router(
        GreedyDecoder(run.model),
        run.catalogue,
        style=manifest.prompt_style,
        system=manifest.system,
        max_tokens=manifest.max_tokens,
        manifest=manifest,
    )
    split = (
        f"validation halved: {len(rows.choosing)} rows chose the checkpoint and weighed the evidence, "
        f"{len(rows.calibrating)} calibrated"
    )
    split += f"; {len(rows.trained_on)} were trained on too and only chose" if rows.trained_on else ""
    found = calibrate_router(router, rows, split=split, policy=run.config.policy)
    if isinstance(found, str):
        lost = ", so every call is to be confirmed" if run.config.policy is not None else ""
        run.report({"event": "note", "message": f"not calibrated{lost}: {found}"})
        return None
    kept = found.model_dump(mode="json")
    told = {name: kept[name] for name in ("rows", "chose", "split", "figures", "policy")}
    run.report({"event": "calibration", "message": summary(found), "method": found.curve.kind, **told})
    return kept


def _recipe(run: Run) -> dict[str, Any]:
    """The resolved recipe; of its files only the names, since an adapter travels and this machine's folders do not."""
    resolved = {**run.config.model_dump(), "epochs": run.epochs}
    return {name: _file_name(value) if name in PATHS else value for name, value in resolved.items()}


def _file_name(value: str | None) -> str | None:
    return value if value is None else value.replace("\\", "/").rpartition("/")[2]


def _finite(model: Model) -> bool:
    weights = tree_flatten(model.network.trainable_parameters())
    return all(bool(mx.isfinite(value).all().item()) for _, value in weights)


def _save_weights(model: Model, path: Path) -> None:
    aside = path.with_name(f"{path.stem}.part.safetensors")
    mx.save_safetensors(str(aside), dict(tree_flatten(model.network.trainable_parameters())))
    aside.replace(path)
