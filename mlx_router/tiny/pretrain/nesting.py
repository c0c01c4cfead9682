"""Tools of any source whose parameters are put into objects, and lists of one object: nested arguments to copy into."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...calls import NoTool, Target, ToolCall
from ...catalogue import Tool
from ...schemas import Schema
from .generator import Episode
from .tools import styled

CHANCE = 0.1  # of an episode
TOOLS = 0.7  # of its tools
LISTED = 0.2  # of the objects
NAMES = (
    *("details", "info", "data", "options", "params", "request", "item", "entry", "payload", "input", "settings"),
    *("target", "record", "body", "spec", "fields", "values", "attributes", "subject", "properties", "query", "config"),
)


@dataclass(frozen=True)
class Group:
    """Parameters of a tool that become one: an object, or a list of one object."""

    name: str
    members: tuple[str, ...]
    listed: bool

    def needed(self, tool: Tool) -> list[str]:
        """The parameters of the group that the tool requires."""
        return [name for name in self.members if name in tool.required]

    def schema(self, tool: Tool) -> Schema:
        """The new parameter's schema; what was required is so within the object."""
        needed = self.needed(tool)
        made: Schema = {"type": "object", "properties": {name: tool.properties[name] for name in self.members}}
        made |= {"required": needed} if needed else {}
        return {"type": "array", "items": made} if self.listed else made

    def nested(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The call's arguments, those of the group as one."""
        inner = {name: arguments[name] for name in self.members if name in arguments}
        rest = {name: value for name, value in arguments.items() if name not in self.members}
        return {**rest, self.name: [inner] if self.listed else inner} if inner else rest


def with_nested_parameters(rng: random.Random, episode: Episode, chance: float = CHANCE) -> Episode:
    """The episode, or by this chance the same with parameters of some tools put into an object."""
    if rng.random() >= chance:
        return episode
    # A reason names the parameters that a request lacks, so those stay as they are.
    named = {name for turn in episode.turns for name in _missing(turn.target)}
    groups = {
        tool.name: group
        for tool in episode.catalogue
        if rng.random() < TOOLS and (group := _group(rng, tool, named)) is not None
    }
    tools = tuple(_nested(tool, groups[tool.name]) if tool.name in groups else tool for tool in episode.catalogue)
    turns = [replace(turn, target=_target(turn.target, groups)) for turn in episode.turns]
    return replace(episode, catalogue=replace(episode.catalogue, tools=tools), turns=tuple(turns))


def _missing(target: Target) -> Sequence[str]:
    return target.reason.partition(": ")[2].split(", ") if isinstance(target, NoTool) else ()


def _group(rng: random.Random, tool: Tool, named: set[str]) -> Group | None:
    names = list(tool.properties)
    free = [name not in named for name in names]
    runs = [
        (start, end)
        for start in range(len(names))
        for end in range(start + 2, min(start + 4, len(names)) + 1)
        if all(free[start:end])
    ]
    if not runs:
        return None
    start, end = rng.choice(runs)
    style = "camel" if any(re.search("[a-z][A-Z]", name) for name in names) else "snake"
    first = rng.choice(NAMES)
    name = first if rng.random() < 0.7 else styled([rng.choice(("the", "new", "user", "call")), first], style)
    if name in names:
        return None
    return Group(name, tuple(names[start:end]), rng.random() < LISTED)


def _nested(tool: Tool, group: Group) -> Tool:
    properties: dict[str, Schema] = {}
    for name, schema in tool.properties.items():
        if name not in group.members:
            properties[name] = schema
        elif group.name not in properties:
            properties[group.name] = group.schema(tool)
    needed = {*tool.required, *((group.name,) if group.needed(tool) else ())}
    required = [name for name in properties if name in needed]
    return replace(tool, parameters={**tool.parameters, "properties": properties, "required": required})


def _target(target: Target, groups: Mapping[str, Group]) -> Target:
    if not isinstance(target, ToolCall) or target.tool not in groups:
        return target
    return ToolCall(tool=target.tool, arguments=groups[target.tool].nested(target.arguments))
