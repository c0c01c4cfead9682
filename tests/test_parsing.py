"""The parser: every reason of failure, every trap, and never an exception."""

import json
import random
import time
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from mlx_router.calls import Failure, NoTool, ParseFailure, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.interop import from_models
from mlx_router.parsing import MAX_CHARACTERS, MAX_DEPTH, parse, parse_target

CATALOGUE = Catalogue(
    (
        Tool(
            "track_order",
            "get the status of an order.",
            {
                "properties": {
                    "order_id": {"type": "string"},
                    "days": {"type": "integer"},
                    "price": {"type": "number"},
                    "loud": {"type": "boolean"},
                },
                "required": ["order_id"],
            },
        ),
        Tool("ping", "see whether anyone is there."),
        Tool("echo", "say anything.", {"properties": {"value": {}}}),
        Tool("größe.ändern", "change the size.", {"properties": {"größe": {"type": "string"}}}),
    )
)


def failure(text: str, catalogue: Catalogue = CATALOGUE) -> ParseFailure:
    outcome = parse(text, catalogue)
    assert isinstance(outcome, ParseFailure), outcome
    return outcome


def arguments(text: str, catalogue: Catalogue = CATALOGUE) -> dict[str, Any]:
    outcome = parse(text, catalogue)
    assert isinstance(outcome, ToolCall), outcome
    return outcome.arguments


def echo(value: str) -> str:
    """A call whose one argument, of any type, is this piece of JSON."""
    return f'{{"tool":"echo","arguments":{{"value":{value}}}}}'


CALL = '{"tool":"track_order","arguments":{"order_id":"ORD-1234"}}'


def test_a_call() -> None:
    assert parse(CALL, CATALOGUE) == ToolCall(tool="track_order", arguments={"order_id": "ORD-1234"})
    assert parse('{"tool":"ping","arguments":{}}', CATALOGUE) == ToolCall(tool="ping", arguments={})


def test_no_tool() -> None:
    found = parse('{"tool":"no_tool","reason":"missing_information: order_id, reason"}', CATALOGUE)
    assert found == NoTool(reason="missing_information: order_id, reason")
    assert isinstance(found, NoTool)
    assert (found.code, found.missing) == ("missing_information", ("order_id", "reason"))
    other = parse('{"tool":"no_tool","reason":"greeting, no action needed"}', CATALOGUE)
    assert isinstance(other, NoTool)
    assert (other.code, other.missing) == ("greeting, no action needed", ())


def test_white_space_and_key_order_are_free() -> None:
    spaced = '\r\n {\t"arguments" : {"order_id":"ORD-1234"},\n"tool":"track_order"}\n\n'
    assert parse(spaced, CATALOGUE) == parse(CALL, CATALOGUE)


def test_only_json_s_white_space_is_white_space() -> None:
    for mark in ("\u00a0", "\ufeff", "\x0b", "\u2028"):
        assert failure(mark + CALL).reason is Failure.NOT_JSON
        assert failure(CALL + mark).reason is Failure.TRAILING_TEXT


def nested(depth: int) -> str:
    """A call whose value stands `depth` levels deep, the envelope and its arguments included."""
    return echo("[" * (depth - 3) + "0" + "]" * (depth - 3))


TRAPS: dict[Failure, list[str]] = {
    Failure.EMPTY: ["", " ", "\n\t\r "],
    Failure.TOO_LONG: [echo(json.dumps("x" * MAX_CHARACTERS)), "x" * (MAX_CHARACTERS + 1)],
    Failure.NOT_JSON: [
        "I will track your order.",
        "```json\n" + CALL + "\n```",
        "<think></think>" + CALL,
        CALL[:-1],
        CALL[:-10],
        CALL.replace('"', "'"),
        CALL.replace("}}", ",}}"),
        CALL.replace("tool", "to\nol"),
        '{tool:"ping","arguments":{}}',
        '{"tool":"ping","arguments":{}, // x\n}',
        '{"tool":"ping","arguments":None}',
        echo("01"),
        echo("+1"),
        echo(".5"),
        echo("1."),
        echo("0x1F"),
        echo('"\\x41"'),
        echo('"\\u12"'),
        echo('"a\tb"'),
        echo('"\x00"'),
        echo("True"),
    ],
    Failure.TRAILING_TEXT: [
        CALL + CALL,
        CALL + "\n" + CALL,
        CALL + " Done.",
        CALL + "}",
        CALL + "<|im_end|>",
        CALL + "\x00",
        "1 2",
    ],
    Failure.DUPLICATE_KEY: [
        '{"tool":"track_order","tool":"ping","arguments":{}}',
        '{"tool":"ping","arguments":{},"arguments":{}}',
        '{"tool":"track_order","arguments":{"order_id":"A","order_id":"A"}}',
        '{"tool":"track_order","arguments":{"order_id":"A","order\\u005fid":"B"}}',
        echo('[{"a":{"b":1,"b":1}}]'),
    ],
    Failure.BAD_NUMBER: [
        echo("NaN"),
        echo("Infinity"),
        echo("-Infinity"),
        echo("1e999"),
        echo("-1E+999"),
        echo("9" * 400 + ".0"),
        echo("9" * 21),
        echo("-" + "9" * 21),
        echo("9" * 5000),
        "NaN",
    ],
    Failure.TOO_DEEP: [nested(MAX_DEPTH + 1), nested(30_000), "[" * 60_000, '{"a":' * 10_000],
    Failure.LONE_SURROGATE: [
        echo('"\\ud800"'),
        echo('"\\udc00 \\ud800"'),
        echo('{"\\udfff":1}'),
        echo('"\ud83d"'),
        '{"tool":"\\ud800","arguments":{}}',
        '{"tool":"no_tool","reason":"\\ud800"}',
    ],
    Failure.NOT_AN_OBJECT: ["[]", "5", "null", "true", '"track_order"', f"[{CALL}]", json.dumps(CALL)],
    Failure.BAD_ENVELOPE: [
        "{}",
        '{"tool":"ping"}',
        '{"arguments":{}}',
        '{"tool":null,"arguments":{}}',
        '{"tool":["ping"],"arguments":{}}',
        '{"tool":{"name":"ping"},"arguments":{}}',
        '{"name":"ping","arguments":{}}',
        '{"tool":"ping","parameters":{}}',
        '{"tool":"ping","arguments":{},"reason":"x"}',
        '{"tool":"ping","arguments":{},"id":1}',
        '{"tool":"no_tool","reason":"x","arguments":{}}',
        '{"Tool":"ping","arguments":{}}',
    ],
    Failure.UNKNOWN_TOOL: [
        '{"tool":"pong","arguments":{}}',
        '{"tool":"Ping","arguments":{}}',
        '{"tool":" ping","arguments":{}}',
        '{"tool":"","arguments":{}}',
        '{"tool":"NO_TOOL","reason":"x"}',
        '{"tool":"gro\u0308\u00dfe.a\u0308ndern","arguments":{}}',
    ],
    Failure.ARGUMENTS_NOT_AN_OBJECT: [
        '{"tool":"ping","arguments":"{}"}',
        '{"tool":"ping","arguments":[]}',
        '{"tool":"ping","arguments":null}',
        '{"tool":"track_order","arguments":"{\\"order_id\\":\\"A\\"}"}',
    ],
    Failure.MISSING_ARGUMENT: [
        '{"tool":"track_order","arguments":{}}',
        '{"tool":"track_order","arguments":{"days":1}}',
    ],
    Failure.EXTRA_ARGUMENT: [
        '{"tool":"ping","arguments":{"a":1}}',
        '{"tool":"track_order","arguments":{"order_id":"A","orderId":"A"}}',
        '{"tool":"track_order","arguments":{"order_id":"A","":null}}',
    ],
    Failure.BAD_ARGUMENT: [
        '{"tool":"track_order","arguments":{"order_id":1234}}',
        '{"tool":"track_order","arguments":{"order_id":null}}',
        '{"tool":"track_order","arguments":{"order_id":["A"]}}',
        '{"tool":"track_order","arguments":{"order_id":"A","days":null}}',
    ],
    Failure.NO_REASON: [
        '{"tool":"no_tool"}',
        '{"tool":"no_tool","reason":""}',
        '{"tool":"no_tool","reason":" \\n"}',
        '{"tool":"no_tool","reason":null}',
        '{"tool":"no_tool","reason":["x"]}',
    ],
}


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in TRAPS.items() for text in texts])
def test_every_trap_has_its_reason(reason: Failure, text: str) -> None:
    found = failure(text)
    assert found.reason is reason, found
    assert found.detail


def test_every_reason_of_the_parser_is_tested() -> None:
    # Whoever cut the output off, or never asked the model, says so; not the parser.
    assert set(TRAPS) == set(Failure) - {Failure.TRUNCATED, Failure.REFUSED}


def test_the_limits_are_where_they_are_said_to_be() -> None:
    assert isinstance(parse(nested(MAX_DEPTH), CATALOGUE), ToolCall)
    filling = MAX_CHARACTERS - len(echo('""'))
    assert isinstance(parse(echo(json.dumps("x" * filling)), CATALOGUE), ToolCall)
    assert arguments(echo("9" * 20)) == {"value": 10**20 - 1}
    assert arguments(echo("-" + "9" * 20)) == {"value": 1 - 10**20}
    assert arguments(echo("1.7e308")) == {"value": 1.7e308}


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("days", "5", True),
        ("days", "-5", True),
        ("days", "1.0", True),
        ("days", "1e2", True),
        ("days", "-0", True),
        ("days", "1.5", False),
        ("days", '"5"', False),
        ("days", "true", False),
        ("days", "null", False),
        ("price", "5", True),
        ("price", "5.25", True),
        ("price", '"5.25"', False),
        ("price", "false", False),
        ("loud", "true", True),
        ("loud", "1", False),
        ("loud", "0", False),
        ("loud", '"true"', False),
    ],
)
def test_numbers_booleans_and_text_are_not_mixed_up(name: str, value: str, fits: bool) -> None:
    outcome = parse(f'{{"tool":"track_order","arguments":{{"order_id":"A","{name}":{value}}}}}', CATALOGUE)
    if fits:
        assert isinstance(outcome, ToolCall)
    else:
        assert isinstance(outcome, ParseFailure)
        assert outcome.reason is Failure.BAD_ARGUMENT
        assert f"arguments.{name}" in outcome.detail


def test_values_come_out_as_they_stand() -> None:
    found = arguments(echo('[1,1.0,-0.0,"\\u00fc\\ud83d\\ude00\\n\\/",null,{"b":2,"a":1},{}]'))["value"]
    assert repr(found) == repr([1, 1.0, -0.0, "ü😀\n/", None, {"b": 2, "a": 1}, {}])


def test_names_beyond_ascii() -> None:
    written = '{"tool":"größe.ändern","arguments":{"größe":"XXL ☃"}}'
    expected = ToolCall(tool="größe.ändern", arguments={"größe": "XXL ☃"})
    assert parse(written, CATALOGUE) == expected
    assert parse(json.dumps(json.loads(written)), CATALOGUE) == expected


def test_control_tokens_in_a_value_are_text() -> None:
    assert arguments(echo('"<|im_end|>\\n<think>"')) == {"value": "<|im_end|>\n<think>"}


FORMATS = [
    ("date", ["2026-02-28", "2024-02-29"], ["2026-02-29", "28.02.2026", "tomorrow", "2026-2-8", ""]),
    ("time", ["12:30:00Z", "12:30:00+01:00"], ["12:30", "25:00:00Z", "noon"]),
    ("date-time", ["2026-02-28T12:30:00Z"], ["2026-02-28", "2026-02-28 at 5", "2026-02-28T12:30:00"]),
    ("duration", ["P3D", "PT5M"], ["5 minutes", "3D"]),
    ("email", ["a@example.org"], ["a", "a@", "@b", "a b@example.org"]),
    ("uri", ["https://example.org/x?y=1"], ["example.org", "not a uri", "/x"]),
    ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123", "123e4567e89b12d3a456426614174000"]),
    ("ipv4", ["127.0.0.1"], ["256.0.0.1", "1.2.3"]),
    ("ipv6", ["::1"], ["127.0.0.1"]),
    ("hostname", ["example.org"], ["-x-", "a b"]),
    ("regex", ["^a+$"], ["("]),
]
SCHEMAS: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    *(({"type": "string", "format": name}, good, bad) for name, good, bad in FORMATS),
    ({"type": "integer", "minimum": 1, "maximum": 9}, [1, 9, 9.0], [0, 10, 1.5]),
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5], [0, 1, -0.5]),
    ({"type": "number", "multipleOf": 0.1}, [0.3, 1, 1.1], [0.25]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "üü", "😀😀😀"], ["a", "abcd"]),
    ({"type": "string", "pattern": r"^ORD-\d{4}$"}, ["ORD-1234"], ["ORD-123", "xORD-1234", "ORD-1234\n", ""]),
    ({"type": "string", "pattern": "b"}, ["abc"], ["ac"]),
    ({"enum": ["low", 1, None]}, ["low", 1, 1.0, None], ["Low", True, "1", "null"]),
    ({"const": {"a": [1]}}, [{"a": [1.0]}], [{"a": [True]}, {}]),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, [1, None], ["1", 1.5, {}]),
    ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, [1, 5.5], [5, 1.5]),
    ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, [5], [4, 5.5]),
    ({"not": {"type": "string"}}, [1], ["1"]),
    (
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "uniqueItems": True},
        [[1, 2]],
        [[], [1, 1.0], ["1"], 1],
    ),
    ({"type": "array", "prefixItems": [{"type": "string"}], "items": False}, [["a"], []], [["a", "b"], [1]]),
    (
        {
            "type": "object",
            "properties": {"in": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
        },
        [{"in": {"x": 1}}, {}],
        [{"in": {}}, {"in": {"x": 1, "y": 2}}, {"out": 1}, {"in": {"x": True}}, [], None],
    ),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"any": 1}], [{"any": "1"}]),
    (
        {"type": "object", "additionalProperties": True, "properties": {"x": {"type": "integer"}}},
        [{"y": "z"}],
        [{"x": "z"}],
    ),
    ({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}}, [{"a": 1}], [{"A": 1}]),
    ({"type": "object", "minProperties": 1}, [{"a": 1}], [{}]),
]


@pytest.mark.parametrize(("schema", "good", "bad"), SCHEMAS)
def test_values_are_held_against_their_schema(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    catalogue = Catalogue((Tool("f", "does f.", {"properties": {"a": schema}}),))
    for value in good:
        outcome = parse(json.dumps({"tool": "f", "arguments": {"a": value}}), catalogue)
        assert isinstance(outcome, ToolCall), (value, outcome)
    for value in bad:
        outcome = parse(json.dumps({"tool": "f", "arguments": {"a": value}}), catalogue)
        assert isinstance(outcome, ParseFailure), value


def test_what_is_missing_or_extra_within_an_argument_says_where() -> None:
    point = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    catalogue = Catalogue((Tool("f", "does f.", {"properties": {"at": {"type": "array", "items": point}}}),))
    missing = failure('{"tool":"f","arguments":{"at":[{"x":1},{}]}}', catalogue)
    extra = failure('{"tool":"f","arguments":{"at":[{"x":1,"y":2}]}}', catalogue)
    assert (missing.reason, extra.reason) == (Failure.MISSING_ARGUMENT, Failure.EXTRA_ARGUMENT)
    assert "arguments.at[1]" in missing.detail
    assert "arguments.at[0]" in extra.detail


def test_extra_arguments_are_allowed_where_the_schema_says_so() -> None:
    catalogue = Catalogue((Tool("f", "does f.", {"properties": {}, "additionalProperties": True}),))
    assert arguments('{"tool":"f","arguments":{"a":1}}', catalogue) == {"a": 1}


def test_a_model_s_own_validator_is_asked_after_the_schema() -> None:
    class Span(BaseModel):
        first: int
        last: int

        @model_validator(mode="after")
        def ordered(self) -> "Span":
            if self.last < self.first:
                raise ValueError("last before first")
            return self

    catalogue = from_models(Span)
    assert arguments('{"tool":"span","arguments":{"first":1,"last":2.0}}', catalogue) == {"first": 1, "last": 2.0}
    found = failure('{"tool":"span","arguments":{"first":2,"last":1}}', catalogue)
    assert found.reason is Failure.BAD_ARGUMENT
    assert "last before first" in found.detail
    # Pydantic alone would take the text "2" for a number.
    assert failure('{"tool":"span","arguments":{"first":1,"last":"2"}}', catalogue).reason is Failure.BAD_ARGUMENT


@pytest.mark.parametrize(
    "pattern",
    [r"^(a+)+$", r"^(a|aa)+$", r"^(?=(a+)+$)a*b$", r"^(a|aa)+\1$", r"^(a*)*b\1$", r"^(.*a){25}$", r"^(?:a?){40}a{40}$"],
)
def test_no_pattern_hangs_the_parser(pattern: str) -> None:
    catalogue = Catalogue((Tool("f", "does f.", {"properties": {"a": {"type": "string", "pattern": pattern}}}),))
    started = time.perf_counter()
    outcome = parse(json.dumps({"tool": "f", "arguments": {"a": "a" * 30_000 + "!"}}), catalogue)
    assert isinstance(outcome, ParseFailure)
    assert time.perf_counter() - started < 5


def test_long_output_is_judged_in_linear_time() -> None:
    worst = ["[" * 65_000, echo("1" * 65_000), echo("[" + "1," * 30_000), echo("0." + "1" * 65_000), '{"a":' * 13_000]
    started = time.perf_counter()
    for text in worst:
        parse(text, CATALOGUE)
    unique = Catalogue((Tool("f", "does f.", {"properties": {"a": {"type": "array", "uniqueItems": True}}}),))
    parse(json.dumps({"tool": "f", "arguments": {"a": list(range(10_000))}}), unique)
    assert time.perf_counter() - started < 5


def test_a_decoded_target_is_held_against_the_same_rules() -> None:
    assert parse_target(json.loads(CALL), CATALOGUE) == parse(CALL, CATALOGUE)
    assert parse_target({"tool": "no_tool", "reason": "greeting"}, CATALOGUE) == NoTool(reason="greeting")
    deep: Any = 0
    for _ in range(5000):
        deep = [deep]
    for value, reason in (
        (CALL, Failure.NOT_AN_OBJECT),
        (None, Failure.NOT_AN_OBJECT),
        ({"tool": "pong", "arguments": {}}, Failure.UNKNOWN_TOOL),
        ({"tool": "echo", "arguments": {"value": float("nan")}}, Failure.BAD_NUMBER),
        ({"tool": "echo", "arguments": {"value": 10**400}}, Failure.BAD_NUMBER),
        ({"tool": "echo", "arguments": {"value": "\ud800"}}, Failure.LONE_SURROGATE),
        ({"tool": "echo", "arguments": {"value": deep}}, Failure.TOO_DEEP),
        ({"tool": "echo", "arguments": {"value": b"bytes"}}, Failure.NOT_JSON),
        ({"tool": "echo", "arguments": {"value": {(1, 2): 3}}}, Failure.NOT_JSON),
    ):
        outcome = parse_target(value, CATALOGUE)
        assert isinstance(outcome, ParseFailure), value
        assert outcome.reason is reason, outcome


SEEDS = [
    CALL,
    '{"tool":"no_tool","reason":"missing_information: order_id"}',
    echo('[{"a":[1,-2.5e3,true,null,"\\u00fc\\ud83d\\ude00"]}]'),
    '{"tool":"track_order","arguments":{"order_id":"ü","days":3,"price":1.5,"loud":false}}',
]
PIECES = [
    '"',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "0",
    "-",
    "e",
    ".",
    "\\ud800",
    "\\u",
    "null",
    "NaN",
    "\x00",
    "\ud83d",
    "<|im_end|>",
    "tool",
]


def mutated(text: str, chance: random.Random) -> str:
    """The text with a few characters dropped, doubled, replaced, or moved about."""
    for _ in range(chance.randint(1, 6)):
        start, end = sorted(chance.randint(0, len(text)) for _ in range(2))
        piece = chance.choice([*PIECES, text[start:end], "", chr(chance.randint(0, 0x10FFFF))])
        cut = chance.choice([start, min(start + 1, len(text)), end])
        text = text[:start] + piece + text[cut:]
    return text


def check_outcome(text: str) -> bool:
    """Whether the text is valid; an outcome is always a value that round-trips through JSON."""
    outcome = parse(text, CATALOGUE)
    if isinstance(outcome, ParseFailure):
        assert isinstance(outcome.reason, Failure)
        return False
    assert parse(json.dumps(outcome.model_dump()), CATALOGUE) == outcome
    json.dumps(outcome.model_dump(), allow_nan=False, ensure_ascii=False).encode()
    return True


def test_the_parser_never_raises() -> None:
    chance = random.Random(7)
    valid = 0
    for _ in range(20_000):
        valid += check_outcome(mutated(chance.choice(SEEDS), chance))
    for _ in range(5_000):
        check_outcome(bytes(chance.choices(range(256), k=chance.randint(0, 60))).decode("latin-1"))
        check_outcome("".join(chance.choices(PIECES, k=chance.randint(0, 30))))
    # Some mutations must have left a valid call, or nothing but rejection was tried.
    assert valid > 100


def random_json(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randint(0, 8 if depth < 4 else 5)
    if kind <= 5:
        scalars = (None, True, 0, -1.5, "x", chance.choice(["tool", "ping", "no_tool", "ORD-1", "\ud800"]))
        return scalars[kind]
    if kind == 6:
        return [random_json(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    keys = chance.choices(["tool", "arguments", "reason", "order_id", "value", "\udfff", ""], k=chance.randint(0, 3))
    return {key: random_json(chance, depth + 1) for key in keys}


def test_no_json_value_makes_the_parser_raise() -> None:
    chance = random.Random(8)
    for _ in range(5_000):
        value = random_json(chance)
        check_outcome(json.dumps(value))
        check_outcome(json.dumps({"tool": chance.choice(["track_order", "echo", "ping"]), "arguments": value}))
        outcome = parse_target({"tool": "echo", "arguments": {"value": value}}, CATALOGUE)
        surrogate = "\\ud800" in json.dumps(value) or "\\udfff" in json.dumps(value)
        assert isinstance(outcome, ParseFailure) == surrogate
