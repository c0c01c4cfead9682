"""What the decoder is asked: a request and the tools that are shown, and how a caller wants it decided."""

from dataclasses import dataclass
from functools import cached_property

from .calls import NO_TOOL, Generation, Mode, Prompt, Stop
from .capitals import quiet
from .catalogue import Catalogue
from .drafts import Drafter
from .prompts import conversation


@dataclass(frozen=True)
class Wish:
    """How a caller wants requests decided."""

    mode: Mode
    threshold: float = 0.0
    skip_reason: bool = False

    @property
    def stop(self) -> Stop | None:
        """What ends decoding after the tool's name, if anything may."""
        if not (self.threshold or self.skip_reason):
            return None
        return lambda name, probability: self.skip_reason if name == NO_TOOL else probability < self.threshold

    def withholds(self, generation: Generation) -> bool:
        """Whether a call that was decoded to its end is not to be made; one of unknown confidence is not."""
        confidence = generation.scores.tool if generation.scores else None
        return self.threshold > 0 and (confidence is None or confidence < self.threshold)


@dataclass(frozen=True)
class Question:
    """A request with the text that shows the model its tools, and the tools that it shows.

    `catalogue_seen` says whether all of the catalogue was trained on, `shortened` whether only some of it is shown.
    """

    request: str
    system: str
    catalogue: Catalogue
    catalogue_seen: bool
    shortened: bool

    @cached_property
    def shown(self) -> str:
        """The request as the model reads it."""
        return quiet(self.request)

    @property
    def shortlist(self) -> tuple[str, ...] | None:
        """The names of the tools that are shown, where these are not all."""
        return tuple(tool.name for tool in self.catalogue) if self.shortened else None

    def prompt(self, wish: Wish) -> Prompt:
        """What the decoder needs to answer it."""
        grammar = ""
        if wish.mode == "constrained":
            from .grammar import grammar_text

            grammar = grammar_text(self.catalogue)
        return Prompt(
            messages=conversation(self.system, self.shown),
            draft=Drafter(self.catalogue, self.shown).continuation,
            names=(*(tool.name for tool in self.catalogue), NO_TOOL),
            grammar=grammar,
            stop=wish.stop,
        )
