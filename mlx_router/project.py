"""A new project folder: the catalogue, a recipe, a README, and rows from templates in three splits."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from . import templates
from .catalogue import Catalogue
from .data import Example, write
from .errors import DataError, UsageError
from .grounding import number_words
from .interop import load_catalogue
from .splits import NAMES, RECIPE, assign

STARTERS: Final = {name: Path(__file__).parent / "starters" / f"{name}.json" for name in ("support", "desktop")}
SHARES: Final = {"train": 0.8, "valid": 0.1, "test": 0.1}
# What every project needs. All other fields of the recipe have defaults, which `mlx-router train --help` shows.
FIELDS: Final[Mapping[str, object]] = {
    "model": "tiny",
    "catalogue": "catalogue.json",
    **{name: f"data/{name}.jsonl" for name in NAMES},
    "adapter": "adapter",
}
README: Final = """\
# {name}

A router for {tools}: it turns a request into one call of {these}, or says that none fits.

    mlx-router data check .                          # what is wrong with the rows, before training on them
    mlx-router train --config train.yaml             # makes the folder adapter/
    mlx-router eval adapter --data data/test.jsonl   # how often it is right
    mlx-router route adapter {request}

| file | holds |
|---|---|
| catalogue.json | the tools: names, descriptions, JSON Schema of their arguments |
| data/train.jsonl, valid.jsonl, test.jsonl | requests with the right decision, one JSON object a line |
| train.yaml | the recipe of the training run |

**The rows come from templates** (`"template": true`) and are only a start. What a router is told in training is what it
knows, so replace them by what people really write: rewrite a request, correct its call, take the mark off. A new row
can be as short as this, since the catalogue is named in train.yaml:

    {row}

Then say `mlx-router data check .` again. Numbers on rows from templates say little about people's requests; a test
split of your own, written before you look at the router's answers, does.
"""


@dataclass(frozen=True)
class Made:
    """A project folder that was made: its rows by split, and what could not be made, in words."""

    folder: Path
    catalogue: Catalogue
    rows: dict[str, int]
    left_out: tuple[str, ...]


def create(folder: Path, source: str, recipe: Mapping[str, object] | None = None) -> Made:
    """Make a project folder from tools; `recipe` adds fields to its train.yaml.

    `source` is a starter's name or what `load_catalogue` takes. Raises `UsageError` where the folder holds something
    already, `CatalogueError` for unusable tools, and `DataError` where templates give no rows.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder", hint="give another name")
    catalogue = load_catalogue(STARTERS.get(source, source))
    rows, left_out = templates.rows(catalogue)
    if not rows:
        raise DataError("templates give no rows for these tools:\n" + "\n".join(f"  {message}" for message in left_out))
    tools = [row.target.tool for row in rows]
    names = assign([row.request for row in rows], tools, SHARES)
    (folder / "data").mkdir(parents=True)
    catalogue.save(folder / "catalogue.json")
    counts = {}
    for name in NAMES:
        found = [row for row, given in zip(rows, names, strict=True) if given == name]
        write(found, folder / "data" / f"{name}.jsonl", "../catalogue.json")
        counts[name] = len(found)
    (folder / RECIPE).write_text(train_yaml(recipe or {}), encoding="utf-8")
    (folder / "README.md").write_text(_readme(folder.resolve().name, catalogue, rows[0]), encoding="utf-8")
    return Made(folder, catalogue, counts, tuple(left_out))


def train_yaml(recipe: Mapping[str, object]) -> str:
    """The recipe as a file; its first line is the command that uses it."""
    fields = yaml.safe_dump({**FIELDS, **recipe}, sort_keys=False, allow_unicode=True)
    return f"# mlx-router train --config {RECIPE}\n{fields}"


def render(made: Made) -> str:
    """What was made, and the next three commands."""
    folder = shlex.quote(str(made.folder))
    rows = ", ".join(f"{count} {name}" for name, count in made.rows.items())
    return (
        f"made {made.folder}: {_tools(made.catalogue)}, {rows} rows from templates; edit them\n\n"
        f"mlx-router data check {folder}\n"
        f"mlx-router train --config {folder}/{RECIPE}\n"
        f"mlx-router eval {folder}/adapter --data {folder}/data/test.jsonl"
    )


def _tools(catalogue: Catalogue) -> str:
    count = len(catalogue)
    return f"{number_words(count) if count <= 12 else count} {'tool' if count == 1 else 'tools'}"


def _readme(name: str, catalogue: Catalogue, row: Example) -> str:
    example = json.dumps({"request": row.request, "target": json.loads(row.answer)}, ensure_ascii=False)
    these = "it" if len(catalogue) == 1 else "one of them"
    return README.format(
        name=name,
        tools=_tools(catalogue),
        these=these,
        request=shlex.quote(row.request),
        row=example,
    )
