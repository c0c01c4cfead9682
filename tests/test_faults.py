"""Kinds of faults, and the first wrong token."""

from typing import Any

import pytest
from reports import SUPPORT, call, no_tool, scored, tool

from mlx_router.catalogue import Catalogue
from mlx_router.evaluation import Scored
from mlx_router.faults import FAULTS, by_fault, difference, fault, words

TRACK = call("track_order", order_id="ORD-1")
REFUND = call("request_refund", order_id="ORD-1", reason="it broke")
PLAN = Catalogue.from_json([tool("plan", day="string", people="integer")])


def row(gold: dict[str, Any], output: dict[str, Any] | str, **more: Any) -> Scored:
    return scored(SUPPORT, "a request", gold, output, **more)


@pytest.mark.parametrize(
    ("gold", "output", "wanted"),
    [
        (TRACK, TRACK, None),
        (no_tool(), no_tool("chitchat"), None),
        (no_tool(), TRACK, "false call"),
        (TRACK, call("escalate", reason="x"), "call of another tool"),
        (TRACK, call("track_order", order_id="ORD-2"), "other arguments"),
        (TRACK, no_tool(), "missed call"),
        (TRACK, "I would track it.", "invalid output"),
        (no_tool(), call("nothing"), "invalid output"),
    ],
)
def test_every_row_has_one_fault_or_none(gold: dict[str, Any], output: Any, wanted: str | None) -> None:
    assert fault(row(gold, output)) == wanted


def test_an_alternative_is_no_grave_fault() -> None:
    assert fault(row(TRACK, REFUND, alternatives=[REFUND])) == "right by an alternative or as declared"


def test_faults_come_the_gravest_first() -> None:
    rows = [row(TRACK, "no"), row(TRACK, no_tool()), row(TRACK, TRACK), row(no_tool(), TRACK)]

    assert list(by_fault(rows)) == ["false call", "missed call", "invalid output"]
    assert set(FAULTS) >= set(by_fault(rows))


@pytest.mark.parametrize(
    ("gold", "output", "part", "said", "wanted"),
    [
        (TRACK, call("track_order", order_id="ORD-2"), "argument order_id", "2", "1"),
        (TRACK, call("escalate", reason="x"), "tool", "escalate", "track_order"),
        (TRACK, no_tool(), "tool", "no_tool", "track_order"),
        (REFUND, call("request_refund", order_id="ORD-1", reason="it burnt"), "argument reason", "burnt", "broke"),
        (REFUND, call("request_refund", order_id="ORD-1", reason="it"), "argument reason", '"', " "),
        (TRACK, "Sure: it is late", "beginning", "Sure", "{"),
        (TRACK, '{"tool":"track_order"', "tool", "", ","),
        (TRACK, "", "beginning", "", "{"),
        (TRACK, '{"tool":"track_order","arguments":{"order_id":"ORD-1"}} Bye', "argument order_id", " ", ""),
    ],
)
def test_the_first_wrong_token(gold: dict[str, Any], output: Any, part: str, said: str, wanted: str) -> None:
    found = difference(row(gold, output))

    assert found is not None
    assert (found.part, found.said, found.wanted) == (part, said, wanted)
    assert found.text[found.at :].startswith(said)


def test_spelling_of_json_is_no_difference() -> None:
    """White space, the order of keys and 2.0 for 2 are passed over; the first real difference is the day."""
    output = '{ "arguments": {"people": 2.0, "day": "Tuesday"}, "tool": "plan" }'
    found = difference(scored(PLAN, "x", call("plan", day="Monday", people=2), output))

    assert found is not None
    assert (found.part, found.said, found.wanted) == ("argument day", "Tuesday", "Monday")


def test_of_several_targets_the_nearest_is_shown() -> None:
    found = difference(row(no_tool(), call("track_order", order_id="ORD-2"), alternatives=[REFUND, TRACK]))

    assert found is not None
    assert (found.said, found.wanted) == ("2", "1")


def test_a_right_text_that_was_cut_off_has_no_wrong_token() -> None:
    from dataclasses import replace

    from mlx_router.calls import Failure, ParseFailure

    cut = replace(row(TRACK, TRACK), outcome=ParseFailure(Failure.TRUNCATED, "cut off"))
    assert fault(cut) == "invalid output"
    assert difference(cut) is None


def test_a_models_own_tokens_are_taken_where_they_are_known() -> None:
    def pairs(text: str) -> list[str]:
        return [text[at : at + 2] for at in range(0, len(text), 2)]

    found = difference(row(TRACK, call("track_order", order_id="ORD-2")), pairs)
    assert found is not None
    assert (len(found.said), found.at % 2) == (2, 0)
    assert "2" in found.said and "1" in found.wanted
    # A tokenizer that gives back another text can't be used.
    fallen_back = difference(row(TRACK, call("track_order", order_id="ORD-2")), lambda text: ["�"] * len(text))
    assert fallen_back == difference(row(TRACK, call("track_order", order_id="ORD-2")))


def test_words_are_the_whole_text() -> None:
    text = '{"tool":"x", "a":"b  ç\n—"}'
    assert "".join(words(text)) == text
