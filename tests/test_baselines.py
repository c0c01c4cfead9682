"""Baselines, and what is said of a router that does not beat them."""

import pytest
from reports import SUPPORT, call, no_tool, scored, support_rows

from mlx_router.baselines import (
    NO_TRAINING_ROWS,
    Baseline,
    always_no_tool,
    bag_of_words,
    most_frequent_tool,
    render_baselines,
    standings,
    untrained_base,
    verdict,
)
from mlx_router.evaluation import NOT_GIVEN, Scored

REFUND = call("request_refund", order_id="A", reason="x")


def rows(right: int, wrong: int, *, negatives: int = 0) -> list[Scored]:
    """Rows that want a call, some of them routed rightly, and rows that rightly get none."""
    found = [scored(SUPPORT, f"r{at}", call("track_order", order_id=f"{at}"), call("track_order", order_id=f"{at}"), at)
             for at in range(right)]  # fmt: skip
    found += [scored(SUPPORT, f"w{at}", call("escalate", reason="x"), REFUND, at) for at in range(wrong)]
    return found + [scored(SUPPORT, f"n{at}", no_tool(), no_tool(), at) for at in range(negatives)]


def beside(found: list[Scored], *others: Baseline) -> list[str]:
    return verdict(standings(found, others))


def test_always_no_tool_is_right_where_no_tool_is_wanted() -> None:
    found = rows(3, 2, negatives=5)
    (standing,) = standings(found, [always_no_tool([one.example for one in found])])
    metrics = standing.metrics

    assert metrics is not None
    assert (metrics["exact_match"].value, metrics["wrong_call_rate"].value) == (0.5, 0.0)
    assert (metrics["missed_call_rate"].value, metrics["valid_tool_call_rate"].value) == (1.0, 1.0)


def test_the_most_frequent_tool_comes_from_training_rows_where_there_are_any() -> None:
    test = [one.example for one in rows(4, 1)]
    training = [one.example for one in rows(1, 3)]

    assert {one.row.output.tool for one in most_frequent_tool(test, None).scored or ()} == {"track_order"}  # type: ignore[union-attr]
    usual = most_frequent_tool(test, training)
    assert [one.row.right for one in usual.scored or ()] == [False] * 4 + [True]
    assert "of the training rows" in usual.about


def test_the_most_frequent_call_that_a_rows_own_catalogue_lacks_is_invalid() -> None:
    from mlx_router.catalogue import Catalogue

    other = Catalogue.from_json([{"name": "sing"}])
    test = [*(one.example for one in rows(2, 0)), scored(other, "sing", call("sing"), no_tool()).example]
    found = most_frequent_tool(test, None).scored

    assert found is not None
    assert [one.row.parsed for one in found] == [True, True, False]


def test_what_can_not_be_measured_says_why() -> None:
    test = [one.example for one in rows(2, 1)]
    nameless = [scored(SUPPORT, NOT_GIVEN, REFUND, REFUND).example]

    assert bag_of_words(test, None).left_out == NO_TRAINING_ROWS
    assert bag_of_words(test, [], "the file is gone").left_out == "the file is gone"
    assert bag_of_words(nameless, test).left_out == "the rows do not hold their requests"
    calls_nothing = [scored(SUPPORT, "hi", no_tool(), no_tool()).example]
    assert most_frequent_tool(calls_nothing, None).left_out == "no row of the test rows wants a call"
    said = beside(rows(2, 1), bag_of_words(test, None))
    assert said == ["No baseline was measured.", f"bag of words was not measured: {NO_TRAINING_ROWS}."]


def test_a_router_that_beats_them_is_told_so() -> None:
    found = rows(40, 2, negatives=10)
    examples = [one.example for one in found]
    said = beside(found, always_no_tool(examples), most_frequent_tool(examples, None))

    assert said == ["The router beats all baselines measured: always no_tool, most frequent tool."]


def test_a_router_that_is_worse_is_told_so() -> None:
    found = rows(2, 10, negatives=30)
    wrong = [scored(SUPPORT, one.example.request, no_tool(), REFUND) for one in found[-30:]]
    found = [*found[:-30], *wrong]
    head, line = beside(found, always_no_tool([one.example for one in found]))

    assert head == "This router does NOT beat every baseline. Not beaten: always no_tool."
    assert line.startswith("always no_tool is right in 0.714 of the rows, the router in 0.048: the router is worse")


def test_better_by_chance_only_is_no_win() -> None:
    found = rows(3, 0)
    (standing,) = standings(found, [always_no_tool([one.example for one in found])])

    assert standing.differences["exact_match"].difference == 1.0
    assert not standing.beaten
    assert "no proof that the router is better" in verdict([standing])[1]


def test_a_router_that_only_copies_better_is_told_so() -> None:
    """More whole decisions right, but the tool is no better chosen than by the baseline."""
    found = rows(30, 0)
    worse = [
        scored(SUPPORT, one.example.request, call("track_order", order_id=str(at)), call("track_order", order_id="?"))
        for at, one in enumerate(found)
    ]
    baseline = untrained_base([Scored(a.example, b.output, b.outcome) for a, b in zip(found, worse, strict=True)], "b")
    head, line = beside(found, baseline)

    assert head.startswith("The router beats the one baseline measured")
    assert line.startswith("untrained base is beaten by whole decisions, but not in choosing the tool")


def test_a_terminal_shows_the_words_and_the_figures() -> None:
    found = support_rows()
    examples = [one.example for one in found]
    text = render_baselines(standings(found, [always_no_tool(examples), bag_of_words(examples, None)]))
    first, second, _, head, ours, theirs = text.splitlines()

    assert first == "baselines: The router beats the one baseline measured: always no_tool."
    assert second.strip() == f"bag of words was not measured: {NO_TRAINING_ROWS}."
    assert head.split() == ["exact_match", "tool_name_accuracy", "wrong_call_rate", "the", "router", "is"]
    assert ours.split()[:2] == ["the", "router"] and float(ours.split()[2]) == pytest.approx(
        sum(one.row.right for one in found) / len(found), abs=5e-4
    )
    assert theirs.startswith("always no_tool") and theirs.endswith("better")


def test_json_holds_every_baseline() -> None:
    found = support_rows(60)
    examples = [one.example for one in found]
    one, other = (
        standing.to_json() for standing in standings(found, [always_no_tool(examples), bag_of_words(examples, None)])
    )

    assert (one["beaten"], other["beaten"]) == (True, None)
    assert other["metrics"] is None and other["left_out"] == NO_TRAINING_ROWS
    gained = one["router_minus_baseline"]["exact_match"]
    assert gained["b"] - gained["a"] == pytest.approx(gained["difference"])
    assert gained["ci95"][0] < gained["difference"] < gained["ci95"][1]
