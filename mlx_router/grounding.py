"""What of a call is said in its request: free text letter for letter, numbers in digits or words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .calls import Outcome, Target, ToolCall
from .catalogue import Catalogue, Tool
from .duplicates import fold
from .schemas import Schema

UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@dataclass(frozen=True)
class Text:
    """A free text value of a call: the parameter's name with its path, and the value."""

    where: str
    value: str


def grounded(outcome: Outcome, catalogue: Catalogue, request: str) -> bool | None:
    """Whether every free text of a call stands in the request; None where no tool is called."""
    tool = catalogue.get(outcome.tool) if isinstance(outcome, ToolCall) else None
    if tool is None or not isinstance(outcome, ToolCall):
        return None
    return all(is_said(text.value, request) for text in free_texts(tool, outcome.arguments))


def free_texts(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[Text]:
    """The call's string values, at any depth, that are not chosen from a list."""
    return _texts(tool.parameters, arguments, "", _definitions(tool))


def with_texts(tool: Tool, arguments: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The arguments with every string that is not chosen from a list changed, at any depth."""
    return dict(_changed(tool.parameters, arguments, _definitions(tool), change))


def target_with_texts(target: Target, catalogue: Catalogue, change: Callable[[str], str]) -> Target:
    """A call with its free texts changed; any other target, or a call of no tool of the catalogue, as it is."""
    tool = catalogue.get(target.tool) if isinstance(target, ToolCall) else None
    if tool is None or not isinstance(target, ToolCall):
        return target
    return ToolCall(tool=target.tool, arguments=with_texts(tool, target.arguments, change))


def _definitions(tool: Tool) -> dict[str, Any]:
    return {**tool.parameters.get("definitions", {}), **tool.parameters.get("$defs", {})}


def number_words(number: int) -> str:
    """An integer from 0 to 100 in words, as `fold` leaves them: "twenty one"."""
    if number == 100:
        return "hundred"
    if number < 20:
        return UNITS[number]
    return f"{TENS[number // 10 - 2]} {UNITS[number % 10] if number % 10 else ''}".strip()


def is_said(value: str, request: str) -> bool:
    """Whether a value stands in the request letter for letter, or is a small number said in words."""
    if value.strip() and value in request:
        return True
    small = len(value) <= 3 and value.isdecimal() and int(value) <= 100
    return small and has_words(request, number_words(int(value)))


def has_words(text: str, words: str) -> bool:
    """Whether folded words stand in a text as words."""
    return f" {words} " in f" {fold(text)} "


def _texts(schema: Any, value: Any, where: str, defs: Mapping[str, Any]) -> Iterator[Text]:
    schemas = list(_resolved(schema, defs))
    if isinstance(value, str) and not _is_listed(schemas):
        yield Text(where, value)
    for key, inner, child in _parts(schemas, value):
        joint = "." if where and isinstance(key, str) else ""
        yield from _texts(inner, child, f"{where}{joint}{key if isinstance(key, str) else f'[{key}]'}", defs)


def _changed(schema: Any, value: Any, defs: Mapping[str, Any], change: Callable[[str], str]) -> Any:
    schemas = list(_resolved(schema, defs))
    if isinstance(value, str):
        return value if _is_listed(schemas) else change(value)
    parts = {key: _changed(inner, child, defs, change) for key, inner, child in _parts(schemas, value)}
    if isinstance(value, list):
        return list(parts.values())
    return parts if isinstance(value, Mapping) else value


def _is_listed(schemas: Sequence[Schema]) -> bool:
    return any("enum" in found or "const" in found for found in schemas)


def _parts(schemas: Sequence[Schema], value: Any) -> Iterator[tuple[str | int, Any, Any]]:
    """What a list or an object holds: number or name, schema and value."""
    if isinstance(value, list):
        items = _first(schemas, "items")
        yield from ((number, items, child) for number, child in enumerate(value))
    elif isinstance(value, Mapping):
        properties = {name: child for found in schemas for name, child in found.get("properties", {}).items()}
        others = _first(schemas, "additionalProperties")
        yield from ((name, properties.get(name, others), child) for name, child in value.items())


def _resolved(schema: Any, defs: Mapping[str, Any], depth: int = 0) -> Iterator[Schema]:
    """The schema with everything that it refers to or is made of: references and branches."""
    if not isinstance(schema, Mapping) or depth > 8:
        return
    yield dict(schema)
    if "$ref" in schema:
        yield from _resolved(defs.get(str(schema["$ref"]).rpartition("/")[2]), defs, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        for branch in schema.get(key, ()):
            yield from _resolved(branch, defs, depth + 1)


def _first(schemas: Sequence[Schema], key: str) -> Any:
    return next((found[key] for found in schemas if isinstance(found.get(key), Mapping)), {})
