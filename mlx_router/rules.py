"""The rules for gold values, as docs/data.md states them: what a target says must come from its request.

They are heuristics on single rows. A broken rule is a warning: the row can be trained on, but teaches to invent.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .calls import REASON_CODES, NoTool, Target, ToolCall
from .catalogue import Catalogue, Tool
from .data import Example
from .duplicates import fold
from .grounding import Text, free_texts, has_words, is_said, number_words
from .metrics import json_equal, same_decision

# Codes after which the names of parameters follow.
NAMING_CODES = ("missing_information", "invalid_parameter")
# Not "As Tears Go By": a title begins with two capitals.
LEADING = re.compile(r"(?:because|since|as)\s|(?:Because|Since|As)\s(?:[^A-Z]|I\b)")


@dataclass(frozen=True)
class Breach:
    """One broken rule: its code and what is wrong, in words."""

    code: str
    message: str


def breaches(example: Example) -> Iterator[Breach]:
    """Every rule that a row's target or one of its alternatives breaks."""
    for target, prefix in [(example.target, ""), *((other, "alternative: ") for other in example.alternatives)]:
        found = _call_breaches if isinstance(target, ToolCall) else _no_tool_breaches
        yield from (Breach(breach.code, prefix + breach.message) for breach in found(target, example))
    if any(_same(other, example.target) for other in example.alternatives):
        yield Breach("idle_alternative", "an alternative is the same decision as the target")


def _same(one: Target, other: Target) -> bool:
    """Whether two targets say the same, reasons included."""
    reasons = [target.reason if isinstance(target, NoTool) else None for target in (one, other)]
    return same_decision(one, other) and reasons[0] == reasons[1]


def invented(example: Example) -> Iterator[Text]:
    """Free text values of the target that are not in the request letter for letter."""
    tool = example.catalogue.get(example.target.tool)
    if tool is not None and isinstance(example.target, ToolCall):
        texts = free_texts(tool, example.target.arguments)
        yield from (text for text in texts if not is_said(text.value, example.request))


def _call_breaches(target: Target, example: Example) -> Iterator[Breach]:
    tool = example.catalogue.get(target.tool)
    if tool is None or not isinstance(target, ToolCall):
        return
    for text in free_texts(tool, target.arguments):
        if not is_said(text.value, example.request):
            yield Breach("value_not_in_request", f"{text.where} {text.value!r}{_spelling(text.value, example.request)}")
        if LEADING.match(text.value):
            yield Breach("leading_because", f"{text.where} {text.value!r} begins with {text.value.split()[0]!r}")
    yield from _defaults(tool, target, example.request)


def _spelling(value: str, request: str) -> str:
    match = re.search(re.escape(value), request, re.IGNORECASE) if value else None
    return f" is not in the request, which has {match.group()!r}" if match else " is not in the request"


def _defaults(tool: Tool, target: ToolCall, request: str) -> Iterator[Breach]:
    """Optional values that equal the default and have no trace in the request; a boolean's trace can't be known."""
    for name, schema in tool.properties.items():
        value = target.arguments.get(name)
        if not isinstance(schema, Mapping) or name in tool.required or isinstance(value, bool) or value is None:
            continue
        if "default" in schema and json_equal(value, schema["default"]) and not _leaves_trace(value, request):
            yield Breach("default_written_out", f"{name} {value!r} is the default and not in the request")


def _leaves_trace(value: Any, request: str) -> bool:
    if isinstance(value, int | float):
        words = number_words(int(value)) if 0 <= value <= 100 and value == int(value) else ""
        return has_words(request, f"{value:g}") or (words != "" and has_words(request, words))
    return any(word in fold(request) for word in fold(str(value)).split())


def _no_tool_breaches(target: Target, example: Example) -> Iterator[Breach]:
    if not isinstance(target, NoTool):
        return
    catalogue = example.catalogue
    code, _, words = target.reason.partition(":")
    if not catalogue.lists(target.reason):
        yield Breach("unknown_reason", f"{target.reason!r} is none of the catalogue's reasons")
    elif not catalogue.reasons and code.strip() not in REASON_CODES:
        yield Breach("unknown_reason", f"{code.strip()!r} is no reason code")
    # A catalogue that lists the bare code wants no names.
    if code.strip() in NAMING_CODES and target.reason not in catalogue.reasons:
        names = [name.strip() for name in words.split(",") if name.strip()]
        yield from _named_breaches(code.strip(), names, example.catalogue)


def _named_breaches(code: str, names: Sequence[str], catalogue: Catalogue) -> Iterator[Breach]:
    known = {name for tool in catalogue for name in tool.properties}
    unknown = [name for name in names if name not in known]
    orders = [[name for name in tool.properties if name in names] for tool in catalogue]
    if not names:
        yield Breach("unnamed_parameter", f"{code} names no parameter")
    elif unknown:
        yield Breach("unknown_parameter", f"{', '.join(map(repr, unknown))} is no parameter of any tool")
    elif all(len(order) < len(names) for order in orders):
        yield Breach("unknown_parameter", f"no tool has all of {', '.join(names)}")
    elif list(names) not in orders:
        yield Breach("parameter_order", f"{', '.join(names)} do not stand in the order of the tool's schema")
