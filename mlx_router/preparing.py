"""What a training run works on: data, base and LoRA layers made ready and checked, before anything is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

from . import history
from .batches import Batch, Plan, TokenRow, make_batch, token_rows
from .calibrating import Rows, check_promise, split_validation
from .calls import NO_TOOL
from .catalogue import Catalogue, union
from .caution import distractor_record, repeated, varying
from .choosing import sample
from .config import PATHS, TrainConfig
from .data import Example, read, with_shortlist
from .errors import CatalogueError, ConfigError, TrainingError
from .fine_tuning import make_trainable
from .interop import load_catalogue
from .manifest import Manifest
from .model import Model, load_base
from .ranks import ALONE, Ranks
from .records import data_record
from .router import Router
from .runtime import inspect
from .splits import first_rows

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)

from .checkpoints import run_identity  # isort: skip
from .decoder import GreedyDecoder  # isort: skip
from .loss import answer_loss, shared_prefix_problem  # isort: skip
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
    shared = shared and not ranks.any(not _may_share(model, train_rows, loss_of(config), report))
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


def loss_of(config: TrainConfig) -> Loss:
    """The loss that a recipe trains with."""
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


def _recipe(run: Run) -> dict[str, Any]:
    """The resolved recipe; of its files only the names, since an adapter travels and this machine's folders do not."""
    resolved = {**run.config.model_dump(), "epochs": run.epochs}
    return {name: _file_name(value) if name in PATHS else value for name, value in resolved.items()}


def _file_name(value: str | None) -> str | None:
    return value if value is None else value.replace("\\", "/").rpartition("/")[2]
