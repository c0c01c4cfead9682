"""Examples: a request, its gold target and its catalogue, read from chat-format JSONL or Hugging Face datasets.

A row is `{"messages": [system, user, assistant]}` or `{"request", "target"}`. Its catalogue is its `tools`, else its
`catalogue` (a name in `catalogues.json[.gz]` beside the file, or a path), else its system message if that is in
signature style, else the default given by the caller. `alternatives`, `id`, `kind` and `template` are optional.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from .calls import Message, ParseFailure, Target
from .capitals import quiet, quiet_target
from .catalogue import Catalogue
from .errors import CatalogueError, DataError, RouterError
from .interop import catalogue_from_json
from .parsing import parse, parse_target
from .prompts import Style, assistant_text, clean_request, conversation, system_message
from .shortlist import Shortlists
from .signature import parse_signatures

SHOWN_ERRORS = 20


@dataclass(frozen=True)
class Example:
    """One request with its gold target.

    `system` is the system message as the row holds it (None where it holds none), `where` the row's file and line,
    `template` whether a program filled it in from a template.
    """

    request: str
    target: Target
    catalogue: Catalogue
    alternatives: tuple[Target, ...] = ()
    system: str | None = None
    id: str | None = None
    kind: str | None = None
    template: bool = False
    where: str = ""

    def messages(self, style: Style = "signature", *, keep_system: bool = False) -> tuple[Message, Message]:
        """System and user message: the catalogue rendered anew, or the row's own text with `keep_system`."""
        if keep_system and self.system is not None:
            return conversation(self.system, self.request)
        return conversation(system_message(self.catalogue, style), self.request)

    def as_shown(self) -> "Example":
        """The example as the model reads it and is to answer it: one in capitals in small letters."""
        shown = quiet(self.request)
        if shown == self.request:
            return self
        target, *others = (quiet_target(one, self.catalogue, shown) for one in (self.target, *self.alternatives))
        return replace(self, request=shown, target=target, alternatives=tuple(others))

    @property
    def answer(self) -> str:
        """The assistant's text."""
        return assistant_text(self.target, self.catalogue)

    def to_json(self, catalogue_name: str, style: Style = "signature") -> dict[str, Any]:
        """The row as we write it: `messages`, and the name or path of its catalogue."""
        messages = [*self.messages(style), {"role": "assistant", "content": self.answer}]
        row: dict[str, Any] = {"messages": messages, "catalogue": catalogue_name}
        if self.alternatives:
            row["alternatives"] = [json.loads(assistant_text(target, self.catalogue)) for target in self.alternatives]
        extra = {"id": self.id, "kind": self.kind, "template": self.template or None}
        return row | {key: value for key, value in extra.items() if value is not None}


@dataclass(frozen=True)
class RowError:
    """A row that can't be read: where it stands and what is wrong."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass
class Reader:
    """Turns rows of one source into examples, its catalogues read once."""

    folder: Path
    default: Catalogue | None = None
    named: dict[str, Catalogue] = field(default_factory=dict)
    seen: dict[str, Catalogue] = field(default_factory=dict)
    parsed: dict[str, Catalogue | None] = field(default_factory=dict)
    bundle: dict[str, Any] | None = None

    def example(self, row: object, where: str) -> Example:
        """One row as an example. Raises `DataError` or `CatalogueError` saying what is wrong with it."""
        row, system, request, answer = parts(row)
        catalogue = self.catalogue(row, system)
        alternatives = row.get("alternatives") or ()
        if not isinstance(alternatives, Sequence) or isinstance(alternatives, str):
            raise DataError('"alternatives" must be a list of targets')
        return Example(
            request=clean_request(request),
            target=_target(answer, catalogue, "the target"),
            catalogue=catalogue,
            alternatives=tuple(_target(other, catalogue, "an alternative") for other in alternatives),
            system=system,
            id=_text(row, "id"),
            kind=_text(row, "kind"),
            template=bool(row.get("template", False)),
            where=where,
        )

    def catalogue(self, row: Mapping[str, Any], system: str | None) -> Catalogue:
        """The row's own catalogue, by the order of precedence."""
        if row.get("tools"):
            key = json.dumps(row["tools"])
            if key not in self.seen:
                self.seen[key] = catalogue_from_json(_decoded(row["tools"], "tools"))
            return self.seen[key]
        if row.get("catalogue"):
            return self.by_name(row["catalogue"])
        if system is not None and (parsed := self.from_system(system)) is not None:
            return parsed
        if self.default is None:
            raise DataError("no catalogue: the row names none, has no tools, and its system message shows none")
        return self.default

    def from_system(self, system: str) -> Catalogue | None:
        """The catalogue that a system message shows in signature style; None where it is in another style."""
        if system not in self.parsed:
            try:
                self.parsed[system] = parse_signatures(system)
            except CatalogueError:
                if self.default is None:
                    raise
                self.parsed[system] = None
        return self.parsed[system]

    def by_name(self, name: object) -> Catalogue:
        """The catalogue of that name in `catalogues.json[.gz]` beside the data, or in the file of that path."""
        if not isinstance(name, str):
            raise DataError(f'"catalogue" must be a name, not {name!r}')
        if name not in self.named:
            if self.bundle is None:
                self.bundle = bundled_catalogues(self.folder)
            found = self.bundle.get(name)
            if found is None:
                path = self.folder / name
                if not path.is_file():
                    raise DataError(f"catalogue {name!r} is neither in catalogues.json beside the data nor a file")
                found = _json_file(path)
            self.named[name] = catalogue_from_json(found)
        return self.named[name]


def read(source: str | Path, default: Catalogue | None = None) -> list[Example]:
    """All examples of a source. Raises `DataError` naming every row that can't be read (the first 20).

    `source` is a `.jsonl` or `.jsonl.gz` file, a folder written by `datasets`, or a dataset's name on the hub; the two
    last may end in `#split` ("train" unless given).
    """
    examples, errors = scan(source, default)
    if errors:
        hint = f"see everything at once with: mlx-router data check {source}"
        raise DataError(bad_rows(str(source), errors), hint=hint)
    if not examples:
        raise DataError(f"{source} has no rows")
    return examples


def bad_rows(source: str, errors: Sequence[RowError]) -> str:
    """An error's message that names the first rows that can't be used."""
    lines = "\n".join(f"  {error}" for error in errors[:SHOWN_ERRORS])
    more = f"\n  … and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
    return f"{len(errors)} row(s) of {source} can't be used:\n{lines}{more}"


def scan(source: str | Path, default: Catalogue | None = None) -> tuple[list[Example], list[RowError]]:
    """Every example that can be read, and an error for every row that can't."""
    reader = Reader(source_folder(source), default)
    examples: list[Example] = []
    errors: list[RowError] = []
    for where, row in rows(source):
        if isinstance(row, RowError):
            errors.append(row)
            continue
        try:
            examples.append(reader.example(row, where))
        except RouterError as error:
            errors.append(RowError(where, error.message))
    return examples, errors


def parts(row: object) -> tuple[Mapping[str, Any], str | None, str, Any]:
    """A row itself, its system text (None without one), its request and its answer, which may be text or an object.

    Raises `DataError` where it is in none of the forms.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"a row must be a JSON object, not {type(row).__name__}")
    if "messages" in row:
        system, request, answer = _chat(row["messages"])
    else:
        system, request, answer = None, row.get("request"), row.get("target")
    if not isinstance(request, str) or answer is None:
        raise DataError('a row needs "messages", or "request" and "target"')
    return row, system, request, answer


def rows(source: str | Path) -> Iterator[tuple[str, object]]:
    """The raw rows of a source with where they stand; a line that is no JSON comes as a `RowError`."""
    name, _, split = str(source).partition("#")
    path = Path(name)
    if path.is_file() and path.suffix == ".json":
        raise DataError(f"{path} is no JSONL file", hint="one JSON object a line; the name ends in .jsonl or .jsonl.gz")
    if path.is_file():
        yield from _lines(path)
    elif path.suffix in (".jsonl", ".gz"):
        raise DataError(f"{path} does not exist")
    else:
        yield from _dataset(name, split or "train")


def write(examples: Iterable[Example], path: Path, catalogue_name: str, style: Style = "signature") -> None:
    """Write examples as chat-format JSONL, packed where the name ends in .gz; the file appears whole or not at all."""
    lines = (json.dumps(example.to_json(catalogue_name, style), ensure_ascii=False) + "\n" for example in examples)
    aside = path.with_name(path.name + ".part")
    if path.suffix == ".gz":
        # No time in the header, so that the same rows are the same file.
        with aside.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            packed.writelines(line.encode() for line in lines)
    else:
        with aside.open("w", encoding="utf-8") as text:
            text.writelines(lines)
    aside.replace(path)


def with_catalogue(examples: Sequence[Example], catalogue: Catalogue) -> list[Example]:
    """The same requests and targets against another catalogue."""
    return [replace(example, catalogue=catalogue) for example in examples]


def with_shortlist(examples: Sequence[Example], size: int | None) -> Sequence[Example]:
    """The examples with the tools that a router with such a shortlist is shown, the right ones always among them."""
    if size is None:
        return examples
    lists = Shortlists(size)
    found = []
    for example in examples:
        right = [target.tool for target in (example.target, *example.alternatives)]
        found.append(replace(example, catalogue=lists.of(example.catalogue)(example.request, right)))
    return found


def _lines(path: Path) -> Iterator[tuple[str, object]]:
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                if not line.strip():
                    continue
                try:
                    yield where, json.loads(line)
                except json.JSONDecodeError as error:
                    yield where, RowError(where, f"no JSON: {error.msg} at column {error.colno}")
                except (ValueError, RecursionError) as error:
                    # An integer of thousands of digits, or brackets nested by the thousand.
                    yield where, RowError(where, f"no usable JSON: {error}")
    except (OSError, UnicodeDecodeError, zlib.error, EOFError) as error:
        raise DataError(f"{path} can't be read: {error}") from None


def _open(path: Path) -> IO[str]:
    # Editors on Windows begin a file with a byte order mark.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _dataset(name: str, split: str) -> Iterator[tuple[str, object]]:
    import datasets

    if not Path(name).is_dir() and name.count("/") > 1:
        raise DataError(f"{name} does not exist")
    try:
        found = datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name)
    except Exception as error:
        # The hub's client raises many kinds of errors for a name that is wrong, private, or out of reach.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{name} is neither a file nor a dataset that can be loaded: {reason}") from error
    if isinstance(found, Mapping):
        if split not in found:
            raise DataError(f"{name} has no split {split!r}; it has {', '.join(found)}")
        found = found[split]
    for number, row in enumerate(found, start=1):
        yield f"{name}#{split}:{number}", _without_nulls(row)


def _without_nulls(value: Any) -> Any:
    """Arrow tables fill every row's objects up to one shape with nulls; a JSON row would not have these keys."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(child) for key, child in value.items() if child is not None}
    return [_without_nulls(child) for child in value] if isinstance(value, list) else value


def source_folder(source: str | Path) -> Path:
    """The folder that a source's catalogues stand in."""
    path = Path(str(source).partition("#")[0])
    return path if path.is_dir() else path.parent


def bundled_catalogues(folder: Path) -> dict[str, Any]:
    """The catalogues by name, as JSON, of `catalogues.json[.gz]` in a folder; none without that file."""
    for path in (folder / "catalogues.json", folder / "catalogues.json.gz"):
        if path.is_file():
            found = _json_file(path)
            if not isinstance(found, dict):
                raise DataError(f"{path} must be an object of catalogues by name")
            return found
    return {}


def _json_file(path: Path) -> Any:
    try:
        with _open(path) as file:
            return json.load(file)
    except (ValueError, RecursionError, OSError, zlib.error, EOFError) as error:
        raise DataError(f"{path} is no JSON: {error}") from None


def _chat(messages: object) -> tuple[str | None, Any, Any]:
    """System text, request and answer of a chat row of one turn."""
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise DataError('"messages" must be a list of objects')
    roles = [message.get("role") for message in messages]
    if roles not in (["system", "user", "assistant"], ["user", "assistant"]):
        raise DataError(f"messages must be system, user, assistant, not {', '.join(map(str, roles))}")
    contents = [message.get("content") for message in messages]
    if not all(isinstance(content, str) for content in contents):
        raise DataError("every message needs content that is text")
    return (contents[0] if roles[0] == "system" else None), contents[-2], contents[-1]


def _target(answer: object, catalogue: Catalogue, what: str) -> Target:
    outcome = parse(answer, catalogue) if isinstance(answer, str) else parse_target(answer, catalogue)
    if isinstance(outcome, ParseFailure):
        raise DataError(f"{what} does not fit the catalogue ({outcome.reason}): {outcome.detail}")
    return outcome


def _decoded(value: object, what: str) -> Any:
    """A value that may have been stored as JSON text, as datasets with free-form objects do."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise DataError(f'"{what}" is text, but no JSON: {error}') from None


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return None if value is None else str(value)
