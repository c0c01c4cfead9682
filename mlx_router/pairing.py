"""Two runs over the same test rows: which outputs belong together, and what became of each row."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from .calls import ParseFailure, Target, ToolCall
from .catalogue import Catalogue
from .errors import DataError
from .evaluation import NOT_GIVEN, Scored
from .metrics import same_decision

SHOWN = 10
# What a row can have come to, the least harm first: nobody notices a wrong call, whoever gets an invalid output does.
STATES = ("right", "alternative", "invalid", "missed call", "wrong call")

# A test row: its request (or what stands for it), catalogue, target and alternatives.
Key: TypeAlias = tuple[str, str, str, str]
PARTS = ("request", "catalogue", "target", "alternatives")


@dataclass(frozen=True)
class Pair:
    """A test row with the outputs of both runs."""

    a: Scored
    b: Scored

    @property
    def states(self) -> tuple[str, str]:
        """What the row came to in either run."""
        return state(self.a), state(self.b)

    @property
    def changed(self) -> bool:
        """Whether the row came to something else, or to another wrong call."""
        one, other = self.a.outcome, self.b.outcome
        both_wrong = self.states == ("wrong call", "wrong call")
        return self.states[0] != self.states[1] or (
            both_wrong and isinstance(other, ToolCall) and not same_decision(one, other)
        )

    @property
    def harm(self) -> int:
        """By how much B's outcome is worse than A's; negative where it is better."""
        before, after = self.states
        return STATES.index(after) - STATES.index(before)

    def to_json(self) -> dict[str, Any]:
        """The row and both outputs."""
        example = self.a.example
        return {
            "where": example.where,
            "id": example.id,
            "request": example.request,
            "gold": example.target.model_dump(),
            "a": {"state": self.states[0], "output": self.a.output},
            "b": {"state": self.states[1], "output": self.b.output},
        }


def state(one: Scored) -> str:
    """What a row came to, one of `STATES`."""
    row = one.row
    if row.right:
        return "right"
    if row.right_or_alternative:
        return "alternative"
    if isinstance(one.outcome, ParseFailure):
        return "invalid"
    return "wrong call" if row.calls else "missed call"


def changes(pairs: Sequence[Pair]) -> list[Pair]:
    """The rows that changed, those that went from right to a wrong call first."""
    return sorted((pair for pair in pairs if pair.changed), key=lambda pair: (-pair.harm, STATES.index(pair.states[0])))


def pair_up(a: Sequence[Scored], b: Sequence[Scored]) -> list[Pair]:
    """The rows of two runs side by side, in A's order. Raises `DataError` where they are not the same rows.

    Rows are the same by request, tools, target and alternatives; those that occur more than once are paired in order.
    A row without its request goes by its id, else by its place in the file.
    """
    keys_a, keys_b = _keys(a), _keys(b)
    if Counter(keys_a) != Counter(keys_b):
        raise DataError(_differences(keys_a, keys_b), hint="compare runs over the same rows, with the same catalogue")
    waiting: dict[Key, list[Scored]] = defaultdict(list)
    for key, one in zip(reversed(keys_b), reversed(b), strict=True):
        waiting[key].append(one)
    return [Pair(one, waiting[key].pop()) for key, one in zip(keys_a, a, strict=True)]


def _keys(scored: Sequence[Scored]) -> list[Key]:
    return [_key(one, number) for number, one in enumerate(scored, start=1)]


def _key(one: Scored, number: int) -> Key:
    example = one.example
    name = f"(row {example.id or number})" if example.request == NOT_GIVEN else example.request
    alternatives = sorted(_decision(target) for target in example.alternatives)
    return name, _tools(example.catalogue), _decision(example.target), json.dumps(alternatives)


@lru_cache(maxsize=64)
def _tools(catalogue: Catalogue) -> str:
    """What a catalogue's tools are; a predictions file holds no more of it than that."""
    return json.dumps([[tool.name, tool.description, tool.parameters] for tool in catalogue])


def _decision(target: Target) -> str:
    """A target as text that is the same for the same decision."""
    arguments = target.arguments if isinstance(target, ToolCall) else None
    return json.dumps([target.tool, _plain(arguments)], sort_keys=True)


def _plain(value: Any) -> Any:
    """A JSON value in which whole numbers are integers: 1.0 equals 1."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _differences(a: Sequence[Key], b: Sequence[Key]) -> str:
    only_a, only_b = list((Counter(a) - Counter(b)).elements()), list((Counter(b) - Counter(a)).elements())
    others = {key[0]: key for key in reversed(only_b)}
    lines = [f"{_what_differs(key, others)}: {key[0]!r}" for key in only_a]
    names = {key[0] for key in only_a}
    lines += [f"only in B: {key[0]!r}" for key in only_b if key[0] not in names]
    more = f"\n  … and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    shown = "\n".join(f"  {line}" for line in lines[:SHOWN])
    return f"A has {len(a)} rows and B {len(b)}, and they are not the same:\n{shown}{more}"


def _what_differs(key: Key, others: dict[str, Key]) -> str:
    """How a row of A differs from the row of B with the same request."""
    if key[0] not in others:
        return "only in A"
    different = [part for part, own, other in zip(PARTS, key, others[key[0]], strict=True) if own != other]
    return f"differs in {' and '.join(different)}" if different else "more often in A"
