"""Words of the synthetic tools, read from lexicon.toml: verbs, things, values, and the phrases around them.

What stands under a name that begins with HELD never occurs in training; it measures how far the model generalises.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("lexicon.toml").read_text(encoding="utf-8"))
Strings = tuple[str, ...]


@dataclass(frozen=True)
class Verb:
    """What a synthetic tool does, and how people ask for it.

    `{n}` is the thing with its article. `commands` are imperatives, so that "don't …" and "how do I …" can stand
    before them; `wishes` are whole sentences. Tools on the same thing whose `clash` is equal can't be told apart.
    `shapes` are the kinds of parameters that its tools may have.
    """

    lemma: str
    past: str
    article: str
    clash: str
    names: Strings
    commands: Strings
    wishes: Strings
    held: Strings
    shapes: Strings


def _strings(name: str) -> Strings:
    return tuple(TABLES[name])


def _lists(table: dict[str, list[str]]) -> dict[str, Strings]:
    return {key: tuple(values) for key, values in table.items()}


def _verb(entry: dict[str, Any]) -> Verb:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Verb(**fields)


VERBS = tuple(_verb(entry) for entry in TABLES["verbs"])
DOMAINS = _lists(TABLES["domains"])
HELD_THINGS = _strings("held_things")
OTHER_WORDS: dict[str, str] = TABLES["other_words"]
ARTICLES = _lists(TABLES["articles"])
PARAMETER_NAMES = _lists(TABLES["parameter_names"])
PHRASES, HELD_PHRASES = _lists(TABLES["phrases"]), _lists(TABLES["held_phrases"])

OPENINGS, HELD_OPENINGS = _strings("openings"), _strings("held_openings")
WISH_OPENINGS = _strings("wish_openings")
ENDINGS, HELD_ENDINGS = _strings("endings"), _strings("held_endings")
SAFE_ENDINGS = _strings("safe_endings")
CONTEXTS, ASIDES = _strings("contexts"), _strings("asides")
CORRECTIONS, HELD_CORRECTIONS = _strings("corrections"), _strings("held_corrections")
NEGATIONS, HELD_NEGATIONS = _strings("negations"), _strings("held_negations")
QUESTIONS, HELD_QUESTIONS = _strings("questions"), _strings("held_questions")
STATEMENTS, HELD_STATEMENTS = _strings("statements"), _strings("held_statements")
HYPOTHETICALS, HELD_HYPOTHETICALS = _strings("hypotheticals"), _strings("held_hypotheticals")
CHITCHAT, HELD_CHITCHAT = _strings("chitchat"), _strings("held_chitchat")
ELSEWHERE, HELD_ELSEWHERE = _strings("elsewhere"), _strings("held_elsewhere")
SENTENCE_STARTS, COMMANDS = _strings("sentence_starts"), _strings("commands")
INSTRUCTIONS = _strings("instructions")

FIRST_NAMES, LAST_NAMES = _strings("first_names"), _strings("last_names")
CITIES, ROOMS = _strings("cities"), _strings("rooms")
MONTHS, DAYS = _strings("months"), _strings("days")
VALUE_WORDS = _strings("value_words")
SUBJECTS, PREDICATES = _strings("subjects"), _strings("predicates")

# Flag: ways to say yes, ways to say no.
FLAGS: dict[str, tuple[Strings, Strings]] = {
    name: (tuple(yes), tuple(no)) for name, (yes, no) in TABLES["flags"].items()
}
SWITCH_NAMES = _strings("switch_names")
SWITCH_ON, HELD_SWITCH_ON = _strings("switch_on"), _strings("held_switch_on")
SWITCH_OFF, HELD_SWITCH_OFF = _strings("switch_off"), _strings("held_switch_off")
ENUMS = {name: _lists(table) for name, table in TABLES["enums"].items()}
UNITS = {family: _lists(table) for family, table in TABLES["units"].items()}
UNIT_SYMBOLS: dict[str, str] = TABLES["unit_symbols"]
MEASURE_NAMES = _lists(TABLES["measure_names"])
