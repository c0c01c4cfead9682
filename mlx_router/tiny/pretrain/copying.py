"""Requests whose texts are changed for any words, so that each word of the vocabulary is copied now and then.

What a model has seldom copied it copies wrong, however sure it is of the place: a word's vector is learnt as an answer
only where it stands in one.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from ...calls import ToolCall
from ...catalogue import Catalogue
from . import lexicon
from .generator import Turn
from .values import invented

CHANCE = 0.5  # of a call that has a text
INVENTED = 0.1
# A time stays a time, and what stands in quotes or digits stays as it is.
TIME_WORDS = "today tomorrow tonight noon midnight morning afternoon evening night day week weekend month year hour"
TIME_FORMS = "next this last every in at on of the half past quarter to am pm couple minutes hours days weeks months"
SPARED = frozenset(word.lower() for word in (*TIME_WORDS.split(), *TIME_FORMS.split(), *lexicon.DAYS, *lexicon.MONTHS))


def with_other_words(rng: random.Random, turn: Turn, catalogue: Catalogue, vocabulary: Sequence[str]) -> Turn:
    """The turn, or the same with other words as one of the texts that its call copies from the request."""
    call = turn.target
    if not vocabulary or not isinstance(call, ToolCall) or rng.random() >= CHANCE:
        return turn
    tool = catalogue.get(call.tool)
    assert tool is not None, call
    texts = {name: value for name, value in call.arguments.items() if isinstance(value, str)}
    names = [
        name for name, text in texts.items() if turn.request.count(text) == 1 and "enum" not in tool.properties[name]
    ]
    if not names:
        return turn
    name = rng.choice(names)
    old, new = texts[name], _other_words(rng, texts[name], vocabulary)
    request = turn.request.replace(old, new)
    others = [text for other, text in texts.items() if other != name and text in turn.request]
    if request.count(new) != 1 or any(text not in request or old in text or text in old for text in others):
        return turn
    return replace(turn, request=request, target=ToolCall(tool=call.tool, arguments={**call.arguments, name: new}))


def _other_words(rng: random.Random, text: str, vocabulary: Sequence[str]) -> str:
    share = rng.choice((0.5, 1.0, 1.0))
    return " ".join(_other(rng, word, vocabulary) if rng.random() < share else word for word in text.split(" "))


def _other(rng: random.Random, word: str, vocabulary: Sequence[str]) -> str:
    if not word.isalpha() or word.lower() in SPARED:
        return word
    other = invented(rng) if rng.random() < INVENTED else rng.choice(vocabulary)
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other.lower() if word.islower() else other.capitalize()
