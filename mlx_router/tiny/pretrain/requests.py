"""Requests for synthetic tools: phrases put together, with openings and fillers; and requests that want no call."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import lexicon, values
from .lexicon import Verb
from .marks import CLOSE, OPEN, changed, mark, unmarked, with_typos
from .phrases import Voice, slot_phrase
from .tools import Parameter, Slot, SyntheticTool, plural, with_article

# A request that begins so is a sentence of its own, and no "can you" goes before it.
SENTENCE_STARTS = frozenset(lexicon.SENTENCE_STARTS)


def noun_phrase(voice: Voice, verb: Verb, thing: str) -> str:
    """The thing as a request names it."""
    other = lexicon.OTHER_WORDS.get(thing)
    noun = other if other and voice.rng.random() < 0.2 else thing
    return with_article(voice.rng, noun, verb.article)


def action(voice: Voice, tool: SyntheticTool, noun: str, *, command: bool, on: bool = True) -> str:
    """The verb's part of the request around the noun."""
    verb = tool.verb
    if verb.lemma == "toggle":
        usual, held = (
            (lexicon.SWITCH_ON, lexicon.HELD_SWITCH_ON) if on else (lexicon.SWITCH_OFF, lexicon.HELD_SWITCH_OFF)
        )
        return voice.choose(usual, held).replace("{n}", noun)
    if voice.held and not command:
        return voice.rng.choice(verb.held).replace("{n}", noun)
    wish = not command and voice.rng.random() < 0.3
    return voice.rng.choice(verb.wishes if wish else verb.commands).replace("{n}", noun)


def call_request(voice: Voice, tool: SyntheticTool, lone: bool) -> tuple[str, dict[str, Any]]:
    """A request that states every required argument and some of the others; with the arguments.

    `lone` tells that no other tool of the catalogue is about this thing, so that even an odd verb will do.
    """
    rng = voice.rng
    given = [slot for slot in tool.slots if slot.required or rng.random() < 0.5]
    return _request(voice, tool, given, lone)


def partial_request(voice: Voice, tool: SyntheticTool) -> tuple[str, tuple[str, ...]] | None:
    """A request that leaves required arguments open, and their names; None if the tool has none to leave open."""
    rng = voice.rng
    needed = [slot for slot in tool.slots if slot.required and slot.kind != "switch"]
    if not needed:
        return None
    left_out = rng.sample(needed, 1 if rng.random() < 0.5 else len(needed))
    given = [slot for slot in tool.slots if slot not in left_out and (slot.required or rng.random() < 0.25)]
    text, _ = _request(voice, tool, given, lone=False)
    missing = [parameter.name for slot in tool.slots if slot in left_out for parameter in slot.parameters]
    return text, tuple(name for name in tool.tool.properties if name in missing)


def _request(voice: Voice, tool: SyntheticTool, given: Sequence[Slot], lone: bool) -> tuple[str, dict[str, Any]]:
    for _ in range(20):
        text, arguments, copied = _attempt(voice, tool, given, lone)
        if all(_stated(text, arguments[name]) for name in copied):
            return text, arguments
    raise AssertionError(f"no request states the arguments of {tool.tool.name}")


def _stated(text: str, value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(re.search(rf"(?<!\w){re.escape(item)}(?!\w)", text) for item in items)


@dataclass
class _Draft:
    """A request as it is put together."""

    noun: str
    direct: str = ""
    parts: list[str] = field(default_factory=list)
    on: bool = True
    ends_open: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)

    def add(self, voice: Voice, slot: Slot, thing: str, lone: bool) -> None:
        """Say one more slot."""
        if slot.kind == "switch":
            self.on = voice.rng.random() < 0.5
            self.arguments[slot.parameters[0].name] = _switch_value(slot, self.on)
            return
        phrase = slot_phrase(voice, slot, thing)
        self.arguments |= phrase.arguments
        self.copied += phrase.arguments if phrase.copied else ()
        if slot.kind == "id":
            self.noun = _with_identifier(voice, self.noun, phrase.text, thing, lone)
        elif slot.kind.startswith("to_") or slot.kind in ("from_to", "old_new", "unit_pair"):
            self.direct += " " + phrase.text
        else:
            self.parts.append(phrase.text)
            self.ends_open = phrase.ends_open


def _with_identifier(voice: Voice, noun: str, phrase: str, thing: str, lone: bool) -> str:
    """The noun with its identifier, "my booking no. 12"; sometimes the identifier alone."""
    if lone and voice.rng.random() < 0.12:
        return phrase.replace("{n}", "").strip()
    form = phrase if "{n}" in phrase else "{n} " + phrase
    return form.replace("{n}", _definite(voice, noun, thing))


def _attempt(
    voice: Voice, tool: SyntheticTool, given: Sequence[Slot], lone: bool
) -> tuple[str, dict[str, Any], list[str]]:
    rng, draft = voice.rng, _Draft(noun_phrase(voice, tool.verb, tool.thing))
    shuffled = list(given)
    if rng.random() < 0.4:
        rng.shuffle(shuffled)
    for slot in sorted(shuffled, key=lambda slot: slot.kind == "clause"):
        draft.add(voice, slot, tool.thing, lone)
    text = _sentence(voice, tool, draft.noun + draft.direct, draft.parts, draft.on, lone)
    text = finish(voice, text, ends_open=draft.ends_open and text.endswith(CLOSE))
    arguments = draft.arguments
    if rng.random() < 0.18:
        text = text.lower()
        arguments = changed(arguments, draft.copied, str.lower)
    return text, arguments, draft.copied


def _switch_value(slot: Slot, on: bool) -> Any:
    options = slot.parameters[0].schema.get("enum")
    return on if options is None else options[0 if on else 1]


def _definite(voice: Voice, noun: str, thing: str) -> str:
    """The noun before an identifier: "booking", "the booking", "my booking"."""
    bare = thing if thing in noun else lexicon.OTHER_WORDS.get(thing, thing)
    return voice.rng.choice((bare, bare, f"the {bare}", f"my {bare}"))


def _sentence(voice: Voice, tool: SyntheticTool, noun: str, parts: list[str], on: bool, lone: bool) -> str:
    rng = voice.rng
    joiner = rng.choice((" ", " ", " ", ", ", " and "))
    rest = joiner.join(parts)
    if lone and not voice.held and parts and tool.verb.lemma != "toggle" and rng.random() < 0.12:
        odd = voice.words.scramble(rng, 1, 2)
        head = rng.choice((noun, f"{odd} {noun}", f"{noun} {odd}"))
    else:
        head = action(voice, tool, noun, command=False, on=on)
    if rest and rng.random() < 0.12 and not any(slot.kind in ("text", "name") for slot in tool.slots):
        return f"{rest}, {head}"
    return re.sub(r"[?.] ", " ", f"{head} {rest}") if rest else head


def finish(voice: Voice, text: str, *, ends_open: bool = False, wish: bool = False) -> str:
    """The request with opening, ending, context, casing and typing errors; marks taken off."""
    rng = voice.rng
    text = re.sub(r" +([,.;:?!])", r"\1", re.sub(r"\s+", " ", text)).strip()
    openings = lexicon.WISH_OPENINGS if wish or _is_wish(text) else lexicon.OPENINGS
    if voice.held and rng.random() < 0.5 and openings is lexicon.OPENINGS:
        openings = lexicon.HELD_OPENINGS
    opening = rng.choice(openings)
    if ends_open:
        ending = rng.choice(lexicon.SAFE_ENDINGS)
    else:
        ending = rng.choice(lexicon.HELD_ENDINGS if voice.held and rng.random() < 0.3 else lexicon.ENDINGS)
    text = opening + text + (ending if not text.endswith(("?", ".", "!")) else "")
    text = _capital(text) if rng.random() < 0.45 else text
    chance = rng.random()
    if chance < 0.06:
        text = rng.choice(lexicon.CONTEXTS) + rng.choice((". ", ", ", " - ", "! ", " so ")) + text
    elif chance < 0.1 and not ends_open:
        text = text.rstrip(".!?") + ". " + rng.choice(lexicon.ASIDES) + rng.choice(("", ".", "!"))
    if rng.random() < 0.12:
        text = with_typos(rng, text)
    return unmarked(text)


def _is_wish(text: str) -> bool:
    first = text.split(" ", 1)[0].lower()
    return first in SENTENCE_STARTS or text.startswith(OPEN)


def _capital(text: str) -> str:
    return text if text.startswith(OPEN) else text[:1].upper() + text[1:]


def idle_request(voice: Voice, tool: SyntheticTool) -> str:
    """A text about the tool's thing that asks for no action: a negation, a question, a statement, a thought."""
    rng = voice.rng
    noun = noun_phrase(voice, tool.verb, tool.thing)
    identifiers = [slot for slot in tool.slots if slot.kind == "id"]
    if identifiers and rng.random() < 0.4:
        noun = f"{tool.thing} {mark(values.identifier(rng, tool.thing))}"
    command = action(voice, tool, noun, command=True, on=rng.random() < 0.5)
    rest = [slot for slot in tool.slots if slot.kind in ("date", "time", "place", "person", "to_int", "to_enum")]
    usual, held = rng.choices(
        (
            (lexicon.NEGATIONS, lexicon.HELD_NEGATIONS),
            (lexicon.QUESTIONS, lexicon.HELD_QUESTIONS),
            (lexicon.STATEMENTS, lexicon.HELD_STATEMENTS),
            (lexicon.HYPOTHETICALS, lexicon.HELD_HYPOTHETICALS),
        ),
        (45, 25, 18, 12),
    )[0]
    if usual is not lexicon.STATEMENTS and rest and rng.random() < 0.5:
        command += " " + slot_phrase(voice, rng.choice(rest), tool.thing).text
    if tool.verb.article in ("any", "some") and usual is lexicon.STATEMENTS:
        noun = f"the {plural(tool.thing)}" if tool.verb.article == "some" else f"the {tool.thing}"
    text = voice.choose(usual, held).format(c=command, p=tool.verb.past, n=noun)
    return finish(voice, text, wish=True)


def impossible_request(voice: Voice, tool: SyntheticTool) -> tuple[str, str] | None:
    """A request for a value that can't be, and the parameter's name; None if the tool takes no such value."""
    for slot in tool.slots:
        found = _impossible_value(voice, slot)
        if found is None:
            continue
        said, parameter = found
        form = "{a} {v}" if slot.kind == "enum" else "to {v}"
        rest = [other for other in tool.slots if other is not slot and other.required and other.kind != "switch"]
        others = [slot_phrase(voice, other, tool.thing).text for other in rest]
        parts = [form.replace("{a}", parameter.spoken).replace("{v}", mark(said)), *others]
        noun = noun_phrase(voice, tool.verb, tool.thing)
        text = action(voice, tool, noun, command=False) + " " + " ".join(parts).replace("{n}", tool.thing)
        return finish(voice, text), parameter.name
    return None


def _impossible_value(voice: Voice, slot: Slot) -> tuple[str, Parameter] | None:
    rng, parameter = voice.rng, slot.parameters[0]
    if slot.kind in ("int", "to_int") and parameter.spoken in ("percent", "level"):
        return f"{rng.choice((-1, 1)) * rng.randint(101, 900)}{rng.choice(('%', ' percent'))}", parameter
    if slot.kind in ("measure", "to_measure") and not slot.fixed_unit:
        units = [said for said in lexicon.UNITS[slot.units].values() if said not in slot.choices.values()]
        return (f"{rng.randint(2, 60)} {rng.choice(units)[1]}", slot.parameters[1]) if units else None
    if slot.kind in ("enum", "to_enum") and parameter.required:
        odd = values.clean(voice.words.scramble(rng, 1, 1)).lower()
        return None if any(odd in ways for ways in slot.choices.values()) else (odd, parameter)
    return None
