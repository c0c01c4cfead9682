"""Finer counts, held against figures made by hand."""

import pytest
from reports import SUPPORT, call, no_tool, scored, support_rows, tool

from mlx_router.breakdown import attainable, bootstrap, no_tool_kinds, per_argument, tool_f1
from mlx_router.catalogue import Catalogue
from mlx_router.metrics import COSTS, Row, measure


def rows(*pairs: tuple[object, object]) -> list[Row]:
    return [scored(SUPPORT, "x", gold, output).row for gold, output in pairs]  # type: ignore[arg-type]


def track(order_id: str) -> dict[str, object]:
    return call("track_order", order_id=order_id)


MIXED = rows(
    (track("1"), track("1")),
    (track("2"), track("9")),
    (track("3"), "no JSON"),
    (call("escalate", reason="a"), track("4")),
    (no_tool("chitchat"), no_tool("chitchat")),
    (no_tool("chitchat"), call("escalate", reason="b")),
    (no_tool("out_of_scope: poems"), track("5")),
    (no_tool("out_of_scope"), "?"),
)


def test_a_perfect_router_gets_what_is_attainable() -> None:
    perfect = [Row(row.gold, row.gold) for row in MIXED]
    best = attainable(MIXED, measure(MIXED))

    assert best == {name: metric.value for name, metric in measure(perfect).items()}
    assert best["argument_match_accuracy"] == 4 / 8
    assert {best[name] for name in COSTS} == {0.0}


def test_what_no_row_can_measure_has_no_best_value() -> None:
    calls, none = rows((track("1"), track("1"))), rows((no_tool(), track("1")))

    assert attainable(calls, measure(calls))["false_call_rate_on_no_tool"] is None
    assert attainable(none, measure(none))["missed_call_rate"] is None
    assert attainable(none, measure(none))["argument_match_accuracy"] == 0.0


def test_arguments_are_counted_where_the_tool_is_right() -> None:
    catalogue = Catalogue.from_json(
        [{**tool("plan", day="string"), "parameters": {"properties": {"day": {}, "people": {}, "room": {}}}}]
    )
    pairs = [
        ({"day": "Mon", "people": 2}, {"day": "Mon", "people": 2.0}),
        ({"day": "Mon", "people": 2}, {"day": "Tue"}),
        ({"day": "Mon"}, {"day": "Mon", "room": "A"}),
    ]
    found = per_argument([scored(catalogue, "x", call("plan", **a), call("plan", **b)).row for a, b in pairs])

    table = {one.name: (one.equal, one.different, one.left_out, one.added) for one in found}
    assert table == {"day": (2, 1, 0, 0), "people": (1, 0, 1, 0), "room": (0, 0, 0, 1)}
    assert [(one.rate.value, one.rate.n) for one in found] == [(2 / 3, 3), (0.5, 2), (0.0, 1)]
    counted = {(one.tool, one.name): one.rate.n for one in per_argument(MIXED)}
    assert counted == {("track_order", "order_id"): 2}


def test_kinds_of_no_tool() -> None:
    chitchat, scope = no_tool_kinds(MIXED)

    assert (chitchat.code, chitchat.n, chitchat.right, chitchat.invalid) == ("chitchat", 2, 1, 0)
    assert chitchat.called == {"escalate": 1}
    assert (scope.code, scope.n, scope.right, scope.invalid, scope.false_calls) == ("out_of_scope", 2, 0, 1, 1)
    assert scope.to_json()["false_call_rate"]["value"] == 0.5


def test_f1_by_hand() -> None:
    found = tool_f1(MIXED)

    # track_order: 2 rightly said, 3 wanted, 4 said; escalate: 0, 1, 1; no_tool: 1, 4, 1.
    values = {name: metric.value for name, metric in found.items()}
    assert values["track_order"] == pytest.approx(2 * 2 / 7)
    assert values["escalate"] == 0.0
    assert values["no_tool"] == pytest.approx(2 / 5)
    assert values["macro"] == pytest.approx((4 / 7 + 0 + 2 / 5) / 3)


def test_bootstrap_intervals_hold_the_value_and_shrink_with_n() -> None:
    widths = []
    for n in (60, 600):
        few = [one.row for one in support_rows(n)]
        metrics, drawn, f1 = measure(few), bootstrap(few), tool_f1(few)["macro"]
        for name, ends in drawn.items():
            assert ends is not None and ends[0] < (metrics[name].value or 0) < ends[1], name
        assert f1.ci95 is not None and f1.ci95[0] < (f1.value or 0) < f1.ci95[1]
        widths.append(f1.ci95[1] - f1.ci95[0])
        # A ratio's bootstrap is close to Wilson's where the denominator hardly varies.
        low, high = metrics["argument_match_on_calls"].ci95 or (0, 0)
        assert drawn["argument_match_on_calls"] == pytest.approx((low, high), abs=0.06)
    assert widths[1] < widths[0] / 2


def test_the_same_rows_give_the_same_intervals() -> None:
    assert bootstrap(MIXED) == bootstrap(MIXED)
    assert tool_f1(MIXED) == tool_f1(MIXED)


def test_a_ratio_of_nothing_has_no_interval() -> None:
    assert bootstrap(rows((track("1"), "no"), (track("2"), "no"))) == {
        "argument_match_accuracy": None,
        "argument_match_on_calls": None,
    }
