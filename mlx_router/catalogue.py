"""The catalogue: tools with JSON Schema parameters in canonical form, looked up, hashed, and held against arguments.

The canonical form of the parameters is that of `schemas`. Models see parameters in their declared order, so the order
is part of the hash.

Beside its parameters a tool may say how they are compared with gold ones (`compare`, see `matching`), and give some
requests that it is for (`examples`, see `shortlist`). No model sees these, so they are kept in files but are no part of
the hash.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema_rs
from pydantic import BaseModel

from .calls import NO_TOOL
from .errors import CatalogueError
from .matching import Comparisons, Rule, comparison_problems, read_rules
from .schemas import Problem, Schema, canonical_parameters, schema_problems

# What ends a reason that stands for all that begin so.
MORE = "..."
NAME = re.compile(r"\w[\w./:-]{0,127}")


@dataclass(frozen=True)
class ArgumentError:
    """One way in which arguments do not fit a tool. `kind` is "missing", "extra" or "bad"."""

    kind: str
    where: str
    message: str


@dataclass(frozen=True)
class Tool:
    """One tool: name, description, and the JSON Schema of its arguments in canonical form.

    `model` is the Pydantic model that declared the arguments, if one did. It judges arguments after the schema, and
    its values go to `Decision.dispatch`. `compare` holds rules of comparison by parameter, `examples` requests by
    which a shortlist finds the tool.

        Tool("track_order", "get the status of an order.", {"properties": {"order_id": {"type": "string"}}})
    """

    name: str
    description: str = ""
    parameters: Schema = field(default_factory=dict)
    model: type[BaseModel] | None = field(default=None, compare=False, repr=False)
    compare: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    examples: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", canonical_parameters(self.parameters))

    @cached_property
    def validator(self) -> jsonschema_rs.Draft202012Validator:
        """The compiled schema of the arguments."""
        return jsonschema_rs.Draft202012Validator(self.parameters, validate_formats=True, offline=True)

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """The declared rules of comparison by parameter; a parameter without one is compared exactly."""
        return read_rules(self.compare)

    @property
    def properties(self) -> dict[str, Schema]:
        """Parameter names and their schemas, in declared order."""
        return dict(self.parameters.get("properties", {}))

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the parameters that a call must give."""
        return tuple(self.parameters.get("required", ()))

    def argument_errors(self, arguments: Mapping[str, Any]) -> list[ArgumentError]:
        """Everything in which the arguments do not fit; an empty list if they do."""
        errors = [_argument_error(error) for error in self.validator.iter_errors(dict(arguments))]
        if errors or self.model is None:
            return errors
        try:
            _model_values(self.model, arguments)
        except Exception as error:
            # A model's own validator may raise anything; its words go into the detail only.
            return [ArgumentError("bad", "arguments", str(error) or type(error).__name__)]
        return []

    def typed(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments as values of the declaring Pydantic model; None without one.

        Only what the call gives is listed, so that a handler's own defaults hold.
        """
        if self.model is None:
            return None
        values = _model_values(self.model, arguments)
        given = {name: getattr(values, name) for name in type(values).model_fields if name in values.model_fields_set}
        return {**given, **(values.model_extra or {})}

    def to_json(self) -> dict[str, Any]:
        """What a model is to know of the tool."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}

    def declaration(self) -> dict[str, Any]:
        """The tool as the canonical file holds it: with `compare` and `examples` if it has any."""
        compare = {"compare": dict(self.compare)} if self.compare else {}
        return {**self.to_json(), **compare, **({"examples": list(self.examples)} if self.examples else {})}


@dataclass(frozen=True)
class Catalogue:
    """Tools in the order in which the model sees them, and a line of instructions that is rendered first.

    `reasons` are those that a `no_tool` is to have, as the model is told them; without any it writes its own. One that
    ends in "..." stands for all texts that begin so and go on: "missing_information: ...". Other reasons are valid too.

    Raises `CatalogueError` naming every error at once. `problems()` lists the warnings as well.
    """

    tools: tuple[Tool, ...]
    instructions: str = ""
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tools", tuple(self.tools))
        object.__setattr__(self, "reasons", tuple(self.reasons))
        _raise_errors(self.problems())

    @classmethod
    def from_json(cls, value: object) -> "Catalogue":
        """Read the canonical form or its list of tools.

        `{"instructions", "reasons"?, "tools": [{"name", "description", "parameters", "compare"?, "examples"?}]}`
        """
        fields, problems = read_catalogue(value)
        _raise_errors(problems)
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """The canonical form."""
        return {**self._head(), "tools": [tool.declaration() for tool in self.tools]}

    def _head(self) -> dict[str, Any]:
        # A catalogue without reasons is written, and hashed, as it was before there were any.
        reasons = {"reasons": list(self.reasons)} if self.reasons else {}
        return {"instructions": self.instructions, **reasons}

    def save(self, path: Path) -> None:
        """Write the canonical file."""
        path.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    @cached_property
    def by_name(self) -> dict[str, Tool]:
        """Tools by name."""
        return {tool.name: tool for tool in self.tools}

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of what a model sees, and of the order in which it sees it."""
        seen = {**self._head(), "tools": [tool.to_json() for tool in self.tools]}
        text = json.dumps(seen, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def comparisons(self) -> Comparisons:
        """Rules of comparison by tool and parameter, for the tools that declare any."""
        return {tool.name: tool.rules for tool in self.tools if tool.compare}

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalogue) and self.hash == other.hash

    def __iter__(self) -> Iterator[Tool]:
        return iter(self.tools)

    def __len__(self) -> int:
        return len(self.tools)

    def __contains__(self, name: str) -> bool:
        return name in self.by_name

    def get(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return self.by_name.get(name)

    def only(self, names: Collection[str]) -> "Catalogue":
        """The catalogue with the tools of these names alone, in its own order."""
        return replace(self, tools=tuple(tool for tool in self.tools if tool.name in names))

    def problems(self) -> list[Problem]:
        """Everything wrong with the catalogue: errors, then warnings."""
        return [*reasons_problems(self.reasons), *tools_problems(self.tools)]

    def lists(self, reason: str) -> bool:
        """Whether this is one of the reasons; without a list any is."""
        return not self.reasons or any(_is_reason(reason, listed) for listed in self.reasons)


def union(catalogues: Sequence[Catalogue]) -> Catalogue:
    """All tools of several catalogues, in order of first appearance.

    Raises `CatalogueError` where two of them declare the same name in different ways. One that says nothing of how its
    arguments are compared goes along with one that does.
    """
    tools: dict[str, Tool] = {}
    for catalogue in catalogues:
        for tool in catalogue:
            other = tools.setdefault(tool.name, tool)
            if tool.compare and not other.compare:
                tools[tool.name] = other = replace(other, compare=tool.compare)
            if tool.examples and not other.examples:
                tools[tool.name] = other = replace(other, examples=tool.examples)
            if other.to_json() != tool.to_json() or (tool.compare and other.compare != tool.compare):
                raise CatalogueError(
                    f"tool {tool.name!r} is declared in two different ways",
                    hint="give the catalogue to use explicitly, or rename one of the two",
                )
    instructions = {catalogue.instructions for catalogue in catalogues}
    # Where one of them takes any reason, so does the union.
    reasons = [catalogue.reasons for catalogue in catalogues]
    listed = tuple(dict.fromkeys(reason for some in reasons for reason in some)) if all(reasons) else ()
    return Catalogue(tuple(tools.values()), instructions.pop() if len(instructions) == 1 else "", listed)


def _is_reason(reason: str, listed: str) -> bool:
    begun = listed.removesuffix(MORE)
    return reason == listed if begun == listed else reason.startswith(begun) and bool(reason[len(begun) :].strip())


def reasons_problems(reasons: Sequence[object]) -> list[Problem]:
    """Everything wrong with a list of reasons."""
    found = [
        Problem("error", "reasons", f"must be texts, not {reason!r}")
        for reason in reasons
        if not isinstance(reason, str) or not reason.removesuffix(MORE).strip()
    ]
    twice = [reason for reason in dict.fromkeys(map(repr, reasons)) if list(map(repr, reasons)).count(reason) > 1]
    return found + [Problem("error", "reasons", f"{reason} stands twice") for reason in twice]


def tools_problems(tools: Sequence[Tool]) -> list[Problem]:
    """Everything wrong with these tools as a catalogue: errors, then warnings."""
    found = [problem for tool in tools for problem in tool_problems(tool)]
    names = [tool.name for tool in tools]
    found += [
        Problem("error", f"tool {name!r}", f"{names.count(name)} tools have this name; names must differ")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if not tools:
        found.append(Problem("error", "tools", "the catalogue has no tools"))
    return sorted(found, key=lambda problem: problem.level != "error")


def _raise_errors(problems: Sequence[Problem]) -> None:
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        lines = "\n".join(f"  {problem}" for problem in errors)
        raise CatalogueError(f"the catalogue has {len(errors)} error(s):\n{lines}")


def read_catalogue(value: object) -> tuple[dict[str, Any], list[Problem]]:
    """The fields of a catalogue by a canonical JSON value, and all its problems, of shape and of content, at once."""
    whole = value if isinstance(value, Mapping) else {"tools": value}
    problems = [
        Problem("error", "catalogue", f"unknown key {key!r}")
        for key in whole
        if key not in ("instructions", "reasons", "tools")
    ]
    instructions, reasons = whole.get("instructions", ""), whole.get("reasons")
    if not isinstance(instructions, str):
        problems.append(Problem("error", "instructions", f"must be text, not {instructions!r}"))
        instructions = ""
    if not isinstance(reasons, list | tuple | None):
        problems.append(Problem("error", "reasons", f"must be a list of texts, not {reasons!r}"))
        reasons = ()
    problems += reasons_problems(reasons or ())
    tools, faults = _read_tools(whole.get("tools"))
    return {"tools": tools, "instructions": instructions, "reasons": tuple(reasons or ())}, problems + faults


def _read_tools(entries: object) -> tuple[tuple[Tool, ...], list[Problem]]:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return (), [Problem("error", "tools", "must be a list of tools")]
    problems: list[Problem] = []
    tools: list[Tool] = []
    for number, entry in enumerate(entries, start=1):
        tool, faults = _read_tool(entry, f"tool {number}")
        problems += faults
        if tool is not None:
            tools.append(tool)
    if tools or not problems:
        problems += tools_problems(tools)
    return tuple(tools), problems


def _read_tool(entry: object, where: str) -> tuple[Tool | None, list[Problem]]:
    if not isinstance(entry, Mapping):
        return None, [Problem("error", where, f"must be an object, not {entry!r}")]
    name = entry.get("name")
    if not isinstance(name, str):
        return None, [Problem("error", where, f"needs a name that is text, not {name!r}")]
    where = f"tool {name!r}"
    problems = [
        Problem("error", where, f"unknown key {key!r}")
        for key in entry
        if key not in ("name", "description", "parameters", "compare", "examples")
    ]
    description = entry.get("description") or ""
    parameters = {} if entry.get("parameters") is None else entry["parameters"]
    compare = {} if entry.get("compare") is None else entry["compare"]
    if not isinstance(description, str):
        problems.append(Problem("error", where, f"description must be text, not {description!r}"))
    if not isinstance(parameters, Mapping):
        problems.append(Problem("error", where, f"parameters must be a JSON Schema object, not {parameters!r}"))
    if not isinstance(compare, Mapping):
        problems.append(Problem("error", where, f"compare must be an object of rules by parameter, not {compare!r}"))
    examples = [] if entry.get("examples") is None else entry["examples"]
    if not isinstance(examples, list) or not all(isinstance(text, str) and text.strip() for text in examples):
        problems.append(Problem("error", where, f"examples must be a list of requests, not {examples!r}"))
    if problems:
        return None, problems
    try:
        return Tool(name, str(description), dict(parameters), compare=dict(compare), examples=tuple(examples)), []
    except RecursionError:
        return None, [Problem("error", f"{where}, parameters", "nested too deep")]


def tool_problems(tool: Tool) -> list[Problem]:
    """Everything wrong with one tool: its name, its description, its schema."""
    where = f"tool {tool.name!r}"
    found = []
    if tool.name == NO_TOOL:
        found.append(Problem("error", where, "this name means that no tool is called; rename the tool"))
    elif not NAME.fullmatch(tool.name):
        allowed = "a letter, digit or _ first, then also . / : -, at most 128"
        found.append(Problem("error", where, f"not a usable name ({allowed})"))
    if not tool.description.strip():
        found.append(Problem("warning", where, "has no description; the model chooses tools by their descriptions"))
    try:
        tool.validator  # noqa: B018
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        reason = " ".join(re.split("\n\n(?:Failed validating|On instance)", str(error))[0].split())
        return [*found, Problem("error", f"{where}, parameters", f"no valid JSON Schema: {reason}")]
    if tool.parameters.get("type") != "object":
        found.append(Problem("error", f"{where}, parameters", "must be of type object"))
    faults = comparison_problems(tool.compare, tool.parameters)
    found += [Problem("error", f"{where}, {place}", fault) for place, fault in faults]
    return found + schema_problems(tool.parameters, f"{where}, parameters")


def _model_values(model: type[BaseModel], arguments: Mapping[str, Any]) -> BaseModel:
    # As JSON: in Python's mode a strict model would refuse the text of a date or an enum.
    return model.model_validate_json(json.dumps(dict(arguments)))


def _argument_error(error: Any) -> ArgumentError:
    where = "arguments" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    kind = {"required": "missing", "additionalProperties": "extra"}.get(error.kind.name, "bad")
    return ArgumentError(kind, where, error.message)
