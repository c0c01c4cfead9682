"""What is wrong with a row: its kind of fault, and the first token at which the output left the gold answer."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .calls import NO_TOOL, NoTool, ParseFailure, Target, ToolCall
from .evaluation import Scored
from .metrics import json_equal
from .prompts import assistant_text, compact_json

# The gravest first: a wrong call reaches real systems in silence, a parse failure is only a retry.
FAULTS: Final = (
    "false call",
    "call of another tool",
    "other arguments",
    "missed call",
    "invalid output",
    "right by an alternative or as declared",
)
# Text into the pieces that its model sees; joined they are the text.
Pieces = Callable[[str], list[str]]


@dataclass(frozen=True)
class Difference:
    """Where an output leaves the gold answer: at this character of `text`, in this part, with one token for another.

    `text` is the output as it is compared. A token is empty where that side had ended.
    """

    text: str
    at: int
    part: str
    said: str
    wanted: str


def fault(one: Scored) -> str | None:
    """The kind of fault, one of `FAULTS`; None for a row that is right."""
    row = one.row
    if row.right:
        return None
    if row.right_as_declared:
        return FAULTS[5]
    if isinstance(one.outcome, ParseFailure):
        return "invalid output"
    if isinstance(one.outcome, NoTool):
        return "missed call"
    if not row.wants_call:
        return "false call"
    return "other arguments" if row.right_tool else "call of another tool"


def by_fault(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The failed rows by their fault, the gravest first."""
    found: dict[str, list[Scored]] = {name: [] for name in FAULTS}
    for one in scored:
        if (name := fault(one)) is not None:
            found[name].append(one)
    return {name: rows for name, rows in found.items() if rows}


def words(text: str) -> list[str]:
    """A text in pieces without a tokenizer: words, runs of spaces, and marks."""
    return re.findall(r"\w+|\s+|[^\w\s]", text)


def difference(one: Scored, pieces: Pieces = words) -> Difference | None:
    """The first token of the output that is not the gold answer's; None where no token is wrong.

    Of several acceptable targets the one is taken that the output follows longest. The order of keys, and how a number
    is written, are no differences.
    """
    text = _written(one)
    said = _pieces(text, pieces)
    best: Difference | None = None
    for target in (one.example.target, *one.example.alternatives):
        wanted = _pieces(_gold(one, target), pieces)
        size = next((at for at, pair in enumerate(zip(said, wanted, strict=False)) if pair[0] != pair[1]), None)
        if size is None:
            size = min(len(said), len(wanted))
        if size == len(said) == len(wanted):
            return None
        at = len("".join(said[:size]))
        if best is None or at > best.at:
            token, other = ("".join(side[size : size + 1]) for side in (said, wanted))
            best = Difference(text, at, _part(text[:at]), token, other)
    return best


def _pieces(text: str, pieces: Pieces) -> list[str]:
    """The text in a tokenizer's pieces; in words where these are not the text, as with half a character in a token."""
    found = pieces(text)
    return found if "".join(found) == text else words(text)


def _written(one: Scored) -> str:
    """The output as it is compared: as it came, or a valid one without white space between its parts."""
    outcome = one.outcome
    if isinstance(outcome, ParseFailure):
        return one.output.strip()
    if isinstance(outcome, NoTool):
        return compact_json({"tool": NO_TOOL, "reason": outcome.reason})
    return compact_json({"tool": outcome.tool, "arguments": outcome.arguments})


def _gold(one: Scored, target: Target) -> str:
    """The target's text; beside a call of the same tool in the output's order, and in its spelling of equal values."""
    outcome = one.outcome
    if not (isinstance(outcome, ToolCall) and isinstance(target, ToolCall) and outcome.tool == target.tool):
        return assistant_text(target, one.example.catalogue)
    said, gold = outcome.arguments, target.arguments
    order = [name for name in said if name in gold] + [name for name in gold if name not in said]
    same = {name: said[name] for name in order if name in said and json_equal(said[name], gold[name])}
    return assistant_text(ToolCall(tool=target.tool, arguments={name: same.get(name, gold[name]) for name in order}))


def _part(before: str) -> str:
    """Which part of an answer follows this beginning."""
    if '"arguments":{' in before:
        names = re.findall(r'[{,]"(\w+)":', before.partition('"arguments":')[2])
        return f"argument {names[-1]}" if names else "arguments"
    if '"reason":' in before:
        return "reason"
    return "tool" if '"tool":"' in before else "beginning"
