"""Episodes of scenes: a scene's tools, renamed and in company, and requests for them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...calls import ToolCall
from ...catalogue import Catalogue, Tool
from ...schemas import Schema
from .generator import Episode, Turn, chitchat, elsewhere, instructions, no_tool
from .marks import unmarked
from .masking import RATES, distinct, varied_name, varied_parameter
from .scenes import Frame, Scene, SceneTool
from .sources import command_of, idle_text
from .speaker import Speaker, finish
from .tools import NAME_STYLES, name_words, opaque_name, styled
from .values import Words

# What a request is, and how often; `removed` and `negated` are made from calls.
TURN_KINDS = ("call", "idle", "missing", "invalid", "removed", "negated", "chitchat", "out_of_scope")
TURN_WEIGHTS = (800, 120, 60, 8, 45, 35, 8, 8)


@dataclass
class _Dress:
    """A tool as one catalogue shows it: its name, its parameters' names and order."""

    tool: Tool
    names: dict[str, str]


# Tools of a catalogue; below the number of a scene's own, these alone.
TOOL_COUNTS = (0, 0, 0, 0, 0, 8, 10, 12, 16, 24, 40, 80)
LARGE_TOOL_COUNTS = (0, 16, 24, 32, 40, 60, 80)
# Words of tools' names that do not tell what a tool is about.
GENERIC_WORDS = (
    "get set add list show find search create update delete remove cancel check start stop open close send make new "
    "book order change edit move log record view request report schedule mark all my the a of for to"
)
GENERIC = frozenset(GENERIC_WORDS.split())


@dataclass(frozen=True)
class _Fashion:
    """How one catalogue writes its tools: its style, how many descriptions it has, how many names are changed."""

    style: str
    described: float
    opaque: bool
    bare: bool
    masked: float

    @classmethod
    def draw(cls, rng: random.Random, *, plain: bool) -> "_Fashion":
        bare = rng.random() < 0.15
        if plain:
            return cls("", 1.0, False, bare, 0.0)
        style = rng.choice(NAME_STYLES) if rng.random() < 0.35 else ""
        described = rng.choice((0.0, 0.6, 1.0, 1.0, 1.0, 1.0))
        return cls(style, described, rng.random() < 0.07, bare, rng.choice(RATES))


def _dress(rng: random.Random, tool: SceneTool, fashion: _Fashion) -> _Dress:
    style, words = fashion.style, name_words(tool.name)
    description = tool.description if fashion.opaque or rng.random() < fashion.described else ""
    if fashion.opaque:
        name = opaque_name(rng)
    elif rng.random() < fashion.masked:
        name = varied_name(rng, tool.name, description, style)
    else:
        name = styled(words, style) if style and words else tool.name
    schema, names = _parameters(rng, tool, fashion)
    if description and rng.random() < 0.2:
        description = description.rstrip(".")
        description = description[0].lower() + description[1:]
    return _Dress(Tool(name, description, schema), names)


def _parameters(rng: random.Random, tool: SceneTool, fashion: _Fashion) -> tuple[Schema, dict[str, str]]:
    """The schema as the catalogue shows it, and its names by the scene's own."""
    parameters = [p for p in tool.parameters if p.required or not fashion.bare or rng.random() < 0.5]
    if rng.random() < 0.15:
        rng.shuffle(parameters)
    camel = fashion.style in ("camel", "pascal")
    types = [str(p.schema.get("type", "enum")) for p in parameters]
    names = {}
    for p, type_ in zip(parameters, types, strict=True):
        if rng.random() < 0.6 * fashion.masked:
            names[p.name] = varied_parameter(rng, p.name, fashion.style, alone=types.count(type_) == 1)
        else:
            names[p.name] = styled(name_words(p.name), "camel") if camel and name_words(p.name) else p.name
    if not distinct(tuple(names.values())):
        names = {p.name: p.name for p in parameters}
    schema: Schema = {
        "properties": {names[p.name]: p.schema for p in parameters},
        "required": [names[p.name] for p in parameters if p.required],
    }
    return schema, names


@dataclass
class SceneEpisodes:
    """A seeded source of episodes from scenes.

    `scenes` are those that requests come from; tools of `others` may stand beside theirs in a catalogue.
    """

    rng: random.Random
    words: Words
    scenes: Sequence[Scene]
    others: Sequence[Scene]
    tool_counts: Sequence[int] = TOOL_COUNTS
    plain: bool = False

    def episode(self, turns: int) -> Episode:
        """One catalogue with up to this many requests."""
        rng = self.rng
        scene = rng.choices(self.scenes, [len(scene.tools) for scene in self.scenes])[0]
        tools = [tool for tool in scene.tools if tool.calls]
        if rng.random() < 0.3 and len(tools) > 2:
            tools = rng.sample(tools, rng.randint(2, len(tools)))
        removed = [tool for tool in scene.tools if tool not in tools and tool.calls]
        if not removed and len(tools) > 3 and rng.random() < 0.4:
            removed = [tools.pop(rng.randrange(len(tools)))]
        dresses, beside = self._catalogue(tools)
        catalogue = Catalogue(tuple(dress.tool for dress in beside), self._instructions(scene))
        speaker = Speaker(rng, self.words, scene)
        made: list[Turn] = []
        for _ in range(turns * 3):
            if len(made) == turns:
                break
            kind = rng.choices(TURN_KINDS, TURN_WEIGHTS)[0]
            turn = self._turn(kind, speaker, tools, dresses, removed)
            if turn is not None:
                made.append(turn)
        return Episode(catalogue, tuple(made))

    def _instructions(self, scene: Scene) -> str:
        chance = self.rng.random()
        if chance < 0.5:
            return ""
        about = scene.about.rstrip(".")
        if chance < 0.8 and about:
            return self.rng.choice(
                ("You are the {}.", "You are an assistant: {}.", "You route requests for the {}.", "{}.")
            ).format(about)
        return instructions(self.rng, scene.name.replace("_", " "))

    def _catalogue(self, tools: Sequence[SceneTool]) -> tuple[list[_Dress], list[_Dress]]:
        """The scene's tools as they are shown, in the order of `tools`; and all tools, shuffled."""
        rng, fashion = self.rng, _Fashion.draw(self.rng, plain=self.plain)
        dresses, taken = [], set[str]()
        for tool in tools:
            dress = _dress(rng, tool, fashion)
            while dress.tool.name in taken:
                dress = _dress(rng, tool, replace(fashion, opaque=True))
            taken.add(dress.tool.name)
            dresses.append(dress)
        beside = list(dresses)
        words = {word for tool in tools for word in name_words(tool.name)} - GENERIC
        wanted = rng.choice(self.tool_counts)
        for _ in range(wanted * 4):
            if len(beside) >= wanted:
                break
            other = rng.choice(rng.choice(self.others).tools)
            if words & set(name_words(other.name)):
                continue
            dress = _dress(rng, other, fashion)
            if dress.tool.name not in taken:
                taken.add(dress.tool.name)
                beside.append(dress)
        if rng.random() < 0.8:
            rng.shuffle(beside)
        return dresses, beside

    def _turn(
        self, kind: str, speaker: Speaker, tools: list[SceneTool], dresses: list[_Dress], removed: list[SceneTool]
    ) -> Turn | None:
        rng, scene = self.rng, speaker.scene
        at = rng.randrange(len(tools))
        tool, dress = tools[at], dresses[at]
        if kind == "chitchat":
            return Turn(chitchat(rng), no_tool(kind), kind)
        if kind == "out_of_scope":
            return Turn(elsewhere(rng, self.words), no_tool(kind), kind)
        if kind == "idle":
            return self._idle(speaker) if scene.idle else None
        if kind == "removed":
            return self._removed(speaker, removed)
        frames = {"missing": tool.missing, "invalid": tool.invalid}.get(kind, tool.calls)
        if not frames:
            return None
        frame = rng.choice(frames)
        text, arguments, copied = speaker.fill(tool, frame)
        if kind == "negated":
            if not command_of(unmarked(text)):
                return None
            return Turn(idle_text(rng, unmarked(text)), no_tool("no_action_requested"), "no_action_requested")
        if any(name not in dress.names for name in (*arguments, *frame.names)):
            return None
        request, arguments = finish(rng, text, arguments, copied)
        if any(not _stated(request, arguments[name]) for name in copied):
            return None
        if kind == "call":
            call = {dress.names[name]: value for name, value in arguments.items()}
            return Turn(request, ToolCall(tool=dress.tool.name, arguments=call), "call")
        names = [dress.names[name] for name in frame.names]
        if kind == "missing":
            names = [name for name in dress.tool.properties if name in names]
            return Turn(request, no_tool(f"missing_information: {', '.join(names)}"), kind)
        return Turn(request, no_tool(f"invalid_parameter: {names[0]}"), kind)

    def _idle(self, speaker: Speaker) -> Turn:
        reason, text = self.rng.choice(speaker.scene.idle)
        filled, _, _ = speaker.fill(None, Frame(text))
        request, _ = finish(self.rng, filled, {}, ())
        return Turn(request, no_tool(reason), reason)

    def _removed(self, speaker: Speaker, removed: Sequence[SceneTool]) -> Turn | None:
        if not removed:
            return None
        tool = self.rng.choice(removed)
        text, _, _ = speaker.fill(tool, self.rng.choice(tool.calls))
        request, _ = finish(self.rng, text, {}, ())
        return Turn(request, no_tool("no_matching_tool"), "no_matching_tool")


def _stated(text: str, value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(item in text for item in items)
