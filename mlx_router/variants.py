"""Variants of a catalogue: tools renamed, reordered, left out and added, and rows rewritten to fit.

    variant = unchanged(catalogue).without({"track_order"}).reordered(rng)
    row = variant.example(row)  # a row that called track_order now wants `no_tool`
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeAlias

from .calls import NoTool, Target, ToolCall
from .catalogue import Catalogue, Tool
from .data import Example
from .schemas import Schema

Saying: TypeAlias = Callable[[str], str]

NO_MATCH = NoTool(reason="no_matching_tool")
# Codes of reasons that are followed by names of parameters.
NAMING_CODES = ("missing_information", "invalid_parameter")
# Where a schema has none of these, only `properties` and `required` name its parameters.
NAMING_KEYWORDS = frozenset(
    (
        *("$ref", "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"),
        *("patternProperties", "propertyNames", "examples"),
    )
)


@dataclass(frozen=True)
class Variant:
    """A catalogue made of `original`, and what its names have become.

    `tools` maps the names of the tools that are left to their names now, `parameters` those of the parameters that
    have other names now.
    """

    original: Catalogue
    catalogue: Catalogue
    tools: Mapping[str, str]
    parameters: Mapping[str, str]

    def without(self, names: Collection[str]) -> "Variant":
        """The same without the tools of these names, at least one other of which has to be left."""
        gone = {self.tools[name] for name in names}
        tools = {old: new for old, new in self.tools.items() if new not in gone}
        return replace(self._with(tool for tool in self.catalogue if tool.name not in gone), tools=tools)

    def renamed(self, tools: Mapping[str, str], parameters: Mapping[str, str]) -> "Variant":
        """The same with other names, by the original ones. Parameters of one name get one name in all tools.

        Parameters of tools whose schema names them in more than one place keep their names. To be called once, before
        other tools join.
        """
        fixed = {name for tool in self.original if not renameable(tool) for name in tool.properties}
        parameters = {old: new for old, new in parameters.items() if old not in fixed}
        names = {old: tools.get(old, now) for old, now in self.tools.items()}
        back = {now: names[old] for old, now in self.tools.items()}
        said = _saying({**parameters, **{now: new for now, new in back.items() if now != new}})
        made = (_renamed(tool, back.get(tool.name, tool.name), parameters, said) for tool in self.catalogue)
        return replace(self._with(made), tools=names, parameters=parameters)

    def reordered(self, rng: Random) -> "Variant":
        """The same tools in random order."""
        tools = list(self.catalogue)
        rng.shuffle(tools)
        return self._with(tools)

    def joined_by(self, others: Iterable[Tool], rng: Random | None = None) -> "Variant":
        """The same with other tools, whose names must not be in use, at random places or at the end."""
        tools = list(self.catalogue)
        for tool in others:
            tools.insert(len(tools) if rng is None else rng.randint(0, len(tools)), tool)
        return self._with(tools)

    def _with(self, tools: Iterable[Tool]) -> "Variant":
        return replace(self, catalogue=replace(self.catalogue, tools=tuple(tools)))

    def target(self, target: Target) -> Target:
        """A gold target of the original catalogue as it is in this one; `no_tool` where its tool is gone."""
        if isinstance(target, NoTool):
            return self._reason(target)
        if target.tool not in self.tools:
            return NO_MATCH
        tool = self.original.by_name[target.tool]
        names = {name: self.parameters.get(name, name) for name in tool.properties}
        arguments = {names.get(name, name): value for name, value in target.arguments.items()}
        return ToolCall(tool=self.tools[target.tool], arguments=arguments)

    def _reason(self, target: NoTool) -> NoTool:
        """A reason that names parameters names them as they are called now, if a tool that has them all is left."""
        code, _, words = target.reason.partition(":")
        names = [name.strip() for name in words.split(",") if name.strip()]
        if code.strip() not in NAMING_CODES or not names:
            return target
        owners = [tool.name for tool in self.original if set(names) <= tool.properties.keys()]
        if owners and not any(name in self.tools for name in owners):
            return NO_MATCH
        now = [self.parameters.get(name, name) for name in names]
        return target if now == names else NoTool(reason=f"{code.strip()}: {', '.join(now)}")

    def example(self, example: Example) -> Example:
        """A row of the original catalogue as a row of this one.

        Where its tool is gone, its first alternative whose tool is left becomes the target.
        """
        if isinstance(example.target, ToolCall) and example.target.tool not in self.tools:
            left = [other for other in example.alternatives if isinstance(other, NoTool) or other.tool in self.tools]
            target, others = (left[0], left[1:]) if left else (NO_MATCH, [])
        else:
            target, others = example.target, list(example.alternatives)
            others = [other for other in others if isinstance(other, NoTool) or other.tool in self.tools]
        return replace(
            example,
            catalogue=self.catalogue,
            target=self.target(target),
            alternatives=tuple(self.target(other) for other in others),
            system=None,
        )


def unchanged(catalogue: Catalogue) -> Variant:
    """The variant of a catalogue that is the catalogue itself."""
    return Variant(catalogue, catalogue, {tool.name: tool.name for tool in catalogue}, {})


def renameable(tool: Tool) -> bool:
    """Whether the tool's parameters can be renamed: nothing but `properties` and `required` names them."""
    return not NAMING_KEYWORDS & tool.parameters.keys()


def name_words(text: str) -> set[str]:
    """The words of names or sentences, in lower case: "set_timer" and "setTimer" give "set" and "timer"."""
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))


def _renamed(tool: Tool, name: str, parameters: Mapping[str, str], said: Saying) -> Tool:
    names = {old: parameters.get(old, old) for old in tool.properties}
    if all(old == new for old, new in names.items()):
        return replace(tool, name=name, description=said(tool.description))
    schema: Schema = dict(tool.parameters)
    schema["properties"] = {names[old]: _described(child, said) for old, child in tool.properties.items()}
    if "required" in schema:
        schema["required"] = [names.get(old, old) for old in schema["required"]]
    compare = {names.get(old, old): rule for old, rule in tool.compare.items()}
    return Tool(name, said(tool.description), schema, compare=compare)


def _described(schema: Any, said: Saying) -> Any:
    if isinstance(schema, Mapping) and isinstance(schema.get("description"), str):
        return {**schema, "description": said(schema["description"])}
    return schema


def _saying(names: Mapping[str, str]) -> Saying:
    """Puts new names for old ones into a description; old ones that may be common words are left."""
    telling = [name for name in names if re.search(r"[_\d./:-]|[a-z][A-Z]", name)]
    if not telling:
        return lambda text: text
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(telling, key=len, reverse=True)))})(?![\w-])")
    return lambda text: pattern.sub(lambda found: names[found.group()], text)
