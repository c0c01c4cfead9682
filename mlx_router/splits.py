"""Splits: which files hold which, and how rows are dealt out to train, valid and test by request."""

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .calls import NO_TOOL
from .config import TrainConfig, load_config
from .data import Example, RowError, bad_rows, bundled_catalogues, parts, rows, source_folder
from .duplicates import clusters
from .errors import DataError, RouterError, UsageError
from .parsing import SURROGATE
from .prompts import clean_request
from .tables import table

NAMES: Final = ("train", "valid", "test")
OTHER_NAMES = {"training": "train", "validation": "valid", "val": "valid", "dev": "valid"}
SUFFIXES = (".jsonl", ".jsonl.gz")
RECIPE = "train.yaml"


@dataclass(frozen=True)
class Source:
    """One source of rows and the split that it belongs to."""

    split: str
    path: str


def find(paths: Sequence[str]) -> tuple[list[Source], TrainConfig | None]:
    """The sources that paths stand for, and the recipe of a project folder among them.

    A path is a file or a dataset, or a folder: a project (with train.yaml), or one with train, valid and test as
    .jsonl or .jsonl.gz, or one written by `datasets`.
    """
    sources: list[Source] = []
    config: TrainConfig | None = None
    for path in paths:
        folder = Path(path)
        if (folder / RECIPE).is_file():
            config = load_config(folder / RECIPE)
            given = [(name, getattr(config, name)) for name in NAMES]
            sources += [Source(name, found) for name, found in given if found is not None]
        elif folder.is_dir():
            sources += _in_folder(folder)
        else:
            sources.append(Source(split_name(path), path))
    return sources, config


def split_name(path: str) -> str:
    """The split that a source's name speaks of: "train" for `more_train.jsonl.gz`; else the file's own name."""
    name, _, split = path.partition("#")
    stem = split or re.sub(r"\.jsonl(\.gz)?$", "", Path(name).name)
    words = [OTHER_NAMES.get(word, word) for word in re.split(r"[^a-z0-9]+", stem.casefold())]
    return next((word for word in words if word in NAMES), stem)


def _in_folder(folder: Path) -> list[Source]:
    found = [
        Source(name, str(folder / f"{stem}{suffix}"))
        for name in NAMES
        for stem in (name, *(other for other, meant in OTHER_NAMES.items() if meant == name))
        for suffix in SUFFIXES
        if (folder / f"{stem}{suffix}").is_file()
    ]
    if found:
        return found
    if (folder / "dataset_dict.json").is_file():
        names = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return [Source(split_name(f"{folder}#{name}"), f"{folder}#{name}") for name in names]
    if (folder / "dataset_info.json").is_file():
        return [Source(split_name(str(folder)), str(folder))]
    raise DataError(
        f"{folder} holds no rows that can be told apart into splits",
        hint="a folder needs train.jsonl, valid.jsonl or test.jsonl (.gz), or a train.yaml; else name the files",
    )


def assign(requests: Sequence[str], tools: Sequence[str], shares: Mapping[str, float], seed: int = 0) -> list[str]:
    """A split's name for every row, so that equal and near requests stay together and tools keep their shares.

    Each tool's groups of rows are dealt out one by one, in an order that only the seed and the requests decide, to
    the split that lacks most rows of that tool.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(clusters(requests)):
        groups[number].append(row)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for members in groups.values():
        common = Counter(tools[row] for row in members).most_common()
        strata[min(tool for tool, count in common if count == common[0][1])].append(members)
    lacking = {name: share * len(requests) for name, share in shares.items() if share}
    found = [""] * len(requests)
    for _, members_of in sorted(strata.items()):
        _deal(sorted(members_of, key=lambda rows: _draw(seed, requests, rows)), lacking, shares, found)
    return found


def _deal(
    groups: Sequence[Sequence[int]], lacking: dict[str, float], shares: Mapping[str, float], found: list[str]
) -> None:
    """Deal one tool's groups out; `lacking` is what each split lacks over all tools, and breaks ties."""
    rows = sum(map(len, groups))
    own = {name: shares[name] * rows for name in lacking}
    # Groups that would overfill the smallest split come first, while the largest has room for them.
    room = max(1.0, min(own.values()))
    for members in sorted(groups, key=lambda rows: len(rows) <= room):
        name = max(own, key=lambda name: (round(own[name], 6), round(lacking[name], 6)))
        own[name] -= len(members)
        lacking[name] -= len(members)
        for row in members:
            found[row] = name


def _draw(seed: int, requests: Sequence[str], rows: Sequence[int]) -> str:
    text = min(requests[row] for row in rows)
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


def first_rows(examples: Sequence[Example], count: int | None, seed: int = 0) -> list[Example]:
    """So many of the examples, in their order, with each tool's share; a larger count holds those of a smaller one.

    Raises `DataError` where there are fewer.
    """
    if count is None:
        return list(examples)
    if count > len(examples):
        raise DataError(f"{count} training rows are wanted, and there are {len(examples)}", hint="lower train_rows")
    requests = [example.request for example in examples]
    members: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        members[example.target.tool].append(row)
    places: list[tuple[float, str, int]] = []
    for rows_of in members.values():
        drawn = sorted((_draw(seed, requests, [row]), row) for row in rows_of)
        # Every tool's rows are spread evenly over the whole, so that any beginning of it holds the tool's share.
        places += [((at + 0.5) / len(drawn), draw, row) for at, (draw, row) in enumerate(drawn)]
    return [examples[row] for row in sorted(row for _, _, row in sorted(places)[:count])]


@dataclass(frozen=True)
class Written:
    """What was written: the files by split, and the number of rows by tool and split."""

    files: dict[str, Path]
    rows: dict[str, dict[str, int]]


@dataclass(frozen=True)
class _Row:
    values: Mapping[str, Any]
    request: str
    tool: str
    folder: Path


def write_splits(
    paths: Sequence[str], out: Path, shares: Mapping[str, float], *, seed: int = 0, force: bool = False
) -> Written:
    """Deal the rows of some sources out to train, valid and test in a folder; rows stay as they are.

    Only the name of a row's catalogue is changed where it would mean nothing in the new folder: paths become relative
    to it, and catalogues of `catalogues.json` are taken along. Raises `UsageError` for shares that make no whole, and
    for files that are there already unless `force` is given; `DataError` for rows that can't be read.
    """
    _check_shares(shares)
    files = {name: out / f"{name}.jsonl" for name in NAMES if shares.get(name)}
    old = [path for name in NAMES for suffix in SUFFIXES if (path := out / f"{name}{suffix}").exists()]
    if old and not force:
        raise UsageError(f"{', '.join(map(str, old))} would be overwritten", hint="give --force, or another --out")
    rows = _read(paths)
    names = assign([row.request for row in rows], [row.tool for row in rows], shares, seed)
    if empty := [name for name in files if name not in names]:
        raise DataError(
            f"{len(rows)} rows are too few: none would be left for {' and '.join(empty)}",
            hint=f"collect more, or do without: {' '.join(f'--{name} 0' for name in empty)}",
        )
    home = _Home(out)
    lines = {name: [home.line(row) for row, given in zip(rows, names, strict=True) if given == name] for name in files}
    out.mkdir(parents=True, exist_ok=True)
    home.save()
    for path in old:
        path.unlink()
    for name, path in files.items():
        _write(path, "".join(lines[name]))
    counts: dict[str, dict[str, int]] = {}
    for row, name in zip(rows, names, strict=True):
        counts.setdefault(row.tool, dict.fromkeys(files, 0))[name] += 1
    return Written(files, dict(sorted(counts.items(), key=lambda item: (item[0] == NO_TOOL, item[0]))))


def _check_shares(shares: Mapping[str, float]) -> None:
    if any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        given = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise UsageError(f"shares must lie between 0 and 1 and add up to 1, not {given}")
    if not shares.get("train"):
        raise UsageError("the share of train must not be 0")


def _read(paths: Sequence[str]) -> list[_Row]:
    found: list[_Row] = []
    errors: list[RowError] = []
    for path in paths:
        for where, row in rows(path):
            try:
                found.append(_row(row, source_folder(path)))
            except RouterError as error:
                errors.append(RowError(where, error.message))
    if errors:
        raise DataError(bad_rows(", ".join(paths), errors), hint="see more with: mlx-router data check")
    if not found:
        raise DataError(f"{', '.join(paths)} has no rows")
    return found


def _row(row: object, folder: Path) -> _Row:
    if isinstance(row, RowError):
        raise DataError(row.message)
    values, _, request, answer = parts(row)
    try:
        target = json.loads(answer) if isinstance(answer, str) else answer
    except json.JSONDecodeError as error:
        raise DataError(f"the answer is no JSON: {error.msg}") from None
    if not isinstance(target, Mapping) or not isinstance(target.get("tool"), str):
        raise DataError('the target has no "tool" that is text')
    return _Row(values, clean_request(request), target["tool"], folder)


class _Home:
    """The folder that rows move to, with the catalogues that they name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundles: dict[Path, dict[str, Any]] = {}
        self.catalogues: dict[str, Any] = {}
        if folder.is_dir():
            self.catalogues = dict(self._bundle(folder))
        self.found = dict(self.catalogues)

    def line(self, row: _Row) -> str:
        """The row's line in the new folder."""
        values = dict(row.values)
        if isinstance(values.get("catalogue"), str) and not values.get("tools"):
            values["catalogue"] = self._name(values["catalogue"], row.folder)
        text = json.dumps(values, ensure_ascii=False)
        # Half a character can't be written as UTF-8, but only escaped, as it was.
        return f"{json.dumps(values) if SURROGATE.search(text) else text}\n"

    def save(self) -> None:
        """Write `catalogues.json` if rows brought new ones."""
        if self.catalogues != self.found:
            text = json.dumps(self.catalogues, ensure_ascii=False, indent=2)
            _write(self.folder / "catalogues.json", text + "\n")

    def _name(self, name: str, folder: Path) -> str:
        bundle = self._bundle(folder)
        if name not in bundle:
            if not (folder / name).is_file():
                raise DataError(f"catalogue {name!r} is neither in catalogues.json of {folder} nor a file")
            return name if Path(name).is_absolute() else os.path.relpath(folder / name, self.folder)
        # Two folders may call different catalogues by one name; then the second gets a number.
        number, new = 1, name
        while self.catalogues.setdefault(new, bundle[name]) != bundle[name]:
            number += 1
            new = f"{name} ({number})"
        return new

    def _bundle(self, folder: Path) -> dict[str, Any]:
        if folder not in self.bundles:
            self.bundles[folder] = bundled_catalogues(folder)
        return self.bundles[folder]


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def render(written: Written) -> str:
    """What was written, and each tool's rows and share by split, as text."""
    names = list(written.files)
    total = {name: sum(counts[name] for counts in written.rows.values()) for name in names}
    rows = [("", *names)]
    for tool, counts in [*written.rows.items(), ("all", total)]:
        whole = sum(counts.values())
        rows.append((tool, *(f"{counts[name]} ({counts[name] / whole:.0%})" for name in names)))
    files = "\n".join(f"wrote {path}: {total[name]} rows" for name, path in written.files.items())
    return f"{files}\n\n{table(rows, left=(0,))}"
