"""Catalogues from other people's JSON, from Pydantic models, functions, files and modules; and back."""

import asyncio
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Union

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from mlx_router.calls import Decision, NoTool, ParseFailure, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.errors import CatalogueError
from mlx_router.interop import (
    catalogue_from_json,
    from_functions,
    from_models,
    inspect_json,
    load_catalogue,
    to_mcp,
    to_openai,
)
from mlx_router.parsing import parse
from mlx_router.signature import render_signatures, render_tool

PARAMETERS = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "speed": {"enum": ["slow", "fast"], "default": "slow"}},
    "required": ["order_id"],
}
CANONICAL = {"name": "track_order", "description": "get the status of an order.", "parameters": PARAMETERS}
FUNCTION = {**CANONICAL, "strict": True}
MCP_TOOL = {
    "name": "track_order",
    "title": "Track an order",
    "description": "get the status of an order.",
    "inputSchema": {**PARAMETERS, "title": "track_orderArguments", "$schema": "https://json-schema.org/draft/2020-12"},
    "outputSchema": {"type": "object", "properties": {"result": {"type": "string"}}},
    "annotations": {"readOnlyHint": True},
    "icons": None,
    "execution": {"taskSupport": "forbidden"},
    "_meta": {"x": 1},
}
ANTHROPIC_TOOL = {
    "name": "track_order",
    "description": "get the status of an order.",
    "input_schema": PARAMETERS,
    "cache_control": {"type": "ephemeral"},
}
FORMS: dict[str, Any] = {
    "canonical list": [CANONICAL],
    "canonical object": {"instructions": "", "tools": [CANONICAL]},
    "openai chat": [{"type": "function", "function": FUNCTION}],
    "openai chat in an object": {"tools": [{"type": "function", "function": FUNCTION}]},
    "openai request": {"model": "m", "messages": [], "tools": [{"type": "function", "function": FUNCTION}]},
    "openai responses": [{"type": "function", **FUNCTION}],
    "openai functions": {"functions": [{**CANONICAL, "x": 1}]},
    "mcp result": {"tools": [MCP_TOOL], "nextCursor": None, "_meta": {}},
    "mcp list": [MCP_TOOL],
    "mcp response": {"jsonrpc": "2.0", "id": 1, "result": {"tools": [MCP_TOOL]}},
    "anthropic": {"tools": [ANTHROPIC_TOOL]},
}


def catalogue_error(make: Callable[[], object]) -> CatalogueError:
    with pytest.raises(CatalogueError) as caught:
        make()
    return caught.value


@pytest.mark.parametrize("form", FORMS)
def test_every_json_form_gives_the_same_catalogue(form: str) -> None:
    catalogue = catalogue_from_json(FORMS[form])

    assert catalogue == Catalogue.from_json([CANONICAL])
    assert render_signatures(catalogue) == (
        '- track_order(order_id: str, speed: "slow"|"fast" = "slow"): get the status of an order.'
    )
    assert inspect_json(FORMS[form]) == (catalogue, [])


def test_instructions_are_kept() -> None:
    value = {"instructions": "You route.", "tools": [MCP_TOOL]}
    assert catalogue_from_json(value).instructions == "You route."
    assert catalogue_from_json({"jsonrpc": "2.0", "id": 1, "result": value}).instructions == "You route."


def test_a_tool_without_schema_or_description_takes_no_arguments() -> None:
    for entry in (
        {"type": "function", "function": {"name": "ping"}},
        {"name": "ping", "inputSchema": {"type": "object"}},
    ):
        catalogue, problems = inspect_json([entry])
        assert catalogue is not None
        assert parse('{"tool":"ping","arguments":{}}', catalogue) == ToolCall(tool="ping", arguments={})
        assert isinstance(parse('{"tool":"ping","arguments":{"a":1}}', catalogue), ParseFailure)
        assert [problem.level for problem in problems] == ["warning"]


def test_an_unknown_key_of_our_own_form_is_an_error() -> None:
    assert "unknown key 'strict'" in catalogue_error(lambda: catalogue_from_json([FUNCTION])).message


def test_every_problem_is_named_at_once() -> None:
    value = {
        "tools": [
            {"type": "function", "function": {"name": "no_tool", "description": "x"}},
            {"type": "function", "function": {"name": "has space", "description": "x"}},
            {"type": "function", "function": {"description": "nameless"}},
            {"type": "function", "function": {"name": "a", "description": "x", "parameters": {"type": "strin"}}},
            {"type": "function", "function": {"name": "b", "description": "x", "parameters": []}},
            {"type": "function", "function": {"name": "c"}},
            {"type": "function", "function": {"name": "c", "description": "x"}},
            "text",
        ]
    }
    catalogue, problems = inspect_json(value)

    assert catalogue is None
    errors = [str(problem) for problem in problems if problem.level == "error"]
    for words in ("no_tool", "has space", "tool 3", "'a', parameters", "'b'", "2 tools have this name", "tool 8"):
        assert any(words in error for error in errors), words
    assert [problem.where for problem in problems if problem.level == "warning"] == ["tool 'c'"]
    message = catalogue_error(lambda: catalogue_from_json(value)).message
    assert all(error in message for error in errors)


@pytest.mark.parametrize("value", [None, 5, "text", [], {}, {"tools": {}}, {"tools": []}, {"a": 1}, [[]], [None]])
def test_what_is_no_catalogue_is_an_error(value: object) -> None:
    catalogue, problems = inspect_json(value)
    assert catalogue is None
    assert problems
    catalogue_error(lambda: catalogue_from_json(value))


def test_a_json_rpc_error_is_told_by_its_message() -> None:
    value = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}}
    assert "Method not found" in catalogue_error(lambda: catalogue_from_json(value)).message
    catalogue, problems = inspect_json(value)
    assert catalogue is None
    assert "Method not found" in problems[0].message


def test_a_json_rpc_request_is_no_catalogue() -> None:
    error = catalogue_error(lambda: catalogue_from_json({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
    assert "no result" in error.message


def test_a_page_of_a_longer_list_gives_a_warning() -> None:
    catalogue, problems = inspect_json({"tools": [MCP_TOOL], "nextCursor": "page-2"})
    assert catalogue is not None
    assert [(problem.level, problem.where) for problem in problems] == [("warning", "nextCursor")]


def test_round_trips_keep_the_hash() -> None:
    catalogue = catalogue_from_json({"tools": [MCP_TOOL, {"name": "ping", "inputSchema": {}}]})
    assert catalogue_from_json(json.loads(json.dumps(to_openai(catalogue)))).hash == catalogue.hash
    assert catalogue_from_json(json.loads(json.dumps(to_mcp(catalogue)))).hash == catalogue.hash
    assert catalogue_from_json(json.loads(json.dumps(catalogue.to_json()))).hash == catalogue.hash


def test_what_is_written_for_others_has_their_shape() -> None:
    catalogue = catalogue_from_json([CANONICAL])
    closed = {**PARAMETERS, "additionalProperties": False}
    described = {"name": "track_order", "description": "get the status of an order."}
    assert to_openai(catalogue) == [{"type": "function", "function": {**described, "parameters": closed}}]
    assert to_mcp(catalogue) == {"tools": [{**described, "inputSchema": closed}]}


def mcp_server(name: str) -> Any:
    """A server of the official SDK, whose class was renamed in its version 2."""
    pytest.importorskip("mcp")
    try:
        return importlib.import_module("mcp.server.mcpserver").MCPServer(name)
    except ImportError:
        return importlib.import_module("mcp.server.fastmcp").FastMCP(name)


@pytest.mark.filterwarnings("default")
def test_a_real_mcp_server_loads_and_reads_what_we_write() -> None:
    server = mcp_server("shop")

    @server.tool(title="Ship it")  # type: ignore[untyped-decorator]
    def ship(address: Place, when: date, speed: Literal["slow", "fast"] = "slow") -> str:
        """ship an order."""
        return speed

    results = importlib.import_module("mcp.types").ListToolsResult
    tools = asyncio.run(server.list_tools())
    result = results(tools=tools).model_dump(mode="json", by_alias=True)
    catalogue = catalogue_from_json(result)

    assert render_signatures(catalogue) == (
        '- ship(address: {city: str, zip?: str|null}, when: date, speed: "slow"|"fast" = "slow"): ship an order.'
    )
    assert catalogue_from_json({"jsonrpc": "2.0", "id": 1, "result": result}) == catalogue
    assert results.model_validate(to_mcp(catalogue)).tools[0].name == "ship"


# Pydantic models


class TrackOrder(BaseModel):
    tool: Literal["track_order"]
    arguments: dict = Field(...)  # type: ignore[type-arg]

    class Args(BaseModel):
        order_id: str


class RequestRefund(BaseModel):
    """file a refund."""

    tool: Literal["request_refund"] = "request_refund"
    arguments: dict[str, Any]

    class Args(BaseModel):
        order_id: str
        reason: str


class EscalateArguments(BaseModel):
    """hand off to a human agent."""

    reason: str


class Escalate(BaseModel):
    tool: Literal["escalate"]
    arguments: EscalateArguments


class NoToolModel(BaseModel):
    tool: Literal["no_tool"]
    reason: str


AnyCall = Union[TrackOrder, RequestRefund, Escalate, NoToolModel]  # noqa: UP007


def test_whole_calls_as_models() -> None:
    catalogue = from_models(TrackOrder, RequestRefund, Escalate, NoToolModel, NoTool, instructions="You route.")

    assert catalogue.instructions == "You route."
    assert render_signatures(catalogue).splitlines() == [
        "- track_order(order_id: str)",
        "- request_refund(order_id: str, reason: str): file a refund.",
        "- escalate(reason: str): hand off to a human agent.",
    ]
    call = parse('{"tool":"escalate","arguments":{"reason":"angry"}}', catalogue)
    assert call == ToolCall(tool="escalate", arguments={"reason": "angry"})


def test_plain_models_are_named_by_their_class_or_by_tool_name() -> None:
    class GetHTTPStatus2(BaseModel):
        """Get the status
        of a page.

        More words that the model need not see.
        """

        url: str

    class Renamed(BaseModel):
        tool_name: ClassVar[str] = "pages.search"
        query: str

    assert render_signatures(from_models(GetHTTPStatus2, Renamed)).splitlines() == [
        "- get_http_status2(url: str): Get the status of a page.",
        "- pages.search(query: str)",
    ]


class Unit(Enum):
    """What a temperature is in."""

    CELSIUS = "C"
    FAHRENHEIT = "F"


class Place(BaseModel):
    city: str
    zip: str | None = None


class Forecast(BaseModel):
    """Forecast the weather."""

    place: Place
    day: date
    unit: Unit = Unit.CELSIUS
    hours: Annotated[int, Field(ge=1, le=48, description="how far ahead")] = 24
    tags: list[str] = Field(default_factory=list)
    also: list[Place] | None = None
    detail: Literal["low", "high", None] = None


def test_a_models_schema_is_canonical() -> None:
    (tool,) = from_models(Forecast)

    assert render_tool(tool) == (
        '- forecast(place: {city: str, zip?: str|null}, day: date, unit: "C"|"F" = "C", hours: int = 24, '
        'tags?: list[str], also?: list[{city: str, zip?: str|null}]|null, detail?: "low"|"high"|null): '
        "Forecast the weather."
    )
    assert tool.required == ("place", "day")
    assert list(tool.parameters["$defs"]) == ["Place", "Unit"]
    assert tool.parameters["$defs"]["Place"]["additionalProperties"] is False
    assert "title" not in json.dumps(tool.parameters)
    assert "description" not in tool.parameters


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"day": "2026-01-02"}, "arguments"),
        ({"place": {"town": "Rome"}, "day": "2026-01-02"}, "arguments.place"),
        ({"place": {"city": "Rome"}, "day": "tomorrow"}, "arguments.day"),
        ({"place": {"city": "Rome"}, "day": "2026-02-30"}, "arguments.day"),
        ({"place": {"city": "Rome"}, "day": "2026-01-02", "unit": "K"}, "arguments.unit"),
        ({"place": {"city": "Rome"}, "day": "2026-01-02", "hours": 49}, "arguments.hours"),
        ({"place": {"city": "Rome"}, "day": "2026-01-02", "tags": "x"}, "arguments.tags"),
        ({"place": {"city": "Rome"}, "day": "2026-01-02", "tags": [1]}, "arguments.tags[0]"),
        ({"place": {"city": "Rome"}, "day": "2026-01-02", "hour": 1}, "arguments"),
    ],
)
def test_arguments_that_do_not_fit_a_model(arguments: dict[str, Any], where: str) -> None:
    (tool,) = from_models(Forecast)
    assert where in [error.where for error in tool.argument_errors(arguments)]


def dispatched(catalogue: Catalogue, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The keywords that a handler gets for a call, which must be valid."""
    call = parse(json.dumps({"tool": name, "arguments": arguments}), catalogue)
    assert isinstance(call, ToolCall), call
    tool = catalogue.get(name)
    assert tool is not None
    decision = Decision(call, "", typed_arguments=tool.typed(call.arguments))
    found = decision.dispatch({name: lambda **given: given})
    assert isinstance(found, dict)
    return found


def test_dispatch_passes_typed_values_and_only_what_the_call_gives() -> None:
    given = {"place": {"city": "Rome"}, "day": "2026-01-02", "unit": "F", "also": [{"city": "Oslo", "zip": "1"}]}
    assert dispatched(from_models(Forecast), "forecast", given) == {
        "place": Place(city="Rome"),
        "day": date(2026, 1, 2),
        "unit": Unit.FAHRENHEIT,
        "also": [Place(city="Oslo", zip="1")],
    }


def test_validators_of_the_model_judge_calls() -> None:
    class Book(BaseModel):
        start: date
        end: date
        guests: int = 1

        @field_validator("guests")
        @classmethod
        def even(cls, value: int) -> int:
            return 10 // (value - 3)

        @model_validator(mode="after")
        def ordered(self) -> "Book":
            if self.end < self.start:
                raise ValueError("the end comes before the start")
            return self

    catalogue = from_models(Book)
    backwards = parse('{"tool":"book","arguments":{"start":"2026-01-02","end":"2026-01-01"}}', catalogue)
    assert isinstance(backwards, ParseFailure)
    assert backwards.reason == "bad_argument"
    assert "the end comes before the start" in backwards.detail
    # A validator with a bug of its own, here a division by zero, is no reason for the parser to raise.
    broken = parse('{"tool":"book","arguments":{"start":"2026-01-02","end":"2026-01-03","guests":3}}', catalogue)
    assert isinstance(broken, ParseFailure)
    assert "by zero" in broken.detail


def test_a_strict_model_takes_json_dates_and_enums() -> None:
    class Remind(BaseModel):
        model_config = ConfigDict(strict=True)

        at: datetime
        unit: Unit

    given = {"at": "2026-01-02T03:04:05Z", "unit": "C"}
    assert dispatched(from_models(Remind), "remind", given)["unit"] is Unit.CELSIUS


def test_aliases_are_the_names_in_calls_and_fields_the_names_in_dispatch() -> None:
    class Track(BaseModel):
        order_id: str = Field(alias="orderId")
        speed: str = Field("slow", validation_alias=AliasChoices("velocity", "speed"))

    catalogue = from_models(Track)
    assert render_signatures(catalogue) == '- track(orderId: str, velocity: str = "slow")'
    assert dispatched(catalogue, "track", {"orderId": "A", "velocity": "x"}) == {"order_id": "A", "speed": "x"}

    class ByName(Track):
        model_config = ConfigDict(validate_by_name=True, validate_by_alias=False)

    assert render_signatures(from_models(ByName)) == '- by_name(order_id: str, speed: str = "slow")'
    assert dispatched(from_models(ByName), "by_name", {"order_id": "A"}) == {"order_id": "A"}


def test_an_open_model_passes_what_it_does_not_name() -> None:
    class Log(BaseModel):
        model_config = ConfigDict(extra="allow")

        text: str

    assert dispatched(from_models(Log), "log", {"text": "a", "level": 3}) == {"text": "a", "level": 3}


class Folder(BaseModel):
    name: str
    inside: "list[Folder]" = Field(default_factory=list)


def test_a_model_that_refers_to_itself() -> None:
    catalogue = from_models(Folder)
    assert render_signatures(catalogue) == ("- folder(name: str, inside?: list[{name: str, inside?: list[any]}])")
    given = {"name": "a", "inside": [{"name": "b", "inside": [{"name": "c"}]}]}
    assert dispatched(catalogue, "folder", given)["inside"][0].inside[0].name == "c"
    bad = {"name": "a", "inside": [{"name": "b", "inside": [{"nam": "c"}]}]}
    assert isinstance(parse(json.dumps({"tool": "folder", "arguments": bad}), catalogue), ParseFailure)


def test_models_that_make_no_tool_are_all_named() -> None:
    class Bare(BaseModel):
        tool: Literal["bare"]
        arguments: dict[str, Any]

    class Two(BaseModel):
        tool: Literal["one", "two"]
        arguments: Place

    class Pathed(BaseModel):
        x: int = Field(validation_alias=AliasPath("a", 0))

    class Calls(BaseModel):
        back: Callable[[], None]

    message = catalogue_error(lambda: from_models(Bare, Two, Pathed, Calls, Forecast)).message
    assert message.startswith("4 error(s)")
    for words in ("Bare: what are its arguments?", "Two: its `tool` must be", "pathed, x:", "calls: "):
        assert words in message, words


def test_a_model_of_no_object_is_no_tool() -> None:
    class Names(RootModel[list[str]]):
        pass

    assert "must be of type object" in catalogue_error(lambda: from_models(Names)).message


def test_only_no_tool_is_no_catalogue() -> None:
    assert "no tools" in catalogue_error(lambda: from_models(NoToolModel)).message


# Python functions


class Options(TypedDict):
    loud: bool
    times: NotRequired[int]


@dataclass
class Size:
    width: int
    height: int = 1


def play(
    title: Annotated[str, "what to play"],
    volume: Annotated[int, Field(ge=0, le=100)] = 50,
    when: datetime | None = None,
    unit: Unit = Unit.CELSIUS,
    copy: bool = False,
    options: Options | None = None,
    size: Size | None = None,
    places: list[Place] | None = None,
    price: Decimal = Decimal("1.5"),
    extra: dict[str, int] | None = None,
) -> str:
    """Play a song or
    a film.

    Args:
        title: not this text
        volume (int, optional): how loud: from 0
            to 100
        when: at what time

    Returns:
        str: nothing
    """
    return title


def test_a_functions_hints_and_docstring_declare_a_tool() -> None:
    (tool,) = from_functions(play)

    assert render_tool(tool).startswith(
        '- play(title: str, volume: int = 50, when?: date-time|null, unit: "C"|"F" = "C", copy: bool = false, '
        "options?: {loud: bool, times?: int}|null, size?: {width: int, height: int = 1}|null, "
        "places?: list[{city: str, zip?: str|null}]|null, price: "
    )
    assert tool.description == "Play a song or a film."
    assert tool.required == ("title",)
    described = {name: schema.get("description") for name, schema in tool.properties.items()}
    assert described["title"] == "what to play"
    assert described["volume"] == "how loud: from 0 to 100"
    assert described["when"] == "at what time"
    assert described["unit"] is None
    assert [error.where for error in tool.argument_errors({"title": "x", "volume": 101})] == ["arguments.volume"]
    assert [error.kind for error in tool.argument_errors({"title": "x", "loud": True})] == ["extra"]
    assert tool.argument_errors({"title": "x", "extra": {"a": "b"}})


def test_a_function_is_dispatched_with_typed_values() -> None:
    given = {
        "title": "x",
        "when": "2026-01-02T03:04:05Z",
        "size": {"width": 2},
        "options": {"loud": True},
        "copy": True,
    }
    assert dispatched(from_functions(play), "play", given) == {
        "title": "x",
        "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "size": Size(2, 1),
        "options": {"loud": True},
        "copy": True,
    }


def descriptions(function: Callable[..., object]) -> dict[str, str | None]:
    (tool,) = from_functions(function)
    return {name: schema.get("description") for name, schema in tool.properties.items()}


def test_numpy_docstrings() -> None:
    def move(source: str, target: str, force: bool = False, keep: bool = True) -> None:
        """Move a file.

        Parameters
        ----------
        source, target : str
            where from, where to
        force : bool, optional
            overwrite
            what is there
        keep

        Returns
        -------
        force : int
            not this
        """

    (tool,) = from_functions(move)
    assert tool.description == "Move a file."
    assert descriptions(move) == {
        "source": "where from, where to",
        "target": "where from, where to",
        "force": "overwrite what is there",
        "keep": None,
    }


def test_sphinx_docstrings() -> None:
    def move(source: str, force: bool = False) -> None:
        """Move a file.
        :param str source: where from:
            a path
        :param force: overwrite
        :returns: source
        """

    (tool,) = from_functions(move)
    assert tool.description == "Move a file."
    assert descriptions(move) == {"source": "where from: a path", "force": "overwrite"}


def test_google_docstrings_with_lines_that_only_look_like_parameters() -> None:
    def move(source: str, force: bool = False) -> None:
        """Move a file.
        Args:
          source (Callable[[int], str]): a path, for instance
            force: not this line
          Note: this is said of nothing
          force: overwrite

        Raises:
          source: not this
        """

    (tool,) = from_functions(move)
    assert tool.description == "Move a file."
    assert descriptions(move) == {
        "source": "a path, for instance force: not this line",
        "force": "overwrite",
    }


def test_methods_async_functions_and_parameters_to_leave_out() -> None:
    class Shop:
        def track(self, context: object, order_id: str) -> str:
            """Track."""
            return order_id

        async def ship(self, order_id: str) -> str:
            """Ship."""
            return order_id

    bound = Shop()
    expected = ["- track(order_id: str): Track.", "- ship(order_id: str): Ship."]
    for functions in ((Shop.track, Shop.ship), (bound.track, bound.ship)):
        assert render_signatures(from_functions(*functions, exclude=["context"])).splitlines() == expected


def test_functions_that_make_no_tool_are_all_named() -> None:
    def starred(*names: str, **more: int) -> None: ...
    def untyped(a, b: int) -> None: ...  # type: ignore[no-untyped-def]
    def positional(a: int, /) -> None: ...
    def hidden(_a: int) -> None: ...
    def unresolved(a: "Missing") -> None: ...  # type: ignore[name-defined] # noqa: F821
    def foreign(a: asyncio.Lock) -> None: ...
    def reserved(model_config: int, model_extra: int) -> None: ...

    functions = (starred, untyped, positional, hidden, unresolved, foreign, reserved)
    message = catalogue_error(lambda: from_functions(*functions, lambda x: x)).message

    for words in (
        "starred, parameter 'names': a tool takes named arguments only",
        "starred, parameter 'more': a tool takes named arguments only",
        "untyped, parameter 'a': it has no type hint",
        "positional, parameter 'a': it is positional-only",
        "hidden, parameter '_a': its name begins with an underscore",
        "unresolved: its type hints can't be read: name 'Missing' is not defined",
        "foreign: ",
        "reserved, parameter 'model_config': Pydantic keeps this name",
        "reserved, parameter 'model_extra': Pydantic keeps this name",
        "<lambda>, parameter 'x': it has no type hint",
    ):
        assert words in message, (words, message)
    assert "parameter 'b'" not in message


def test_a_default_that_is_no_json_makes_the_argument_optional() -> None:
    marker = object()

    def find(text: str, limit: int = marker) -> None:  # type: ignore[assignment]
        """Find."""

    assert render_signatures(from_functions(find)) == "- find(text: str, limit?: int): Find."


def test_what_is_neither_model_nor_function_is_refused() -> None:
    things: Any = [5, int, Place(city="Rome")]
    message = catalogue_error(lambda: from_functions(*things)).message
    assert message.startswith("3 error(s)")


# Files and modules


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("form", FORMS)
def test_json_files(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, "tools.json", json.dumps(FORMS[form]))
    assert load_catalogue(path) == load_catalogue(Path(path)) == Catalogue.from_json([CANONICAL])


def test_a_json_file_with_a_byte_order_mark_or_another_suffix(tmp_path: Path) -> None:
    path = write(tmp_path, "tools.txt", "\ufeff" + json.dumps([CANONICAL]))
    assert len(load_catalogue(path)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"tools": [\n  {"name": }\n]}', "line 2, column 12"),
        ("", "line 1, column 1"),
        ('[{"name": "a", "name": "b"}]', "key 'name' stands twice"),
        ('[{"name": "a", "parameters": {"properties": {"x": {"default": NaN}}}}]', "NaN"),
        ('[{"name": 5}]', "needs a name that is text, not 5"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_json_files_that_can_not_be_read_say_where(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, "tools.json", text)
    message = catalogue_error(lambda: load_catalogue(path)).message
    assert message.startswith(f"{path}: ")
    assert words in message


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_bytes(b'[{"name": "\xff"}]')
    assert "utf-8" in catalogue_error(lambda: load_catalogue(path)).message


def test_a_schema_nested_too_deep_is_an_error_like_any_other(tmp_path: Path) -> None:
    schema: dict[str, Any] = {}
    for _ in range(400):
        schema = {"type": "object", "properties": {"x": schema}}
    path = write(tmp_path, "tools.json", json.dumps([{"name": "deep", "parameters": schema}]))
    assert "tool 'deep', parameters: nested too deep" in catalogue_error(lambda: load_catalogue(path)).message


@pytest.mark.parametrize(
    "source", ["nowhere.json", "nowhere.py", "no_such_module_xyz", "no.such.module:TOOLS", "a b", "", "."]
)
def test_a_source_that_is_not_there_gives_a_hint(source: str) -> None:
    error = catalogue_error(lambda: load_catalogue(source))
    assert "there is no such file" in error.message
    assert error.hint is not None
    assert "module:attribute" in error.hint


BRIEF = """
import json
from typing import Literal, Union
from pydantic import BaseModel, Field, ValidationError

class TrackOrder(BaseModel):
    tool: Literal["track_order"]
    arguments: dict = Field(...)
    class Args(BaseModel):
        order_id: str

class Escalate(BaseModel):
    tool: Literal["escalate"]
    arguments: dict
    class Args(BaseModel):
        reason: str

class NoTool(BaseModel):
    tool: Literal["no_tool"]
    reason: str

ToolCall = Union[TrackOrder, Escalate, NoTool]

def parse_tool_call(text: str) -> ToolCall | None:
    return None
"""
BRIEF_SIGNATURES = "- track_order(order_id: str)\n- escalate(reason: str)"


@pytest.mark.parametrize("attribute", ["", ":ToolCall"])
def test_a_python_file_of_whole_calls(tmp_path: Path, attribute: str) -> None:
    """The project's own example: models of calls, their union, and a function that is no tool."""
    source = write(tmp_path, "brief.py", BRIEF) + attribute
    assert render_signatures(load_catalogue(source)) == BRIEF_SIGNATURES


MODELS = """
from __future__ import annotations
from pydantic import BaseModel as Base
from mlx_router.calls import ToolCall

class Common(Base):
    user: str

class Address(Base):
    street: str

class Ship(Common):
    "Ship it."
    address: Address | None = None
    note: list[Note] = []

class Note(Base):
    text: str

class _Private(Base):
    x: int
"""


def test_a_module_of_models_gives_those_that_are_no_part_of_others(tmp_path: Path) -> None:
    catalogue = load_catalogue(write(tmp_path, "models.py", MODELS))
    assert render_signatures(catalogue) == (
        "- ship(user: str, address?: {street: str}|null, note: list[{text: str}] = []): Ship it."
    )


FUNCTIONS = '''
from json import dumps
def add(a: int, b: int = 0) -> int:
    """Add."""
    return a + b
def _helper(x): ...
'''


@pytest.mark.parametrize(
    ("more", "attribute", "names"),
    [
        ("", "", ["add"]),
        ("", ":add", ["add"]),
        ("def sub(a: int) -> int: ...", "", ["add", "sub"]),
        ("def sub(a): ...\n__all__ = ['add']", "", ["add"]),
        ("def sub(a: int) -> int: ...\nTOOLS = [sub]", "", ["sub"]),
        ("def sub(a: int) -> int: ...\nTOOLS = [sub]", ":add", ["add"]),
        ("MINE = (add,)", ":MINE", ["add"]),
        ("class Box:\n    MINE = [add]", ":Box.MINE", ["add"]),
        ("CATALOGUE = [{'type': 'function', 'function': {'name': 'x'}}]", "", ["x"]),
        ("CATALOGUE = {'tools': [{'name': 'x', 'inputSchema': {}}]}", "", ["x"]),
        ("from mlx_router import Catalogue, Tool\nCATALOGUE = Catalogue((Tool('y'),))", "", ["y"]),
        ("from mlx_router import Tool\nTOOLS = [Tool('y'), add]", "", ["y", "add"]),
    ],
)
def test_a_module_names_its_tools(tmp_path: Path, more: str, attribute: str, names: list[str]) -> None:
    source = write(tmp_path, "functions.py", FUNCTIONS + more) + attribute
    assert [tool.name for tool in load_catalogue(source)] == names


def test_a_module_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "shop_for_test"
    package.mkdir()
    write(package, "__init__.py", "")
    write(package, "tools.py", FUNCTIONS + "MINE = [add]")
    monkeypatch.chdir(tmp_path)

    assert [tool.name for tool in load_catalogue("shop_for_test.tools")] == ["add"]
    assert [tool.name for tool in load_catalogue("shop_for_test.tools:MINE")] == ["add"]


def test_a_python_file_may_import_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "neighbour_for_test.py", FUNCTIONS)
    path = write(tmp_path, "tools.py", "import neighbour_for_test as n\nTOOLS = [n.add]")
    assert [tool.name for tool in load_catalogue(path)] == ["add"]


@pytest.mark.parametrize(
    ("text", "attribute", "words"),
    [
        ("x = 1\ny = x / 0\n", "", "raised ZeroDivisionError: division by zero (tools.py, line 2)"),
        ("import no_such_module_xyz", "", "raised ModuleNotFoundError: No module named 'no_such_module_xyz'"),
        ("def f(:\n", "", "raised SyntaxError"),
        ("raise SystemExit(3)", "", "raised SystemExit: 3"),
        ("x = 1", "", "no tools"),
        ("x = 1", ":x", "1 is no Pydantic model and no function"),
        ("TOOLS = []", "", "no tools"),
        ("from pydantic import BaseModel\nclass M(BaseModel): ...\ndef f(): ...", "", "which are the tools?"),
        ("def f(x): ...", "", "f, parameter 'x': it has no type hint"),
        ("TOOLS = [{'name': 5}]", "", "needs a name"),
    ],
)
def test_python_files_that_make_no_catalogue(tmp_path: Path, text: str, attribute: str, words: str) -> None:
    source = write(tmp_path, "tools.py", text) + attribute
    message = catalogue_error(lambda: load_catalogue(source)).message
    assert words in message
    assert "tools.py" in message


def test_a_misspelt_attribute_gets_a_suggestion(tmp_path: Path) -> None:
    source = write(tmp_path, "tools.py", "SUPPORT = []") + ":SUPORT"
    error = catalogue_error(lambda: load_catalogue(source))
    assert "no attribute 'SUPORT'" in error.message
    assert error.hint == "did you mean 'SUPPORT'?"


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "tools.py", f"def {name}(a: int) -> None: ...")
    loaded = [load_catalogue(tmp_path / name / "tools.py").tools[0].name for name in ("one", "two")]
    assert loaded == ["one", "two"]


def test_a_loaded_catalogue_writes_a_file_that_reads_the_same(tmp_path: Path) -> None:
    catalogue = from_models(Forecast, Escalate, instructions="You route.")
    catalogue.save(tmp_path / "catalogue.json")
    again = load_catalogue(tmp_path / "catalogue.json")
    assert again == catalogue
    assert again.instructions == "You route."
    assert isinstance(again.tools[0], Tool)
