"""How sure the model was of a call: the tool's name against the catalogue's other names, and the weakest argument.

Everything is computed from the logits of the passes that decoding makes anyway; no pass is added.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .calls import Scores

HEAD = '{"tool":"'
ARGUMENTS = '"arguments":{'

# Logits of some tokens at one position: `row([3, 5])` -> two floats.
Row = Callable[[Sequence[int]], Sequence[float]]
Encode = Callable[[str], list[int]]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Candidate:
    """A name and the tokens of an answer that begins with it."""

    name: str
    tokens: tuple[int, ...]


def candidates(names: Sequence[str], encode: Encode) -> list[Candidate]:
    """The beginnings of answers with each of these names, closing quote included."""
    return [Candidate(name, tuple(encode(f'{HEAD}{name}","'))) for name in names]


class NameScore:
    """Follows an answer token by token and shares out the probability among the names that are still possible.

    At a token where the remaining names part, the probability of each of their next tokens is taken among these tokens
    only. The product over such tokens is the chosen name's; an alternative's is the product up to where it parts.
    """

    def __init__(self, names: Sequence[Candidate]) -> None:
        self.names = list(names)
        self.position = 0
        self.probability = 1.0
        self.runner_up: tuple[float, str] | None = None
        self.lost = not names

    def follow(self, token: int, row: Row) -> None:
        """Take the next token of the answer, and the logits from which it was taken."""
        if self.lost or len(self.names) == 1:
            return
        following: dict[int, list[Candidate]] = {}
        for candidate in self.names:
            if self.position < len(candidate.tokens):
                following.setdefault(candidate.tokens[self.position], []).append(candidate)
        self.position += 1
        if token not in following:
            # Another spelling of the same text, or no name at all: nothing is known.
            self.lost = True
            return
        if len(following) > 1:
            self._part(token, following, row(list(following)))
        self.names = following[token]

    def _part(self, token: int, following: dict[int, list[Candidate]], logits: Sequence[float]) -> None:
        highest = max(logits)
        weights = {key: math.exp(logit - highest) for key, logit in zip(following, logits, strict=True)}
        total = sum(weights.values())
        others = [(self.probability * weight / total, key) for key, weight in weights.items() if key != token]
        best, key = max(others)
        if self.runner_up is None or best > self.runner_up[0]:
            self.runner_up = (best, following[key][0].name)
        self.probability *= weights[token] / total

    @property
    def chosen(self) -> str | None:
        """The name that the answer has, once only one is left."""
        return self.names[0].name if not self.lost and len(self.names) == 1 else None


def scores(names: NameScore, tokens: Sequence[int], probabilities: Sequence[float], decode: Decode) -> Scores:
    """The scores of a finished answer; `probabilities` are those of its tokens, over the whole vocabulary."""
    known = names.chosen is not None
    return Scores(
        tool=names.probability if known else None,
        runner_up=names.runner_up[1] if known and names.runner_up is not None else None,
        weakest_argument=_weakest(tokens, probabilities, decode),
    )


def _weakest(tokens: Sequence[int], probabilities: Sequence[float], decode: Decode) -> float | None:
    """The lowest probability among the tokens after `"arguments":{`; None where there are none."""
    if ARGUMENTS not in decode(tokens):
        return None
    first = next(count for count in range(len(tokens) + 1) if ARGUMENTS in decode(tokens[:count]))
    return min(probabilities[first:], default=None)
