"""Sample values for schemas of every kind: they validate, and they can be said."""

import re
from random import Random
from typing import Any

import pytest

from mlx_router.catalogue import Tool
from mlx_router.patterns import NoSample, from_pattern
from mlx_router.samples import label, sample_arguments, words


def tool(schema: dict[str, Any], name: str = "value", **more: Any) -> Tool:
    return Tool("do_it", "do it.", {"properties": {name: schema}, "required": [name], **more})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string", "minLength": 40},
        {"type": "string", "maxLength": 3},
        {"type": "string", "enum": ["in_progress", "done"]},
        {"enum": [1, "two", None, True]},
        {"const": "always"},
        {"type": "integer", "minimum": 17, "maximum": 18},
        {"type": "integer", "minimum": 1_000_000},
        {"type": "integer", "maximum": -5},
        {"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6},
        {"type": "integer", "multipleOf": 25, "minimum": 30, "maximum": 60},
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "number", "multipleOf": 0.05, "maximum": 0.5, "minimum": 0.2},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "boolean"},
        {"type": ["integer", "null"]},
        {"type": "null"},
        {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 3}]},
        {"oneOf": [{"type": "string", "format": "date"}, {"type": "integer"}]},
        {
            "allOf": [
                {"properties": {"a": {"type": "integer"}}},
                {"properties": {"b": {"enum": ["x"]}}, "required": ["b"]},
            ]
        },
        {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "items": {"enum": ["a"]}, "minItems": 2, "maxItems": 2},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "minItems": 2, "maxItems": 2},
        {"type": "object", "properties": {"street": {"type": "string"}, "no": {"type": "integer"}}, "required": ["no"]},
        {"$ref": "#/$defs/day"},
        {"type": "string", "pattern": r"^[A-Z]{2}-\d{4}$"},
        {"type": "string", "pattern": r"^(red|green)+[^a-z\s]\w?$", "minLength": 5},
        {"type": "string", "examples": ["like this"]},
        *({"type": "string", "format": name} for name in ("date", "time", "date-time", "email", "uri", "uuid", "ipv4")),
        *({"type": "string", "format": name} for name in ("ipv6", "hostname", "duration", "iri", "idn-email", "regex")),
        *({"type": "string", "format": name} for name in ("json-pointer", "relative-json-pointer", "uri-template")),
        *({"type": "string", "format": name} for name in ("uri-reference", "idn-hostname", "iri-reference")),
    ],
)
def test_samples_fit_their_schema(schema: dict[str, Any]) -> None:
    made = 0
    taker = tool(schema, **{"$defs": {"day": {"type": "string", "format": "date"}}})
    for seed in range(40):
        try:
            samples = sample_arguments(taker, Random(seed))
        except NoSample:
            continue
        made += 1
        assert taker.argument_errors({name: sample.value for name, sample in samples.items()}) == []
        if isinstance(samples["value"].value, str) and not {"const", "enum"} & schema.keys():
            assert samples["value"].said == samples["value"].value
    assert made >= 20


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": r"^(?=.*\d).{8,}$"},
        {"type": "string", "pattern": r"^\p{Lu}+$"},
        {"type": "string", "pattern": "^$"},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"not": {}},
    ],
)
def test_what_can_not_be_sampled_says_so(schema: dict[str, Any]) -> None:
    with pytest.raises(NoSample):
        sample_arguments(tool(schema), Random(0))


def test_a_schema_that_holds_itself() -> None:
    node = {"properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}
    with pytest.raises(NoSample, match="nests deeper"):
        sample_arguments(tool({"$ref": "#/$defs/node"}, **{"$defs": {"node": node}}), Random(0))


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("order_id", r"ORD-\d{4}"),
        ("userId", r"USE-\d{4}"),
        ("email", r"\S+@\S+"),
        ("start_time", r".*(\d|noon|nine).*"),
        ("departure_city", r"[A-Z][a-z]+"),
        ("whatever", r"[A-Z][a-z]+"),
    ],
)
def test_names_of_parameters_hint_at_values(name: str, pattern: str) -> None:
    for seed in range(10):
        sample = sample_arguments(tool({"type": "string"}, name), Random(seed))[name]
        assert re.fullmatch(pattern, sample.value)


def test_optional_parameters_come_and_go_in_the_schemas_order() -> None:
    schema = {"properties": {"b": {"type": "integer"}, "a": {"type": "integer"}}, "required": ["a"]}
    seen = {tuple(sample_arguments(Tool("t", "t", schema), Random(seed))) for seed in range(30)}
    assert seen == {("a",), ("b", "a")}


def test_lists_and_objects_are_said_in_words() -> None:
    tags = {
        "type": "array",
        "items": {"type": "integer", "minimum": 4, "maximum": 5},
        "minItems": 2,
        "uniqueItems": True,
    }
    assert sample_arguments(tool(tags), Random(0))["value"].said in ("4 and 5", "5 and 4")
    address = {"properties": {"houseNumber": {"const": 7}, "zip_code": {"enum": ["A_1"]}}, "required": ["zip_code"]}
    assert sample_arguments(tool(address), Random(0))["value"].said == "zip code A 1"


def test_words_of_names() -> None:
    assert words("order_id") == words("orderId") == words("Order-ID".lower()) == ["order", "id"]
    assert words("parseHTTPResponse2") == ["parse", "HTTP", "response2"]
    assert label("größe.neu") == "größe neu"


@pytest.mark.parametrize(
    "pattern",
    [
        r"[a-f0-9]{8}",
        r"a+b*?c?",
        r"(?:x|y){2,3}",
        r".",
        r"[^abc]",
        r"\D\S\W",
        r"[^\d]-[\w.]+",
        "ä[α-ω]",
        r"^\d+(\.\d\d)?$",
    ],
)
def test_texts_match_their_pattern(pattern: str) -> None:
    for seed in range(30):
        assert re.search(pattern, from_pattern(pattern, Random(seed)))


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?<=a)b"])
def test_patterns_that_can_not_be_filled(pattern: str) -> None:
    with pytest.raises(NoSample):
        from_pattern(pattern, Random(0))
