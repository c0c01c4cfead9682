"""`router.json`: what an adapter folder says of itself. It is written last: where it stands, the folder is whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .catalogue import Catalogue
from .certainty import Certainty, read_calibration
from .errors import CatalogueError, ModelError, UsageError
from .policy import Policy, as_policy
from .prompts import Style

FILE = "router.json"
FORMAT = 1


class Base(BaseModel):
    """The base model of an adapter; `weights_hash` is None where the weights are too large to be hashed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    revision: str | None = None
    model_type: str
    weights_hash: str | None = None
    tokenizer_hash: str
    template_hash: str


class Parity(BaseModel):
    """How a fused or quantized model did beside what it was made from, over the same rows.

    `metrics` holds each decision metric before and after. It `failed` where one lost more than the tolerance;
    `problems` says so in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    failed: bool
    data: str
    data_hash: str
    rows: int
    changed: int
    tolerance: float
    metrics: dict[str, tuple[float, float]]
    problems: list[str] = Field(default_factory=list)


class Manifest(BaseModel):
    """Everything that is needed to route with a folder, and to know where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    kind: str = "adapter"
    base: Base
    catalogue: dict[str, Any]
    catalogue_hash: str
    prompt_style: Style = "signature"
    keep_system: bool = False
    system: str | None = None
    max_tokens: int
    dtype: str
    config: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    parity: Parity | None = None

    def read_catalogue(self) -> Catalogue:
        """The folder's own catalogue. Raises `ModelError` where it no longer has its hash."""
        try:
            catalogue = Catalogue.from_json(self.catalogue)
        except CatalogueError as error:
            raise ModelError(f"the catalogue in {FILE} can't be used: {error.message}") from None
        if catalogue.hash != self.catalogue_hash:
            raise ModelError(
                f"the catalogue in {FILE} was changed after training: its hash is {catalogue.hash[:12]}…, "
                f"not {self.catalogue_hash[:12]}…",
                hint="train again with the new catalogue, or pass it to route() as catalogue=…",
            )
        return catalogue

    @property
    def shortlist(self) -> int | None:
        """How many tools of a larger catalogue the model was shown in training; None if all."""
        found = self.config.get("shortlist")
        return found if isinstance(found, int) else None

    def check_parity(self, folder: Path) -> None:
        """Raises `ModelError` where the model in the folder lost too much when it was fused or quantized."""
        if self.parity is not None and self.parity.failed:
            lines = "".join(f"\n  {problem}" for problem in self.parity.problems)
            raise ModelError(
                f"{folder} is marked as failed: it decides worse than what it was made from "
                f"({self.parity.rows} rows of {self.parity.data}):{lines}",
                hint="route with the adapter instead, or make it again: with more bits, or, if you accept the loss, "
                "with a higher --tolerance",
            )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an adapter or a fused model. Raises `ModelError` where there is none or it can't be read."""
    path = folder / FILE
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder}", hint="train one with: mlx-router train --config …")
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {FILE}: it is no finished adapter", hint="train it with: mlx-router train --config …"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
            raise ModelError(f"{path} has format {value['format']}; this version reads {FORMAT}")
        return Manifest.model_validate(value)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} can't be read: {error}") from None
    except ValidationError as error:
        lines = "".join(f"\n  {'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise ModelError(f"{path} is no manifest that this version reads:{lines}") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, by rename."""
    aside = folder / f"{FILE}.part"
    aside.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    aside.replace(folder / FILE)


def read_certainty(
    manifest: Manifest, policy: Policy | Mapping[str, Any] | None = None, folder: Path | None = None
) -> Certainty | None:
    """How a manifest says to judge calls, under its own policy or this one; None where it has neither.

    A recipe's policy holds even where nothing could be calibrated: no call is acted on then. Asking for one here raises
    `UsageError`.
    """
    wanted = as_policy(policy)
    if manifest.calibration is None:
        if wanted is None:
            own = as_policy(manifest.config.get("policy"))
            return None if own is None else Certainty(None, own)
        raise UsageError(
            f"{folder or 'the adapter'} has no calibration, so nothing can be promised of its calls",
            hint=f"calibrate it: mlx-router calibrate {folder or 'FOLDER'} --data FILE",
        )
    calibration = read_calibration(manifest.calibration)
    return Certainty(calibration, wanted or calibration.policy)
