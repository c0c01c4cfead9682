"""When two arguments count as equal: JSON's equality, or what a catalogue declares beside a tool's parameters.

A tool's `compare` gives rules by parameter; a parameter without one is compared exactly. A rule is one of

    "exact"                             JSON's equality
    "caseless"                          text, whatever the case of its letters
    "folded"                            text, whatever its case, white space and punctuation
    "date"                              text that is the same ISO 8601 date, or date and time
    {"date": ["%d.%m.%Y", "%Y-%m-%d"]}  the same, in these formats of `strptime` instead, the first that fits
    {"tolerance": 0.01}                 numbers at most this far apart
    {"relative": 0.05}                  numbers apart by at most this share of the gold one; with both, one suffices
    "unordered"                         arrays, whatever the order of their items
    {"unordered": "folded"}             the same, with a rule for the items
    {"properties": {"city": "folded"}}  objects, with rules for some of their properties

A rule that is not about arrays holds for each item where the value is an array. Nothing makes up for an argument that
is missing, and what is equal as JSON is equal by every rule.
"""

import difflib
import math
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

Equal: TypeAlias = Callable[[Any, Any], bool]

# These stand in Unicode's category of punctuation, but "C" is not "C#" and 5 is not 5 %.
TELLING_MARKS = "#%&@"
DATE_DIRECTIVES, TIME_DIRECTIVES = "aAbBdjmyY", "HIMSfpz"
JSON_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
ANNOTATIONS = {"description", "default", "examples", "deprecated", "readOnly", "writeOnly"}


@dataclass(frozen=True)
class Rule:
    """How a value is compared with the gold one, `equal(gold, said)`; `kind` is the JSON type that it is for."""

    kind: str
    equal: Equal

    def holds(self, gold: Any, said: Any) -> bool:
        """Whether the two count as equal."""
        if json_equal(gold, said):
            return True
        if self.kind != "array" and isinstance(gold, list) and isinstance(said, list):
            return len(gold) == len(said) and all(map(self.holds, gold, said))
        return self.equal(gold, said)


Rules: TypeAlias = Mapping[str, Rule]
Comparisons: TypeAlias = Mapping[str, Rules]


def json_equal(one: Any, other: Any) -> bool:
    """JSON's equality: `true` is not 1, 1 equals 1.0, key order is free, array order is not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(json_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(json_equal, one, other))
    return bool(one == other)


def same_arguments(rules: Rules, gold: Any, said: Any) -> bool:
    """Whether two objects have the same keys, and equal values by the keys' rules, else by JSON's equality."""
    if not isinstance(gold, dict) or not isinstance(said, dict) or gold.keys() != said.keys():
        return False
    return all(rules.get(key, EXACT).holds(gold[key], said[key]) for key in gold)


def read_rules(declared: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules of a tool or of an object, by name. Raises `ValueError` for the first that is none."""
    return {name: read_rule(rule) for name, rule in declared.items()}


def read_rule(declared: Any) -> Rule:
    """One rule. Raises `ValueError` saying what is wrong with it."""
    if isinstance(declared, str) and declared in NAMED:
        return NAMED[declared]
    if isinstance(declared, Mapping) and declared:
        keys = frozenset(declared)
        if keys <= {"tolerance", "relative"}:
            return Rule("number", partial(_close, *_limits(declared)))
        if len(keys) == 1 and (read := READERS.get(next(iter(keys)))) is not None:
            return read(next(iter(declared.values())))
    known = ", ".join(NAMED)
    raise ValueError(f"unknown rule {declared!r}; rules are {known}, tolerance, relative, properties")


def _text(key: Callable[[str], Any]) -> Rule:
    """Texts are equal where they have the same key; what has none is equal to nothing."""

    def equal(gold: Any, said: Any) -> bool:
        if not isinstance(gold, str) or not isinstance(said, str):
            return False
        found = key(gold)
        return found is not None and bool(found == key(said))

    return Rule("string", equal)


def caseless(text: str) -> str:
    """Text for comparing without case: canonical caseless matching (The Unicode Standard, D145)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def folded(text: str) -> str:
    """Caseless text in which every run of white space and punctuation is one space, and none at the ends."""
    plain = caseless(text)
    words = "".join(" " if _separates(character) else character for character in plain).split()
    # Text of nothing but punctuation would equal any other such text.
    return " ".join(words) or plain


def _separates(character: str) -> bool:
    return unicodedata.category(character).startswith("P") and character not in TELLING_MARKS


def _iso_date(text: str) -> date | None:
    """A date without a time is no date at midnight: Python holds the two for different."""
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            return read(text)
        except ValueError:
            continue
    return None


def _formatted_date(formats: Sequence[str], text: str) -> date | None:
    for form in formats:
        try:
            moment = datetime.strptime(text, form)
        except ValueError:
            continue
        return moment if set(_directives(form)) & set(TIME_DIRECTIVES) else moment.date()
    return None


def _directives(form: str) -> list[str]:
    return [letter for letter in re.findall("%(.?)", form, re.DOTALL) if letter != "%"]


def _date_rule(formats: Any) -> Rule:
    if not isinstance(formats, list) or not formats:
        raise ValueError(f"date needs a list of formats, not {formats!r}")
    for form in formats:
        if (fault := _format_fault(form)) is not None:
            raise ValueError(f"date format {form!r} {fault}")
    return _text(partial(_formatted_date, tuple(formats)))


def _format_fault(form: Any) -> str | None:
    if not isinstance(form, str):
        return "must be text"
    found = _directives(form)
    if unknown := [letter for letter in found if not letter or letter not in DATE_DIRECTIVES + TIME_DIRECTIVES]:
        return f"has an unknown directive %{unknown[0]}"
    if not found or len(set(found)) < len(found):
        return "needs directives such as %Y, each once"
    # A day without a year can't be read: nobody knows whether there is a 29 February.
    return "has a day but no year" if set(found) & {"d", "j"} and not set(found) & {"y", "Y"} else None


def _limits(declared: Mapping[str, Any]) -> tuple[Decimal, Decimal]:
    """The absolute and the relative tolerance; 0 for one that is not given."""
    for name, value in declared.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be a number above 0, not {value!r}")
    relative = declared.get("relative", 0)
    if relative >= 1:
        raise ValueError(f"relative must be below 1, not {relative!r}: 5 % is 0.05")
    return _decimal(declared.get("tolerance", 0)), _decimal(relative)


def _close(absolute: Decimal, relative: Decimal, gold: Any, said: Any) -> bool:
    if not (_is_number(gold) and _is_number(said)):
        return False
    wanted = _decimal(gold)
    return abs(wanted - _decimal(said)) <= max(absolute, relative * abs(wanted))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _decimal(value: float) -> Decimal:
    """The number as it is written: in binary 1.01 is more than 0.01 away from 1."""
    return Decimal(str(value))


def _unordered_rule(items: Any) -> Rule:
    return Rule("array", partial(_pair_up, read_rule(items).holds))


def _pair_up(equal: Equal, gold: Any, said: Any) -> bool:
    """Whether each gold item can have an equal partner of its own."""
    if not isinstance(gold, list) or not isinstance(said, list) or len(gold) != len(said):
        return False
    fits = [[place for place, value in enumerate(said) if equal(item, value)] for item in gold]
    taken: dict[int, int] = {}
    return all(_place(number, fits, taken) for number in range(len(gold)))


def _place(start: int, fits: list[list[int]], taken: dict[int, int]) -> bool:
    """Find a place for one more item, others making room for it along an augmenting path (Kuhn 1955).

    The first place that fits may be one that another item needs: within 0.1 of 1.1 are both 1.0 and 1.2.
    """
    reached: dict[int, int] = {}
    waiting = deque([start])
    while waiting:
        item = waiting.popleft()
        for place in fits[item]:
            if place in reached:
                continue
            reached[place] = item
            if place not in taken:
                _make_room(place, reached, taken)
                return True
            waiting.append(taken[place])
    return False


def _make_room(free: int, reached: dict[int, int], taken: dict[int, int]) -> None:
    place: int | None = free
    while place is not None:
        item = reached[place]
        left = next((other for other, owner in taken.items() if owner == item), None)
        taken[place] = item
        place = left


def _object_rule(properties: Any) -> Rule:
    if not isinstance(properties, Mapping):
        raise ValueError(f"properties must be an object of rules by name, not {properties!r}")
    return Rule("object", partial(same_arguments, read_rules(properties)))


EXACT = Rule("", json_equal)
NAMED = {
    "exact": EXACT,
    "caseless": _text(caseless),
    "folded": _text(folded),
    "date": _text(_iso_date),
    "unordered": Rule("array", partial(_pair_up, json_equal)),
}
READERS: dict[str, Callable[[Any], Rule]] = {
    "date": _date_rule,
    "unordered": _unordered_rule,
    "properties": _object_rule,
}


def comparison_problems(declared: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything wrong with a tool's `compare`: where, and what; its names and rules are held against the schema."""
    return list(_name_problems(declared, [parameters], parameters, "compare"))


def _name_problems(
    declared: Mapping[str, Any], schemas: Iterable[Any], root: Mapping[str, Any], where: str
) -> Iterator[tuple[str, str]]:
    known: dict[str, list[Any]] = {}
    for schema in _variants(schemas, root):
        for name, child in schema.get("properties", {}).items():
            known.setdefault(name, []).append(child)
    for name, rule in declared.items():
        if name in known:
            yield from _rule_problems(rule, known[name], root, f"{where}.{name}")
        else:
            near = difflib.get_close_matches(name, known, n=1)
            yield f"{where}.{name}", "there is no such parameter" + (f"; did you mean {near[0]!r}?" if near else "")


def _rule_problems(declared: Any, schemas: list[Any], root: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    inner = declared if isinstance(declared, Mapping) and len(declared) == 1 else {}
    if isinstance(names := inner.get("properties"), Mapping):
        yield from _name_problems(names, [*schemas, *_items(schemas, root)], root, where)
    elif "unordered" in inner and _may_be("array", schemas, root):
        yield from _rule_problems(inner["unordered"], _items(schemas, root), root, where)
    else:
        try:
            rule = read_rule(declared)
        except ValueError as error:
            yield where, str(error)
        else:
            if not _may_be(rule.kind, schemas, root):
                yield where, f"{declared!r} is for values of type {rule.kind}, which this parameter never has"


def _variants(schemas: Iterable[Any], root: Mapping[str, Any], *, with_items: bool = False) -> list[Mapping[str, Any]]:
    """These schemas and those that judge the same value through them; with those of an array's items, if asked for."""
    found: list[Mapping[str, Any]] = []
    waiting = list(schemas)
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, Mapping) or any(schema is other for other in found):
            continue
        found.append(schema)
        waiting += [child for key in ("anyOf", "oneOf", "allOf") for child in schema.get(key, ())]
        waiting += [schema[key] for key in ("then", "else") if key in schema]
        waiting.append(_definition(schema.get("$ref"), root))
        waiting += _own_items(schema) if with_items else ()
    return found


def _definition(reference: Any, root: Mapping[str, Any]) -> Any:
    """What a reference within the schema points to; None where it points elsewhere."""
    found: Any = root if isinstance(reference, str) and reference.startswith("#") else None
    for part in str(reference).split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _items(schemas: Iterable[Any], root: Mapping[str, Any]) -> list[Any]:
    """The schemas of the items, where these schemas are of arrays."""
    return [item for schema in _variants(schemas, root) for item in _own_items(schema)]


def _own_items(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas of an array's items, `{}` where they may be anything; none where the schema is of no array."""
    items = schema.get("items", True)
    return [*schema.get("prefixItems", ()), {} if items is True else items] if "array" in _types(schema) else []


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema names, integers among the numbers."""
    named = schema.get("type", ())
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    types = {named} if isinstance(named, str) else set(named)
    return {"number" if name == "integer" else name for name in types} or {
        JSON_TYPES.get(type(value), "null") for value in values
    }


def _may_be(kind: str, schemas: list[Any], root: Mapping[str, Any]) -> bool:
    """Whether a value, or where it is an array something in it, can be of this JSON type."""
    variants = _variants(schemas, root, with_items=kind != "array")
    types = {name for schema in variants for name in _types(schema)}
    takes_anything = any(not schema.keys() - ANNOTATIONS for schema in variants)
    return not kind or takes_anything or not types or kind in types
