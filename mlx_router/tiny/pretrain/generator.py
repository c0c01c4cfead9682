"""Episodes: a catalogue and several requests with their targets, made of synthetic tools."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...calls import NoTool, Target, ToolCall
from ...catalogue import Catalogue
from . import lexicon, values
from .marks import mark
from .phrases import Voice
from .requests import call_request, finish, idle_request, impossible_request, partial_request
from .tools import Naming, SyntheticTool, make_tool
from .values import Words

TOOL_COUNTS = (2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 7, 8, 10, 13, 20)
# What a request is: a call, or one of the reasons for none.
TURN_KINDS = ("call", "chitchat", "out_of_scope", "no_matching_tool", "no_action_requested", "missing", "invalid")
TURN_WEIGHTS = (800, 22, 16, 58, 48, 46, 10)


@dataclass(frozen=True)
class Turn:
    """One request and the right answer; `kind` names what the row is about."""

    request: str
    target: Target
    kind: str


@dataclass(frozen=True)
class Episode:
    """A catalogue and independent requests to it."""

    catalogue: Catalogue
    turns: tuple[Turn, ...]


class Episodes(Protocol):
    """A source of episodes."""

    def episode(self, turns: int) -> Episode: ...


@dataclass
class SyntheticEpisodes:
    """A seeded source of synthetic episodes; `held` takes things and phrasings that training never sees."""

    rng: random.Random
    words: Words
    held_things: bool = False
    held_phrases: bool = False

    def episode(self, turns: int) -> Episode:
        """One catalogue with this many requests."""
        tools, domain = self._tools()
        voice = Voice(self.rng, self.words, self.held_phrases)
        catalogue = Catalogue(tuple(tool.tool for tool in tools), instructions(self.rng, domain))
        made: list[Turn] = []
        while len(made) < turns:
            kind = self.rng.choices(TURN_KINDS, TURN_WEIGHTS)[0]
            turn = self._turn(kind, voice, tools)
            if turn is not None:
                made.append(turn)
        return Episode(catalogue, tuple(made))

    def _tools(self) -> tuple[list[SyntheticTool], str]:
        rng, naming = self.rng, Naming.draw(self.rng)
        domain = rng.choice(list(lexicon.DOMAINS))
        things = self._things(domain)
        tools: list[SyntheticTool] = []
        wanted = rng.choice(TOOL_COUNTS)
        for _ in range(wanted * 5):
            if len(tools) == wanted:
                break
            tool = make_tool(rng, rng.choice(lexicon.VERBS), rng.choice(things), naming, self.words)
            if tool.tool.name not in {other.tool.name for other in tools} and not clashes(tool, tools):
                tools.append(tool)
        return tools, domain

    def _things(self, domain: str) -> list[str]:
        rng = self.rng
        if self.held_things:
            return rng.sample(lexicon.HELD_THINGS, rng.choice((1, 2, 3, 6)))
        own = lexicon.DOMAINS[domain]
        every = [thing for things in lexicon.DOMAINS.values() for thing in things]
        pool = own if rng.random() < 0.6 else every
        things = rng.sample(pool, min(len(pool), rng.choice((1, 2, 3, 4, 6, 12))))
        if rng.random() < 0.25:
            odd = values.clean(self.words.scramble(rng, 1, 1)).lower()
            things.append(odd if odd.isascii() and odd.isalpha() else values.invented(rng))
        return things

    def _turn(self, kind: str, voice: Voice, tools: Sequence[SyntheticTool]) -> Turn | None:
        rng = self.rng
        tool = rng.choice(tools)
        if kind == "call":
            lone = sum(other.thing == tool.thing for other in tools) == 1
            request, arguments = call_request(voice, tool, lone)
            return Turn(request, ToolCall(tool=tool.tool.name, arguments=arguments), "call")
        if kind == "missing":
            partial = partial_request(voice, tool)
            return partial and Turn(partial[0], no_tool(f"missing_information: {', '.join(partial[1])}"), kind)
        if kind == "invalid":
            made = (impossible_request(voice, other) for other in rng.sample(tools, len(tools)))
            impossible = next((request for request in made if request), None)
            return impossible and Turn(impossible[0], no_tool(f"invalid_parameter: {impossible[1]}"), kind)
        if kind == "no_action_requested":
            return Turn(idle_request(voice, tool), no_tool(kind), kind)
        if kind == "chitchat":
            return Turn(chitchat(rng, held=self.held_phrases), no_tool(kind), kind)
        if kind == "out_of_scope":
            return Turn(elsewhere(rng, self.words, held=self.held_phrases), no_tool(kind), kind)
        return self._unmatched(voice, tools)

    def _unmatched(self, voice: Voice, tools: Sequence[SyntheticTool]) -> Turn | None:
        """A request for a tool that this catalogue lacks, near to those that it has."""
        rng, naming = self.rng, Naming("snake", "snake", 0.0, False)
        verb, thing = rng.choice(lexicon.VERBS), rng.choice(tools).thing
        if rng.random() < 0.45:
            verb = rng.choice(tools).verb
            thing = rng.choice(self._things(rng.choice(list(lexicon.DOMAINS))))
        other = make_tool(rng, verb, thing, naming, self.words)
        if clashes(other, tools) or _same_words(other, tools):
            return None
        request, _ = call_request(voice, other, lone=False)
        return Turn(request, no_tool("no_matching_tool"), "no_matching_tool")


CLASHING = (
    *({"on", "toggle"}, {"off", "toggle"}, {"read", "export"}, {"read", "measure"}, {"assign", "send"}),
    *({"send", "invite"}, {"reject", "remove"}, {"off", "lock"}, {"on", "play"}, {"on", "create"}, {"remove", "off"}),
    *({"create", "play"}, {"read", "play"}, {"move", "update"}, {"create", "read"}),
)


def clashes(tool: SyntheticTool, others: Sequence[SyntheticTool]) -> bool:
    """Tell whether a request for the tool could as well be one for another tool."""
    return any(
        tool.thing == other.thing
        and (tool.verb.clash == other.verb.clash or {tool.verb.clash, other.verb.clash} in CLASHING)
        for other in others
    )


def _same_words(tool: SyntheticTool, others: Sequence[SyntheticTool]) -> bool:
    """Tell whether things overlap in a word, "ticket" and "train ticket", without being the same."""
    words = set(tool.thing.split()) | set(lexicon.OTHER_WORDS.get(tool.thing, "").split())
    return any(
        tool.thing != other.thing
        and words & (set(other.thing.split()) | set(lexicon.OTHER_WORDS.get(other.thing, "").split()))
        for other in others
    )


def no_tool(reason: str) -> NoTool:
    """The explicit decision to call nothing."""
    return NoTool(reason=reason)


def chitchat(rng: random.Random, *, held: bool = False) -> str:
    """Small talk."""
    text = rng.choice(lexicon.HELD_CHITCHAT if held else lexicon.CHITCHAT)
    text = text.capitalize() if rng.random() < 0.3 else text
    if not held and rng.random() < 0.12:
        text += rng.choice((", ", "! ", ". ")) + rng.choice(lexicon.CHITCHAT)
    return text if text.endswith(("?", "!")) else text + rng.choice(("", "", "!", ".", " :)", "?"))


def elsewhere(rng: random.Random, words: Words, *, held: bool = False) -> str:
    """A request that no tool here has to do with."""
    form = rng.choice(lexicon.HELD_ELSEWHERE if held else lexicon.ELSEWHERE)
    while "{place}" in form:
        form = form.replace("{place}", mark(values.place(rng, words)), 1)
    while "{int}" in form:
        form = form.replace("{int}", mark(values.integer(rng).text), 1)
    form = form.replace("{person}", mark(values.person(rng, words)))
    return finish(Voice(rng, words), form, wish=True)


def instructions(rng: random.Random, domain: str) -> str:
    """A line of instructions, or none."""
    if rng.random() < 0.45:
        return ""
    return rng.choice(lexicon.INSTRUCTIONS).format(d=domain, D=domain.capitalize())
