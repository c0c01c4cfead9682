"""Signature style: how each schema is shown, and that it is read back."""

from typing import Any

import pytest

from mlx_router.catalogue import Catalogue, Tool
from mlx_router.errors import CatalogueError
from mlx_router.prompts import system_message
from mlx_router.signature import parse_signatures, render_signatures, render_tool

BRIEF = (
    "You route customer-support requests to tools. Available tools:\n"
    "- track_order(order_id: str): get the status of an order.\n"
    "- request_refund(order_id: str, reason: str): file a refund.\n"
    "- escalate(reason: str): hand off to a human agent.\n"
    'If no tool fits, respond with {"tool":"no_tool", "reason":"..."}.'
)
STRING = {"type": "string"}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x"]}


def shown(schema: dict[str, Any]) -> str:
    """How a parameter `a` of this schema is shown."""
    return render_tool(Tool("f", "", {"properties": {"a": schema}})).removeprefix("- f(").removesuffix(")")


SHOWN: list[tuple[dict[str, Any], str]] = [
    (STRING, "a?: str"),
    ({"type": "integer", "minimum": 1, "maximum": 9}, "a?: int"),
    ({"type": "number"}, "a?: float"),
    ({"type": "boolean"}, "a?: bool"),
    ({"type": "null"}, "a?: null"),
    ({}, "a?: any"),
    ({"type": "object"}, "a?: object"),
    ({"type": "array"}, "a?: list[any]"),
    ({"type": "array", "items": {"type": "array", "items": STRING}}, "a?: list[list[str]]"),
    ({"type": ["string", "null"]}, "a?: str|null"),
    ({"anyOf": [STRING, {"type": "null"}]}, "a?: str|null"),
    ({"oneOf": [STRING, STRING, {"type": "integer"}]}, "a?: str|int"),
    ({"type": "string", "format": "date"}, "a?: date"),
    ({"type": "string", "format": "date-time"}, "a?: date-time"),
    ({"type": "string", "format": "colour"}, "a?: str"),
    ({"enum": ["low", "high"]}, 'a?: "low"|"high"'),
    ({"enum": [1, 2.5, -3, True, False, None]}, "a?: 1|2.5|-3|true|false|null"),
    ({"enum": [[1, "x"], [2]]}, 'a?: [1,"x"]|[2]'),
    ({"enum": ['a|b)"', "ü\n\u2028"]}, 'a?: "a|b)\\""|"ü\\n\u2028"'),
    ({"const": "x"}, 'a?: "x"'),
    ({**STRING, "default": "x, y) = {"}, 'a: str = "x, y) = {"'),
    ({"type": "integer", "default": 0}, "a: int = 0"),
    ({"type": "array", "items": STRING, "default": []}, "a: list[str] = []"),
    ({"type": "integer", "default": None}, "a?: int"),
    (POINT, "a?: {x: int, y?: int}"),
    ({"type": "array", "items": {"anyOf": [POINT, STRING]}}, "a?: list[{x: int, y?: int}|str]"),
]


@pytest.mark.parametrize(("schema", "text"), SHOWN)
def test_how_a_parameter_is_shown_and_read_back(schema: dict[str, Any], text: str) -> None:
    assert shown(schema) == text
    again = parse_signatures(f"- f({text}): does f.")
    assert again is not None
    assert render_signatures(again) == f"- f({text}): does f."


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("order_id", "order_id"),
        ("größe", "größe"),
        ("a-b.c", "a-b.c"),
        ("a b", '"a b"'),
        ("a?", '"a?"'),
        ('"', '"\\""'),
    ],
)
def test_parameter_names(name: str, text: str) -> None:
    tool = Tool("f", "", {"properties": {name: STRING}, "required": [name]})
    assert render_tool(tool) == f"- f({text}: str)"
    again = parse_signatures(render_tool(tool))
    assert again is not None
    assert again.tools[0].required == (name,)


def test_a_required_parameter_has_no_default_shown() -> None:
    tool = Tool("f", "", {"properties": {"a": {**STRING, "default": "x"}}, "required": ["a"]})
    assert render_tool(tool) == "- f(a: str)"


def test_a_description_is_one_line() -> None:
    tool = Tool("f", "does f:\n\n- g(x: str): not a tool (really)\t.", {})
    assert render_tool(tool) == "- f(): does f: - g(x: str): not a tool (really) ."
    assert render_tool(Tool("f")) == "- f()"


def test_references_are_shown_as_what_they_refer_to() -> None:
    definitions = {"Point": POINT, "Old": {"enum": [1, 2]}}
    properties = {"a": {"$ref": "#/$defs/Point"}, "b": {"$ref": "#/definitions/Old", "description": "x"}}
    tool = Tool("f", "", {"properties": properties, "$defs": definitions, "definitions": definitions})
    assert render_tool(tool) == "- f(a?: {x: int, y?: int}, b?: 1|2)"


def test_a_type_that_refers_to_itself_is_shown_once() -> None:
    """Eight references back would otherwise make forty thousand characters."""
    node = {"type": "object", "properties": {name: {"$ref": "#/$defs/Node"} for name in "abcdefgh"}}
    tool = Tool("f", "", {"properties": {"x": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}})
    fields = ", ".join(f"{name}?: any" for name in "abcdefgh")
    assert render_tool(tool) == f"- f(x?: {{{fields}}})"


def test_the_brief_s_own_example_is_read() -> None:
    catalogue = parse_signatures(BRIEF)

    assert catalogue is not None
    assert catalogue.instructions == "You route customer-support requests to tools."
    assert [(tool.name, tool.required, tool.description) for tool in catalogue] == [
        ("track_order", ("order_id",), "get the status of an order."),
        ("request_refund", ("order_id", "reason"), "file a refund."),
        ("escalate", ("reason",), "hand off to a human agent."),
    ]
    assert [line for line in BRIEF.split("\n") if line.startswith("- ")] == render_signatures(catalogue).split("\n")
    track = catalogue.tools[0]
    assert track.argument_errors({"order_id": "A"}) == []
    assert track.argument_errors({"order_id": 5})


def test_a_system_message_is_read_back_as_the_same_catalogue() -> None:
    tools = tuple(
        Tool(f"f{number}", f"does {text}.", {"properties": {"a": schema}})
        for number, (schema, text) in enumerate(SHOWN)
    )
    for instructions in ("", "You route requests: use one tool."):
        message = system_message(Catalogue(tools, instructions))
        again = parse_signatures(message)
        assert again is not None
        assert again.instructions == instructions
        assert system_message(again) == message


def test_what_is_read_checks_arguments() -> None:
    catalogue = parse_signatures('- f(a: int, b?: list["x"|"y"], c: {d: date} = {"d":"2026-01-02"}, e?: float|null): F')
    assert catalogue is not None
    (tool,) = catalogue
    assert tool.required == ("a",)
    assert tool.argument_errors({"a": 1, "b": ["x", "y"], "c": {"d": "2026-02-03"}, "e": None}) == []
    for bad in (
        {},
        {"a": "1"},
        {"a": 1, "b": ["z"]},
        {"a": 1, "c": {"d": "soon"}},
        {"a": 1, "e": "x"},
        {"a": 1, "g": 1},
    ):
        assert tool.argument_errors(bad), bad


def test_json_schema_s_own_type_names_are_read() -> None:
    catalogue = parse_signatures("- f(a: string, b: integer, c: number, d: boolean, e: dict, f: str|None): F")
    assert catalogue is not None
    assert render_signatures(catalogue) == "- f(a: str, b: int, c: float, d: bool, e: object, f: str|null): F"


@pytest.mark.parametrize(
    "text", ["", "You are helpful.", "- milk\n- bread", "- note (see above): hello", "Use f(x: str)."]
)
def test_text_in_another_style_is_no_catalogue(text: str) -> None:
    assert parse_signatures(text) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("- f(a: str", "')' expected"),
        ("- f(a: strin)", "unknown type 'strin'"),
        ("- f(a: )", "a name expected"),
        ("- f(a: list[str)", "']' expected"),
        ("- f(a: {b: int)", "'}' expected"),
        ("- f(a: bool = True)", "a value expected"),
        ('- f(a: "x)', "a value expected"),
        ("- f(a: str, a: int)", "'a' stands twice"),
        ("- f(a: str, , b: str)", "a name expected"),
        ("- f(a: " + "list[" * 10_000, "recursion"),
        ("- f()\n- f()", "2 tools have this name"),
        ("- no_tool(reason: str)", "rename"),
    ],
)
def test_signatures_that_can_not_be_read(line: str, words: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse_signatures(f"Available tools:\n{line}")
    assert words in caught.value.message
