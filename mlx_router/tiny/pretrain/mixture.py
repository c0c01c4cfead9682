"""What training reads: scenes, synthetic tools and real sets in turn, seeded."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import lexicon
from .copying import with_other_words
from .episodes import LARGE_TOOL_COUNTS, TOOL_COUNTS, SceneEpisodes
from .generator import Episode, Episodes, SyntheticEpisodes
from .nesting import with_nested_parameters
from .scenes import training_scenes
from .sources import RealEpisodes, load_sets, request_texts
from .values import Words

SHARES = {"scenes": 0.58, "synthetic": 0.12, "real": 0.30}

HELD_WORDS = frozenset(word for thing in lexicon.HELD_THINGS for one in (thing, f"{thing}s") for word in one.split())


@dataclass
class Mixture:
    """Several sources, each drawn with its share."""

    rng: random.Random
    sources: Sequence[Episodes]
    shares: Sequence[float]
    vocabulary: Sequence[str] = ()

    def episode(self, turns: int) -> Episode:
        """One episode of one of the sources, some of its texts changed for words of the vocabulary, some of its
        parameters nested."""
        made = self.rng.choices(self.sources, self.shares)[0].episode(turns)
        turned = (with_other_words(self.rng, turn, made.catalogue, self.vocabulary) for turn in made.turns)
        return with_nested_parameters(self.rng, replace(made, turns=tuple(turned)))


def load_mixture(data: str, vocabulary: Sequence[str] = ()) -> Callable[[int, bool], Mixture]:
    """The training mixture of a seed; large catalogues, or any. Without a folder, scenes and synthetic tools alone."""
    sets = load_sets(Path(data)) if data else []
    words = Words.of(request_texts(sets)) if sets else Words()
    whole = tuple(word for word in vocabulary if word.lower() not in HELD_WORDS)
    words = replace(words, vocabulary=whole)
    scenes = training_scenes()

    def mixture(seed: int, large: bool = False) -> Mixture:
        rng = random.Random(seed)
        counts = LARGE_TOOL_COUNTS if large else TOOL_COUNTS
        made: dict[str, Episodes] = {
            "scenes": SceneEpisodes(random.Random(rng.random()), words, scenes, scenes, counts),
            "synthetic": SyntheticEpisodes(random.Random(rng.random()), words),
        }
        if sets:
            made["real"] = RealEpisodes(random.Random(rng.random()), sets, words)
        return Mixture(rng, tuple(made.values()), tuple(SHARES[name] for name in made), whole)

    return mixture
