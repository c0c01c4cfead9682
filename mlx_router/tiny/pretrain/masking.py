"""Names changed at random, so that a model reads them in the catalogue instead of remembering them."""

import random
import re
from collections.abc import Sequence

from . import lexicon
from .tools import name_words, opaque_name, styled
from .values import invented

# Share of a catalogue's names that are changed, drawn once a catalogue.
RATES = (0.0, 0.0, 0.3, 0.6, 1.0)
KINDS = ("opaque", "mixed", "described", "extended")
KIND_WEIGHTS = (30, 20, 30, 20)
FUNCTION_WORDS = "a an the of to for in on at by with and or its it is be from into as this that one"
SMALL_WORDS = frozenset(FUNCTION_WORDS.split())
PREFIXES = ("app", "do", "my", "api", "user", "run", "svc", "op", "handle", "agent")
SUFFIXES = ("tool", "action", "v2", "request", "now", "cmd", "item", "task", "api", "fn")
PARAMETER_PREFIXES = ("target", "new", "the", "user", "input", "given", "wanted")
PARAMETER_SUFFIXES = ("value", "name", "text", "info", "field", "input", "arg", "param")


def varied_name(rng: random.Random, name: str, description: str, style: str) -> str:
    """Another name for a tool; one that says nothing of it only where a description does."""
    words = name_words(name) or [invented(rng)]
    kind = rng.choices(KINDS, KIND_WEIGHTS)[0] if description else "extended"
    if kind == "opaque":
        return opaque_name(rng) if rng.random() < 0.5 else styled([_any_word(rng), _any_word(rng)], style or "snake")
    if kind == "mixed":
        words[rng.randrange(len(words))] = _any_word(rng)
    elif kind == "described":
        said = [word.lower() for word in re.findall("[A-Za-z]+", description) if word.lower() not in SMALL_WORDS]
        places = sorted(rng.sample(range(len(said)), min(len(said), rng.randint(1, 3))))
        words = [said[at] for at in places] or words
    elif rng.random() < 0.3 and len(words) > 1:
        words.reverse()
    elif rng.random() < 0.5:
        words = [rng.choice((*PREFIXES, invented(rng))), *words]
    else:
        words = [*words, rng.choice((*SUFFIXES, invented(rng)))]
    return styled(words, style or "snake")


def varied_parameter(rng: random.Random, name: str, style: str, *, alone: bool) -> str:
    """Another name for a parameter; `alone` tells that its type is enough to know it by."""
    words = name_words(name) or [name]
    chance = rng.random()
    if alone and chance < 0.2:
        words = [_any_word(rng)]
    elif chance < 0.45:
        words = [*words, rng.choice(PARAMETER_SUFFIXES)]
    elif chance < 0.7:
        words = [rng.choice(PARAMETER_PREFIXES), *words]
    elif chance < 0.8:
        words = [word[: rng.randint(2, 4)] for word in words]
    else:
        words = [*words, rng.choice(("", "s", "1", "2", _any_word(rng)))]
    return styled([word for word in words if word], "camel" if style in ("camel", "pascal") else "snake")


def _any_word(rng: random.Random) -> str:
    word = rng.choice(lexicon.VALUE_WORDS) if rng.random() < 0.5 else invented(rng)
    return re.sub("[^a-z]", "", word.lower()) or invented(rng)


def distinct(names: Sequence[str]) -> bool:
    """Whether no two names are the same."""
    return len(set(names)) == len(names)
