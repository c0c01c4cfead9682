"""Text to decision: strict, and total. A model's output never raises here; it becomes a value with a reason."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from .calls import NO_TOOL, Failure, NoTool, Outcome, ParseFailure, ToolCall
from .catalogue import Catalogue, Tool

Change: TypeAlias = Callable[[Tool, dict[str, Any]], dict[str, Any]]

MAX_CHARACTERS = 65_536
MAX_DEPTH = 32
# 2^64 has 20 digits; no tool takes a longer integer, and Python's own conversion of long ones is quadratic.
MAX_INT_DIGITS = 20
JSON_SPACE = " \t\n\r"
SURROGATE = re.compile("[\ud800-\udfff]")


class _Rejected(Exception):
    def __init__(self, reason: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = ParseFailure(reason, detail)


def parse(text: str, catalogue: Catalogue, change: Change | None = None) -> Outcome:
    """Read one decision. White space around the object is fine; anything else that is not the contract is a failure.

    parse('{"tool":"track_order","arguments":{"order_id":"ORD-1234"}}', catalogue)

    `change` is given a call's tool and arguments, and gives the arguments that are checked and returned.
    """
    try:
        return _decision(_strict_json(text), catalogue, change)
    except _Rejected as rejected:
        return rejected.failure


def parse_target(value: Any, catalogue: Catalogue) -> Outcome:
    """Hold an already decoded object, a gold target say, against the same rules."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError) as error:
        return ParseFailure(Failure.NOT_JSON, str(error))
    except RecursionError:
        return ParseFailure(Failure.TOO_DEEP, f"nested deeper than {MAX_DEPTH}")
    return parse(text, catalogue)


def _strict_json(text: str) -> Any:
    body = text.strip(JSON_SPACE)
    if not body:
        raise _Rejected(Failure.EMPTY, "no output")
    if len(body) > MAX_CHARACTERS:
        raise _Rejected(Failure.TOO_LONG, f"{len(body)} characters; the limit is {MAX_CHARACTERS}")
    if surrogate := SURROGATE.search(body):
        raise _Rejected(Failure.LONE_SURROGATE, f"surrogate at character {surrogate.start()}")
    try:
        value, end = DECODER.raw_decode(body)
    except json.JSONDecodeError as error:
        raise _Rejected(Failure.NOT_JSON, f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _Rejected(Failure.TOO_DEEP, f"nested deeper than {MAX_DEPTH}") from None
    if end != len(body):
        raise _Rejected(Failure.TRAILING_TEXT, f"text after the object, at character {end}")
    _check_tree(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Rejected(Failure.DUPLICATE_KEY, f"key {key!r} stands twice")
        found[key] = value
    return found


def _constant(name: str) -> NoReturn:
    raise _Rejected(Failure.BAD_NUMBER, f"{name} is not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Rejected(Failure.BAD_NUMBER, f"{digits[:40]} is out of range")
    return value


def _int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INT_DIGITS:
        raise _Rejected(Failure.BAD_NUMBER, f"integer of {len(digits.lstrip('-'))} digits")
    return int(digits)


DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int, strict=True
)


def _check_tree(value: Any, depth: int = 1) -> None:
    if depth > MAX_DEPTH:
        raise _Rejected(Failure.TOO_DEEP, f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str) and SURROGATE.search(value):
        raise _Rejected(Failure.LONE_SURROGATE, "a \\u escape of half a character")
    if isinstance(value, dict):
        for key, child in value.items():
            _check_tree(key, depth)
            _check_tree(child, depth + 1)
    elif isinstance(value, list):
        for child in value:
            _check_tree(child, depth + 1)


def _decision(value: Any, catalogue: Catalogue, change: Change | None) -> Outcome:
    if not isinstance(value, dict):
        raise _Rejected(Failure.NOT_AN_OBJECT, f"a JSON {_kind(value)}, not an object")
    name = value.get("tool")
    if not isinstance(name, str):
        raise _Rejected(Failure.BAD_ENVELOPE, 'no "tool" that is text')
    if name == NO_TOOL:
        return _no_tool(value)
    tool = catalogue.get(name)
    if tool is None:
        raise _Rejected(Failure.UNKNOWN_TOOL, f"{name!r} is no tool of the catalogue")
    return _call(value, tool, change)


def _no_tool(value: dict[str, Any]) -> NoTool:
    _only_keys(value, "tool", "reason")
    reason = value.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise _Rejected(Failure.NO_REASON, "no_tool without a reason that is text")
    return NoTool(reason=reason)


def _call(value: dict[str, Any], tool: Tool, change: Change | None) -> ToolCall:
    _only_keys(value, "tool", "arguments")
    if "arguments" not in value:
        raise _Rejected(Failure.BAD_ENVELOPE, 'a call without "arguments"')
    arguments = value["arguments"]
    if not isinstance(arguments, dict):
        raise _Rejected(Failure.ARGUMENTS_NOT_AN_OBJECT, f"arguments are a JSON {_kind(arguments)}")
    if change is not None:
        arguments = change(tool, arguments)
    errors = tool.argument_errors(arguments)
    if errors:
        kinds = {"missing": Failure.MISSING_ARGUMENT, "extra": Failure.EXTRA_ARGUMENT, "bad": Failure.BAD_ARGUMENT}
        details = "; ".join(f"{error.where}: {error.message}" for error in errors)
        raise _Rejected(kinds[errors[0].kind], details)
    return ToolCall(tool=tool.name, arguments=arguments)


def _only_keys(value: dict[str, Any], *allowed: str) -> None:
    extra = [key for key in value if key not in allowed]
    if extra:
        raise _Rejected(Failure.BAD_ENVELOPE, f"unexpected key {extra[0]!r}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {str: "string", int: "number", float: "number", list: "array", dict: "object", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)
