"""The training recipe: one flat, closed model, read from YAML and overridden field by field."""

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from .calls import DEFAULT_MAX_TOKENS
from .errors import ConfigError
from .policy import Policy

# Fields that name files; in a recipe file they are relative to the file, on the command line to the working directory.
PATHS = ("model", "adapter", "catalogue", "train", "valid", "test", "distractors")

CATALOGUES = ("catalogue", "distractors")
# Fields that change the catalogue of a batch.
CATALOGUE_CHANGES = ("remove_tools", "rename_tools", "shuffle_tools", "add_tools")

# What `epochs: auto` aims at: small data are seen more often, large ones at least twice.
AUTO_UPDATES = 600
AUTO_EPOCHS = (2, 20)

Positive: TypeAlias = Annotated[int, Field(ge=1)]
BestBy: TypeAlias = Literal["exact_match", "wrong_call_rate", "false_call_rate_on_no_tool", "loss"]


class TrainConfig(BaseModel):
    """Everything that decides what a training run makes. docs/brief.md maps the fields to other libraries' names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field("tiny", description="base model: `tiny` (embedded), a folder, or a name on the Hugging Face hub")
    revision: str | None = Field(None, description="revision of a base on the hub: branch, tag or commit")
    adapter: str = Field("adapter", description="folder to write the adapter to")
    catalogue: str | None = Field(None, description="catalogue file; without one the union of the training rows' own")
    train: str = Field(description="training rows: .jsonl, .jsonl.gz, or a Hugging Face dataset (name#split)")
    train_rows: Positive | None = Field(
        None, description="train on so many of the rows, each tool's share kept; more rows hold the fewer; none: all"
    )
    valid: str | None = Field(None, description="validation rows; they choose the checkpoint and calibrate")
    test: str | None = Field(None, description="test rows, for `mlx-router eval`; training never reads them")

    policy: Policy | None = Field(
        None, description="what is promised of wrong calls, `{wrong_call_rate: 0.01}`; see docs/calibration.md"
    )
    calibrate: bool = Field(
        True, description="calibrate by half of the validation rows, which then choose nothing; docs/calibration.md"
    )

    prompt_style: Literal["signature", "json_schema"] = Field("signature", description="how the catalogue is shown")
    keep_system: bool = Field(False, description="use the rows' own system text instead of rendering the catalogue")
    shortlist: int | None = Field(None, ge=1, description="how many tools of a larger catalogue a request is shown")
    max_seq_length: Positive | Literal["auto"] = Field("auto", description="longest row in tokens; auto: whatever fits")
    max_tokens: int = Field(DEFAULT_MAX_TOKENS, ge=8, description="longest answer in tokens, in training and routing")

    no_tool_share: float | None = Field(
        None, gt=0, lt=1, description="repeat `no_tool` rows until they are this share of what an epoch sees"
    )
    remove_tools: float = Field(
        0.0, ge=0, lt=1, description="chance of a tool to be left out of a batch; rows that call it become `no_tool`"
    )
    rename_tools: float = Field(
        0.0, ge=0, le=1, description="share of the batches in which tools and parameters have other names"
    )
    shuffle_tools: float = Field(
        0.0, ge=0, le=1, description="share of the batches in which the tools stand in another order"
    )
    add_tools: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the batches in which one to eight other tools stand among the catalogue's",
    )
    distractors: str | None = Field(None, description="catalogue file of tools to add; without one those shipped")

    fine_tune_type: Literal["lora", "dora", "full"] = Field(
        "lora", description="what is trained: LoRA or DoRA layers (QLoRA on a 4-bit base), or the base's own weights"
    )
    train_on: list[str] | str = Field("all_linear", description="layers that are trained: names, or `all_linear`")
    num_layers: int = Field(-1, ge=-1, description="how many blocks, from the last, are trained; -1: all")
    rank: int = Field(16, ge=1, description="LoRA rank")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA alpha; the scale is alpha / rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of the LoRA layers")

    batch_size: int = Field(8, ge=1, description="rows a micro-batch")
    gradient_accumulation_steps: int = Field(1, ge=1, description="micro-batches an optimizer update")
    epochs: Positive | Literal["auto"] = Field("auto", description="passes over the rows; auto: 2–20, for 600 updates")
    max_updates: int | None = Field(None, ge=1, description="stop after this many optimizer updates")
    learning_rate: float = Field(1.5e-3, gt=0, description="peak learning rate")
    lr_schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="after the warm-up")
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="share of the updates that warm up; rounded up")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW beta 1")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="AdamW beta 2")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW epsilon")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay")
    max_grad_norm: float | None = Field(1.0, gt=0, description="clip the gradients' global norm to this; null: never")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the base's weights; auto: bfloat16 on Apple GPUs, float32 on a CPU"
    )
    name_weight: float = Field(
        3.0, gt=0, description="what an answer's tokens up to the end of its tool's name weigh in the loss; others 1"
    )
    shared_prefix: bool = Field(True, description="run a batch's common catalogue once instead of once a row")
    grad_checkpoint: bool = Field(
        False, description="compute blocks' insides twice instead of keeping them: less memory"
    )
    group_by_length: bool = Field(True, description="batch rows of like length; false: in plain random order")
    seed: int = Field(0, ge=0, description="seed of initialisation, dropout and row order")
    valid_rows: int = Field(
        100, ge=0, description="validation rows that are routed after an epoch, at most; 0: none, and the loss chooses"
    )
    best_by: BestBy = Field("exact_match", description="what chooses the checkpoint that is kept, on validation rows")
    patience: int | None = Field(
        None, ge=1, description="stop after so many validations in a row that found no better checkpoint; null: never"
    )
    log_every: int = Field(10, ge=1, description="report every so many optimizer updates")
    save_every: int = Field(50, ge=1, description="save the run's state every so many updates, to resume from")

    @model_validator(mode="before")
    @classmethod
    def _integers_are_numbers(cls, values: Any) -> Any:
        """Take `lora_alpha: 32` for a float, which strict validation does, and `1e-3`, which YAML reads as text."""
        if not isinstance(values, Mapping):
            return values
        return {name: _number(value) if _wants_number(cls, name) else value for name, value in values.items()}

    @field_validator(*CATALOGUE_CHANGES)
    @classmethod
    def _kept_text_shows_its_own_tools(cls, value: float, found: ValidationInfo) -> float:
        if value and found.data.get("keep_system"):
            raise ValueError("not with keep_system, which trains on the text of the rows, tools included")
        return value

    def updates_per_epoch(self, rows: int) -> int:
        """Optimizer updates of one pass over so many rows."""
        # However many catalogues they have: what fills no batch of its catalogue makes batches together.
        return math.ceil(math.ceil(rows / self.batch_size) / self.gradient_accumulation_steps)

    def schedule(self, updates_per_epoch: int) -> tuple[int, int]:
        """Epochs and optimizer updates of a run."""
        if self.epochs != "auto":
            epochs = self.epochs
        else:
            epochs = min(max(round(AUTO_UPDATES / updates_per_epoch), AUTO_EPOCHS[0]), AUTO_EPOCHS[1])
        wanted = updates_per_epoch * epochs
        return epochs, min(wanted, self.max_updates or wanted)

    @property
    def scale(self) -> float:
        """What the LoRA update is multiplied by: alpha / rank."""
        return self.lora_alpha / self.rank


def _wants_number(model: type[BaseModel], name: str) -> bool:
    found = model.model_fields.get(name)
    return found is not None and found.annotation in (float, float | None)


def takes_only_text(name: str) -> bool:
    """Whether a field holds text whatever it looks like, as a folder or a revision called 2024 does."""
    return TrainConfig.model_fields[name].annotation in (str, str | None)


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The recipe of a file with overrides on top. Raises `ConfigError` naming every unknown or unfit field."""
    values = _read(path) if path is not None else {}
    values |= overrides or {}
    unknown = [name for name in values if name not in TrainConfig.model_fields]
    problems = [f"unknown field {name!r}{_did_you_mean(name)}" for name in unknown]
    try:
        config = TrainConfig.model_validate({name: value for name, value in values.items() if name not in unknown})
    except ValidationError as error:
        problems += _problems(error)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{path or 'the recipe'} has {len(problems)} problem(s):\n{lines}")
    return config


def _problems(error: ValidationError) -> list[str]:
    """One line a field; a field that may be of several kinds has an error of each."""
    found: dict[str, list[Any]] = {}
    for detail in error.errors():
        # A field of the policy is named with it; further places of others name branches of their types.
        depth = 2 if detail["loc"][0] == "policy" else 1
        found.setdefault(".".join(map(str, detail["loc"][:depth])), []).append(detail)
    lines = []
    for name, details in found.items():
        if details[0]["type"] == "missing":
            lines.append(f"{name} is missing: {TrainConfig.model_fields[name].description}")
        else:
            wanted = ", or ".join(dict.fromkeys(detail["msg"] for detail in details))
            lines.append(f"{name}: {wanted} (got {details[0]['input']!r})")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no recipe {path}") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold fields and values, one a line")
    found = {name: values[name] for name in PATHS if isinstance(values.get(name), str)}
    return values | {name: _beside(path.parent, name, value) for name, value in found.items()}


def _beside(folder: Path, field: str, value: str) -> str:
    """A path of a recipe file, relative to the file; names of modules and of things on the hub stay as they are."""
    if value.startswith("~"):
        return str(Path(value).expanduser())
    # What follows is a module's attribute, or a dataset's split.
    name, mark, rest = value.partition(":" if field in CATALOGUES else "#")
    return f"{folder / name}{mark}{rest}" if _is_path(folder, field, name) else value


def _is_path(folder: Path, field: str, name: str) -> bool:
    if field in ("model", "adapter"):
        return field == "adapter" or name.startswith(".")
    if field in CATALOGUES:
        return "/" in name or name.endswith((".json", ".py")) or (folder / name).is_file()
    # A dataset on the hub is called owner/name.
    is_file = name.startswith(".") or "/" not in name or name.endswith((".jsonl", ".jsonl.gz", ".json"))
    return is_file or (folder / name).exists()


def _did_you_mean(name: object) -> str:
    close = difflib.get_close_matches(str(name), TrainConfig.model_fields, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
