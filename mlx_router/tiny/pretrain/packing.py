"""Packing: several catalogues in a row of tokens, each with several requests that see it and themselves only.

A catalogue is read once for all its requests, which makes training several times cheaper. Positions restart at the
catalogue's end for each request, so every request looks just as it does when it is routed alone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from ...catalogue import Catalogue
from ...prompts import assistant_text, system_message
from .generator import Episode, Episodes, Turn

MAX_TURNS = 14
SHORTEST_USEFUL = 160  # tokens; a rest of a row below this is left empty
PADDING = -1


@dataclass
class Row:
    """Tokens of one row, and for each: its episode, its turn (0: the catalogue), its position, whether it is learnt."""

    tokens: list[int] = field(default_factory=list)
    episodes: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    learnt: list[bool] = field(default_factory=list)
    asked: list[tuple[int, str]] = field(default_factory=list)
    """The places of the tokens that end requests, and what these say."""

    @property
    def requests(self) -> int:
        """How many requests the row holds."""
        return len(self.asked)

    def inner(self, at: int) -> bool:
        """Tell whether a token is neither the first nor the last of what is learnt together."""
        return self.learnt[at - 1] and at + 1 < len(self.learnt) and self.learnt[at + 1]


class Encoder:
    """Messages to tokens in the base's chat template: `<|im_start|>role`, a line break, the text, `<|im_end|>`."""

    def __init__(self, tokenizer_file: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.system, self.user, self.assistant = (
            self._ids(f"<|im_start|>{role}\n") for role in ("system", "user", "assistant")
        )
        self.end, self.stop = self._ids("<|im_end|>\n"), self._ids("<|im_end|>")

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prefix(self, catalogue: Catalogue) -> list[int]:
        """Tokens of the system message."""
        return self.system + self._ids(system_message(catalogue)) + self.end

    def tool(self, name: str) -> list[int]:
        """Tokens before the description of a catalogue's first tool, without parameters."""
        return self.system + self._ids(f"- {name}: ")

    def turn(self, turn: Turn, catalogue: Catalogue) -> tuple[list[int], list[int]]:
        """Tokens from the request to where the answer begins, and the answer's."""
        question = self.user + self._ids(turn.request) + self.end + self.assistant
        return question, self._ids(assistant_text(turn.target, catalogue)) + self.stop


@dataclass
class Packer:
    """Fills rows of `length` tokens from a source of episodes."""

    encoder: Encoder
    source: Episodes
    length: int
    rng: random.Random

    def row(self) -> Row:
        """The next row."""
        row, number = Row(), 0
        for _ in range(4):
            if self.length - len(row.tokens) < SHORTEST_USEFUL:
                break
            number += self._add(row, self.source.episode(MAX_TURNS), number)
        return row if row.requests else self.row()

    def _add(self, row: Row, episode: Episode, number: int) -> bool:
        prefix = self.encoder.prefix(episode.catalogue)
        turns = [self.encoder.turn(turn, episode.catalogue) for turn in episode.turns]
        room = self.length - len(row.tokens) - len(prefix)
        fitting: list[tuple[str, list[int], list[int]]] = []
        for turn, (question, answer) in zip(episode.turns, turns, strict=True):
            if len(question) + len(answer) <= room:
                fitting.append((turn.request, question, answer))
                room -= len(question) + len(answer)
        # A catalogue with one or two requests costs more than it teaches.
        if len(fitting) < min(3, len(turns)) or not fitting:
            return False
        extend(row, prefix, number, 0, 0, learnt=False)
        after = len(self.encoder.end) + len(self.encoder.assistant)
        for at, (request, question, answer) in enumerate(fitting, start=1):
            extend(row, question, number, at, len(prefix), learnt=False)
            row.asked.append((len(row.tokens) - after, request))
            extend(row, answer, number, at, len(prefix) + len(question), learnt=True)
        return True


def extend(row: Row, tokens: Sequence[int], episode: int, turn: int, position: int, *, learnt: bool) -> None:
    """Append tokens to a row, counting positions from `position`."""
    row.tokens += tokens
    row.episodes += [episode] * len(tokens)
    row.turns += [turn] * len(tokens)
    row.positions += range(position, position + len(tokens))
    row.learnt += [learnt] * len(tokens)
