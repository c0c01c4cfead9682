"""Rows made from a catalogue alone, by filling templates: a seed to be edited, not data to be proud of.

They follow the rules for gold values: what a call's arguments say stands in the request letter for letter.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from random import Random
from typing import TypeAlias

from .calls import NO_TOOL, NoTool, ToolCall
from .catalogue import MORE, Catalogue, Tool
from .data import Example
from .duplicates import fold
from .patterns import NoSample
from .samples import label, sample_arguments
from .wording import CALLS, ELSEWHERE, GREETINGS, OTHER_VERBS, QUESTIONS, QUESTIONS_ABOUT, REFUSED, phrases, say, thing

ROWS_PER_TOOL = 20
NO_TOOL_SHARE = 0.15
ATTEMPTS = 40

# Draws a row; None where there are none of its kind.
Draw: TypeAlias = Callable[[Random], Example | None]


def rows(catalogue: Catalogue, seed: int = 0) -> tuple[list[Example], list[str]]:
    """Rows for every tool and for `no_tool`, and a message for every tool whose rows can't be made."""
    rng = Random(seed)
    taken: set[str] = set()
    found: list[Example] = []
    left_out: list[str] = []
    fillable: list[Tool] = []
    for tool in catalogue:
        try:
            calls = _calls(tool, catalogue, rng, taken)
        except NoSample as error:
            left_out.append(f"rows of {tool.name}: no fitting arguments were found: {error}")
            continue
        found += calls
        fillable.append(tool)
    wanted = round(len(found) * NO_TOOL_SHARE / (1 - NO_TOOL_SHARE))
    refusals = [_with_listed_reason(row) for row in _refusals(catalogue, fillable, wanted, rng, taken)]
    if any(new.target != row.target for new, row in refusals):
        left_out.append("reasons of no_tool rows: the catalogue lists others, and the rows' were set to one of them")
    return [*found, *(new for new, _ in refusals)], left_out


def _with_listed_reason(row: Example) -> tuple[Example, Example]:
    """The row with a reason that its catalogue lists, its code or else the first, and the row."""
    catalogue, target = row.catalogue, row.target
    if not isinstance(target, NoTool) or catalogue.lists(target.reason):
        return row, row
    first = catalogue.reasons[0]
    if first.endswith(MORE):
        first = first.removesuffix(MORE) + "to be said"
    reason = target.code if target.code in catalogue.reasons else first
    return replace(row, target=NoTool(reason=reason)), row


def _calls(tool: Tool, catalogue: Catalogue, rng: Random, taken: set[str]) -> list[Example]:
    def draw(rng: Random) -> Example | None:
        samples = sample_arguments(tool, rng)
        kind, request = say(rng.choice(phrases(tool)), samples, CALLS, rng)
        call = ToolCall(tool=tool.name, arguments={name: sample.value for name, sample in samples.items()})
        return Example(request, call, catalogue, kind=kind, template=True)

    return [example for _ in range(ROWS_PER_TOOL) if (example := _fresh(draw, rng, taken)) is not None]


def _fresh(draw: Draw, rng: Random, taken: set[str]) -> Example | None:
    """A row whose request is new; None if there seems to be none. Raises `NoSample` if no draw can be filled."""
    failure: NoSample | None = None
    for _ in range(ATTEMPTS):
        try:
            example = draw(rng)
        except NoSample as error:
            failure = error
            continue
        if example is None:
            return None
        failure = None
        if fold(example.request) not in taken:
            taken.add(fold(example.request))
            return example
    if failure is not None:
        raise failure
    return None


def _refusals(
    catalogue: Catalogue, tools: Sequence[Tool], wanted: int, rng: Random, taken: set[str]
) -> Iterator[Example]:
    """Up to so many rows for `no_tool`, of all kinds in turn; a kind that runs dry is left to the others."""
    kinds = [_missing, _question, _greeting, _elsewhere, _negation, _near_miss]
    draws = {kind.__name__: kind(catalogue, tools) for kind in kinds}
    for name in cycle(list(draws)):
        if wanted <= 0 or not draws:
            return
        if name not in draws:
            continue
        try:
            example = _fresh(draws[name], rng, taken)
        except NoSample:
            example = None
        if example is None:
            del draws[name]
            continue
        wanted -= 1
        yield example


def _refusal(request: str, reason: str, kind: str, catalogue: Catalogue) -> Example:
    return Example(request, NoTool(tool=NO_TOOL, reason=reason), catalogue, kind=kind, template=True)


def _missing(catalogue: Catalogue, tools: Sequence[Tool]) -> Draw:
    """Requests that leave out what a tool must know, and name it in the reason."""
    needy = [tool for tool in tools if tool.required]

    def draw(rng: Random) -> Example | None:
        if not needy:
            return None
        tool = rng.choice(needy)
        samples = sample_arguments(tool, rng)
        open_ = [name for name in samples if name in tool.required and samples[name].said]
        if not open_:
            raise NoSample(f"{tool.name} needs nothing that has to be said")
        dropped = rng.sample(open_, rng.randint(1, len(open_)))
        kept = {name: sample for name, sample in samples.items() if name not in dropped}
        _, request = say(rng.choice(phrases(tool)), kept, CALLS, rng)
        reason = f"missing_information: {', '.join(name for name in tool.properties if name in dropped)}"
        return _refusal(request, reason, "missing", catalogue)

    return draw


def _question(catalogue: Catalogue, tools: Sequence[Tool]) -> Draw:
    def draw(rng: Random) -> Example | None:
        phrase = rng.choice(phrases(rng.choice(list(tools or catalogue))))
        request = rng.choice(QUESTIONS if phrase.is_order else QUESTIONS_ABOUT).format(do=phrase.text)
        return _refusal(request, "no_action_requested", "question", catalogue)

    return draw


def _negation(catalogue: Catalogue, tools: Sequence[Tool]) -> Draw:
    def draw(rng: Random) -> Example | None:
        if not tools:
            return None
        tool = rng.choice(list(tools))
        kind, request = say(rng.choice(phrases(tool)), sample_arguments(tool, rng), REFUSED, rng)
        return _refusal(request, "no_action_requested", kind, catalogue)

    return draw


def _greeting(catalogue: Catalogue, tools: Sequence[Tool]) -> Draw:
    return lambda rng: _refusal(rng.choice(GREETINGS), "chitchat", "greeting", catalogue)


def _elsewhere(catalogue: Catalogue, tools: Sequence[Tool]) -> Draw:
    """Requests from other walks of life that share no word of weight with the catalogue."""
    known = _vocabulary(catalogue)
    foreign = [text for text in ELSEWHERE if not known & {word for word in _stems(text) if len(word) > 3}]

    def draw(rng: Random) -> Example | None:
        return _refusal(rng.choice(foreign), "out_of_scope", "out_of_scope", catalogue) if foreign else None

    return draw


def _near_miss(catalogue: Catalogue, tools: Sequence[Tool]) -> Draw:
    """Requests about the tools' own things that no tool does."""
    known = _vocabulary(catalogue)
    verbs = [verb for verb in OTHER_VERBS if not _stems(verb) & known]
    things = [found for tool in catalogue if (found := thing(tool))]

    def draw(rng: Random) -> Example | None:
        if not verbs or not things:
            return None
        start = rng.choice(("Can you {} for me?", "Please {}.", "I'd like you to {}.", "Could you {} today?"))
        request = start.format(f"{rng.choice(verbs)} the {rng.choice(things)}")
        return _refusal(request, "no_matching_tool", "near_miss", catalogue)

    return draw


def _vocabulary(catalogue: Catalogue) -> set[str]:
    return _stems(" ".join(f"{label(tool.name)} {tool.description}" for tool in catalogue))


def _stems(text: str) -> set[str]:
    """A text's words, the plural's s taken off."""
    return {word.removesuffix("s") for word in fold(text).split()}
