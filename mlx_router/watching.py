"""Watching a run as mlx-lm's trainer goes through it: reports, validation, checkpoints, and when to stop."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import history
from .choosing import METRICS, chosen_by, is_due, rank, route_sample
from .errors import TrainingError
from .model import Model
from .preparing import Run

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx.utils import tree_flatten  # isort: skip
from mlx_lm.tuner.callbacks import TrainingCallback  # isort: skip

from .checkpoints import FOLDER as CHECKPOINTS, Progress, save_state  # isort: skip
from .loss import arrays, mean_loss  # isort: skip
from .optimizer import ClippedAdamW  # isort: skip


class Watch(TrainingCallback):  # type: ignore[misc]
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
        ranks, name_weight = self.run.ranks, self.run.config.name_weight
        begun, skipped = divmod(self.done.update, self.run.plan.updates_per_epoch)
        for epoch in range(begun, self.run.epochs):
            for group in self.run.plan.epoch(epoch, skipped if epoch == begun else 0):
                # The trainer takes the mean over ranks of what is to be a weighted mean over the tokens of all.
                weight = ranks.size * len(group) / sum(batch.weight(name_weight) for batch in group)
                for at, batch in enumerate(group):
                    self.last_rows = batch.rows
                    self.tokens += batch.prefix.size + batch.suffix.size
                    self.answer_tokens += batch.answer_tokens
                    if ranks.size > 1:
                        ranks.wait()
                        self._seed_dropout(at)
                    yield arrays(batch.share(ranks.rank, ranks.size), weight, name_weight)

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
                raise OutOfPatience

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
            draw(run)


class OutOfPatience(Exception):
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


def draw(run: Run) -> Path | None:
    """Draw the plot, on one rank; a run does not fail for it."""
    if not run.ranks.first:
        return None
    try:
        return history.draw(run.folder)
    except OSError as error:
        run.report({"event": "note", "message": f"no plot was drawn: {error}"})
        return None


def _finite(model: Model) -> bool:
    weights = tree_flatten(model.network.trainable_parameters())
    return all(bool(mx.isfinite(value).all().item()) for _, value in weights)


def _save_weights(model: Model, path: Path) -> None:
    aside = path.with_name(f"{path.stem}.part.safetensors")
    mx.save_safetensors(str(aside), dict(tree_flatten(model.network.trainable_parameters())))
    aside.replace(path)
