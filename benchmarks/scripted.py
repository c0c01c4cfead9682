"""A network whose answers are set: it computes all that it would, and then prefers the tokens of a script.

So models with random weights can be timed on real answers: how long a pass takes does not depend on what is in the
weights. Whoever decodes with it, the router or mlx-lm, sees logits of the usual shape, at the cost of adding one number
to one logit of each token.
"""

from collections.abc import Sequence
from typing import Any

from mlx_router.prompts import RowTokens
from mlx_router.ragged import HIDDEN, RaggedCache

import mlx.core as mx  # isort: skip
import mlx.nn as nn  # isort: skip
import numpy as np  # isort: skip
from mlx_lm.models.cache import KVCache, make_prompt_cache  # isort: skip

BONUS = 1e4


class Script:
    """Which token is said where: one row is followed by its positions, several are told apart by their prompts."""

    def __init__(self) -> None:
        self.row: RowTokens | None = None
        self.rows: dict[tuple[int, ...], RowTokens] = {}

    def follow(self, row: RowTokens | None) -> None:
        """Whatever the prompt is, say this row's answer after as many tokens as its own prompt has."""
        self.row, self.rows = row, {}

    def look_up(self, rows: Sequence[RowTokens]) -> None:
        """Say the answer of the row whose prompt the tokens begin with."""
        self.row, self.rows = None, {tuple(row.tokens[: row.prompt_length]): row for row in rows}

    def find(self, tokens: list[int]) -> RowTokens | None:
        """The row that these tokens begin like."""
        for size in {len(prompt) for prompt in self.rows}:
            found = self.rows.get(tuple(tokens[:size])) if len(tokens) >= size else None
            if found is not None:
                return found
        return None

    @staticmethod
    def said(row: RowTokens, start: int, size: int) -> list[tuple[int, int]]:
        """For tokens from position `start` on: (which of them, the token said after it), as far as the answer goes."""
        after = range(max(start + 1, row.prompt_length), min(start + size + 1, len(row.tokens)))
        return [(at - start - 1, row.tokens[at]) for at in after]


class Scripted(nn.Module):
    """The network with a script. A layer more in its cache remembers the tokens, which rows of a batch are told by."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.script = Script()

    @property
    def layers(self) -> Any:
        return self.network.layers

    @property
    def model(self) -> Any:
        return self.network.model

    def __setitem__(self, name: str, value: Any) -> None:
        # Whoever puts something in the place of the body (mlx_router/heads.py) means the network's.
        if name == "model":
            self.network["model"] = value
        else:
            super().__setitem__(name, value)

    def make_cache(self) -> list[Any]:
        return [*make_prompt_cache(self.network), KVCache()]

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        *layers, seen = cache
        # (B, start of the pass); a batch's rows are at different positions.
        start = seen.offset
        kept = inputs[:, None, :, None].astype(mx.float32)
        tokens = seen.update_and_fetch(kept, kept)[0]
        logits: mx.array = self.network(inputs, cache=layers)
        if self.script.row is not None:
            said = self.script.said(self.script.row, start, inputs.shape[1])
            return self._preferred(logits, [(at, token) for at, token in said], inputs)
        if self.script.rows:
            return self._preferred(logits, self._looked_up(tokens, seen, inputs.shape[1]), inputs)
        return logits

    def _preferred(self, logits: mx.array, said: Sequence[tuple[int, int]], inputs: mx.array) -> mx.array:
        """The logits with what is said preferred: (place among all tokens of the pass, token said after it).

        There may be fewer logits than tokens: those that whoever decodes has chosen (mlx_router/heads.py).
        """
        choose = getattr(self.network.get("model"), "choose", lambda found: found)
        chosen: Any = choose(mx.arange(inputs.size).reshape(*inputs.shape, 1)).reshape(-1).tolist()
        places = {place: at for at, place in enumerate(chosen)}
        kept = [(places[place], token) for place, token in said if place in places]
        if not kept:
            return logits
        at, tokens = (mx.array(list(part)) for part in zip(*kept, strict=True))
        flat = logits.reshape(-1, logits.shape[-1])
        preferred: mx.array = flat.at[at, tokens].add(BONUS).reshape(logits.shape)
        return preferred

    def _looked_up(self, tokens: mx.array, seen: Any, size: int) -> list[tuple[int, int]]:
        """(place among all tokens of the pass, token said)."""
        found = []
        for row, columns in enumerate(np.asarray(tokens[:, 0, :, 0]).astype(int)):
            if isinstance(seen, RaggedCache):
                positions = seen.rows.positions[row]
                columns = columns[: len(positions)][positions != HIDDEN]
            history = columns.tolist()
            scripted = self.script.find(history)
            if scripted is not None:
                said = self.script.said(scripted, len(history) - size, size)
                found += [(row * size + at, token) for at, token in said]
        return found

