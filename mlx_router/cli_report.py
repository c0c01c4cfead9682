"""`mlx-router eval --report`: what the report is held against, what it is about, and its three files."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from . import __version__
from .baselines import (
    NO_TRAINING_ROWS,
    Baseline,
    always_no_tool,
    bag_of_words,
    most_frequent_tool,
    standings,
    untrained_base,
)
from .calls import NO_TOOL
from .catalogue import Catalogue
from .data import Example, read
from .errors import RouterError, UsageError
from .evaluation import Constrained, Evaluation, Scored, evaluate
from .faults import Pieces, words
from .gates import Verdict
from .leaks import Leaks
from .manifest import Manifest
from .page import html_page
from .records import data_record
from .rendering import json_text
from .report import Report
from .report_text import markdown_report
from .router import Router

# A progress bar for so many rows.
Follow: TypeAlias = Callable[[int], AbstractContextManager[Callable[[int], None]]]
HTML, MARKDOWN, JSON = "report.html", "report.md", "report.json"
MADE_ELSEWHERE = "the outputs were made elsewhere, so no base is known"


@dataclass(frozen=True)
class TrainingRows:
    """Rows to train baselines on; None with the reason why there are none."""

    rows: list[Example] | None
    source: str | None = None
    why_none: str = NO_TRAINING_ROWS


@dataclass(frozen=True)
class Material:
    """What a report is made of beside the evaluation."""

    folder: Path
    title: str
    facts: dict[str, str]
    baselines: list[Baseline]
    pieces: Pieces = words

    def report(
        self,
        evaluation: Evaluation,
        leaks: Leaks | None,
        verdicts: Sequence[Verdict],
        constrained: Constrained | None,
    ) -> Report:
        """The report, the router held against the baselines."""
        found = standings(evaluation.scored, self.baselines)
        return Report(self.title, self.facts, evaluation, found, leaks, verdicts, constrained, self.pieces)

    def write(self, report: Report, found: Mapping[str, Any]) -> None:
        """Write the three files, each whole or not at all; `found` is what `--json` prints."""
        texts = {
            HTML: html_page(report),
            MARKDOWN: markdown_report(report),
            JSON: json_text({**found, **report.to_json()}) + "\n",
        }
        for name, text in texts.items():
            aside = self.folder / f"{name}.part"
            aside.write_text(text, encoding="utf-8")
            aside.replace(self.folder / name)


@dataclass(frozen=True)
class Wanted:
    """A report that was asked for, its folder already made: an evaluation takes too long to fail at its end."""

    folder: Path
    baseline_train: str | None
    skip_base: bool

    @classmethod
    def of(cls, folder: str, baseline_train: str | None, skip_base: bool) -> "Wanted":
        """What the flags ask for. Raises `UsageError` where the folder can't be made."""
        path = Path(folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the folder {path} for the report can't be made: {error.strerror}") from None
        return cls(path, baseline_train, skip_base)

    def training(self, near: str | None, data: str, router: Router, default: Catalogue) -> TrainingRows:
        """The rows to train baselines on; an error where those that were named can't be read."""
        return training_rows(self.baseline_train or near, data, router, default)

    def of_router(
        self,
        router: Router,
        scored: Sequence[Scored],
        training: TrainingRows,
        where: tuple[str, str, str | None],
        follow: Follow,
    ) -> Material:
        """The material of a router's report; `where` has its folder, the test and --base, as they were given."""
        folder, data, base = where
        examples = [one.example for one in scored]
        baselines = without_a_model(examples, training)
        if self.skip_base:
            baselines.append(untrained_base(None, "the base", "--skip-base was given"))
        else:
            with follow(len(examples)) as progress:
                baselines.append(base_alone(router, base, examples, progress))
        found = {"adapter": folder} | facts(scored, data, router.manifest, training)
        return Material(self.folder, Path(folder).name, found, baselines, tokens_of(router))

    def of_predictions(self, path: str, scored: Sequence[Scored], default: Catalogue | None) -> Material:
        """The material of a report on outputs that were made elsewhere."""
        source = self.baseline_train
        training = TrainingRows(None) if source is None else TrainingRows(read(source, default), source)
        baselines = without_a_model([one.example for one in scored], training)
        baselines.append(untrained_base(None, "the base", MADE_ELSEWHERE))
        return Material(self.folder, Path(path).name, facts(scored, path, None, training), baselines)


def training_rows(given: str | None, data: str, router: Router, default: Catalogue) -> TrainingRows:
    """The rows given, else those that the adapter was trained on, if they lie at hand.

    That is beside the test file, under the name in the manifest, and with the hash in the manifest.
    """
    if given is not None:
        return TrainingRows(read(given, default), given)
    record = router.manifest.data.get("train") if router.manifest is not None else None
    if not isinstance(record, Mapping) or not record.get("source"):
        return TrainingRows(None)
    path = Path(data.partition("#")[0]).parent / str(record["source"])
    if not path.is_file():
        return TrainingRows(None, why_none=f"{path} is not there, and {NO_TRAINING_ROWS}")
    try:
        rows = read(path, router.catalogue)
    except RouterError as error:
        return TrainingRows(None, why_none=f"{path} can't be read ({error.message}), and {NO_TRAINING_ROWS}")
    if data_record(str(path), rows)["hash"] != record.get("hash"):
        return TrainingRows(None, why_none=f"{path} is not what the adapter was trained on, and {NO_TRAINING_ROWS}")
    return TrainingRows(rows, f"{path}, which the adapter was trained on")


def without_a_model(examples: Sequence[Example], training: TrainingRows) -> list[Baseline]:
    """The baselines that cost nothing to run."""
    return [
        always_no_tool(examples),
        most_frequent_tool(examples, training.rows),
        bag_of_words(examples, training.rows, training.why_none),
    ]


def base_alone(
    router: Router, base: str | None, examples: Sequence[Example], progress: Callable[[int], None]
) -> Baseline:
    """The router's base without its adapter, over the same rows with the same prompts."""
    manifest = router.manifest
    if manifest is None:
        return untrained_base(None, "the base", "the router has no manifest that names its base")
    from .decoder import GreedyDecoder
    from .model import load_base

    try:
        model = load_base(base or manifest.base.name, revision=manifest.base.revision)
    except RouterError as error:
        return untrained_base(None, manifest.base.name, f"it can't be loaded: {error.message}")
    prompted = Router(
        GreedyDecoder(model),
        router.catalogue,
        style=router.style,
        system=router.system,
        max_tokens=router.max_tokens,
        manifest=manifest,
        shortlist=router.shortlist or 0,
    )
    return untrained_base(evaluate(prompted, examples, progress), manifest.base.name)


def tokens_of(router: Router) -> Pieces:
    """How the router's model cuts a text into tokens; words where that is not known."""
    model = getattr(router.decoder, "model", None)
    return model.chat.pieces if model is not None else words


def facts(scored: Sequence[Scored], source: str, manifest: Manifest | None, training: TrainingRows) -> dict[str, str]:
    """What was measured, and with what."""
    calls = sum(one.row.wants_call for one in scored)
    tools = {tool.name for one in scored for tool in one.example.catalogue}
    found: dict[str, str] = {}
    if manifest is not None:
        record = manifest.data.get("train") or {}
        found["base"] = manifest.base.name + (f" @ {manifest.base.revision}" if manifest.base.revision else "")
        if record.get("rows"):
            found["trained on"] = f"{record['rows']} rows of {record.get('source')}"
    found |= {
        "test": source,
        "rows": f"{len(scored)}: {calls} want a call, {len(scored) - calls} want {NO_TOOL}",
        "tools": str(len(tools)),
        "baselines trained on": training.source or "nothing",
        "mlx-router": __version__,
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return found
