"""The catalogue: canonical form, problems, hash, look-up, and arguments held against schemas."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_router.catalogue import Catalogue, Tool, union
from mlx_router.errors import CatalogueError

TRACK = {
    "name": "track_order",
    "description": "get the status of an order.",
    "parameters": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "days": {"type": "integer", "default": 3}},
        "required": ["order_id"],
    },
}
PING = {"name": "ping", "description": "see whether anyone is there."}


def tool(parameters: dict[str, Any]) -> Tool:
    return Tool("f", "does f.", parameters)


def messages(value: object) -> str:
    with pytest.raises(CatalogueError) as caught:
        Catalogue.from_json(value)
    return caught.value.message


def reordered(schema: Any) -> Any:
    """The same schema with its keywords, but not its properties, the other way round."""
    if not isinstance(schema, dict):
        return schema
    turned = {key: reordered(schema[key]) for key in reversed(schema)}
    if "properties" in turned:
        turned["properties"] = {name: reordered(child) for name, child in schema["properties"].items()}
    return turned


def test_look_up_and_iteration() -> None:
    catalogue = Catalogue.from_json([TRACK, PING])

    assert [one.name for one in catalogue] == ["track_order", "ping"]
    assert len(catalogue) == 2
    assert "ping" in catalogue
    assert "pong" not in catalogue
    found = catalogue.get("track_order")
    assert found is not None
    assert (found.required, list(found.properties)) == (("order_id",), ["order_id", "days"])
    assert catalogue.get("pong") is None


def test_the_order_of_keywords_is_free_and_that_of_tools_and_parameters_is_not() -> None:
    catalogue = Catalogue.from_json([TRACK, PING])
    same = Catalogue.from_json([reordered(TRACK), reordered(PING)])
    assert (same, same.hash, hash(same)) == (catalogue, catalogue.hash, hash(catalogue))

    properties = dict(reversed(TRACK["parameters"]["properties"].items()))  # type: ignore[index]
    turned = {**TRACK, "parameters": {**TRACK["parameters"], "properties": properties}}  # type: ignore[dict-item]
    for other in ([PING, TRACK], [turned, PING], {"instructions": "x", "tools": [TRACK, PING]}, [TRACK]):
        assert Catalogue.from_json(other) != catalogue


def test_titles_and_schema_urls_do_not_change_the_hash_but_a_property_called_title_does() -> None:
    plain = tool({"properties": {"title": {"type": "string"}}})
    noisy = tool({"$schema": "x", "title": "F", "properties": {"title": {"type": "string", "title": "Title"}}})
    assert noisy == plain
    assert list(plain.properties) == ["title"]
    assert tool({"properties": {"default": {"type": "string", "default": {"title": 1}}}}).properties == {
        "default": {"type": "string", "default": {"title": 1}}
    }


def test_the_canonical_form_of_a_canonical_form_is_itself(tmp_path: Path) -> None:
    catalogue = Catalogue.from_json({"instructions": "You route – über alles.", "tools": [TRACK, PING]})
    catalogue.save(tmp_path / "catalogue.json")
    text = (tmp_path / "catalogue.json").read_text(encoding="utf-8")

    assert "–" in text
    again = Catalogue.from_json(json.loads(text))
    assert again.to_json() == catalogue.to_json()
    assert again.hash == catalogue.hash


def test_the_hash_is_stable_over_versions() -> None:
    # Adapters are refused when their catalogue's hash no longer holds: a change here breaks every one of them.
    assert Catalogue.from_json([TRACK, PING]).hash == (
        "51ddc52432491c344b14ffa7df5ab82ad4ca0d3ef62efd3e77748871276afbc8"
    )


def test_objects_are_closed_unless_they_say_otherwise() -> None:
    nested = {"type": "object", "properties": {"a": {"type": "integer"}}}
    closed = tool({"properties": {"x": nested, "y": {"type": "array", "items": nested}}})
    assert [error.kind for error in closed.argument_errors({"z": 1})] == ["extra"]
    assert [error.where for error in closed.argument_errors({"x": {"b": 1}})] == ["arguments.x"]
    assert [error.where for error in closed.argument_errors({"y": [{}, {"b": 1}]})] == ["arguments.y[1]"]
    free = tool({"properties": {"x": {"type": "object"}}, "additionalProperties": {"type": "integer"}})
    assert free.argument_errors({"x": {"anything": 1}, "more": 2}) == []
    assert [error.where for error in free.argument_errors({"more": "2"})] == ["arguments.more"]
    patterned = tool({"properties": {"a": {}}, "patternProperties": {"^x": {"type": "integer"}}})
    assert patterned.argument_errors({"a": 1, "x1": 2}) == []
    assert patterned.argument_errors({"x1": "2"})


REQUIRE_ONE = {
    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
    "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
}
ALTERNATIVES = {
    "oneOf": [
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"properties": {"b": {"type": "string"}}, "required": ["b"]},
    ]
}
OPTIONAL_OBJECT = {
    "properties": {"x": {"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "null"}]}},
}
WRAPPED_REFERENCE = {
    "properties": {"x": {"allOf": [{"$ref": "#/$defs/A"}], "description": "an A"}},
    "$defs": {"A": {"type": "object", "properties": {"a": {}}}},
}
ROOT_REFERENCE = {
    "$ref": "#/definitions/F",
    "definitions": {"F": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
}
INHERITANCE = {
    "properties": {
        "x": {"allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]}
    },
    "$defs": {"Base": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
}
BY_KIND = {
    "properties": {"kind": {"enum": ["p", "q"]}},
    "oneOf": [
        {"properties": {"kind": {"const": "p"}, "x": {"type": "integer"}}, "required": ["x"]},
        {"properties": {"kind": {"const": "q"}, "y": {"type": "integer"}}, "required": ["y"]},
    ],
}
CONDITION = {
    "properties": {"k": {"type": "string"}},
    "if": {"properties": {"k": {"const": "a"}}},
    "then": {"properties": {"z": {"type": "integer"}}, "required": ["z"]},
}


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        (REQUIRE_ONE, {"a": "1"}, [{}, {"a": "1", "c": 1}]),
        (ALTERNATIVES, {"b": "1"}, [{}, {"c": "1"}, {"a": "1", "c": 1}]),
        (OPTIONAL_OBJECT, {"x": {"a": 1}}, [{"x": {"b": 1}}, {"y": None}]),
        (WRAPPED_REFERENCE, {"x": {"a": 1}}, [{"x": {"b": 1}}]),
        (ROOT_REFERENCE, {"a": "1"}, [{}, {"a": 1}, {"a": "1", "b": 1}]),
        (INHERITANCE, {"x": {"a": 1, "b": 2}}, [{"x": {"a": 1}}, {"x": {"b": 1}}]),
        (BY_KIND, {"kind": "p", "x": 1}, [{"kind": "p", "y": 1}, {"kind": "r", "x": 1}]),
        (CONDITION, {"k": "a", "z": 1}, [{"k": "a"}]),
    ],
)
def test_closing_never_shuts_out_what_the_schema_allows(
    schema: dict[str, Any], fits: dict[str, Any], does_not: list[dict[str, Any]]
) -> None:
    one = tool(schema)
    assert one.argument_errors(fits) == []
    assert all(one.argument_errors(arguments) for arguments in does_not)


def test_a_reference_at_the_root_shows_its_parameters() -> None:
    assert tool(ROOT_REFERENCE).required == ("a",)
    assert list(tool(ROOT_REFERENCE).properties) == ["a"]


def test_the_kind_of_an_error_tells_missing_extra_and_bad_apart() -> None:
    track = Catalogue.from_json([TRACK]).tools[0]

    def kinds(arguments: dict[str, Any]) -> list[str]:
        return sorted(error.kind for error in track.argument_errors(arguments))

    assert kinds({"order_id": "A"}) == []
    assert kinds({}) == ["missing"]
    assert kinds({"order_id": "A", "x": 1}) == ["extra"]
    assert kinds({"order_id": 5}) == ["bad"]
    assert kinds({"days": "3", "x": 1}) == ["bad", "extra", "missing"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([{"name": "no_tool", "description": "x"}], "rename the tool"),
        ([{"name": "", "description": "x"}], "not a usable name"),
        ([{"name": "a b", "description": "x"}], "not a usable name"),
        ([{"name": "a(b", "description": "x"}], "not a usable name"),
        ([{"name": "x" * 129, "description": "x"}], "not a usable name"),
        ([{"name": None}], "needs a name that is text, not None"),
        ([{"description": "x"}], "needs a name that is text"),
        ([{"name": "a", "description": 5}], "description must be text, not 5"),
        ([{"name": "a", "parameters": "x"}], "parameters must be a JSON Schema object"),
        ([{"name": "a", "parameters": {"type": "strin"}}], "no valid JSON Schema"),
        ([{"name": "a", "parameters": {"type": "string"}}], "must be of type object"),
        ([{"name": "a", "parameters": {"properties": {"x": {"type": "strin"}}}}], "no valid JSON Schema"),
        ([{"name": "a", "parameters": {"properties": {"x": {"pattern": "("}}}}], "no valid JSON Schema"),
        ([{"name": "a", "parameters": {"properties": []}}], "no valid JSON Schema"),
        ([{"name": "a", "parameters": {"required": "x"}}], "no valid JSON Schema"),
        ([{"name": "a", "parameters": {"anyOf": 5, "$defs": 5}}], "no valid JSON Schema"),
        ([{"name": "a", "parameters": {"properties": {"x": {"$ref": "#/$defs/X"}}}}], "'/$defs/X' does not exist"),
        ([{"name": "a", "parameters": {"properties": {"x": {"$ref": "http://localhost/x"}}}}], "no valid JSON Schema"),
        ([{"name": "a", "parameters": {"required": ["x"]}}], "'x' is required, but it is no property"),
        (
            [{"name": "a", "parameters": {"properties": {"x": {"properties": {}, "required": ["y"]}}}}],
            "parameters.x: 'y' is required",
        ),
        ([TRACK, TRACK], "2 tools have this name"),
        ([{**TRACK, "strict": True}], "unknown key 'strict'"),
        ({"tools": [TRACK], "tool": []}, "unknown key 'tool'"),
        ({"tools": [TRACK], "instructions": 5}, "instructions: must be text, not 5"),
        ({"tools": TRACK}, "must be a list"),
        ([], "no tools"),
        ("tools", "must be a list"),
        (None, "must be a list"),
    ],
)
def test_errors(value: object, words: str) -> None:
    assert words in messages(value)


def test_all_errors_are_named_at_once() -> None:
    value = {
        "instruction": "x",
        "tools": [
            {"name": "no_tool"},
            {"name": "a", "parameters": {"type": "strin"}},
            {"name": "b", "unknown": 1, "description": 5},
            7,
            TRACK,
            TRACK,
        ],
    }
    text = messages(value)
    assert text.startswith("the catalogue has 7 error(s)")
    for words in ("'instruction'", "rename", "'a', parameters", "'unknown'", "not 5", "tool 4", "2 tools"):
        assert words in text, words


def test_tools_made_in_python_are_judged_as_well() -> None:
    with pytest.raises(CatalogueError, match="not a usable name"):
        Catalogue((Tool("a b"),))
    with pytest.raises(CatalogueError, match="no tools"):
        Catalogue(())


def test_warnings_do_not_stop_a_catalogue() -> None:
    catalogue = Catalogue(
        (
            Tool("a"),
            Tool("b", "B.", {"properties": {"x": {"type": "string", "format": "colour", "widget": "picker"}}}),
        )
    )
    found = [(problem.level, problem.where, problem.message) for problem in catalogue.problems()]
    assert [level for level, _, _ in found] == ["warning"] * 3
    assert {where for _, where, _ in found} == {"tool 'a'", "tool 'b', parameters.x"}
    assert any("'colour'" in message for _, _, message in found)
    assert any("'widget'" in message for _, _, message in found)


def test_a_schema_that_refers_to_itself_in_a_circle_does_not_hang() -> None:
    circle = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    one = tool({**circle, "properties": {"x": {"$ref": "#/$defs/a"}}})
    assert one.argument_errors({"x": 1}) == []
    assert one.argument_errors({"y": 1})


def test_a_union_keeps_the_order_and_the_common_instructions() -> None:
    one = Catalogue.from_json({"instructions": "x", "tools": [TRACK, PING]})
    other = Catalogue.from_json({"instructions": "x", "tools": [PING, {"name": "pong"}]})

    both = union([one, other])
    assert [tool.name for tool in both] == ["track_order", "ping", "pong"]
    assert both.instructions == "x"
    assert union([one, Catalogue(other.tools, "y")]).instructions == ""
    assert union([one]) == one


def test_a_union_of_two_declarations_of_one_name_is_refused() -> None:
    one, other = (Catalogue((Tool("a", words),)) for words in ("A.", "Another."))
    with pytest.raises(CatalogueError, match="'a' is declared in two different ways") as caught:
        union([one, other])
    assert caught.value.hint is not None
