"""Harder tests made from any test set: how much does a router read its catalogue, and how much has it memorised?

Each slice changes every row that it can in one way, and its gold target with it. A row that a slice can't change, such
as a negation of what is no command, is left out of it, so a slice is compared with the same rows unchanged.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import TypeAlias

from .calls import NO_TOOL, NoTool, Target, ToolCall
from .catalogue import Catalogue
from .data import Example
from .grounding import target_with_texts
from .signature import parse_signatures
from .variants import NO_MATCH, name_words, unchanged
from .wording import VERBS

Change: TypeAlias = Callable[[Example, Random], Example | None]

DISTRACTORS = 10
PUNCTUATION = re.compile(r"(?<!\d)[,.;:!?]+(?=\s|$)")
# Tools of other walks of life; those that share a word with a catalogue's own are not put beside it.
OTHER_TOOLS = """
- water_plants(zone: str, minutes?: int): open the irrigation valves of a zone.
- feed_fish(tank: str, portions?: int): drop food into an aquarium.
- mill_grain(sort: str, kilos: float): grind grain into flour.
- tune_piano(hall: str, pitch?: float): have a concert piano tuned.
- dispatch_tug(harbour: str, vessel: str): send a tug boat to a vessel.
- rotate_telescope(azimuth: float, altitude: float): point the telescope at the sky.
- shear_sheep(flock: str): have a flock shorn.
- bottle_wine(barrel: str, bottles: int): fill bottles from a barrel.
- groom_slope(slope: str): send a snow groomer to a ski slope.
- sharpen_saw(machine: str): have a saw blade sharpened.
- ventilate_mine(shaft: str, level?: "low"|"high"): blow fresh air into a shaft.
- calibrate_scale(laboratory: str): calibrate a precision balance.
- raise_curtain(stage: str): raise the curtain of a theatre.
- drain_pool(pool: str): let the water out of a swimming pool.
- launch_balloon(site: str, payload: str): release a weather balloon.
- weld_joint(robot: str, joint: str): let a robot weld a joint.
- prune_vines(vineyard: str, rows?: int): have rows of vines pruned.
- plough_field(acre: str, depth?: int): plough an acre.
- brew_batch(recipe: str, litres: int): start a batch of beer.
- assay_sample(ore: str): measure the metal in an ore.
"""


@dataclass(frozen=True)
class Slice:
    """One way of making a test harder: its rows, and which of the test's rows each of them came from."""

    name: str
    about: str
    examples: tuple[Example, ...]
    origins: tuple[int, ...]


def harder(examples: Sequence[Example], seed: int = 0) -> list[Slice]:
    """Every slice that at least one row can be changed for; the same for the same seed."""
    slices = []
    for name, (about, change) in CHANGES.items():
        found = [
            (origin, replace(changed, id=None, system=None, where=f"{example.where} ({name})"))
            for origin, example in enumerate(examples)
            if (changed := change(example, Random(f"{seed} {name} {origin}"))) is not None
        ]
        if found:
            slices.append(Slice(name, about, tuple(row for _, row in found), tuple(origin for origin, _ in found)))
    return slices


def _targets(example: Example, change: Callable[[Target], Target]) -> Example:
    """The example with its target and alternatives changed."""
    return replace(
        example, target=change(example.target), alternatives=tuple(change(other) for other in example.alternatives)
    )


def _tool_removed(example: Example, rng: Random) -> Example | None:
    gold = example.target.tool
    if gold == NO_TOOL or len(example.catalogue) < 2:
        return None
    if any(target.tool not in (gold, NO_TOOL) for target in example.alternatives):
        return None
    return replace(unchanged(example.catalogue).without({gold}).example(example), target=NO_MATCH, alternatives=())


def _tools_renamed(example: Example, rng: Random) -> Example | None:
    if any(not tool.description for tool in example.catalogue):
        return None
    return unchanged(example.catalogue).renamed(_made_up_names(example.catalogue), {}).example(example)


def _made_up_names(catalogue: Catalogue) -> dict[str, str]:
    """Old names to pronounceable ones that mean nothing; the same for the same catalogue."""
    rng, names = Random(catalogue.hash), dict[str, str]()
    while len(names) < len(catalogue):
        made = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))
        if made not in names.values():
            names[list(catalogue)[len(names)].name] = made
    return names


def _names_restyled(example: Example, rng: Random) -> Example | None:
    """snake_case becomes camelCase, and camelCase becomes snake_case, in tools and parameters."""
    tools = {tool.name: _restyled(tool.name) for tool in example.catalogue}
    parameters = {name: _restyled(name) for tool in example.catalogue for name in tool.properties}
    if any(len({parameters[name] for name in tool.properties}) < len(tool.properties) for tool in example.catalogue):
        return None
    if len(set(tools.values())) < len(tools) or all(old == new for old, new in tools.items()):
        return None
    return unchanged(example.catalogue).renamed(tools, parameters).example(example)


def _restyled(name: str) -> str:
    if "_" in name:
        first, *rest = name.split("_")
        return first + "".join(part[:1].upper() + part[1:] for part in rest)
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1].lower(), name[:1].lower() + name[1:])


def _order_shuffled(example: Example, rng: Random) -> Example | None:
    if len(example.catalogue) < 2:
        return None
    # One order for all rows of a catalogue, so that it is read once.
    return unchanged(example.catalogue).reordered(Random(example.catalogue.hash)).example(example)


def _distractors_added(example: Example, rng: Random) -> Example | None:
    own = name_words(" ".join(tool.name for tool in example.catalogue))
    others = [tool for tool in _other_tools() if not name_words(tool.name) & own][:DISTRACTORS]
    joined = unchanged(example.catalogue).joined_by(others)
    return joined.reordered(Random(example.catalogue.hash)).example(example)


@cache
def _other_tools() -> Catalogue:
    found = parse_signatures(OTHER_TOOLS)
    assert found is not None
    return found


def _lower_case(example: Example, rng: Random) -> Example | None:
    return _spelled(example, str.lower)


def _capitals(example: Example, rng: Random) -> Example | None:
    return _spelled(example, str.upper)


def _spelled(example: Example, change: Callable[[str], str]) -> Example | None:
    """The request and every text that a target copies from it changed; choices of an enum stay."""
    request = change(example.request)
    if request == example.request:
        return None

    def copied(value: str) -> str:
        return change(value) if value in example.request else value

    def changed(target: Target) -> Target:
        return target_with_texts(target, example.catalogue, copied)

    return replace(_targets(example, changed), request=request)


def _no_punctuation(example: Example, rng: Random) -> Example | None:
    request = "".join(piece if kept else PUNCTUATION.sub("", piece) for piece, kept in _pieces(example)).strip()
    return None if request == example.request or not request else replace(example, request=request)


def _typing_error(example: Example, rng: Random) -> Example | None:
    pieces = _pieces(example)
    places = [
        (at, word)
        for at, (piece, kept) in enumerate(pieces)
        if not kept
        for word in re.finditer(r"[A-Za-z]{4,}", piece)
    ]
    if not places:
        return None
    at, word = rng.choice(places)
    text, middle = pieces[at][0], rng.randrange(word.start() + 1, word.end() - 1)
    slip = rng.choice((
        text[:middle] + text[middle + 1 :],
        text[:middle] + text[middle] + text[middle:],
        text[:middle] + text[middle + 1] + text[middle] + text[middle + 2 :],
    ))  # fmt: skip
    request = "".join(slip if number == at else piece for number, (piece, _) in enumerate(pieces))
    return None if request == example.request else replace(example, request=request)


def _pieces(example: Example) -> list[tuple[str, bool]]:
    """The request cut so that what a target copies stands alone; with whether a piece is such a text."""
    values: set[str] = set()
    for target in (example.target, *example.alternatives):
        if isinstance(target, ToolCall):
            for value in target.arguments.values():
                values |= {item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)}
    copied = sorted((value for value in values if value and value in example.request), key=len, reverse=True)
    if not copied:
        return [(example.request, False)]
    parts = re.split(f"({'|'.join(map(re.escape, copied))})", example.request)
    return [(part, number % 2 == 1) for number, part in enumerate(parts) if part]


def _negated(example: Example, rng: Random) -> Example | None:
    if not isinstance(example.target, ToolCall):
        return None
    text = re.sub(r"^(please|can you|could you|would you)[, ]+", "", example.request.strip(), flags=re.IGNORECASE)
    first = re.match(r"[A-Za-z]+", text)
    if first is None or first.group().lower() not in VERBS:
        return None
    order = (text[:1].lower() + text[1:]).rstrip(" .!?")
    form = rng.choice(("Don't {}.", "Please do not {}.", "No need to {}, thanks.", "I don't want you to {}."))
    return replace(example, request=form.format(order), target=NoTool(reason="no_action_requested"), alternatives=())


CHANGES: dict[str, tuple[str, Change]] = {
    "tool removed": ("the right tool is taken out of the catalogue: `no_tool` is right", _tool_removed),
    "negated": ("the request says not to do it: `no_tool` is right", _negated),
    "tools renamed": ("tools have names that mean nothing; descriptions stay", _tools_renamed),
    "names restyled": ("snake_case names become camelCase, camelCase ones snake_case", _names_restyled),
    "order shuffled": ("the catalogue's tools stand in another order", _order_shuffled),
    "tools added": (f"{DISTRACTORS} tools of other walks of life stand among the catalogue's", _distractors_added),
    "lower case": ("the request is in lower case", _lower_case),
    "capitals": ("the request is in capitals", _capitals),
    "no punctuation": ("punctuation outside of values is left out", _no_punctuation),
    "typing error": ("a word outside of values has a typing error", _typing_error),
}
