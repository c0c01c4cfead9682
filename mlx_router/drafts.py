"""Guesses of how an answer goes on, from the catalogue's grammar and the request's own words.

A guess is only a proposal: the decoder verifies it in one forward pass and keeps what the model would have said itself.
So a wrong guess costs time and never changes an answer.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from .calls import NO_TOOL, REASON_CODES
from .catalogue import MORE, Catalogue, Tool
from .prompts import KEPT_SYSTEMS
from .schemas import Schema

HEAD = '{"tool":"'
ARGUMENTS = '","arguments":{'
REASON = '","reason":"'
# Behind these codes something is to be said.
CODES = [f"{code}: {MORE}" if code == "missing_information" else code for code in REASON_CODES]
WORD = re.compile(r"\w+")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# Words that hold a digit are what identifiers, times and codes look like.
CODE = re.compile(r"#?[\w./:@+-]*\d[\w./:@+-]*")
KEY = re.compile(r'"((?:[^"\\]|\\.)*)":')
VALUE = json.JSONDecoder()


@dataclass(frozen=True)
class Drafter:
    """Proposes continuations of one answer. `continuation` takes the answer so far and returns text, or ""."""

    catalogue: Catalogue
    request: str

    def continuation(self, answer: str) -> str:
        """The text that most likely follows; it may end anywhere, and may be wrong."""
        if len(answer) < len(HEAD):
            return HEAD[len(answer) :] + self._from_name("") if HEAD.startswith(answer) else ""
        if not answer.startswith(HEAD):
            return ""
        name, quote, rest = answer[len(HEAD) :].partition('"')
        if not quote:
            return self._from_name(name)
        return self._after_name(name, quote + rest)

    @cached_property
    def _ranked(self) -> list[str]:
        """Tool names, the one that shares most words with the request first; `no_tool` last."""
        said = {_stem(word) for word in WORD.findall(self.request.casefold())}
        scores = {tool: _overlap(name, description, said) for tool, name, description in _own_words(self.catalogue)}
        return [*sorted(scores, key=lambda name: -scores[name]), NO_TOOL]

    def _from_name(self, begun: str) -> str:
        name = next((name for name in self._ranked if name.startswith(begun)), None)
        return "" if name is None else name[len(begun) :] + self._after_name(name, "")

    def _after_name(self, name: str, rest: str) -> str:
        """What follows the tool's name, given what of it is already there."""
        if name == NO_TOOL:
            return self._reason(rest)
        tool = self.catalogue.get(name)
        if tool is None:
            return ""
        if len(rest) < len(ARGUMENTS):
            return ARGUMENTS[len(rest) :] + self._next_key(tool, []) if ARGUMENTS.startswith(rest) else ""
        return self._arguments(tool, rest[len(ARGUMENTS) :]) if rest.startswith(ARGUMENTS) else ""

    def _reason(self, rest: str) -> str:
        if len(rest) < len(REASON):
            return REASON[len(rest) :] + self._reason(REASON) if REASON.startswith(rest) else ""
        said = rest[len(REASON) :]
        listed = [_reason_text(reason) for reason in self.catalogue.reasons or CODES]
        # Of a catalogue's reasons the first is guessed from the start; of others there are too many.
        found = next((text for text in listed if text.startswith(said)), "") if said or self.catalogue.reasons else ""
        return found[len(said) :]

    def _arguments(self, tool: Tool, text: str) -> str:
        """Read the finished arguments, then go on from where the text stops."""
        given: list[str] = []
        while text and text[0] != "}":
            key = KEY.match(text)
            if key is None:
                return self._key_end(tool, given, text)
            name, text = key.group(1), text[key.end() :]
            try:
                _, end = VALUE.raw_decode(text)
            except json.JSONDecodeError:
                return self._value_end(tool, name, given, text)
            if end == len(text) and text[-1] not in '"}]':
                # A number or a literal may still go on.
                return self._after_value(tool, [*given, name])
            given, text = [*given, name], text[end:]
            if text.startswith(","):
                text = text[1:]
                if not text:
                    return self._next_key(tool, given).removeprefix("}}")
            elif not text:
                return self._after_value(tool, given)
        return "}}"[len(text) :] if text in ("}", "}}") else self._next_key(tool, given)

    def _next_key(self, tool: Tool, given: Sequence[str]) -> str:
        """The next required parameter that is not given yet, and how its value begins; else the end of the call."""
        name = next((name for name in tool.required if name not in given), None)
        return "}}" if name is None else f'"{name}":{self._value(tool, name)}'

    def _after_value(self, tool: Tool, given: Sequence[str]) -> str:
        following = self._next_key(tool, given)
        return following if following == "}}" else f",{following}"

    def _key_end(self, tool: Tool, given: Sequence[str], begun: str) -> str:
        name = next((name for name in tool.properties if name not in given and f'"{name}":'.startswith(begun)), None)
        return "" if name is None else f'"{name}":'[len(begun) :] + self._value(tool, name)

    def _value(self, tool: Tool, name: str) -> str:
        """How the value of a parameter begins, the whole of it where it can be guessed."""
        schema = tool.properties.get(name, {})
        choices = [choice for choice in _choices(schema) if self._mentioned(choice)]
        if len(choices) == 1:
            return json.dumps(choices[0], ensure_ascii=False)
        kind = schema.get("type")
        if kind in ("integer", "number"):
            numbers = NUMBER.findall(self.request)
            return numbers[0] if len(numbers) == 1 else ""
        if kind == "string" and not _choices(schema):
            codes = CODE.findall(self.request)
            return f'"{codes[0]}' if len(codes) == 1 and name.endswith(("id", "number", "code")) else '"'
        return ""

    def _value_end(self, tool: Tool, name: str, given: Sequence[str], begun: str) -> str:
        """The rest of a value that has begun: an enum's, or the request's words from there on."""
        for choice in _choices(tool.properties.get(name, {})):
            text = json.dumps(choice, ensure_ascii=False)
            if text.startswith(begun) and begun.strip('"'):
                return text[len(begun) :] + self._after_value(tool, [*given, name])
        if not begun:
            return self._value(tool, name)
        said = begun.rpartition('"')[2]
        if begun.startswith('"') and said:
            return self._copied(said)
        return ""

    def _copied(self, begun: str) -> str:
        """What follows these words in the request, where they begin a word of it."""
        quoted = json.dumps(self.request, ensure_ascii=False)[1:-1]
        found = next(_word_starts(quoted, begun), None)
        return "" if found is None else quoted[found + len(begun) :]

    def _mentioned(self, choice: Any) -> bool:
        return str(choice).replace("_", " ").casefold() in self.request.casefold()


def _reason_text(reason: str) -> str:
    """A reason as an answer holds it, up to where it ends or is the model's own."""
    begun = reason.removesuffix(MORE)
    text = json.dumps(begun, ensure_ascii=False)[1:-1]
    return text if begun != reason else text + '"}'


def _choices(schema: Schema) -> list[Any]:
    found = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return list(found) if isinstance(found, list) else []


@lru_cache(maxsize=KEPT_SYSTEMS)
def _own_words(catalogue: Catalogue) -> list[tuple[str, set[str], set[str]]]:
    """Each tool's name, the words of its name, and those of its description."""
    return [
        (
            tool.name,
            {_stem(word) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", tool.name.replace("_", " "))},
            {_stem(word) for word in WORD.findall(tool.description)},
        )
        for tool in catalogue
    ]


def _overlap(name: set[str], description: set[str], said: set[str]) -> float:
    """How many of the request's words a tool's name and description have; the name's count more."""
    return 2.0 * len(name & said) + 1.0 * len(description & said) - 0.01 * len(description)


def _stem(word: str) -> str:
    return word.casefold()[:5]


def _word_starts(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        if at == 0 or not text[at - 1].isalnum():
            yield at
        at = text.find(part, at + 1)
