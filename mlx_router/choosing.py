"""Which checkpoint of a run is the best: validation rows, routed as a user's requests will be, decide."""

import hashlib
from collections.abc import Mapping, Sequence

from .config import BestBy
from .data import Example
from .duplicates import fold
from .evaluation import evaluate
from .metrics import measure
from .ranks import ALONE, Ranks
from .router import Router

# What routing tells; each may choose the checkpoint.
METRICS = ("exact_match", "wrong_call_rate", "false_call_rate_on_no_tool")
# Rows that are trained on before another row is routed, so that routing takes little of a run's time.
TRAINED_A_ROUTED_ROW = 8

Figures = Mapping[str, float | None]


def sample(examples: Sequence[Example], size: int) -> list[Example]:
    """So many of the rows, in their order; drawn by hashes, so that the same rows come in every run."""
    by_hash = sorted(examples, key=lambda one: hashlib.sha256(fold(one.request).encode("utf-8", "replace")).digest())
    chosen = {id(example) for example in by_hash[:size]}
    return [example for example in examples if id(example) in chosen]


def route_sample(router: Router, examples: Sequence[Example], ranks: Ranks = ALONE) -> dict[str, float | None]:
    """The rows routed, and what `METRICS` say of the answers."""
    found = measure([one.row for one in evaluate(router, examples, alone=0, ranks=ranks)])
    return {name: found[name].value for name in METRICS}


def is_due(rows_trained: int, rows: int) -> bool:
    """Whether so many rows may be routed after training on so many since the last time."""
    return rows_trained >= TRAINED_A_ROUTED_ROW * rows


def rank(by: BestBy, loss: float, figures: Figures) -> tuple[float, ...] | None:
    """What a checkpoint is sorted by, the best first; None where it was not measured.

    Checkpoints that are equal in the metric are sorted by exact match, then by wrong calls, then by the loss.
    """
    if by == "loss":
        return (loss,)
    exact, wrong, wanted = (figures.get(name) for name in ("exact_match", "wrong_call_rate", by))
    if exact is None or wrong is None or wanted is None:
        return None
    return (-wanted if by == "exact_match" else wanted, -exact, wrong, loss)


def chosen_by(by: BestBy, rows: int) -> BestBy:
    """What chooses the checkpoint: the loss where no rows are routed."""
    return by if rows else "loss"


