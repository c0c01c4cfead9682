"""The rules for gold values, one row at a time."""

from typing import Any

import pytest

from mlx_router.calls import NoTool, Target, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.data import Example
from mlx_router.grounding import number_words
from mlx_router.rules import breaches

CATALOGUE = Catalogue(
    (
        Tool(
            "book",
            "book a table.",
            {
                "properties": {
                    "name": {"type": "string"},
                    "people": {"type": "integer", "default": 2},
                    "area": {"enum": ["inside", "outside"], "default": "inside"},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "quiet": {"type": "boolean", "default": False},
                    "guests": {"type": "array", "items": {"$ref": "#/$defs/guest"}},
                    "mood": {"$ref": "#/$defs/mood"},
                },
                "required": ["name"],
                "$defs": {
                    "guest": {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
                    "mood": {"anyOf": [{"enum": ["calm", "lively"]}, {"type": "null"}]},
                },
            },
        ),
        Tool("cancel", "cancel a booking.", {"properties": {"code": {"type": "string"}}, "required": ["code"]}),
    )
)


def codes(request: str, target: Target, *alternatives: Target) -> list[str]:
    return [breach.code for breach in breaches(Example(request, target, CATALOGUE, alternatives))]


def book(**arguments: Any) -> ToolCall:
    return ToolCall(tool="book", arguments=arguments)


def messages(request: str, target: Target) -> list[str]:
    return [breach.message for breach in breaches(Example(request, target, CATALOGUE))]


def test_values_from_the_request_break_nothing() -> None:
    call = book(name="Ada Quill", people=3, area="outside", mood="lively", guests=[{"name": "Bo", "age": 9}])
    assert codes("table for Ada Quill and Bo, three of us, in the garden", call) == []


def test_a_value_that_is_not_in_the_request() -> None:
    assert messages("a table for ada", book(name="Ada")) == ["name 'Ada' is not in the request, which has 'ada'"]
    assert messages("a table for us", book(name="Ada")) == ["name 'Ada' is not in the request"]
    assert codes("a table", book(name="")) == ["value_not_in_request"]


def test_values_within_values() -> None:
    call = book(name="Ada", guests=[{"name": "Bo"}, {"name": "Cy"}], note="by the window")
    assert messages("Ada and Bo", call) == [
        "guests[1].name 'Cy' is not in the request",
        "note 'by the window' is not in the request",
    ]


def test_number_words_may_be_digits() -> None:
    assert codes("cancel number twenty-one", ToolCall(tool="cancel", arguments={"code": "21"})) == []
    assert codes("cancel number two", ToolCall(tool="cancel", arguments={"code": "21"})) == ["value_not_in_request"]
    assert codes("cancel it", ToolCall(tool="cancel", arguments={"code": "9" * 5000})) == ["value_not_in_request"]
    assert [number_words(number) for number in (0, 13, 20, 99, 100)] == [
        "zero",
        "thirteen",
        "twenty",
        "ninety nine",
        "hundred",
    ]


@pytest.mark.parametrize("value", ["because it rains", "since May", "as it rains", "Because I said so"])
def test_reasons_begin_without_because(value: str) -> None:
    assert "leading_because" in codes(f"Ada {value}", book(name="Ada", note=value))


@pytest.mark.parametrize("value", ["As Tears Go By", "assorted", "Sinceriti", "it is as it is"])
def test_what_only_looks_like_because(value: str) -> None:
    assert codes(f"Ada {value}", book(name="Ada", note=value)) == []


def test_defaults_are_not_written_out() -> None:
    assert codes("for Ada", book(name="Ada", people=2, area="inside")) == ["default_written_out"] * 2
    assert codes("for Ada, two people, inside", book(name="Ada", people=2, area="inside")) == []
    assert codes("for Ada, 2 people", book(name="Ada", people=2)) == []
    # Whether a request states a boolean can't be seen from its words.
    assert codes("for Ada", book(name="Ada", quiet=False)) == []


def test_reason_codes() -> None:
    assert codes("hi", NoTool(reason="chitchat")) == []
    assert codes("hi", NoTool(reason="out_of_scope: weather")) == []
    assert messages("hi", NoTool(reason="greeting, no action needed")) == [
        "'greeting, no action needed' is no reason code"
    ]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("missing_information", "unnamed_parameter"),
        ("missing_information: order_id", "unknown_parameter"),
        ("missing_information: name, code", "unknown_parameter"),
        ("missing_information: people, name", "parameter_order"),
        ("invalid_parameter: level", "unknown_parameter"),
    ],
)
def test_reasons_name_parameters(reason: str, code: str) -> None:
    assert codes("book", NoTool(reason=reason)) == [code]


def test_reasons_that_name_parameters_rightly() -> None:
    for reason in ("missing_information: name", "missing_information: name, people", "invalid_parameter: people"):
        assert codes("book", NoTool(reason=reason)) == []


def test_alternatives_are_held_to_the_same_rules() -> None:
    found = list(breaches(Example("Ada", book(name="Ada"), CATALOGUE, (book(name="Bo"), book(name="Ada")))))
    assert [(breach.code, breach.message) for breach in found] == [
        ("value_not_in_request", "alternative: name 'Bo' is not in the request"),
        ("idle_alternative", "an alternative is the same decision as the target"),
    ]
    # Another reason for the same refusal is no idle alternative: codes are compared apart.
    assert codes("hi", NoTool(reason="chitchat"), NoTool(reason="out_of_scope")) == []
    assert codes("hi", NoTool(reason="chitchat"), NoTool(reason="chitchat")) == ["idle_alternative"]
