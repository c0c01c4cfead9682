"""What training reads: scenes, synthetic tools and real sets in turn, seeded."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .episodes import SceneEpisodes
from .generator import Episode, Episodes, SyntheticEpisodes
from .scenes import training_scenes
from .sources import RealEpisodes, load_sets, request_texts
from .values import Words

SHARES = {"scenes": 0.42, "synthetic": 0.18, "real": 0.40}


@dataclass
class Mixture:
    """Several sources, each drawn with its share."""

    rng: random.Random
    sources: Sequence[Episodes]
    shares: Sequence[float]

    def episode(self, turns: int) -> Episode:
        """One episode of one of the sources."""
        return self.rng.choices(self.sources, self.shares)[0].episode(turns)


def load_mixture(data: str, more_words: Sequence[str] = ()) -> Callable[[int], Mixture]:
    """The training mixture of a seed. Without a folder of real sets, scenes and synthetic tools alone."""
    sets = load_sets(Path(data)) if data else []
    words = Words.of(request_texts(sets)) if sets else Words()
    words = Words(words.texts, (*words.words, *more_words))
    scenes = training_scenes()

    def mixture(seed: int) -> Mixture:
        rng = random.Random(seed)
        made: dict[str, Episodes] = {
            "scenes": SceneEpisodes(random.Random(rng.random()), words, scenes, scenes),
            "synthetic": SyntheticEpisodes(random.Random(rng.random()), words),
        }
        if sets:
            made["real"] = RealEpisodes(random.Random(rng.random()), sets, words)
        return Mixture(rng, tuple(made.values()), tuple(SHARES[name] for name in made))

    return mixture
