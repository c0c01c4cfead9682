"""What teaches a router caution beyond its rows: `no_tool` rows seen more often, catalogues changed batch by batch.

A batch's rows share one catalogue, so a variant of it is drawn once a batch and the prefix stays shared. All is drawn
from the seed, the epoch and the batch's place in it, so that a resumed run sees what an unbroken one would. Validation
rows are never changed.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from .batches import TokenRow
from .calls import NO_TOOL
from .catalogue import NAME, Catalogue, Tool
from .config import TrainConfig
from .data import Example
from .distractors import fitting, shipped
from .errors import TrainingError
from .interop import load_catalogue
from .samples import words
from .variants import NO_MATCH, Variant, unchanged

Tokens: TypeAlias = Callable[[Sequence[Example]], list[TokenRow]]

# Other tools that a batch's catalogue gets at most.
MOST_ADDED = 8
PREFIXES = ("my", "do", "app", "user", "run", "the")
SUFFIXES = ("action", "now", "v2", "request", "item", "cmd")
PARAMETER_PREFIXES = ("the", "new", "given", "wanted")
PARAMETER_SUFFIXES = ("value", "field", "info", "arg", "text")


@dataclass
class Varying:
    """Draws a variant of the catalogues of a batch's rows, and gives the rows as tokens of it.

    `tokens` makes rows of examples; `note` is told once if a variant is too long for the recipe or the model.
    """

    config: TrainConfig
    examples: Mapping[str, Example]
    others: Sequence[Tool]
    tokens: Tokens
    note: Callable[[str], None]
    told: bool = field(default=False)

    def __call__(self, rows: Sequence[TokenRow], rng: Random) -> Sequence[TokenRow]:
        """The rows of a batch with other catalogues, or as they are where none was drawn."""
        examples = [self.examples[row.where] for row in rows]
        catalogues = {example.catalogue.hash: example.catalogue for example in examples}
        variants = {key: self.variant(catalogue, examples, rng) for key, catalogue in catalogues.items()}
        if all(variant.catalogue is variant.original for variant in variants.values()):
            return rows
        try:
            found = self.tokens([variants[example.catalogue.hash].example(example) for example in examples])
        except TrainingError as error:
            self._tell(error)
            return rows
        is_shared = all(row.prefix for row in rows) and len({row.prefix for row in found}) == 1
        return found if is_shared else [row.whole() for row in found]

    def variant(self, catalogue: Catalogue, examples: Sequence[Example], rng: Random) -> Variant:
        """A variant of a catalogue for these rows, by the recipe's shares."""
        found = unchanged(catalogue)
        gone = {tool.name for tool in catalogue if rng.random() < self.config.remove_tools}
        if len(gone) == len(catalogue):
            gone.remove(rng.choice(sorted(gone)))
        if gone:
            found = found.without(gone)
        if rng.random() < self.config.rename_tools:
            found = found.renamed(*other_names(catalogue, rng))
        if rng.random() < self.config.add_tools:
            names = {tool.name for tool in found.catalogue}
            others = [tool for tool in fitting(self.others, catalogue, examples) if tool.name not in names]
            found = found.joined_by(rng.sample(others, min(rng.randint(1, MOST_ADDED), len(others))), rng)
        return found.reordered(rng) if rng.random() < self.config.shuffle_tools else found

    def _tell(self, error: TrainingError) -> None:
        if not self.told:
            self.note(f"where a changed catalogue does not fit, rows are trained on as they are. {error.message}")
        self.told = True


def varying(
    config: TrainConfig, examples: Sequence[Example], tokens: Tokens, note: Callable[[str], None]
) -> Varying | None:
    """What changes the catalogues of a run; None where its recipe asks for no change.

    Raises `TrainingError` for a catalogue whose reasons lack the one that a row gets when its tool is left out.
    """
    if not (config.shuffle_tools or config.add_tools or config.rename_tools or config.remove_tools):
        return None
    if config.remove_tools:
        _check_reasons(examples)
    return Varying(config, {example.where: example for example in examples}, other_tools(config), tokens, note)


def _check_reasons(examples: Sequence[Example]) -> None:
    lacking = next((one for one in examples if not one.catalogue.lists(NO_MATCH.reason)), None)
    if lacking is not None:
        raise TrainingError(
            f"remove_tools teaches no_tool with the reason {NO_MATCH.reason!r}, which the catalogue of {lacking.where} "
            "does not list",
            hint=f"add {NO_MATCH.reason!r} to the catalogue's reasons, or leave remove_tools at 0",
        )


def other_tools(config: TrainConfig) -> tuple[Tool, ...]:
    """The tools that may be added to catalogues, from the recipe's file or this package; none unless asked for."""
    if not config.add_tools:
        return ()
    return load_catalogue(config.distractors).tools if config.distractors else shipped().tools


def distractor_record(config: TrainConfig) -> dict[str, Any]:
    """What a manifest keeps of the tools that were added: `{"distractors": …}`, nothing where none were."""
    tools = other_tools(config)
    if not tools:
        return {}
    source = (config.distractors or "mlx_router").replace("\\", "/").rpartition("/")[2]
    digest = hashlib.sha256("\n".join(Catalogue((tool,)).hash for tool in tools).encode()).hexdigest()
    return {"distractors": {"source": source, "tools": len(tools), "hash": digest}}


def repeated(examples: Sequence[Example], share: float | None, note: Callable[[str], None]) -> tuple[list[int], int]:
    """Which rows may be seen again, by number, and how many an epoch sees again for `no_tool` to reach its share.

    Raises `TrainingError` where there is no `no_tool` row.
    """
    if share is None:
        return [], 0
    own = [number for number, example in enumerate(examples) if example.target.tool == NO_TOOL]
    if not own:
        raise TrainingError(
            f"no training row wants no_tool, so none can be repeated up to no_tool_share {share}",
            hint="write some: requests that no tool fits, greetings, questions, requests that leave something open",
        )
    more = round((share * len(examples) - len(own)) / (1 - share))
    if more <= 0:
        note(f"no_tool_share: {len(own) / len(examples):.1%} of the rows are no_tool already; none is repeated")
        return [], 0
    note(f"no_tool_share: every epoch sees {more} of its {len(own)} no_tool rows again, {share:.1%} of all it sees")
    return own, more


def other_names(catalogue: Catalogue, rng: Random) -> tuple[dict[str, str], dict[str, str]]:
    """Other names for a catalogue's tools and parameters: another style, more words, or a name that says nothing.

    One that says nothing is only given where a tool's description, or a parameter's standing alone, tells what it is.
    """
    style = rng.choice(("snake", "camel", "pascal", "kebab"))
    tools: dict[str, str] = {}
    for tool in catalogue:
        taken = ({other.name for other in catalogue} - {tool.name}) | set(tools.values()) | {NO_TOOL}
        tools[tool.name] = _other_name(tool.name, style, bool(tool.description), (PREFIXES, SUFFIXES), taken, rng)
    style = "camel" if style in ("camel", "pascal") else "snake"
    named = {
        name: [tool for tool in catalogue if name in tool.properties] for tool in catalogue for name in tool.properties
    }
    parameters: dict[str, str] = {}
    for name, owners in named.items():
        alone = all(len(tool.properties) == 1 for tool in owners)
        taken = (named.keys() - {name}) | set(parameters.values())
        added = (PARAMETER_PREFIXES, PARAMETER_SUFFIXES)
        parameters[name] = _other_name(name, style, alone, added, taken, rng)
    return tools, parameters


def _other_name(
    name: str,
    style: str,
    may_say_nothing: bool,
    added: tuple[Sequence[str], Sequence[str]],
    taken: set[str],
    rng: Random,
) -> str:
    before, after = added
    while True:
        parts = words(name) or [_made_up(rng)]
        kind = rng.choice(
            ("style", "longer", "longer", "nothing", "nothing") if may_say_nothing else ("style", "longer")
        )
        if kind == "nothing":
            parts = [_made_up(rng) for _ in range(rng.randint(1, 2))]
        elif kind == "longer":
            parts = (
                [rng.choice(before), *parts] if rng.random() < 0.5 else [*parts, rng.choice((*after, _made_up(rng)))]
            )
        found = _styled(parts, style)
        if found not in taken and NAME.fullmatch(found):
            return found
        if not NAME.fullmatch(name):
            # A parameter's name may be anything, and then stays.
            return name


def _styled(parts: Sequence[str], style: str) -> str:
    lower = [part.lower() for part in parts]
    if style in ("snake", "kebab"):
        return ("_" if style == "snake" else "-").join(lower)
    first, *rest = lower
    return "".join([first.capitalize() if style == "pascal" else first, *(part.capitalize() for part in rest)])


def _made_up(rng: Random) -> str:
    """A pronounceable word that means nothing."""
    syllables = (rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 2)))
    return "".join(syllables) + rng.choice(("l", "n", "r", "s", "x", "th", "m"))
