"""Risk by coverage and reliability."""

import pytest
from reports import SUPPORT, call, no_tool, scored, support_rows

from mlx_router.curves import CALIBRATED, CONFIDENCE, curves
from mlx_router.evaluation import Scored

TRACK = call("track_order", order_id="1")
OTHER = call("track_order", order_id="2")


def row(confidence: float | None, right: bool, p_right: float | None = None) -> Scored:
    return scored(SUPPORT, "x", TRACK, TRACK if right else OTHER, confidence=confidence, p_right=p_right)


def test_risk_by_coverage_by_hand() -> None:
    found = curves([row(0.9, True), row(0.5, False), row(0.7, True), row(0.7, False)])

    assert found is not None and found.source == CONFIDENCE
    points = [(point.threshold, point.n, point.wrong, point.coverage) for point in found.points]
    # The two calls of 0.7 are acted on together: nothing tells them apart.
    assert points == [(0.9, 1, 0, 0.25), (0.7, 3, 1, 0.75), (0.5, 4, 2, 1.0)]
    assert [point.risk.value for point in found.points] == [0, 1 / 3, 1 / 2]
    assert found.at_coverage(0.5).n == 3 and found.at_coverage(1.0).n == 4


def test_only_valid_calls_are_judged() -> None:
    rows = [row(0.9, True), scored(SUPPORT, "x", TRACK, no_tool(), confidence=0.8), scored(SUPPORT, "x", TRACK, "no")]
    found = curves(rows)

    assert found is not None
    assert (found.calls, len(found.judged)) == (1, 1)


def test_the_calibrated_probability_is_taken_where_there_is_one_and_never_mixed() -> None:
    found = curves([row(0.99, True, 0.6), row(0.98, False, 0.4), row(0.97, True)])

    assert found is not None and found.source == CALIBRATED
    assert [one.probability for one in found.judged] == [0.6, 0.4]
    assert found.calls == 3


def test_nothing_known_is_no_curve() -> None:
    assert curves([row(None, True)]) is None
    assert curves([scored(SUPPORT, "x", TRACK, no_tool(), confidence=0.4)]) is None


def test_bins_are_of_equal_size_and_hold_every_call() -> None:
    rows = support_rows(300)
    found = curves(rows)

    assert found is not None
    assert sum(one.n for one in found.bins) == sum(one.row.calls for one in rows)
    sizes = [one.n for one in found.bins]
    assert len(sizes) == 10 and max(sizes) - min(sizes) <= 1
    assert [one.mean for one in found.bins] == sorted(one.mean for one in found.bins)
    right = sum(one.row.right for one in rows if one.row.calls)
    assert sum(one.right for one in found.bins) == right


def test_a_surer_call_is_more_often_right_here() -> None:
    found = curves(support_rows(600))

    assert found is not None
    half, all_of_them = found.at_coverage(0.5), found.at_coverage(1.0)
    assert (half.risk.value or 0) < (all_of_them.risk.value or 0)
    assert (found.figures["auroc"].value or 0) > 0.6
    assert found.figures["brier"].n == found.points[-1].n
    assert found.points[-1].risk.ci95 == pytest.approx(all_of_them.risk.ci95)
