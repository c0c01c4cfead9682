"""The four metrics and their company, against values computed by hand."""

import json
from typing import Any

import pytest

from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.errors import DataError
from mlx_router.metrics import (
    COSTS,
    FOUR,
    Gate,
    Metric,
    Row,
    by_group,
    confusion,
    failures_by_reason,
    four_with_alternatives,
    json_equal,
    measure,
    per_tool,
    reason_agreement,
    wilson,
)
from mlx_router.parsing import parse, parse_target

ORDER = {"order_id": {"type": "string"}}
CATALOGUE = Catalogue(
    (
        Tool(
            "track",
            "track.",
            {"properties": {**ORDER, "days": {"type": "integer", "default": 3}}, "required": ["order_id"]},
        ),
        Tool(
            "refund",
            "refund.",
            {"properties": {**ORDER, "amount": {"type": "number"}}, "required": ["order_id", "amount"]},
        ),
        Tool("echo", "echo.", {"properties": {"value": {}}}),
    )
)

TRACK_A = '{"tool":"track","arguments":{"order_id":"A"}}'
REFUND_1 = '{"tool":"refund","arguments":{"order_id":"A","amount":1}}'
REFUND_7 = '{"tool":"refund","arguments":{"order_id":"A","amount":7}}'
TRACK_A1 = '{"tool":"track","arguments":{"order_id":"A1"}}'
MISSING_TWO = '{"tool":"no_tool","reason":"missing_information: order_id, amount"}'
MISSING_ONE = '{"tool":"no_tool","reason":"missing_information: order_id"}'
HELLO = '{"tool":"no_tool","reason":"greeting"}'

# Gold, output, alternatives; then what the row counts as. V: a parsed output; T: the gold tool; A: a real call of it
# with equal arguments; F: a call where none was wanted; R: the whole decision right; W: a wrong call; M: a missed one.
TABLE: list[tuple[str, str, list[str], str]] = [
    (TRACK_A, TRACK_A, [], "V T A R"),
    (TRACK_A, '{"tool":"track","arguments":{"order_id":"B"}}', [], "V T W"),
    (TRACK_A, REFUND_1, [REFUND_7], "V W"),
    (TRACK_A, HELLO, [], "V M"),
    (TRACK_A, "I will track it.", [], ""),
    (TRACK_A, '{"tool":"trace","arguments":{"order_id":"A"}}', [], ""),
    (TRACK_A, '{"tool":"track","arguments":{}}', [], ""),
    (TRACK_A, '{"tool":"track","arguments":{"order_id":"A","fast":true}}', [], ""),
    # 1 equals 1.0, the order of keys is free.
    (REFUND_1, '{"tool":"refund","arguments":{"order_id":"A","amount":1.0}}', [], "V T A R"),
    (REFUND_1, '{"arguments":{"amount":1,"order_id":"A"},"tool":"refund"}', [], "V T A R"),
    # `true` is not 1, the order of an array is not free, a default written out differs from one left out.
    ('{"tool":"echo","arguments":{"value":1}}', '{"tool":"echo","arguments":{"value":true}}', [], "V T W"),
    ('{"tool":"echo","arguments":{"value":[1,2]}}', '{"tool":"echo","arguments":{"value":[2,1]}}', [], "V T W"),
    (TRACK_A, '{"tool":"track","arguments":{"order_id":"A","days":3}}', [], "V T W"),
    # Reasons are not compared.
    (MISSING_TWO, '{"tool":"no_tool","reason":"missing_information: amount,order_id"}', [], "V T R"),
    (MISSING_ONE, HELLO, [], "V T R"),
    (HELLO, TRACK_A, [], "V F W"),
    (MISSING_TWO, REFUND_1, [REFUND_1], "V F W"),
    (HELLO, "", [], ""),
    (HELLO, '{"tool":"no_tool"}', [], ""),
    # Right only by an alternative, which the four metrics do not look at.
    (TRACK_A, TRACK_A1, [HELLO, TRACK_A1], "V T W"),
]
# Counts of the letters: V 14, T 10, A 3, F 2, R 5, W 8, M 1. Rows whose gold is a call: 14; whose gold is no_tool: 6.
BY_HAND = {
    "valid_tool_call_rate": (14, 20),
    "tool_name_accuracy": (10, 20),
    "argument_match_accuracy": (3, 14),
    "false_tool_call_rate": (2, 20),
    "exact_match": (5, 20),
    # Rows 17 and 20 besides.
    "exact_match_with_alternatives": (7, 20),
    # Real calls of the gold tool: rows 1, 2, 9 to 13 and 20.
    "argument_match_on_calls": (3, 8),
    "false_call_rate_on_no_tool": (2, 6),
    "missed_call_rate": (1, 14),
    "wrong_call_rate": (8, 20),
    "parse_failure_rate": (6, 20),
}


def target(text: str) -> ToolCall | NoTool:
    found = parse_target(json.loads(text), CATALOGUE)
    assert isinstance(found, ToolCall | NoTool), found
    return found


def row(gold: str, output: str, *alternatives: str) -> Row:
    return Row(target(gold), parse(output, CATALOGUE), tuple(map(target, alternatives)))


ROWS = [row(gold, output, *alternatives) for gold, output, alternatives, _ in TABLE]


def test_each_row_counts_as_it_should() -> None:
    found = []
    for one in ROWS:
        facts = {
            "V": one.parsed,
            "T": one.right_tool,
            "A": one.arguments_match,
            "F": one.calls and not one.wants_call,
            "R": one.right,
            "W": one.calls and not one.right,
            "M": one.wants_call and isinstance(one.output, NoTool),
        }
        found.append(
            " ".join(
                letter for letter, holds in sorted(facts.items(), key=lambda fact: "VTAFRWM".index(fact[0])) if holds
            )
        )
    assert found == [counts for *_, counts in TABLE]


def test_the_metrics_equal_a_computation_by_hand() -> None:
    measured = measure(ROWS)

    assert {name: (metric.value, metric.n) for name, metric in measured.items()} == {
        name: (count / n, n) for name, (count, n) in BY_HAND.items()
    }
    assert tuple(measured)[:4] == FOUR
    # A perfect router gets the arguments of the 14 calls right and, with all 20 outputs parsed, scores 14 / 20.
    assert measured["argument_match_accuracy"].max == 14 / 20
    assert all(metric.max is None for name, metric in measured.items() if name != "argument_match_accuracy")
    assert all(metric.ci95 == wilson(*BY_HAND[name]) for name, metric in measured.items())


def test_a_perfect_router_scores_the_highest_value_there_is() -> None:
    measured = measure([row(gold, gold) for gold, *_ in TABLE])
    assert [measured[name].value for name in FOUR] == [1.0, 1.0, 0.7, 0.0]
    assert measured["argument_match_accuracy"].max == 0.7
    assert measured["argument_match_on_calls"].value == measured["exact_match"].value == 1.0
    assert [measured[name].value for name in COSTS] == [0.0] * len(COSTS)


def test_no_parsed_output() -> None:
    measured = measure([row(gold, "{") for gold, *_ in TABLE])
    assert [measured[name].value for name in FOUR] == [0.0] * 4
    assert measured["argument_match_accuracy"].to_json() == {"value": 0.0, "n": 0, "ci95": None, "max": 0.7}
    assert measured["argument_match_on_calls"].to_json() == {"value": None, "n": 0, "ci95": None}
    # Malformed output is no abstention.
    assert measured["missed_call_rate"].value == 0.0
    assert measured["parse_failure_rate"].value == 1.0


def test_what_a_set_does_not_hold_is_not_measured() -> None:
    calls_only = measure([row(TRACK_A, TRACK_A)])
    assert calls_only["false_call_rate_on_no_tool"] == Metric(None, 0, None)
    assert calls_only["false_tool_call_rate"].value == 0.0
    negatives_only = measure([row(HELLO, HELLO), row(HELLO, TRACK_A)])
    assert negatives_only["missed_call_rate"] == Metric(None, 0, None)
    assert negatives_only["argument_match_accuracy"].value == 0.0
    assert negatives_only["argument_match_accuracy"].max == 0.0
    assert negatives_only["false_tool_call_rate"].value == negatives_only["false_call_rate_on_no_tool"].value == 0.5


def test_no_rows_are_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        measure([])


def test_the_four_metrics_with_alternatives_by_hand() -> None:
    # Row 3 now has the right tool, row 17 is a right call and no false one, row 20 is right:
    # T 10 + rows 3 and 17 = 12; A 3 + rows 17 and 20 = 5; F 2 - row 17 = 1.
    assert four_with_alternatives(ROWS) == {
        "valid_tool_call_rate": 14 / 20,
        "tool_name_accuracy": 12 / 20,
        "argument_match_accuracy": 5 / 14,
        "false_tool_call_rate": 1 / 20,
    }


def test_no_tool_may_be_an_alternative() -> None:
    rows = [row(TRACK_A, HELLO, HELLO)]
    assert measure(rows)["exact_match"].value == 0.0
    assert measure(rows)["exact_match_with_alternatives"].value == 1.0
    assert four_with_alternatives(rows)["tool_name_accuracy"] == 1.0


def test_failures_are_counted_by_reason() -> None:
    assert failures_by_reason([*ROWS, row(HELLO, " ")]) == {
        "empty": 2,
        "not_json": 1,
        "unknown_tool": 1,
        "missing_argument": 1,
        "extra_argument": 1,
        "no_reason": 1,
    }


def test_reasons_are_compared_apart() -> None:
    # Rows 14 and 15 are rightly left without a call; 14 agrees in code and parameters, whatever their order.
    agreement = reason_agreement(ROWS)
    assert {name: (metric.value, metric.n) for name, metric in agreement.items()} == {
        "reason_code_agreement": (0.5, 2),
        "missing_agreement": (0.5, 2),
    }
    assert reason_agreement([row(TRACK_A, HELLO)])["reason_code_agreement"] == Metric(None, 0, None)


def test_confusion_by_hand() -> None:
    assert confusion(ROWS) == {
        "echo": {"echo": 2},
        "no_tool": {"no_tool": 2, "(invalid)": 2, "track": 1, "refund": 1},
        "refund": {"refund": 2},
        "track": {"track": 4, "(invalid)": 4, "refund": 1, "no_tool": 1},
    }


def test_each_tool_by_hand() -> None:
    found = {
        tool: {name: (metric.value, metric.n) for name, metric in metrics.items()}
        for tool, metrics in per_tool(ROWS).items()
    }
    assert found == {
        "echo": {"recall": (1.0, 2), "precision": (1.0, 2), "exact_match": (0.0, 2)},
        "no_tool": {"recall": (2 / 6, 6), "precision": (2 / 3, 3), "exact_match": (2 / 6, 6)},
        "refund": {"recall": (1.0, 2), "precision": (2 / 4, 4), "exact_match": (1.0, 2)},
        "track": {"recall": (4 / 10, 10), "precision": (4 / 5, 5), "exact_match": (1 / 10, 10)},
    }


def test_groups_by_hand() -> None:
    groups = ["plain"] * 4 + [None] * 12 + ["trap"] * 4
    found = {
        group: {name: (metric.value, metric.n) for name, metric in metrics.items()}
        for group, metrics in by_group(ROWS, groups).items()
    }
    assert found == {
        "plain": {"exact_match": (1 / 4, 4), "wrong_call_rate": (2 / 4, 4)},
        "trap": {"exact_match": (0.0, 4), "wrong_call_rate": (2 / 4, 4)},
    }


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (10**20, 1e20, True),
        (2**53 + 1, float(2**53), False),
        (0.1 + 0.2, 0.3, False),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        (1, "1", False),
        (None, None, True),
        (None, False, False),
        (None, "", False),
        ("a", "A", False),
        ("a", "a ", False),
        ("é", "e\u0301", False),
        ([], {}, False),
        ([1, 2], [1.0, 2], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([[1]], [[True]], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": {"b": [1, {"c": 1}]}}, {"a": {"b": [1, {"c": 1.0}]}}, True),
        ({"a": {"b": [1, {"c": 1}]}}, {"a": {"b": [1, {"c": True}]}}, False),
    ],
)
def test_equality_is_json_s(one: Any, other: Any, equal: bool) -> None:
    assert json_equal(one, other) is equal
    assert json_equal(other, one) is equal


def test_wilson_intervals_by_hand() -> None:
    # With z² = 3.841459: 0 of n ends at z²/(n + z²), n of n begins at n/(n + z²);
    # 10 of 20 is 0.5 ± 1.959964/1.192073·√(0.0125 + 0.0024009) = 0.5 ± 0.200703.
    def rounded(successes: int, n: int) -> tuple[float, ...]:
        interval = wilson(successes, n)
        assert interval is not None
        return tuple(round(bound, 4) for bound in interval)

    assert wilson(0, 0) is None
    assert rounded(0, 10) == (0.0, 0.2775)
    assert rounded(10, 10) == (0.7225, 1.0)
    assert rounded(1, 1) == (0.2065, 1.0)
    assert rounded(10, 20) == (0.2993, 0.7007)
    assert wilson(0, 7)[0] == 0.0  # type: ignore[index]
    assert wilson(7, 7)[1] == 1.0  # type: ignore[index]


def test_gates() -> None:
    measured = measure(ROWS)
    assert Gate("valid_tool_call_rate", 0.7).verdict(measured) is None
    assert Gate("false_tool_call_rate", 0.1).verdict(measured) is None
    low = Gate("tool_name_accuracy", 0.51).verdict(measured)
    high = Gate("wrong_call_rate", 0.39).verdict(measured)
    assert low is not None and "at least 0.51" in low and "0.5000" in low
    assert high is not None and "at most 0.39" in high and "0.4000" in high
    nothing = Gate("false_call_rate_on_no_tool", 0.5).verdict(measure([row(TRACK_A, TRACK_A)]))
    assert nothing is not None and "not measured" in nothing


def test_a_metric_as_json() -> None:
    found = json.loads(json.dumps({name: metric.to_json() for name, metric in measure(ROWS).items()}))
    assert found["argument_match_accuracy"]["value"] == 3 / 14
    assert found["argument_match_accuracy"]["max"] == 0.7
    assert set(found["exact_match"]) == {"value", "n", "ci95"}
    low, high = found["exact_match"]["ci95"]
    assert low < 0.25 < high
