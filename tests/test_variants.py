"""Variants of a catalogue, and rows rewritten to fit them."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from mlx_router.calls import NoTool, Target, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.data import Example
from mlx_router.parsing import parse
from mlx_router.prompts import assistant_text
from mlx_router.variants import unchanged

TIMER = Tool(
    "set_timer",
    "Set a timer; see stop_timer. Takes time_of_day.",
    {
        "properties": {
            "time_of_day": {"type": "string"},
            "unit": {"enum": ["s", "min"], "description": "as time_of_day"},
        },
        "required": ["time_of_day"],
    },
    compare={"time_of_day": "folded"},
)
STOP = Tool("stop_timer", "Stop a timer.", {"properties": {"unit": {"type": "string"}}})
EITHER = Tool(
    "either", "Either or.", {"properties": {"unit": {}, "other": {}}, "dependentRequired": {"unit": ["other"]}}
)
CLOCK = Catalogue((TIMER, STOP), "You route.")


def call(tool: str, **arguments: Any) -> ToolCall:
    return ToolCall(tool=tool, arguments=arguments)


def row(target: Target, *alternatives: Target) -> Example:
    return Example("a timer for ten", target, CLOCK, alternatives=alternatives, system="old text", where="rows:1")


def test_a_row_follows_its_tools_and_parameters_to_their_new_names() -> None:
    variant = unchanged(CLOCK).renamed({"set_timer": "zubo"}, {"time_of_day": "when", "unit": "measure"})
    found = variant.example(row(call("set_timer", time_of_day="ten", unit="s"), call("stop_timer", unit="s")))
    assert found.target == call("zubo", when="ten", measure="s")
    assert found.alternatives == (call("stop_timer", measure="s"),)
    assert (found.where, found.system) == ("rows:1", None)
    for target in (found.target, *found.alternatives):
        assert parse(assistant_text(target), found.catalogue) == target


def test_descriptions_and_rules_of_comparison_follow_too() -> None:
    tool = unchanged(CLOCK).renamed({"stop_timer": "bamo"}, {"time_of_day": "when"}).catalogue.by_name["set_timer"]
    assert tool.description == "Set a timer; see bamo. Takes when."
    assert tool.properties["unit"]["description"] == "as when"
    assert tool.required == ("when",)
    assert tool.compare == {"when": "folded"}


def test_a_variant_keeps_the_reasons_that_the_catalogue_lists() -> None:
    listing = replace(CLOCK, reasons=("out_of_scope", "no_matching_tool"))
    variant = unchanged(listing).without({"stop_timer"}).renamed({"set_timer": "zubo"}, {})
    assert variant.catalogue.reasons == listing.reasons


def test_names_that_may_be_words_stay_in_descriptions() -> None:
    lock = Catalogue((Tool("lock", "Lock the screen."),))
    assert unchanged(lock).renamed({"lock": "zubo"}, {}).catalogue.tools[0].description == "Lock the screen."


def test_parameters_that_a_schema_names_elsewhere_keep_their_names_everywhere() -> None:
    variant = unchanged(Catalogue((STOP, EITHER))).renamed({}, {"unit": "measure", "other": "more"})
    assert [list(tool.properties) for tool in variant.catalogue] == [["unit"], ["unit", "other"]]
    assert variant.target(call("either", unit=1, other=2)) == call("either", unit=1, other=2)


def test_a_call_whose_tool_is_gone_wants_no_tool_unless_an_alternative_is_left() -> None:
    variant = unchanged(CLOCK).without({"set_timer"})
    gone = variant.example(row(call("set_timer", time_of_day="ten")))
    assert gone.target == NoTool(reason="no_matching_tool")
    assert [tool.name for tool in gone.catalogue] == ["stop_timer"]
    other = variant.example(row(call("set_timer", time_of_day="ten"), call("stop_timer"), NoTool(reason="chitchat")))
    assert (other.target, other.alternatives) == (call("stop_timer"), (NoTool(reason="chitchat"),))
    kept = variant.example(row(call("stop_timer"), call("set_timer", time_of_day="ten")))
    assert (kept.target, kept.alternatives) == (call("stop_timer"), ())


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("missing_information: time_of_day", "no_matching_tool"),
        ("missing_information: time_of_day, unit", "no_matching_tool"),
        ("missing_information: unit", "missing_information: measure"),
        ("invalid_parameter: unit", "invalid_parameter: measure"),
        ("missing_information: which of them", "missing_information: which of them"),
        ("missing_information", "missing_information"),
        ("chitchat", "chitchat"),
        ("out_of_scope: unit", "out_of_scope: unit"),
    ],
)
def test_reasons_name_parameters_of_tools_that_are_left(reason: str, expected: str) -> None:
    variant = unchanged(CLOCK).without({"set_timer"}).renamed({}, {"unit": "measure"})
    assert variant.target(NoTool(reason=reason)) == NoTool(reason=expected)


def test_steps_can_follow_each_other() -> None:
    other = Tool("feed_fish", "Feed the fish.")
    variant = unchanged(CLOCK).without({"stop_timer"}).renamed({"set_timer": "zubo"}, {}).joined_by([other], Random(1))
    assert sorted(tool.name for tool in variant.reordered(Random(0)).catalogue) == ["feed_fish", "zubo"]
    assert variant.catalogue.instructions == "You route."
    assert variant.target(call("set_timer", time_of_day="ten")) == call("zubo", time_of_day="ten")


def test_the_order_is_the_seeds() -> None:
    many = unchanged(Catalogue(tuple(Tool(f"tool_{number}", "Do.") for number in range(9))))
    orders = {tuple(tool.name for tool in many.reordered(Random(seed)).catalogue) for seed in range(5)}
    assert len(orders) == 5
    assert all(sorted(order) == sorted(many.tools) for order in orders)
    assert many.reordered(Random(3)).catalogue == many.reordered(Random(3)).catalogue
