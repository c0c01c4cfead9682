"""What a request says of one slot of a tool: a value, and words around it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import lexicon, values
from .marks import CLOSE, mark
from .tools import Slot
from .values import Said, Words

PAIR_FORMS = {
    "from_to": ("from {o} to {t}", "{o} to {t}", "to {t} from {o}", "from {o} over to {t}"),
    "old_new": ("{o} to {t}", "from {o} to {t}", "called {o} to {t}", '"{o}" into "{t}"', "{o}, the new name is {t}"),
}
REASONS = ("reason", "cause", "problem", "explanation", "details", "comment", "note")


@dataclass(frozen=True)
class Phrase:
    """What a request says about one slot, and the arguments that this means."""

    text: str
    arguments: dict[str, Any]
    copied: bool
    ends_open: bool = False


@dataclass(frozen=True)
class Voice:
    """Where the words come from; `held` takes the phrasings that training never sees."""

    rng: random.Random
    words: Words
    held: bool = False

    def choose(self, usual: Sequence[str], held: Sequence[str]) -> str:
        return self.rng.choice(held if self.held and held else usual)

    def phrases(self, kind: str) -> str:
        table = lexicon.HELD_PHRASES if self.held and self.rng.random() < 0.7 else lexicon.PHRASES
        return self.rng.choice(table[kind])


def said_value(voice: Voice, slot: Slot, thing: str) -> Said:
    """A value of a slot with one parameter."""
    rng, words = voice.rng, voice.words
    kind = slot.kind.removeprefix("to_")
    if kind == "int":
        percent = slot.parameters[0].spoken in ("percent", "level")
        number = values.integer(rng, 0 if percent else 1, 100 if percent else None)
        return Said(number.text + rng.choice(("%", " percent", "")), number.value, False) if percent else number
    if kind == "float":
        return _decimal(voice, slot)
    if kind in ("enum", "bool"):
        value = rng.choice(list(slot.choices))
        return Said(rng.choice(slot.choices[value]), value == "True" if kind == "bool" else value, False)
    text = {
        "id": lambda: values.identifier(rng, thing),
        "person": lambda: values.person(rng, words),
        "place": lambda: values.place(rng, words),
        "date": lambda: values.date(rng),
        "time": lambda: values.clock(rng),
        "datetime": lambda: values.moment(rng),
        "email": lambda: values.email(rng),
        "path": lambda: values.path(rng, words),
        "name": lambda: values.name(rng, words),
        "clause": lambda: values.clause(rng, words),
        "text": lambda: values.text(rng, words),
    }[kind]()
    return Said(text, text)


def _decimal(voice: Voice, slot: Slot) -> Said:
    number = values.decimal(voice.rng)
    money = {"price", "amount", "budget", "cost", "max price"} & {slot.parameters[0].spoken}
    if money and number.text[0].isdigit() and voice.rng.random() < 0.6:
        form = voice.rng.choice(("${}", "{} dollars", "{} euros", "€{}", "{}€"))
        return Said(form.format(number.text), number.value, False)
    return number


def slot_phrase(voice: Voice, slot: Slot, thing: str) -> Phrase:
    """One slot, said."""
    rng = voice.rng
    if slot.kind in ("measure", "to_measure"):
        return _measure_phrase(voice, slot)
    if slot.kind in ("from_to", "old_new", "unit_pair"):
        return _pair_phrase(voice, slot)
    if slot.kind == "list":
        return _list_phrase(voice, slot)
    parameter = slot.parameters[0]
    if slot.kind == "text" and parameter.spoken in REASONS:
        slot = Slot("clause", slot.parameters, slot.choices)
    said = said_value(voice, slot, thing)
    shown = mark(said.text)
    if rng.random() < (0.03 if slot.kind == "id" else 0.06) and slot.kind not in ("text", "clause", "bool"):
        wrong = said_value(voice, slot, thing)
        if wrong.value != said.value:
            form = voice.choose(lexicon.CORRECTIONS, lexicon.HELD_CORRECTIONS)
            shown = form.format(w=mark(wrong.text), v=shown)
    form = "{v}" if slot.kind == "bool" else _form(voice, "to" if slot.kind.startswith("to_") else slot.kind)
    text = form.replace("{v}", shown).replace("{a}", parameter.spoken)
    ends_open = said.copied and slot.kind in ("text", "clause", "name") and text.endswith(CLOSE)
    return Phrase(text, {parameter.name: said.value}, said.copied, ends_open)


def _form(voice: Voice, kind: str) -> str:
    """The words around a value; sometimes odd ones, so that the value is found by its own shape."""
    rng = voice.rng
    if voice.held or rng.random() < 0.85 or kind == "id":
        return voice.phrases(kind)
    odd = voice.words.scramble(rng, 1, 2)
    if kind in ("text", "name", "clause"):
        return rng.choice((f'{odd} "{{v}}"', f"{odd}: {{v}}", f'{{a}} {odd} "{{v}}"', "- {v}", ": {v}"))
    return rng.choice(("{a} {v}", f"{{a}} {odd} {{v}}", "({v})", f"{odd}: {{v}}", "{v}", ", {v}"))


def _measure_phrase(voice: Voice, slot: Slot) -> Phrase:
    rng, table = voice.rng, lexicon.UNITS[slot.units]
    number = values.integer(rng, 1, rng.choice((12, 60, 100, 500)))
    if slot.parameters[0].schema.get("type") == "number" and rng.random() < 0.4:
        number = values.decimal(rng)
    unit = slot.fixed_unit or rng.choice(list(slot.choices))
    ways = table[unit] if slot.fixed_unit else slot.choices[unit]
    shown = mark(measure_text(rng, number, ways))
    arguments: dict[str, Any] = {slot.parameters[0].name: number.value}
    if not slot.fixed_unit:
        arguments[slot.parameters[1].name] = unit
    form = _form(voice, "to" if slot.kind == "to_measure" else "measure")
    return Phrase(form.replace("{v}", shown).replace("{a}", slot.parameters[0].spoken), arguments, False)


def measure_text(rng: random.Random, number: Said, ways: Sequence[str]) -> str:
    """An amount with its unit: 10 minutes, 5kg, ten hours, $20."""
    way = ways[0] if number.value == 1 else rng.choice(ways[1:])
    if number.value == 1 and rng.random() < 0.4 and " " not in way:
        return ("an " if way == "hour" else "a ") + way
    if "dollars" in ways and number.text[0].isdigit() and rng.random() < 0.4:
        return "$" + number.text
    if len(way) <= 3 and number.text[-1].isdigit() and rng.random() < 0.6:
        return number.text + way
    return f"{number.text} {way}"


def _pair_phrase(voice: Voice, slot: Slot) -> Phrase:
    rng = voice.rng
    first, second = slot.parameters
    if slot.kind == "unit_pair":
        one, two = rng.sample(list(slot.choices), 2)
        first_said, second_said = (rng.choice(slot.choices[unit][1:]) for unit in (one, two))
        text = f"from {mark(first_said)} {rng.choice(('to', 'into'))} {mark(second_said)}"
        return Phrase(text, {first.name: one, second.name: two}, False)
    draw = values.place if slot.kind == "from_to" else values.name
    one, two = draw(rng, voice.words), draw(rng, voice.words)
    text = rng.choice(PAIR_FORMS[slot.kind]).format(o=mark(one), t=mark(two))
    return Phrase(text, {first.name: one, second.name: two}, True)


def _list_phrase(voice: Voice, slot: Slot) -> Phrase:
    rng = voice.rng
    people = slot.parameters[0].spoken in ("names", "people", "guests", "attendees", "participants")
    drawn = [
        values.person(rng, voice.words) if people else values.clean(voice.words.scramble(rng, 1, 2))
        for _ in range(rng.randint(1, 4))
    ]
    items = list(dict.fromkeys(drawn))
    shown = [mark(item) for item in items]
    joined = ", ".join(shown[:-1]) + rng.choice((" and ", ", and ", " & ")) + shown[-1] if len(shown) > 1 else shown[0]
    form = voice.phrases("list")
    parameter = slot.parameters[0]
    return Phrase(form.replace("{v}", joined).replace("{a}", parameter.spoken), {parameter.name: items}, True)
