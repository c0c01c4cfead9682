"""Synthetic tools: a verb, a thing, and parameters of many kinds, in many naming styles."""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...catalogue import Tool
from ...schemas import Schema
from . import lexicon
from .lexicon import Verb
from .values import Words, clean, invented

NAME_STYLES = ("snake",) * 10 + ("camel",) * 4 + ("pascal",) * 2 + ("kebab",) * 2 + ("dotted",) * 2
TARGET_NUMBERS = ("level", "value", "percent", "speed", "temperature", "position", "target", "amount", "degrees")
VAGUE_NAMES = (
    *("type", "kind", "category", "option", "profile", "preset", "variant", "style", "group", "section", "queue"),
    *("theme", "zone", "tier"),
)
VERB_TEXT = {"order_supply": "request", "toggle": "switch"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a tool; `spoken` is its name in words."""

    name: str
    spoken: str
    schema: Schema
    required: bool


@dataclass(frozen=True)
class Slot:
    """What a request states in one phrase: one parameter, or two that go together (an amount and its unit).

    `choices` maps each value of an enum to the ways to say it. `units` names the family of a measure's units.
    """

    kind: str
    parameters: tuple[Parameter, ...]
    choices: Mapping[str, tuple[str, ...]]
    units: str = ""
    fixed_unit: str = ""

    @property
    def required(self) -> bool:
        return self.parameters[0].required


@dataclass(frozen=True)
class SyntheticTool:
    """A tool together with what is needed to write requests for it."""

    tool: Tool
    verb: Verb
    thing: str
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Naming:
    """How one catalogue writes its names; `opaque` names say nothing, so the description has to."""

    style: str
    parameter_style: str
    described: float
    opaque: bool

    @classmethod
    def draw(cls, rng: random.Random) -> "Naming":
        style = rng.choice(NAME_STYLES)
        parameter_style = "camel" if style in ("camel", "pascal") and rng.random() < 0.7 else "snake"
        return cls(style, parameter_style, rng.choice((0.0, 0.7, 1.0, 1.0)), rng.random() < 0.08)


def styled(words: list[str], style: str) -> str:
    """Words joined to a name: snake_case, camelCase, PascalCase, kebab-case or dotted.snake_case."""
    if style == "camel":
        return words[0] + "".join(word.capitalize() for word in words[1:])
    if style == "pascal":
        return "".join(word.capitalize() for word in words)
    if style == "kebab":
        return "-".join(words)
    if style == "dotted" and len(words) > 1:
        return f"{words[0]}.{'_'.join(words[1:])}"
    return "_".join(words)


def name_words(name: str) -> list[str]:
    """The words of a name in any style, lower-cased."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]


def plural(noun: str) -> str:
    """The regular plural."""
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(s|x|ch|sh)$", noun) else "s")


def with_article(rng: random.Random, noun: str, article: str) -> str:
    """The noun with an article of its verb's sort."""
    form = rng.choice(lexicon.ARTICLES[article])
    said = form.replace("{n}s", plural(noun)).replace("{n}", noun)
    return re.sub(r"\ba (?=[aeio])", "an ", said)


def make_tool(rng: random.Random, verb: Verb, thing: str, naming: Naming, words: Words) -> SyntheticTool:
    """A tool of one of the verb's shapes."""
    shape = rng.choice(verb.shapes).split()
    taken: set[str] = set()
    slots = [slot for kind in shape if kind != "none" for slot in [_slot(rng, kind, thing, naming, words, taken)]]
    if rng.random() < 0.3 and verb.lemma != "compare":
        extra = rng.choice(("bool", "enum", "int", "text", "date", "name", "place", "person"))
        if extra not in shape:
            slots.append(_slot(rng, extra, thing, naming, words, taken, optional=True))
    if rng.random() < 0.15:
        rng.shuffle(slots)
    parameters = [parameter for slot in slots for parameter in slot.parameters]
    schema: Schema = {
        "properties": {parameter.name: parameter.schema for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.required],
    }
    name = tool_name(rng, verb, thing, naming)
    description = _description(rng, verb, thing, parameters)
    if not naming.opaque and rng.random() >= naming.described:
        description = ""
    return SyntheticTool(Tool(name, description, schema), verb, thing, tuple(slots))


def tool_name(rng: random.Random, verb: Verb, thing: str, naming: Naming) -> str:
    """A name such as cancel_booking, bookingCancel or listBookings."""
    if naming.opaque:
        return opaque_name(rng)
    noun = plural(thing) if verb.article in ("any", "some") and rng.random() < 0.7 else thing
    verb_words, noun_words = rng.choice(verb.names).split("_"), re.findall(r"[a-z]+", noun.lower())
    both = [*noun_words, *verb_words] if rng.random() < 0.15 else [*verb_words, *noun_words]
    return styled(both, naming.style)


def opaque_name(rng: random.Random) -> str:
    """A name that says nothing: tool_7, zuno, fn-kela."""
    form = rng.choice(("{a}", "tool_{n}", "{a}_{b}", "fn{n}"))
    return form.format(a=invented(rng), b=invented(rng), n=rng.randint(1, 999))


def _description(rng: random.Random, verb: Verb, thing: str, parameters: list[Parameter]) -> str:
    noun = plural(thing) if verb.article in ("any", "some") else f"{'an' if thing[0] in 'aeio' else 'a'} {thing}"
    lemma = VERB_TEXT.get(verb.lemma, verb.lemma)
    act = rng.choice((lemma, lemma, rng.choice(verb.names).replace("_", " ")))
    if verb.lemma == "toggle":
        act = rng.choice(("turn on or off", "switch on or off", "control"))
    command = rng.choice(verb.commands).replace("{n}", noun) if verb.lemma != "toggle" else f"{act} {noun}"
    body = rng.choice((f"{act} {noun}", f"{act} {noun}", command, f"use to {command}", f"{_third_person(act)} {noun}"))
    if parameters and rng.random() < 0.3:
        body += rng.choice((" by ", " with ", ", given its ")) + " and ".join(p.spoken for p in parameters[:2])
    body = body if rng.random() < 0.4 else body[0].upper() + body[1:]
    return body + rng.choice(("", ".", "."))


def _third_person(act: str) -> str:
    first, _, rest = act.partition(" ")
    return f"{plural(first)} {rest}".strip()


def _slot(
    rng: random.Random, kind: str, thing: str, naming: Naming, words: Words, taken: set[str], optional: bool = False
) -> Slot:
    always = ("id", "switch", "list", "from_to", "old_new", "unit_pair")
    required = not optional and (kind in always or kind.startswith("to_") or rng.random() < 0.65)
    make = MAKERS.get(kind, _plain)
    return make(rng, kind, _Namer(thing, naming, taken, required), words)


@dataclass
class _Namer:
    """Names that do not repeat within one tool."""

    thing: str
    naming: Naming
    taken: set[str]
    required: bool

    def parameter(self, name: str, schema: Schema) -> Parameter:
        words = name.split("_")
        spoken = [word for word in words if word not in ("name", "id")] or words
        while name in self.taken:
            name += "_2"
        self.taken.add(name)
        styled_name = styled(name.split("_"), self.naming.parameter_style)
        return Parameter(styled_name, " ".join(spoken), schema, self.required)


def _with_default(rng: random.Random, namer: _Namer, schema: Schema, default: Any) -> Schema:
    return {**schema, "default": default} if not namer.required and rng.random() < 0.35 else schema


def _plain(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    names = lexicon.PARAMETER_NAMES[kind.removeprefix("to_")]
    schema: Schema = {"type": "string"}
    if kind == "email" and rng.random() < 0.15:
        schema["format"] = "email"
    return Slot(kind, (namer.parameter(rng.choice(names), schema),), {})


def _id(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    thing = re.sub(r"\W+", "_", namer.thing)
    usual = (f"{thing}_id",) * 3 + (f"{thing}_number", thing, f"{thing.split('_')[-1]}_id")
    names = (*usual, "id", "number", "reference", "code")
    return Slot("id", (namer.parameter(rng.choice(names), {"type": "string"}),), {})


def _integer(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    name = rng.choice(TARGET_NUMBERS if kind == "to_int" else lexicon.PARAMETER_NAMES["int"])
    schema = _with_default(rng, namer, {"type": "integer"}, rng.randint(1, 10))
    return Slot(kind.removesuffix("2"), (namer.parameter(name, schema),), {})


def _float(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    name = rng.choice(lexicon.PARAMETER_NAMES["float"])
    return Slot(kind, (namer.parameter(name, {"type": "number"}),), {})


def _bool(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    name = rng.choice(list(lexicon.FLAGS))
    yes, no = lexicon.FLAGS[name]
    choices = {"True": yes, "False": no}
    namer.required = False
    schema = _with_default(rng, namer, {"type": "boolean"}, False)
    return Slot("bool", (namer.parameter(name, schema),), choices)


def _switch(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    if rng.random() < 0.7:
        return Slot("switch", (namer.parameter(rng.choice(lexicon.SWITCH_NAMES), {"type": "boolean"}),), {})
    values = rng.choice((("on", "off"), ("ON", "OFF"), ("enabled", "disabled"), ("start", "stop")))
    parameter = namer.parameter(rng.choice(("state", "power", "action", "status")), {"enum": list(values)})
    return Slot("switch", (parameter,), {})


def _enum(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    name, choices = _known_enum(rng, kind) if rng.random() < 0.6 or kind == "language" else _random_enum(rng, words)
    if rng.random() < 0.15:
        name = f"{re.sub('[^a-z]+', '_', namer.thing)}_{name}"
    schema = {"type": "string", "enum": list(choices)} if rng.random() < 0.5 else {"enum": list(choices)}
    schema = _with_default(rng, namer, schema, rng.choice(list(choices)))
    return Slot("to_enum" if kind == "to_enum" else "enum", (namer.parameter(name, schema),), choices)


def _known_enum(rng: random.Random, kind: str) -> tuple[str, dict[str, tuple[str, ...]]]:
    name = rng.choice(("language", "lang")) if kind == "language" else rng.choice(list(lexicon.ENUMS))
    table = lexicon.ENUMS[name]
    kept = [value for value in table if len(table) <= 2 or rng.random() < 0.85]
    kept = kept if len(kept) > 1 else list(table)
    if rng.random() < 0.2:
        rng.shuffle(kept)
    change: Callable[[str], str] = rng.choice((str, str, str, str, str.upper, str.capitalize))
    return name, {change(value): (*table[value], value.lower().replace("_", " ")) for value in kept}


def _random_enum(rng: random.Random, words: Words) -> tuple[str, dict[str, tuple[str, ...]]]:
    name = rng.choice(VAGUE_NAMES)
    change: Callable[[str], str] = rng.choice((str.lower, str.lower, str.lower, str.upper, str.capitalize))
    choices: dict[str, tuple[str, ...]] = {}
    for _ in range(rng.randint(2, 6)):
        said = clean(words.scramble(rng, 1, rng.choice((1, 1, 2)))).lower()
        if re.fullmatch("[a-z ]{3,}", said):
            choices[change(said.replace(" ", "_"))] = (said,)
    return name, choices if len(choices) > 1 else {"first": ("first",), "second": ("second",)}


def _measure(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    family = rng.choice(("duration",) * 5 + tuple(lexicon.UNITS))
    family = "temperature" if kind == "to_measure" and rng.random() < 0.4 else family
    name = rng.choice(lexicon.MEASURE_NAMES[family])
    number: Schema = {"type": "integer"} if family in ("duration", "data") or rng.random() < 0.4 else {"type": "number"}
    table = lexicon.UNITS[family]
    if rng.random() < 0.25:
        unit = rng.choice(list(table))
        parameter = namer.parameter(f"{name}_{table[unit][1].split()[0]}", number)
        return Slot(kind, (parameter,), {}, family, unit)
    start = rng.randint(0, max(0, len(table) - 3))
    kept = list(table)[start : start + rng.randint(2, 4)]
    symbols = family == "duration" and rng.random() < 0.2
    choices = {(lexicon.UNIT_SYMBOLS[unit] if symbols else unit): table[unit] for unit in kept}
    if family == "duration" and not symbols and rng.random() < 0.25:
        choices = {unit.removesuffix("s"): said for unit, said in choices.items()}
    unit_name = rng.choice(("currency", "unit") if family == "money" else ("unit", "unit", "units", f"{name}_unit"))
    parts = (namer.parameter(name, number), namer.parameter(unit_name, {"enum": list(choices)}))
    return Slot(kind, parts, choices, family)


def _list(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    name = rng.choice(lexicon.PARAMETER_NAMES["list"])
    return Slot("list", (namer.parameter(name, {"type": "array", "items": {"type": "string"}}),), {})


def _pair(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    names = {
        "from_to": (("from", "to"), ("origin", "destination"), ("source", "target"), ("from_place", "to_place")),
        "old_new": (("old_name", "new_name"), ("current_name", "new_name"), ("from", "to"), ("name", "new_name")),
    }[kind]
    first, second = rng.choice(names)
    return Slot(kind, (namer.parameter(first, {"type": "string"}), namer.parameter(second, {"type": "string"})), {})


def _unit_pair(rng: random.Random, kind: str, namer: _Namer, words: Words) -> Slot:
    family = rng.choice(list(lexicon.UNITS))
    table = lexicon.UNITS[family]
    first, second = rng.choice((("from_unit", "to_unit"), ("source_unit", "target_unit"), ("from", "to")))
    schema: Schema = {"enum": list(table)}
    return Slot(kind, (namer.parameter(first, schema), namer.parameter(second, schema)), table, family)


Maker = Callable[[random.Random, str, _Namer, Words], Slot]
MAKERS: dict[str, Maker] = {
    "id": _id,
    "int": _integer,
    "int2": _integer,
    "to_int": _integer,
    "float": _float,
    "to_float": _float,
    "bool": _bool,
    "switch": _switch,
    "enum": _enum,
    "to_enum": _enum,
    "language": _enum,
    "measure": _measure,
    "to_measure": _measure,
    "list": _list,
    "from_to": _pair,
    "old_new": _pair,
    "unit_pair": _unit_pair,
}
