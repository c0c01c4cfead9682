"""Training an adapter: `mlx_lm.tuner.trainer.train` with our loss, our batches, and our eyes on it."""

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from . import history
from .batches import Batch, Plan, TokenRow, make_batch, token_rows
from .calibrating import Rows, calibrate_router, check_promise, split_validation, summary
from .calls import NO_TOOL
from .catalogue import Catalogue, union
from .caution import distractor_record, repeated, varying
from .choosing import METRICS, chosen_by, is_due, rank, route_sample, sample
from .config import PATHS, TrainConfig
from .data import Example, read, with_shortlist
from .errors import CatalogueError, ConfigError, TrainingError
from .fine_tuning import make_trainable
from .interop import load_catalogue
from .manifest import FILE, Manifest, write_manifest
from .model import ADAPTER_CONFIG, WEIGHTS, Model, load_base, parameter_counts
from .prompts import compact_json
from .ranks import ALONE, Ranks, join, own_folder, send_files, together
from .records import data_record
from .router import Router
from .runtime import inspect
from .splits import first_rows

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
from .recompute import Loss, checkpointed  # isort: skip

CHECK_ROWS = 2

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
    sample: Sequence[Example] = ()
    ranks: Ranks = ALONE

    @cached_property
    def manifest(self) -> Manifest:
        """What the folder will say of itself, without what only the end of the run tells."""
        found = inspect()
        return Manifest(
            base=self.model.base,
            catalogue=self.catalogue.to_json(),
            catalogue_hash=self.catalogue.hash,
            prompt_style=self.config.prompt_style,
            keep_system=self.config.keep_system,
            system=self.system,
            max_tokens=self.config.max_tokens,
            dtype=self.model.dtype,
            config=_recipe(self),
            data=self.data,
            versions={"python": found.python, **found.versions},
        )

    def router(self) -> Router:
        """A router with the weights as they are now; a new one, since a decoder keeps what older weights made."""
        return Router(
            GreedyDecoder(self.model),
            self.catalogue,
            style=self.config.prompt_style,
            system=self.system,
            max_tokens=self.config.max_tokens,
            manifest=self.manifest,
            log_failures=False,
        )

    def tell(self, event: Event) -> None:
        """Report an event, and keep it for the plot."""
        history.append(self.folder, event)
        self.report(event)

    @property
    def identity(self) -> str:
        """A hash of what decides the weights that the run ends with."""
        return run_identity(self.config, self.data, self.model.base.model_dump(exclude={"name", "revision"}))

    @property
    def updates(self) -> int:
        """Optimizer updates of the whole run."""
        return self.config.schedule(self.plan.updates_per_epoch)[1]

    @property
    def epochs(self) -> int:
        """Passes over the training rows."""
        return self.config.schedule(self.plan.updates_per_epoch)[0]


def train(config: TrainConfig, report: Report, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Train an adapter and return its folder, which is whole once this returns.

    `report` gets one event a dict: "note", "start", "progress", "valid", "checkpoint", "interrupted", "stopped",
    "plot", "calibration", "done". Raises a `RouterError` for everything that would otherwise go wrong in silence.

    `resume` goes on with the run that the folder holds, from its newest whole checkpoint, and ends with the weights
    that the run would have had, to the bit on a CPU. Ctrl-C saves, then raises `KeyboardInterrupt`; pressed twice, it
    does so at once.

    Started by `mlx.launch`, each rank takes its share of every batch; only the first writes to the folder and reports.
    """
    folder, ranks = Path(config.adapter).expanduser(), join()
    with together(ranks), own_folder(ranks, folder) as place:
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


def prepare_run(config: TrainConfig, folder: Path, report: Report, ranks: Ranks = ALONE) -> Run:
    """Read the data, load the base, make trainable what is trained and plan the batches; nothing is written."""
    if config.shortlist is not None and config.keep_system:
        raise ConfigError("shortlist and keep_system do not go together: a system text that is kept can't be cut")
    default = load_catalogue(config.catalogue) if config.catalogue else None
    training = read(config.train, default)
    validation = read(config.valid, default) if config.valid else []
    rows = split_validation(validation, training) if config.calibrate else Rows(validation, [], "calibrate is false")
    if config.policy is not None:
        check_promise(config.policy, rows)
    catalogue = default if default is not None else _union(training)
    training = first_rows(training, config.train_rows, config.seed)
    model = load_base(config.model, revision=config.revision, dtype=config.dtype)
    choosing = [*rows.choosing, *rows.trained_on]
    train_rows, valid_rows = (_tokens(config, model, examples) for examples in (training, choosing))
    # Rows that calibrate are not learnt; what is wrong with one has to be known before the run none the less.
    _tokens(config, model, rows.calibrating)
    mx.random.seed(config.seed)
    note = partial(_note, report)
    adapter_config = make_trainable(model, config, note)
    # Machines may round differently; batches have to be the same on all.
    shared = config.shared_prefix and config.shortlist is None
    shared = shared and not ranks.any(not _may_share(model, train_rows, _loss(config), report))
    if config.shared_prefix and config.shortlist is not None:
        message = "training on whole rows: with a shortlist each has a catalogue of its own, and hardly two begin alike"
        report({"event": "note", "message": message})
    numbers, again = repeated(training, config.no_tool_share, note)
    plan = Plan(
        train_rows,
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
    if config.valid and rows.calibrating:
        data["calibration"] = data_record(config.valid, rows.calibrating)
    system = _own_system(training) if config.keep_system else None
    routed = sample(rows.choosing or rows.trained_on, config.valid_rows)
    _check_choice(config, routed)
    return Run(config, model, catalogue, adapter_config, plan, valid, folder, report, data, system, rows, routed, ranks)


def _check_choice(config: TrainConfig, routed: Sequence[Example]) -> None:
    """Refuse a metric that the validation rows can't tell."""
    if config.best_by != "false_call_rate_on_no_tool" or not routed:
        return
    if not any(example.target.tool == NO_TOOL for example in routed):
        raise TrainingError(
            f"best_by: {config.best_by}, but none of the {len(routed)} validation rows to be routed wants no_tool",
            hint="add such rows to the validation rows, raise valid_rows, or choose by exact_match",
        )


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
        with_shortlist(examples, config.shortlist),
        model.chat,
        style=config.prompt_style,
        keep_system=config.keep_system,
        max_seq_length=config.max_seq_length if isinstance(config.max_seq_length, int) else None,
        max_tokens=config.max_tokens,
        context_length=model.context_length,
    )


def _loss(config: TrainConfig) -> Loss:
    return checkpointed(answer_loss) if config.grad_checkpoint else answer_loss


def _may_share(model: Model, rows: Sequence[TokenRow], loss: Loss, report: Report) -> bool:
    """Whether this model trains rightly with a shared prefix: computed both ways on two rows before the run."""
    first = next((row for row in rows if row.prefix), None)
    if first is None:
        return False
    same = [row for row in rows if row.prefix == first.prefix][:CHECK_ROWS]
    problem = shared_prefix_problem(model.network, make_batch(same), loss)
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
        ranks = self.run.ranks
        begun, skipped = divmod(self.done.update, self.run.plan.updates_per_epoch)
        for epoch in range(begun, self.run.epochs):
            for group in self.run.plan.epoch(epoch, skipped if epoch == begun else 0):
                # The trainer takes the mean over ranks of what is to be a mean over the tokens of all.
                weight = ranks.size * len(group) / sum(batch.answer_tokens for batch in group)
                for at, batch in enumerate(group):
                    self.last_rows = batch.rows
                    self.tokens += batch.prefix.size + batch.suffix.size
                    self.answer_tokens += batch.answer_tokens
                    if ranks.size > 1:
                        ranks.wait()
                        self._seed_dropout(at)
                    yield arrays(batch.share(ranks.rank, ranks.size), weight)

    def _seed_dropout(self, micro_batch: int) -> None:
        """Give every rank a dropout of its own, which depends on nothing that a checkpoint would have to hold."""
        seed = (self.run.config.seed, self.update, micro_batch, self.run.ranks.rank)
        mx.random.seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))

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
        self.interrupted = self.run.ranks.any(self.interrupted)
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
                # `mlx.launch` ends the others once one has ended; none may while another still saves.
                self.run.ranks.wait()
                raise KeyboardInterrupt
            if ended and self.out_of_patience:
                raise _Stop

    @property
    def out_of_patience(self) -> bool:
        """Whether validation has found nothing better for as long as the recipe waits."""
        patience = self.run.config.patience
        return patience is not None and self.done.stale >= patience

    def _progress(self, info: dict[str, Any]) -> None:
        now = time.perf_counter()
        elapsed = now - self.started
        self.run.tell(
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
        loss = mean_loss(run.model.network, run.valid, run.ranks) if run.valid else None
        if not _finite(run.model):
            raise TrainingError(f"the weights are no longer numbers after epoch {epoch}", hint="lower learning_rate")
        path = run.folder / CHECKPOINTS / f"epoch-{epoch:03d}.safetensors"
        _save_weights(run.model, path)
        self.done.last = path.name
        if loss is not None:
            if not math.isfinite(loss):
                raise TrainingError(f"the validation loss is {loss} after epoch {epoch}", hint="lower learning_rate")
            self._compare(epoch, path.name, loss, begun)
        run.report({"event": "checkpoint", "epoch": epoch, "file": str(path)})
        # Validation is no training time.
        self.since += time.perf_counter() - begun

    def _compare(self, epoch: int, name: str, loss: float, begun: float) -> None:
        """Route the sample if it is time to, and see whether these weights are the best so far."""
        run, done = self.run, self.done
        trained = (self.update - done.routed) * run.config.batch_size * run.config.gradient_accumulation_steps
        last = self.update == run.updates
        figures: dict[str, float | None] = dict.fromkeys(METRICS)
        if run.sample and (last or is_due(trained, len(run.sample))):
            figures, done.routed = _route(run), self.update
        found = rank(chosen_by(run.config.best_by, len(run.sample)), loss, figures)
        better = found is not None and (done.rank is None or list(found) < done.rank)
        if found is not None and better:
            done.rank, done.best, done.stale, done.figures = list(found), name, 0, {"loss": loss, **figures}
        elif found is not None:
            done.stale += 1
        run.tell(
            {
                "event": "valid",
                "epoch": epoch,
                # Fewer than `epoch` where `max_updates` ends the run within one.
                "epochs_trained": self.update / run.plan.updates_per_epoch,
                "update": self.update,
                "loss": loss,
                "rows": len(run.sample) if done.routed == self.update else 0,
                **figures,
                "best": better,
                "seconds": time.perf_counter() - begun,
            }
        )
        if done.routed == self.update:
            _draw(run)


class _Stop(Exception):
    """The run has lost its patience: nothing is wrong, and what is done is saved."""


def _route(run: Run) -> dict[str, float | None]:
    """Route the sample with the weights as they are, and leave the network as it was."""
    was_training = run.model.network.training
    run.model.network.eval()
    try:
        return route_sample(run.router(), run.sample, run.ranks)
    finally:
        run.model.network.train(was_training)
        # Training's arrays have other sizes than routing's, which would stay in memory unused.
        mx.clear_cache()


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
        suppress(_Stop),
        _interruptible(watch),
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
    ):
        mlx_lm_train(
            model=run.model.network,
            optimizer=optimizer,
            train_dataset=run.plan,
            args=arguments,
            loss=_loss(config),
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
    metrics = {**_choice(run, watch.done), "checkpoint": chosen.name}
    calibration = _calibrate(run, chosen)
    write_manifest(run.folder, run.manifest.model_copy(update={"metrics": metrics, "calibration": calibration}))
    finish(run.folder)
    if (plot := _draw(run)) is not None:
        run.report({"event": "plot", "file": str(plot)})
    elapsed = time.perf_counter() - watch.started
    run.report({"event": "done", "adapter": str(run.folder), "elapsed_s": elapsed, **metrics})


def _draw(run: Run) -> Path | None:
    """Draw the plot, on one rank; a run does not fail for it."""
    if not run.ranks.first:
        return None
    try:
        return history.draw(run.folder)
    except OSError as error:
        run.report({"event": "note", "message": f"no plot was drawn: {error}"})
        return None


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


def _versions(run: Run) -> dict[str, str]:
    """What has to be the same on all machines of a run."""
    if run.ranks.size == 1:
        return {}
    return {name: version for name, version in inspect().versions.items() if name.startswith("mlx")}


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
