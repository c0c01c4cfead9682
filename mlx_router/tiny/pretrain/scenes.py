"""Scenes: hand-written catalogues of some eight hundred walks of life, with the ways that people ask for their tools.

A scene is a text file in `scenes/`:

    @ voice assistant of a bakery's order desk         what the assistant is for
    = bread: sourdough loaf; rye bread                 a list of values
    # order_bread | Order bread. | bread: =bread, amount: int(1-40), method?: [pickup=pick up,collect | delivery]
    + I'd like {amount} {bread}[, I'll {method}]       a request; `[ … ]` may be left out, `(a|b)` chooses
    + drop {amount} {bread} off at my door :: method=delivery     arguments that no slot says
    - missing amount: I want {bread}                   a request that leaves required parameters open
    - invalid amount: minus three {bread}              a request for a value that can't be
    ~ no_action_requested: how long does {=bread} keep?           a text that no tool is for, and why

Kinds of parameters: int(low-high), float(low-high), bool, id, person, place, date, time, when, duration, email, phone,
url, path, text, clause, `=list`, `many =list`, `many person`, and enums `[value=way to say it,another | value]`.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ...schemas import Schema

FOLDER = Path(__file__).with_name("scenes")
SEED = 20_261_125
HELD_SCENES = 0.035
HELD_FRAMES = 0.08
SLOT = re.compile(r"\{(=?)(\w+)\}")
CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
PARAMETER = re.compile(r"(\w+)(\??):\s*(.+)")
KINDS = (
    *("bool", "id", "person", "place", "date", "time", "when", "duration", "email", "phone", "url", "path", "text"),
    "clause",
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a scene's tool. `choices` maps an enum's values to the ways to say them."""

    name: str
    kind: str
    required: bool
    low: float = 0
    high: float = 0
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def schema(self) -> Schema:
        if self.kind == "enum":
            return {"enum": list(self.choices)}
        if self.kind.startswith("many "):
            return {"type": "array", "items": {"type": "string"}}
        return {"type": {"int": "integer", "float": "number", "bool": "boolean"}.get(self.kind, "string")}


@dataclass(frozen=True)
class Frame:
    """One way to ask; `names` are the parameters that a request leaves open or breaks."""

    text: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class SceneTool:
    """A tool and the requests for it."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    calls: list[Frame] = field(default_factory=list)
    missing: list[Frame] = field(default_factory=list)
    invalid: list[Frame] = field(default_factory=list)

    def parameter(self, name: str) -> Parameter | None:
        return next((parameter for parameter in self.parameters if parameter.name == name), None)


@dataclass
class Scene:
    """One file: lists of values, tools, and texts that want no call, with their reasons."""

    name: str
    about: str = ""
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tools: list[SceneTool] = field(default_factory=list)
    idle: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_scene(path: Path) -> Scene:
    """A scene from its file. A line that breaks the rules is left out and named in `problems`."""
    scene = Scene(path.stem)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip() and not line.startswith("//"):
            try:
                _read_line(scene, line.strip())
            except ValueError as error:
                scene.problems.append(f"{path.name}:{number}: {error}")
    scene.tools = [tool for tool in scene.tools if tool.calls]
    return scene


def _read_line(scene: Scene, line: str) -> None:
    sign, rest = line[0], line[1:].strip()
    if sign == "@":
        scene.about = rest
    elif sign == "=":
        name, _, items = rest.partition(":")
        scene.lists[name.strip()] = tuple(item.strip() for item in items.split(";") if item.strip())
    elif sign == "#":
        scene.tools.append(_read_tool(rest, scene))
    elif sign == "~":
        reason, _, text = rest.partition(":")
        _check_lists(scene, text)
        if any(not sign for sign, _ in SLOT.findall(text)):
            raise ValueError(f"there is no parameter to say in {text!r}")
        scene.idle.append((reason.strip(), text.strip()))
    elif sign in "+-" and scene.tools:
        _read_frame(scene, scene.tools[-1], sign, rest)
    else:
        raise ValueError(f"unknown line {line!r}")


def _read_tool(text: str, scene: Scene) -> SceneTool:
    name, _, rest = text.partition("|")
    description, _, parameters = rest.partition("|")
    parts = re.split(r",\s*(?=\w+\??:)", parameters.strip().rstrip(",")) if parameters.strip() else []
    return SceneTool(name.strip(), description.strip(), tuple(_read_parameter(part, scene) for part in parts))


def _read_parameter(text: str, scene: Scene) -> Parameter:
    match = PARAMETER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"unreadable parameter {text!r}")
    name, optional, kind = match[1], match[2], match[3].strip()
    required = not optional
    if kind.startswith("["):
        return Parameter(name, "enum", required, choices=_read_choices(kind))
    numbers = re.fullmatch(r"(int|float)(?:\(\s*(-?[\d.]+)\s*-\s*(-?[\d.]+)\s*\))?", kind)
    if numbers:
        low, high = float(numbers[2] or 1), float(numbers[3] or 100)
        return Parameter(name, numbers[1], required, low, high)
    plain = kind.removeprefix("many ").strip()
    if plain.startswith("=") and plain[1:] not in scene.lists:
        raise ValueError(f"unknown list {plain!r}")
    if not plain.startswith("=") and plain not in KINDS:
        raise ValueError(f"unknown kind {kind!r}")
    return Parameter(name, kind, required)


def _read_choices(text: str) -> dict[str, tuple[str, ...]]:
    choices = {}
    for part in text.strip("[] ").split("|"):
        value, _, ways = part.partition("=")
        said = tuple(way.strip() for way in ways.split(",") if way.strip())
        choices[value.strip()] = said or (value.strip().replace("_", " "),)
    if len(choices) < 2:
        raise ValueError(f"an enum of one value: {text!r}")
    return choices


def _read_frame(scene: Scene, tool: SceneTool, sign: str, text: str) -> None:
    if sign == "-":
        match = re.fullmatch(r"(missing|invalid)\s+([\w, ]+):\s*(.+)", text)
        if match is None:
            raise ValueError(f"neither missing nor invalid: {text!r}")
        names = tuple(name.strip() for name in match[2].split(","))
        _check_names(scene, tool, names, match[3])
        if match[1] == "missing" and any(
            not parameter.required for parameter in map(tool.parameter, names) if parameter
        ):
            raise ValueError(f"an optional parameter is missing: {text!r}")
        (tool.missing if match[1] == "missing" else tool.invalid).append(Frame(match[3], names=names))
        return
    said, _, settings = text.partition("::")
    fixed = {}
    for name, _, raw in (pair.partition("=") for pair in settings.split(", ") if pair.strip()):
        parameter = tool.parameter(name.strip())
        if parameter is None:
            raise ValueError(f"no parameter {name.strip()!r} in {text!r}")
        fixed[parameter.name] = _fixed_value(parameter, raw.strip(), said)
    _check_names(scene, tool, (), said)
    sure = {name for _, name in SLOT.findall(OPTIONAL.sub("", CHOICE.sub("", said)))} | set(fixed)
    unsaid = [parameter.name for parameter in tool.parameters if parameter.required and parameter.name not in sure]
    if unsaid:
        raise ValueError(f"{', '.join(unsaid)} not said in {text!r}")
    tool.calls.append(Frame(said.strip(), fixed))


def _fixed_value(parameter: Parameter, raw: str, said: str) -> Any:
    if parameter.kind == "bool":
        if raw not in ("true", "false"):
            raise ValueError(f"{parameter.name} is no boolean: {raw!r}")
        return raw == "true"
    if parameter.kind in ("int", "float"):
        return float(raw) if parameter.kind == "float" and "." in raw else int(raw)
    if parameter.kind == "enum":
        if raw not in parameter.choices:
            raise ValueError(f"{parameter.name} can't be {raw!r}")
        return raw
    if raw not in said:
        raise ValueError(f"{raw!r} does not stand in {said!r}")
    return [raw] if parameter.kind.startswith("many ") else raw


def _check_names(scene: Scene, tool: SceneTool, names: Sequence[str], text: str) -> None:
    _check_lists(scene, text)
    slots = [name for sign, name in SLOT.findall(text) if not sign]
    for name in (*names, *slots):
        parameter = tool.parameter(name)
        if parameter is None:
            raise ValueError(f"no parameter {name!r} in {text!r}")
        if parameter.kind == "bool" and name in slots:
            raise ValueError(f"a boolean can't be said: {text!r}")
    if len(set(slots)) < len(slots) or re.search(r"[{}]", SLOT.sub("", text)):
        raise ValueError(f"slots stand twice or are broken: {text!r}")


def _check_lists(scene: Scene, text: str) -> None:
    for sign, name in SLOT.findall(text):
        if sign and name not in scene.lists:
            raise ValueError(f"unknown list {name!r} in {text!r}")


@cache
def load_scenes() -> tuple[Scene, ...]:
    """All scenes of the package, by name."""
    return tuple(read_scene(path) for path in sorted(FOLDER.glob("*.txt")))


def held_scenes() -> set[str]:
    """Names of the scenes that training never sees."""
    return {scene.name for scene in load_scenes() if _part(scene.name) < HELD_SCENES}


def _part(key: str) -> float:
    """A number from 0 to 1 that depends on the text alone, so that a new scene moves no other."""
    return random.Random(f"{SEED} {key}").random()


def kept(scene: Scene, held: bool) -> Scene:
    """The scene with only the texts that training sees, or only the others."""

    def some(items: list[Any], text: Callable[[Any], str]) -> list[Any]:
        return [item for item in items if (_part(f"{scene.name} {text(item)}") < HELD_FRAMES) == held]

    tools = []
    for tool in scene.tools:
        frames = [some(part, lambda frame: frame.text) for part in (tool.calls, tool.missing, tool.invalid)]
        tools.append(SceneTool(tool.name, tool.description, tool.parameters, *frames))
    return Scene(scene.name, scene.about, scene.lists, tools, some(scene.idle, lambda item: item[1]))


def training_scenes() -> list[Scene]:
    """What training sees: all scenes but those held out, each without its held-out texts."""
    held = held_scenes()
    return [kept(scene, held=False) for scene in load_scenes() if scene.name not in held]
