"""Calibration: curves and figures against known answers, and promises kept over many draws of rows."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import CATALOGUE, write_rows

from mlx_router import calibration
from mlx_router.calibration import (
    CALLS_NEEDED,
    Observed,
    auroc,
    choose,
    ece,
    figures,
    fit,
    gold_calls,
    halve,
    isotonic,
    platt,
    weigh,
)
from mlx_router.certainty import WEIGHTS, Calibration, Certainty, Evidence, Platt, log_odds, read_calibration
from mlx_router.data import Example, read
from mlx_router.errors import DataError, ModelError, UsageError
from mlx_router.interop import load_catalogue
from mlx_router.policy import Policy


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# A world in which it is known how often calls are right: by their scores, and a little less where they are ungrounded.
CALLS = 0.55


def draw(random: np.random.Generator, rows: int) -> list[Observed]:
    """Rows of that world; some are no calls, and the model's own confidence is far too high."""
    found = []
    for _ in range(rows):
        if random.random() > CALLS:
            found.append(Observed(None, True))
            continue
        tool, weakest, grounded = random.normal(4, 2), random.normal(4, 2), random.random() > 0.1
        right = random.random() < truth(tool, weakest, grounded)
        found.append(Observed(Evidence(sigmoid(tool), sigmoid(weakest), grounded), bool(right)))
    return found


def truth(tool: float, weakest: float, grounded: bool) -> float:
    return sigmoid(0.8 * tool + 0.2 * weakest - 1.5 * (not grounded) - 1)


def wrong_calls_acted_on(certainty: Certainty, world: Sequence[Observed]) -> float:
    """The share of all rows that end in a wrong call which is acted on."""
    acted = [
        row
        for row in world
        if row.evidence is not None and certainty.verdict(row.evidence, catalogue_seen=True).action == "act"
    ]
    return sum(not row.right for row in acted) / len(world)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples, where the figures' intervals are no matter."""
    monkeypatch.setattr(calibration, "RESAMPLES", 2)


# The promise


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_promised_rate_is_kept_in_the_promised_share_of_repeats(level: float) -> None:
    """Thresholds from 150 rows each, for scores whose true rates are known: no bound may be broken too often.

    A call of score s is right with probability s; half of all rows are calls, scores uniform. Above a threshold t, a
    share (1 - t)² / 4 of all rows are wrong calls.
    """
    policy = Policy(wrong_call_rate=0.03, level=level)
    random = np.random.default_rng(3)
    repeats, kept, acted = 600, 0, 0.0
    for _ in range(repeats):
        scores = random.random(150)[random.random(150) < 0.5]
        right = random.random(len(scores)) < scores
        threshold = known(scores[right], scores[~right], rows=150).threshold(policy)
        kept += (1 - max(threshold, 0.0)) ** 2 / 4 <= policy.wrong_call_rate
        acted += 1 - max(threshold, 0.0)
    # Three standard errors below the level; and not by acting on nothing, which keeps any promise.
    assert kept / repeats >= level - 3 * math.sqrt(level * (1 - level) / repeats)
    assert acted / repeats > 0.1
    # The bound is not wasteful: little more is kept than promised.
    assert kept / repeats <= min(1.0, level + 0.08)


def test_a_threshold_without_a_margin_would_not_keep_it() -> None:
    """What the test above can see: a threshold at the measured rate itself breaks the promise much more often."""
    random = np.random.default_rng(3)
    kept = 0
    for _ in range(300):
        scores = random.random(150)[random.random(150) < 0.5]
        wrong = np.sort(scores[random.random(len(scores)) > scores])[::-1]
        allowed = int(0.03 * 150)
        threshold = wrong[allowed] if allowed < len(wrong) else 0.0
        kept += (1 - threshold) ** 2 / 4 <= 0.03
    assert kept / 300 < 0.75


@pytest.mark.usefixtures("quick")
def test_the_whole_of_it_keeps_the_promise_in_a_world_of_calls() -> None:
    """Weights, curve and threshold as `fit` makes them, against 4,000 rows that it never saw."""
    random = np.random.default_rng(11)
    world = draw(random, 4000)
    policy = Policy(wrong_call_rate=0.03, level=0.9)
    before = sum(row.evidence is not None and not row.right for row in world) / len(world)
    rates = []
    for _ in range(40):
        found = fit(draw(random, 200), draw(random, 150), split="", policy=policy)
        rates.append(wrong_calls_acted_on(Certainty(found, policy), world))
    assert before > 0.04
    # At level 0.9, 33 of 40 or more with probability 0.96; this draw is fixed.
    assert sum(rate <= 0.03 for rate in rates) >= 33
    assert max(rates) <= before


def known(right: Sequence[float], wrong: Sequence[float], *, rows: int, slope: float = 1.0) -> Calibration:
    """A calibration whose rows had these scores; P(right) is a half at 0."""
    return Calibration(
        weights=dict(zip(("confidence", "weakest_argument", "ungrounded", "overridden"), WEIGHTS, strict=True)),
        curve=Platt(slope=slope, intercept=0.0),
        rows=rows,
        right=tuple(right),
        wrong=tuple(wrong),
        split="",
    )


def test_as_many_wrong_calls_lie_above_the_threshold_as_are_allowed() -> None:
    found = known([], [5.0, 4.0, 3.0, 2.0, 1.0], rows=93)
    # At 5 %, 93 rows allow one wrong call, 59 none; ties with the threshold are not acted on.
    assert found.threshold(Policy(wrong_call_rate=0.05)) == 4.0
    assert known([], [5.0, 5.0, 3.0], rows=59).threshold(Policy(wrong_call_rate=0.05)) == 5.0
    assert known([], [5.0], rows=93).threshold(Policy(wrong_call_rate=0.05)) == -math.inf


def test_a_promise_that_takes_more_rows_is_an_error_with_the_numbers() -> None:
    with pytest.raises(UsageError) as caught:
        Certainty(known([1.0], [], rows=151), Policy(wrong_call_rate=0.01))
    assert "takes 299 rows" in caught.value.message and "there were 151" in caught.value.message
    assert "0.0197" in str(caught.value.hint) and "mlx-router calibrate" in str(caught.value.hint)
    assert Policy(wrong_call_rate=0.0197).allowed(151) == 0


# What is done with a call


def test_act_confirm_and_abstain() -> None:
    certainty = Certainty(known([], [2.0], rows=59), Policy(wrong_call_rate=0.05, confirm=0.3))
    found = [certainty.action(score) for score in (2.1, 2.0, 0.0, -0.8, -0.9, None)]
    assert found == ["act", "confirm", "confirm", "confirm", "abstain", "abstain"]
    assert sigmoid(-0.8) > 0.3 > sigmoid(-0.9)


def test_what_is_more_likely_wrong_is_not_acted_on_although_the_promise_allows_it() -> None:
    certainty = Certainty(known([], [], rows=59), Policy(wrong_call_rate=0.05))
    assert certainty.threshold == -math.inf
    assert [certainty.action(score) for score in (0.1, -0.1)] == ["act", "abstain"]


def test_without_a_policy_there_is_a_probability_and_no_action() -> None:
    verdict = Certainty(known([], [], rows=10)).verdict(Evidence(0.5, 0.5, True), catalogue_seen=True)
    assert (verdict.p_right, verdict.action) == (0.5, None)


SURE = Evidence(0.999, 0.999, True)


def test_a_call_unlike_the_rows_that_calibrated_is_to_be_confirmed() -> None:
    found, policy = known([], [], rows=59), Policy(wrong_call_rate=0.05)
    unknown = Certainty(found, policy).verdict(SURE, catalogue_seen=False)
    assert (unknown.p_right, unknown.action) == (None, "confirm")
    forced = Evidence(0.999, 0.999, True, overridden=0.4, overridden_tokens=1)
    let = Evidence(0.999, 0.999, True, overridden=0.01, overridden_tokens=0)
    certainty = Certainty(found, policy)
    assert [certainty.verdict(one, catalogue_seen=True).action for one in (forced, let)] == ["confirm", "act"]
    constrained = Certainty(found.model_copy(update={"mode": "constrained"}), policy)
    actions = [constrained.verdict(one, catalogue_seen=True).action for one in (forced, let, SURE)]
    assert actions == ["act", "act", "confirm"]


@pytest.mark.parametrize(
    # Half of the rows had such a catalogue, or as many as the promise takes: 59.
    ("others", "own", "other"),
    [(0, "act", "confirm"), (58, "act", "confirm"), (59, "act", "act"), (141, "act", "act"), (142, "confirm", "act")],
)
def test_a_kind_of_catalogue_that_few_rows_had_is_to_be_confirmed(others: int, own: str, other: str) -> None:
    found = known([], [], rows=200).model_copy(update={"other_catalogues": others})
    certainty = Certainty(found, Policy(wrong_call_rate=0.05))
    assert [certainty.verdict(SURE, catalogue_seen=seen).action for seen in (True, False)] == [own, other]


def test_half_of_the_rows_are_enough_where_the_promise_takes_them_all() -> None:
    found = known([], [], rows=59).model_copy(update={"other_catalogues": 9})
    assert Certainty(found, Policy(wrong_call_rate=0.05)).verdict(SURE, catalogue_seen=True).action == "act"


def test_a_policy_without_a_calibration_has_every_call_confirmed() -> None:
    certainty = Certainty(None, Policy(wrong_call_rate=0.5, level=0.5))
    verdict = certainty.verdict(SURE, catalogue_seen=True)
    assert (verdict.p_right, verdict.action) == (None, "confirm")
    assert Certainty(None).verdict(SURE, catalogue_seen=True).action is None


def test_a_call_whose_names_score_is_not_known_is_withheld() -> None:
    certainty = Certainty(known([], [], rows=59), Policy(wrong_call_rate=0.05))
    verdict = certainty.verdict(Evidence(None, 0.9, True), catalogue_seen=True)
    assert (verdict.p_right, verdict.action) == (None, "abstain")


def test_worse_evidence_is_a_lower_score() -> None:
    found = known([], [], rows=1)
    best = found.score(SURE)
    assert best is not None
    for worse in (Evidence(0.9, 0.999, True), Evidence(0.999, 0.9, True), Evidence(0.999, 0.999, False)):
        score = found.score(worse)
        assert score is not None and score < best
    # A call without arguments has no weak one; what is not known of grounding is not held against it.
    assert found.score(Evidence(0.999, None, None)) == found.score(Evidence(0.999, 1.0, True))
    assert math.isfinite(log_odds(0.0)) and math.isfinite(log_odds(1.0))


# Fitting


def test_too_few_calls_are_counted_and_fit_nothing() -> None:
    rows = [Observed(SURE, True)] * 20 + [Observed(Evidence(None, 0.5, True), True)] * 20 + [Observed(None, True)] * 99
    with pytest.raises(DataError, match=f"{CALLS_NEEDED - 20} are missing"):
        fit(rows, split="")


@pytest.mark.usefixtures("quick")
def test_a_fitted_calibration_is_read_back_as_it_was_written() -> None:
    found = fit(draw(np.random.default_rng(0), 300), split="halved", policy=Policy(wrong_call_rate=0.02))
    again = read_calibration(found.model_dump(mode="json"))
    assert again == found
    assert (again.rows, again.split, again.mode) == (300, "halved", "greedy")
    assert len(again.right) + len(again.wrong) > 100
    with pytest.raises(ModelError, match="curve") as caught:
        read_calibration({**found.model_dump(mode="json"), "curve": {"kind": "spline"}})
    assert "mlx-router calibrate" in str(caught.value.hint)
    with pytest.raises(ModelError, match="weights: confidence is missing"):
        read_calibration({**found.model_dump(mode="json"), "weights": {}})


@pytest.mark.usefixtures("quick")
def test_probabilities_come_near_the_truth() -> None:
    random = np.random.default_rng(5)
    found = fit(draw(random, 3000), draw(random, 2000), split="")
    gaps = []
    for _ in range(500):
        tool, weakest, grounded = random.normal(4, 2), random.normal(4, 2), random.random() > 0.1
        p_right = found.p_right(Evidence(sigmoid(tool), sigmoid(weakest), bool(grounded)))
        assert p_right is not None
        gaps.append(abs(p_right - truth(tool, weakest, bool(grounded))))
    assert np.mean(gaps) < 0.03


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("right", [True, False])
def test_calls_that_are_all_right_or_all_wrong_give_no_certainty(right: bool) -> None:
    found = fit([Observed(Evidence(0.9 + at / 1000, 0.9, True), right) for at in range(40)], split="")
    p_right = found.p_right(SURE)
    assert p_right is not None
    assert (0.9 < p_right < 1) if right else (0 < p_right < 0.1)
    assert found.figures["auroc"]["value"] is None


def test_weights_follow_the_rows_and_stay_without_any() -> None:
    assert weigh([]) == WEIGHTS
    assert weigh([Observed(None, True)], (1.0, 2.0, -3.0, 0.0)) == (1.0, 2.0, -3.0, 0.0)
    # In these rows the tool's score says much and the argument's little.
    tool, weakest, ungrounded, _ = weigh(draw(np.random.default_rng(2), 3000))
    assert tool == pytest.approx(0.8, abs=0.12) and weakest == pytest.approx(0.2, abs=0.12)
    assert ungrounded == pytest.approx(-1.5, abs=0.5)


def test_no_weight_takes_confidence_for_a_fault() -> None:
    rows = [Observed(Evidence(sigmoid(at), 0.9, True), at < 0) for at in np.linspace(-5, 5, 200).tolist()]
    assert weigh(rows)[0] == 0.0


def test_a_logistic_truth_is_found_by_platt() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(0, 2, 20_000)
    right = (random.random(20_000) < 1 / (1 + np.exp(-(1.5 * scores - 0.5)))).astype(float)
    curve = platt(scores, right)
    assert (curve.slope, curve.intercept) == (pytest.approx(1.5, abs=0.08), pytest.approx(-0.5, abs=0.08))


def test_platts_curve_never_falls() -> None:
    curve = platt(np.arange(40.0), (np.arange(40) < 20).astype(float))
    assert (curve.slope, curve(0.0)) == (0.0, pytest.approx(0.5))


def test_pool_adjacent_violators_by_hand() -> None:
    # 0 | 1 0 -> 0.5 | 1 1; at the ends as far from 0 and 1 as five calls can tell.
    curve = isotonic(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.0, 1.0, 0.0, 1.0, 1.0]))
    assert curve.scores == (1.0, 2.5, 4.5)
    assert curve.probabilities == pytest.approx((1 / 7, 0.5, 6 / 7))
    assert [curve(score) for score in (0.0, 1.75, 2.5, 9.0)] == pytest.approx([1 / 7, (1 / 7 + 0.5) / 2, 0.5, 6 / 7])


def test_equal_scores_have_one_probability() -> None:
    curve = isotonic(np.array([2.0, 2.0, 2.0, 2.0]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert (curve.scores, curve.probabilities) == ((2.0,), (0.75,))


def test_cross_validation_chooses_the_curve_that_fits() -> None:
    logistic, steps = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        scores, draws = random.normal(0, 2, 1000), random.random(1000)
        logistic.append(choose(scores, (draws < 1 / (1 + np.exp(-scores))).astype(float))[0].kind)
        # Two steps, which no logistic curve has.
        truth_ = np.where(np.abs(scores) < 1, 0.5, np.where(scores > 0, 0.98, 0.45))
        steps.append(choose(scores, (draws < truth_).astype(float))[0].kind)
    assert logistic.count("platt") >= 18
    assert steps.count("isotonic") >= 18


# Figures


def test_the_calibration_error_by_hand() -> None:
    expected = np.array([0.1] * 10 + [0.8] * 10)
    right = np.array([0.0] * 10 + [1.0] * 5 + [0.0] * 5)
    assert ece(expected, right) == pytest.approx((0.1 + 0.3) / 2)


def test_the_calibration_error_does_not_depend_on_the_order_of_the_rows() -> None:
    expected = np.array([0.9] * 60 + [0.5] * 3)
    right = np.array([1.0] * 54 + [0.0] * 6 + [1.0, 0.0, 0.0])
    # All calls of 0.9 are in one bin: 54 of 60 are right, as expected.
    assert ece(expected, right) == pytest.approx(0.5 / 63)
    assert ece(expected[::-1], right[::-1]) == pytest.approx(0.5 / 63)


def test_the_brier_score_and_the_area_by_hand() -> None:
    found = figures(np.array([0.9, 0.8, 0.3, 0.8]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert found["brier"].value == pytest.approx((0.01 + 0.04 + 0.09 + 0.64) / 4)
    # Of four pairs three are ranked rightly, one is a tie.
    assert found["auroc"].value == pytest.approx(3.5 / 4)
    assert {metric.n for metric in found.values()} == {4}


def test_chance_alone_makes_the_error_of_a_calibrated_model() -> None:
    random = np.random.default_rng(6)
    expected = random.random(200)
    right = (random.random(200) < expected).astype(float)
    found = figures(expected, right)
    chance = found["ece_if_calibrated"]
    assert chance.ci95 is not None and found["ece"].value is not None
    assert chance.ci95[0] < found["ece"].value < chance.ci95[1]
    bad = figures(np.sqrt(expected), right)["ece"]
    assert bad.value is not None and bad.value > chance.ci95[1]


def test_the_intervals_hold_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 draws each; the true area is that of normals two thirds apart, the true Brier score 1/6."""
    monkeypatch.setattr(calibration, "RESAMPLES", 200)
    random = np.random.default_rng(8)
    true_area = 0.5 * (1 + math.erf(2 / 3 / 2))
    areas = briers = 0
    for _ in range(100):
        right = (np.arange(80) < 60).astype(float)
        area = auroc(random.normal(0, 1, 80) + right * 2 / 3, right)
        assert area.ci95 is not None
        areas += area.ci95[0] <= true_area <= area.ci95[1]
        expected = random.random(80)
        brier = figures(expected, (random.random(80) < expected).astype(float))["brier"]
        assert brier.ci95 is not None
        briers += brier.ci95[0] <= 1 / 6 <= brier.ci95[1]
    assert areas >= 88 and briers >= 88


def test_a_perfect_ranking_of_a_few_calls_proves_little() -> None:
    found = auroc(np.array([3.0, 2.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert found.value == 1.0 and found.ci95 is not None
    assert found.ci95[0] < 0.7 and found.ci95[1] == 1.0
    assert auroc(np.array([1.0, 2.0]), np.array([1.0, 1.0])).value is None


def test_no_calls_have_no_figures() -> None:
    found = figures(np.array([]), np.array([]))
    assert {(metric.value, metric.n, metric.ci95) for metric in found.values()} == {(None, 0, None)}


# Halves


def examples(path: Path, requests: Sequence[tuple[str, bool]]) -> list[Example]:
    call, none = {"tool": "escalate", "arguments": {"reason": "x"}}, {"tool": "no_tool", "reason": "chitchat"}
    rows = [{"request": request, "target": call if calls else none} for request, calls in requests]
    return read(str(write_rows(path, rows)), load_catalogue(CATALOGUE))


WORDS = ("lamp", "river", "yellow", "seven", "market", "quiet", "violin", "copper", "window", "ladder")


def test_halves_have_as_many_rows_of_each_tool_and_lose_none(tmp_path: Path) -> None:
    requests = [(f"{one} {other} please", one < other) for one in WORDS for other in WORDS]
    rows = examples(tmp_path / "rows.jsonl", requests)
    first, second = halve(rows)

    assert sorted(one.where for one in (*first, *second)) == sorted(one.where for one in rows)
    assert abs(len(first) - len(second)) <= 2
    assert abs(gold_calls(first) - gold_calls(second)) <= 1
    # The same rows in another order make the same halves.
    again, _ = halve(rows[::-1])
    assert {one.request for one in again} == {one.request for one in first}


def test_neither_half_always_gets_the_largest_group_of_near_requests(tmp_path: Path) -> None:
    """Twenty splits of one large group and ten single rows: the group calibrates in about half of them."""
    sides = []
    for number in range(20):
        name = f"{WORDS[number % 10]} {WORDS[number // 10]}"
        large = [(f"{name} is where{mark}", True) for mark in ("", "?", "!", ".", "…")]
        rows = examples(tmp_path / "rows.jsonl", [*large, *((f"{name} {word} thing", True) for word in WORDS)])
        _, calibrating = halve(rows)
        sides.append(sum("is where" in one.request for one in calibrating))
    assert set(sides) == {0, 5}
    assert 4 <= sides.count(5) <= 16


def test_near_requests_stay_in_one_half(tmp_path: Path) -> None:
    ends = (("well", ""), ("Well", "?"), ("well", "!"), ("well,", " ?"))
    requests = [
        (f"{end} where on earth has the {word} parcel gone to{mark}", True) for word in WORDS for end, mark in ends
    ]
    first, second = halve(examples(tmp_path / "rows.jsonl", requests))

    def words(half: Sequence[Example]) -> set[str]:
        return {word for word in WORDS for one in half if word in one.request}

    assert (len(first), len(second)) == (20, 20)
    assert words(first) & words(second) == set()
