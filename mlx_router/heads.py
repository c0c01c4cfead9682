"""A network's output head on the positions that are asked for, and on no others."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx


def logits_at(network: Any, tokens: mx.array, cache: Any, choose: Callable[[mx.array], mx.array]) -> mx.array:
    """Logits of the positions that `choose` takes, of an array (B, T, …) for tokens (B, T).

    The head, which is most of a small model, runs on these alone where the network keeps its body apart from it, as
    mlx-lm's do; elsewhere they are taken from all logits.
    """
    body = _Chosen(getattr(network, "model", None), choose)
    if body.body is None:
        return choose(network(tokens, cache=cache))
    network["model"] = body
    try:
        logits: mx.array = network(tokens, cache=cache)
    finally:
        network["model"] = body.body
    return logits if body.called else choose(logits)


class _Chosen:
    """A network's body that hands only the chosen positions to the head."""

    def __init__(self, body: Any, choose: Callable[[mx.array], mx.array]) -> None:
        self.body, self.choose, self.called = body, choose, False

    def __call__(self, *given: Any, **options: Any) -> mx.array:
        self.called = True
        return self.choose(self.body(*given, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.body, name)
