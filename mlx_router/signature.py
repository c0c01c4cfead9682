"""Signature style: a catalogue as one line a tool, `- track_order(order_id: str): get the status of an order.`

    name: T          required                name?: T         optional
    name: T = value  optional with default   "low"|"high"     enum or const, as JSON
    str int float bool null any object       list[T]          {a: int, b?: str}
    date time date-time email uri uuid …     a string of that format

Numbers' ranges, patterns and lengths are not shown: they are checked after decoding. `parse_signatures` reads the
style back, the brief's own example included.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from .calls import NO_TOOL
from .catalogue import MORE, Catalogue, Tool
from .errors import CatalogueError
from .schemas import FORMATS, Schema

TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "null"}
NAMES = {short: full for full, short in TYPES.items()} | {full: full for full in TYPES} | {"None": "null"}
PLAIN_NAME = re.compile(r"[\w.$-]+")
TOOLS_FOLLOW = "Available tools:"
# The reasons follow, as an enum.
NO_TOOL_ANSWER = f'If no tool fits, respond with {{"tool":"{NO_TOOL}","reason":'
MAX_DEPTH = 8


def render_tool(tool: Tool) -> str:
    """One tool's line."""
    defs = {**tool.parameters.get("definitions", {}), **tool.parameters.get("$defs", {})}
    text = f"- {tool.name}({_fields(tool.parameters, defs, 0)})"
    description = " ".join(tool.description.split())
    return f"{text}: {description}" if description else text


def render_signatures(catalogue: Catalogue) -> str:
    """All tools' lines."""
    return "\n".join(render_tool(tool) for tool in catalogue)


def render_reasons(catalogue: Catalogue) -> str:
    """The reasons of a `no_tool` as the model is shown them."""
    return "|".join(_literal(reason) for reason in catalogue.reasons or (MORE,))


def _fields(schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
    required = set(schema.get("required", ()))
    return ", ".join(
        _field(name, child if isinstance(child, Mapping) else {}, name in required, defs, depth)
        for name, child in schema.get("properties", {}).items()
    )


def _field(name: str, schema: Mapping[str, Any], required: bool, defs: Mapping[str, Any], depth: int) -> str:
    shown = name if PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    type_ = _type(schema, defs, depth)
    if required:
        return f"{shown}: {type_}"
    if "default" in schema and schema["default"] is not None:
        return f"{shown}: {type_} = {_literal(schema['default'])}"
    return f"{shown}?: {type_}"


def _type(schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
    if depth > MAX_DEPTH:
        return "any"
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        # Without itself: a definition that refers to itself is shown once, not to the depth of all its branches.
        others = {key: value for key, value in defs.items() if key != name}
        return _type(defs[name], others, depth + 1) if isinstance(defs.get(name), Mapping) else "any"
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return "|".join(_literal(value) for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return "|".join(dict.fromkeys(_type(child, defs, depth + 1) for child in schema[key]))
    kinds = schema.get("type", ())
    if isinstance(kinds, str):
        kinds = (kinds,)
    return "|".join(_kind(kind, schema, defs, depth) for kind in kinds) or "any"


def _kind(kind: str, schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> str:
    if kind == "array":
        items = schema.get("items")
        return f"list[{_type(items, defs, depth + 1) if isinstance(items, Mapping) else 'any'}]"
    if kind == "object":
        return f"{{{_fields(schema, defs, depth + 1)}}}" if schema.get("properties") else "object"
    if kind == "string" and schema.get("format") in FORMATS:
        return str(schema["format"])
    return TYPES.get(kind, kind)


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_signatures(system: str) -> Catalogue | None:
    """Read the catalogue of a system message in signature style; None where the text is in no such style.

    Raises `CatalogueError` where a line of tools can't be read or the tools make no catalogue.
    """
    # Not `splitlines`: values may hold other line separators, such as U+2028.
    lines = system.split("\n")
    tools = [_read_line(line.strip()) for line in lines if re.match(r"\s*- [^\s(]+\(", line)]
    if not tools:
        return None
    first = next(number for number, line in enumerate(lines) if re.match(r"\s*- [^\s(]+\(", line))
    head = " ".join(line.strip() for line in lines[:first]).strip()
    return Catalogue(tuple(tools), head.removesuffix(TOOLS_FOLLOW).strip(), _read_reasons(lines))


def _read_reasons(lines: list[str]) -> tuple[str, ...]:
    """The reasons that a message lists after its tools in our words; none where it says "...", or something else."""
    said = next((line.partition(NO_TOOL_ANSWER)[2] for line in reversed(lines) if NO_TOOL_ANSWER in line), "")
    reader = _Reader(said)
    try:
        found = [reader.literal()]
        while reader.accept("|"):
            found.append(reader.literal())
        reader.expect("}")
    except ValueError:
        return ()
    return () if found == [MORE] or not all(isinstance(reason, str) for reason in found) else tuple(found)


def _read_line(line: str) -> Tool:
    name, _, rest = line[2:].partition("(")
    reader = _Reader(rest)
    try:
        parameters = reader.fields(")")
        reader.expect(")")
    except (ValueError, RecursionError) as error:
        raise CatalogueError(
            f"can't read the signature {line!r}: {error}",
            hint='write it as in `- name(a: str, b?: int = 1, c: "x"|"y"): what it does`, or give the tools as JSON',
        ) from None
    return Tool(name, reader.rest().removeprefix(":").strip(), parameters)


class _Reader:
    """Recursive descent over one line, after its opening bracket."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def rest(self) -> str:
        return self.text[self.at :].strip()

    def accept(self, mark: str) -> bool:
        self.skip_space()
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def expect(self, mark: str) -> None:
        if not self.accept(mark):
            raise ValueError(f"{mark!r} expected at {self.rest()[:20]!r}")

    def skip_space(self) -> None:
        while self.text[self.at : self.at + 1] == " ":
            self.at += 1

    def literal(self) -> Any:
        self.skip_space()
        try:
            value, self.at = json.JSONDecoder().raw_decode(self.text, self.at)
        except json.JSONDecodeError:
            raise ValueError(f"a value expected at {self.rest()[:20]!r}") from None
        return value

    def name(self) -> str:
        self.skip_space()
        if self.text[self.at : self.at + 1] == '"':
            return str(self.literal())
        match = PLAIN_NAME.match(self.text, self.at)
        if match is None:
            raise ValueError(f"a name expected at {self.rest()[:20]!r}")
        self.at = match.end()
        return match.group()

    def fields(self, closing: str) -> Schema:
        properties: dict[str, Schema] = {}
        required = []
        self.skip_space()
        while not self.text.startswith(closing, self.at):
            name = self.name()
            if name in properties:
                raise ValueError(f"parameter {name!r} stands twice")
            optional = self.accept("?")
            properties[name] = self.type() if self.accept(":") else {"type": "string"}
            if self.accept("="):
                properties[name]["default"] = self.literal()
            elif not optional:
                required.append(name)
            if not self.accept(","):
                break
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**schema, "required": required} if required else schema

    def type(self) -> Schema:
        options = [self.one_type()]
        while self.accept("|"):
            options.append(self.one_type())
        if all(option.keys() == {"enum"} for option in options):
            return {"enum": [value for option in options for value in option["enum"]]}
        return options[0] if len(options) == 1 else {"anyOf": options}

    def one_type(self) -> Schema:
        self.skip_space()
        if self.text[self.at : self.at + 1] in ('"', "[", "-", *"0123456789"):
            return {"enum": [self.literal()]}
        if self.accept("{"):
            schema = self.fields("}")
            self.expect("}")
            return schema
        return self.named_type(self.name())

    def named_type(self, name: str) -> Schema:
        if name == "list":
            items = {}
            if self.accept("["):
                items = self.type()
                self.expect("]")
            return {"type": "array", "items": items} if items else {"type": "array"}
        if name in NAMES:
            return {"type": NAMES[name]}
        if name in FORMATS:
            return {"type": "string", "format": name}
        if name in ("object", "dict"):
            return {"type": "object"}
        if name in ("true", "false"):
            return {"enum": [name == "true"]}
        if name == "any":
            return {}
        raise ValueError(f"unknown type {name!r}")
