"""From a model's scores to the probability that its call is right, and from that to what to do with the call.

A call's evidence is added up to a score, by weights; a curve turns the score into P(right); a policy's threshold on the
score says whether to act. Weights, curve and the scores of the rows that calibrated stand in `router.json`, so that
another policy needs no other calibration. `calibration.py` makes them.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .calls import Mode, Scores
from .errors import ModelError, UsageError
from .policy import Policy, smallest_rate

Action: TypeAlias = Literal["act", "confirm", "abstain"]

# Below so many valid calls a curve says little; a half of the validation split must have them.
CALLS_NEEDED = 30
# Probabilities nearer to 0 or 1 than this are taken for this: beyond it they say more of rounding than of the model.
NEAREST = 1e-5
# What the evidence is taken to weigh where no rows have shown it; in the order of `FEATURES`.
FEATURES = ("confidence", "weakest_argument", "ungrounded", "overridden")
WEIGHTS = (0.5, 0.5, -1.0, -2.0)


@dataclass(frozen=True)
class Evidence:
    """What is known of a valid call without knowing whether it is right. None: not measured.

    `overridden` and `overridden_tokens` are those of `Scores`: what a grammar changed.
    """

    confidence: float | None
    weakest_argument: float | None
    grounded: bool | None
    overridden: float | None = None
    overridden_tokens: int | None = None

    @property
    def features(self) -> tuple[float, ...] | None:
        """Numbers to be weighted, more of the first two being better; None where the name's score is not known."""
        if self.confidence is None:
            return None
        # A call without arguments has none that could be weak.
        weakest = 1.0 if self.weakest_argument is None else self.weakest_argument
        ungrounded = float(self.grounded is False)
        return log_odds(self.confidence), log_odds(weakest), ungrounded, self.overridden or 0.0


def evidence(scores: Scores | None, grounded: bool | None) -> Evidence:
    """The evidence of a call with these scores."""
    if scores is None:
        return Evidence(None, None, grounded)
    return Evidence(scores.tool, scores.weakest_argument, grounded, scores.overridden, scores.overridden_tokens)


def log_odds(probability: float) -> float:
    """log(p / (1 - p)), of a probability kept off 0 and 1."""
    kept = min(max(probability, NEAREST), 1 - NEAREST)
    return math.log(kept / (1 - kept))


class Platt(BaseModel):
    """P(right) as a logistic curve of the score (Platt 1999)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["platt"] = "platt"
    slope: float = Field(ge=0)
    intercept: float

    def __call__(self, score: float) -> float:
        exponent = -(self.slope * score + self.intercept)
        return 1 / (1 + math.exp(min(exponent, 700.0)))


class Isotonic(BaseModel):
    """P(right) as a rising line through points, flat beyond the first and the last."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["isotonic"] = "isotonic"
    scores: tuple[float, ...] = Field(min_length=1)
    probabilities: tuple[float, ...] = Field(min_length=1)

    def __call__(self, score: float) -> float:
        after = bisect_left(self.scores, score)
        if after == 0:
            return self.probabilities[0]
        if after == len(self.scores):
            return self.probabilities[-1]
        left, right = self.scores[after - 1], self.scores[after]
        low, high = self.probabilities[after - 1], self.probabilities[after]
        return low + (high - low) * (score - left) / (right - left)


class Calibration(BaseModel):
    """How sure a router's calls are: the part of `router.json` called `calibration`.

    `rows` calibrated, of which those that ended in valid calls left their scores in `right` and `wrong`; calls without
    a score are in neither. `chose` rows of the validation split chose the checkpoint and the weights instead.
    `other_catalogues` of the rows had other catalogues than the router's own. Rows were routed in this `mode`.
    `figures` tell how good it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: dict[str, float]
    curve: Platt | Isotonic = Field(discriminator="kind")
    rows: int = Field(ge=1)
    right: tuple[float, ...]
    wrong: tuple[float, ...]
    chose: int = Field(0, ge=0)
    other_catalogues: int = Field(0, ge=0)
    mode: Mode = "greedy"
    split: str
    figures: dict[str, Any] = Field(default_factory=dict)
    policy: Policy | None = None

    def score(self, evidence: Evidence) -> float | None:
        """The evidence added up; None where the name's score is not known."""
        return add_up(evidence, tuple(self.weights[name] for name in FEATURES))

    def p_right(self, evidence: Evidence) -> float | None:
        """The probability that a call with this evidence is right."""
        score = self.score(evidence)
        return None if score is None else self.curve(score)

    def threshold(self, policy: Policy) -> float:
        """The score above which a call is acted on: as low as the promise allows.

        No more wrong calls than `policy.allowed` lie above it. The share of requests that end in a wrong call above a
        threshold only falls as the threshold rises, so that choosing it by the same rows keeps the promise (risk-
        controlling prediction sets: Bates et al. 2021). Raises `UsageError` where there are too few rows for it.
        """
        allowed = policy.allowed(self.rows)
        if allowed < 0:
            least = math.ceil(smallest_rate(self.rows, policy.level) * 1e4) / 1e4
            raise UsageError(
                f"a promise of {policy.words}, takes {policy.rows_needed} rows that calibrate or more; "
                f"there were {self.rows}",
                hint=f"so many rows can promise {least:g}; more rows: mlx-router calibrate FOLDER --data FILE",
            )
        wrong = sorted(self.wrong, reverse=True)
        return wrong[allowed] if allowed < len(wrong) else -math.inf


def add_up(evidence: Evidence, weights: tuple[float, ...]) -> float | None:
    """The features' weighted sum."""
    found = evidence.features
    return None if found is None else math.fsum(w * x for w, x in zip(weights, found, strict=True))


def read_calibration(value: Mapping[str, Any]) -> Calibration:
    """The calibration of a manifest. Raises `ModelError` where this version can't read it."""
    try:
        found = Calibration.model_validate(value)
        missing = [name for name in FEATURES if name not in found.weights]
        problems = [f"weights: {name} is missing" for name in missing]
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ModelError(
            f"the calibration in router.json can't be read:{lines}",
            hint="make it anew: mlx-router calibrate FOLDER --data FILE",
        )
    return found


@dataclass(frozen=True)
class Verdict:
    """How sure a call is, and what to do with it under a policy; None where that is not known."""

    p_right: float | None = None
    action: Action | None = None


class Certainty:
    """Judges valid calls by a calibration, and by a policy if there is one.

    A policy without a calibration can promise nothing: every call is to be confirmed.
    """

    def __init__(self, calibration: Calibration | None, policy: Policy | None = None) -> None:
        self.calibration = calibration
        self.policy = policy
        self.threshold = calibration.threshold(policy) if calibration is not None and policy is not None else None

    def verdict(self, found: Evidence, *, catalogue_seen: bool, own_shortlist: bool = True) -> Verdict:
        """P(right) and the action for a valid call with this evidence.

        Nothing is known of a call unlike those of the rows that calibrated, with a catalogue of another kind, another
        shortlist of it than the router's own, or in another mode: it is to be confirmed.
        """
        calibration = self.calibration
        alike = own_shortlist and self._had(catalogue_seen)
        if calibration is None or not (alike and _same_mode(calibration, found)):
            return Verdict(None, "confirm" if self.policy is not None else None)
        score = calibration.score(found)
        return Verdict(None if score is None else calibration.curve(score), self.action(score))

    def _had(self, own: bool) -> bool:
        """Whether the router's own catalogue, or others, were those of half of the rows, or of as many as it takes."""
        if self.calibration is None:
            return False
        others = self.calibration.other_catalogues
        rows = self.calibration.rows - others if own else others
        enough = self.policy.rows_needed if self.policy is not None else CALLS_NEEDED
        return rows >= min(enough, self.calibration.rows / 2)

    def action(self, score: float | None) -> Action | None:
        """What to do with a call of this score; None without a policy."""
        if self.policy is None:
            return None
        if self.calibration is None or self.threshold is None:
            return "confirm"
        if score is None or self.calibration.curve(score) < self.policy.confirm:
            return "abstain"
        return "act" if score > self.threshold else "confirm"


def _same_mode(calibration: Calibration, found: Evidence) -> bool:
    """Whether a call is like those that calibrated; a constrained one of the model's own tokens is a greedy one too."""
    return not found.overridden_tokens if calibration.mode == "greedy" else found.overridden is not None
