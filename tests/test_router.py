"""Routing: what a caller gets for a request, what never reaches the model, and what is logged."""

import hashlib
import json
import logging
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from conftest import KNOWN, ScriptedDecoder
from pydantic import AfterValidator, BaseModel

from mlx_router.calls import Decision, Failure, Generation, NoTool, ParseFailure, Timings, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.data import Example
from mlx_router.declared import from_models
from mlx_router.errors import ModelError, RequestError
from mlx_router.interop import catalogue_from_json
from mlx_router.manifest import Base, Manifest
from mlx_router.prompts import MAX_REQUEST_CHARACTERS, system_message
from mlx_router.router import Router

REQUEST = "Where's my order ORD-1234?"
CALL = '{"tool":"track_order","arguments":{"order_id":"ORD-1234"}}'
NO_TOOL = '{"tool":"no_tool","reason":"missing_information: order_id, reason"}'
TIMINGS = Timings(12.5, 10.0, 2.5, 100, 80, 20, 20)
PING = {"name": "ping", "description": "see whether anyone is there.", "parameters": {"properties": {}}}


def routed(answer: str | Generation, catalogue: Catalogue) -> Decision:
    return Router(ScriptedDecoder({REQUEST: answer}), catalogue).route(REQUEST)


def manifest_of(catalogue: Catalogue, **fields: Any) -> Manifest:
    base = Base(name="tiny", model_type="llama", tokenizer_hash="0", template_hash="0")
    values = {"max_tokens": 64, "dtype": "float32", **fields}
    return Manifest(base=base, catalogue=catalogue.to_json(), catalogue_hash=catalogue.hash, **values)


def test_a_call(catalogue: Catalogue) -> None:
    decision = routed(CALL, catalogue)

    assert decision.outcome == ToolCall(tool="track_order", arguments={"order_id": "ORD-1234"})
    assert (decision.tool, decision.arguments) == ("track_order", {"order_id": "ORD-1234"})
    assert (decision.valid, decision.reason, decision.failure, decision.missing) == (True, None, None, ())
    # Whether to act on a call is not known without a calibration.
    assert decision.action is None


def test_a_no_tool(catalogue: Catalogue) -> None:
    decision = routed(NO_TOOL, catalogue)

    assert decision.outcome == NoTool(reason="missing_information: order_id, reason")
    assert (decision.tool, decision.arguments, decision.valid) == ("no_tool", None, True)
    assert (decision.reason, decision.missing) == (
        "missing_information: order_id, reason",
        ("order_id", "reason"),
    )
    assert (decision.failure, decision.action) == (None, "answer")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("I would track the order.", Failure.NOT_JSON),
        ("", Failure.EMPTY),
        ('{"tool":"delete_order","arguments":{"order_id":"ORD-1234"}}', Failure.UNKNOWN_TOOL),
        ('{"tool":"track_order","arguments":{"order_id":1234}}', Failure.BAD_ARGUMENT),
        ('{"tool":"no_tool"}', Failure.NO_REASON),
    ],
)
def test_invalid_output_is_a_value_that_asks_to_rephrase(raw: str, reason: Failure, catalogue: Catalogue) -> None:
    decision = routed(raw, catalogue)

    assert decision.failure is not None
    assert decision.failure.reason is reason
    assert (decision.valid, decision.tool, decision.arguments, decision.reason) == (False, None, None, None)
    assert (decision.action, decision.raw) == ("rephrase", raw)


@pytest.mark.parametrize("text", [CALL, CALL[:-1], NO_TOOL])
def test_a_truncated_answer_is_never_a_decision(text: str, catalogue: Catalogue) -> None:
    decision = routed(Generation(text, finished=False), catalogue)

    assert isinstance(decision.outcome, ParseFailure)
    assert (decision.outcome.reason, decision.action) == (Failure.TRUNCATED, "rephrase")
    assert decision.raw == text


def test_a_call_as_json(catalogue: Catalogue) -> None:
    decision = routed(Generation(CALL, timings=TIMINGS), catalogue)

    assert decision.to_json() == {
        "tool": "track_order",
        "arguments": {"order_id": "ORD-1234"},
        "reason": None,
        "valid": True,
        "failure": None,
        "confidence": None,
        "runner_up": None,
        "weakest_argument": None,
        "grounded": True,
        "p_right": None,
        "catalogue_seen": True,
        "action": None,
        "withheld": None,
        "stopped": None,
        "shortlist": None,
        "overridden": None,
        "overridden_tokens": None,
        "raw": CALL,
        "timings": {
            "total_ms": 12.5,
            "prefill_ms": 10.0,
            "decode_ms": 2.5,
            "prompt_tokens": 100,
            "cached_tokens": 80,
            "output_tokens": 20,
            "forward_passes": 20,
            "batch_size": 1,
        },
    }


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (
            NO_TOOL,
            {
                "tool": "no_tool",
                "arguments": None,
                "reason": "missing_information: order_id, reason",
                "valid": True,
                "failure": None,
                "action": "answer",
            },
        ),
        (
            '{"tool":"pong","arguments":{}}',
            {
                "tool": None,
                "arguments": None,
                "reason": None,
                "valid": False,
                "failure": {"reason": "unknown_tool", "detail": "'pong' is no tool of the catalogue"},
                "action": "rephrase",
            },
        ),
    ],
)
def test_other_decisions_as_json_have_the_same_keys(raw: str, found: dict[str, Any], catalogue: Catalogue) -> None:
    answer = json.loads(json.dumps(routed(raw, catalogue).to_json()))

    assert list(answer) == list(routed(CALL, catalogue).to_json())
    assert {key: answer[key] for key in found} == found
    assert (answer["raw"], answer["timings"]) == (raw, None)


def test_the_model_sees_the_catalogue_and_the_request(catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder({REQUEST: CALL})
    Router(decoder, catalogue, max_tokens=77).route(f"  {REQUEST}\n")

    system = {"role": "system", "content": system_message(catalogue)}
    assert decoder.asked == [((system, {"role": "user", "content": REQUEST}), 77)]


def test_the_style_and_a_system_text_of_its_own_reach_the_model(catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder(otherwise=CALL)
    Router(decoder, catalogue, style="json_schema").route(REQUEST)
    Router(decoder, catalogue, system="You are the router of a shop.").route(REQUEST)

    assert decoder.systems == [system_message(catalogue, "json_schema"), "You are the router of a shop."]


def test_bytes_are_read_as_utf8(catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder({"Où est ma commande ?": CALL})
    assert Router(decoder, catalogue).route("Où est ma commande ?".encode()).valid


def test_another_catalogue_judges_the_answer_and_is_named_unseen(catalogue: Catalogue) -> None:
    other = catalogue_from_json([PING])
    decoder = ScriptedDecoder({"Anyone there?": '{"tool":"ping","arguments":{}}', REQUEST: CALL})
    router = Router(decoder, catalogue, system="a text about the first catalogue")

    ping = router.route("Anyone there?", catalogue=other)
    assert (ping.tool, ping.catalogue_seen) == ("ping", False)
    assert decoder.systems == [system_message(other)]
    wrong = router.route(REQUEST, catalogue=other)
    assert wrong.failure is not None and wrong.failure.reason is Failure.UNKNOWN_TOOL
    # The router's own catalogue is back for the next request.
    assert router.route(REQUEST).to_json()["catalogue_seen"] is True


def test_the_own_catalogue_given_again_is_seen(catalogue: Catalogue) -> None:
    router = Router(ScriptedDecoder({REQUEST: CALL}), catalogue)
    assert router.route(REQUEST, catalogue=Catalogue.from_json(catalogue.to_json())).catalogue_seen is True


@pytest.mark.parametrize(
    "request_",
    [
        "",
        " \t\r\n ",
        "\u00a0\u2003",
        b"",
        b"  \n",
        b"caf\xe9",
        b"\xed\xa0\x80",
        "half a \ud83d face",
        "x" * (MAX_REQUEST_CHARACTERS + 1),
        None,
        7,
    ],
)
def test_what_is_no_request_never_reaches_the_model(request_: Any, catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder(otherwise=CALL)

    with pytest.raises(RequestError, match="the request"):
        Router(decoder, catalogue).route(request_)
    assert decoder.asked == []


def test_the_longest_request_that_is_taken(catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder(otherwise=CALL)
    assert Router(decoder, catalogue).route("x" * MAX_REQUEST_CHARACTERS).valid


def test_a_prompt_too_long_for_the_model_is_the_callers_error(catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder({REQUEST: RequestError("the prompt has 9000 tokens")})
    with pytest.raises(RequestError, match="9000 tokens"):
        Router(decoder, catalogue).route(REQUEST)


def test_the_log_names_an_invalid_output_by_hash_only(catalogue: Catalogue, caplog: pytest.LogCaptureFixture) -> None:
    secret = "My card number is 4111 1111 1111 1111."
    decoder = ScriptedDecoder({secret: '{"tool":"charge","arguments":{"card":"4111 1111"}}'})
    with caplog.at_level(logging.DEBUG, logger="mlx_router"):
        Router(decoder, catalogue).route(f" {secret} ")

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].name == "mlx_router"
    logged = caplog.text
    assert hashlib.sha256(secret.encode()).hexdigest()[:16] in logged
    assert "unknown_tool" in logged
    assert not any(word in logged for word in ("4111", "card", "charge"))


def test_the_log_holds_the_text_where_that_is_wanted(catalogue: Catalogue, caplog: pytest.LogCaptureFixture) -> None:
    decoder = ScriptedDecoder({"Charge my card.": '{"tool":"charge","arguments":{}}'})
    Router(decoder, catalogue, log_requests=True).route("Charge my card.")

    assert "Charge my card." in caplog.text
    assert '{"tool":"charge"' in caplog.text


def test_a_decision_is_not_logged(catalogue: Catalogue, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="mlx_router"):
        routed(CALL, catalogue)
        routed(NO_TOOL, catalogue)
    assert caplog.records == []


def test_dispatch_calls_the_handler_with_json_values(catalogue: Catalogue) -> None:
    decision = routed('{"tool":"request_refund","arguments":{"order_id":"A-1","reason":"broke"}}', catalogue)
    handlers = {"request_refund": lambda order_id, reason: f"{order_id}: {reason}", "track_order": None}
    assert decision.dispatch(handlers) == "A-1: broke"  # type: ignore[arg-type]


def test_dispatch_passes_the_values_of_the_declaring_model() -> None:
    class Nights(BaseModel):
        count: int

    class BookRoom(BaseModel):
        """book a room."""

        day: date
        nights: Nights
        breakfast: bool = False

    booked: dict[str, Any] = {}
    decision = routed(
        '{"tool":"book_room","arguments":{"day":"2026-03-01","nights":{"count":2}}}', from_models(BookRoom)
    )
    decision.dispatch(
        {"book_room": lambda day, nights, breakfast=True: booked.update(day=day, nights=nights, b=breakfast)}
    )

    # The handler's own default holds for what the call does not give.
    assert booked == {"day": date(2026, 3, 1), "nights": Nights(count=2), "b": True}
    assert decision.arguments == {"day": "2026-03-01", "nights": {"count": 2}}


@pytest.mark.parametrize(
    ("raw", "words"),
    [(CALL, "no handler for tool 'track_order'"), (NO_TOOL, "nothing to dispatch"), ("{}", "nothing to dispatch")],
)
def test_without_a_call_or_its_handler_dispatch_is_a_lookup_error(raw: str, words: str, catalogue: Catalogue) -> None:
    with pytest.raises(LookupError, match=words):
        routed(raw, catalogue).dispatch({"escalate": print})


def test_an_error_in_a_handler_is_the_handlers(catalogue: Catalogue) -> None:
    def broken(order_id: str) -> None:
        raise ZeroDivisionError(order_id)

    with pytest.raises(ZeroDivisionError, match="ORD-1234"):
        routed(CALL, catalogue).dispatch({"track_order": broken})


def test_many_requests_keep_their_order(catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder({"one": CALL, "two": "nonsense", "three": NO_TOOL})
    done: list[int] = []
    decisions = Router(decoder, catalogue).route_many(iter(["one", b"two", "three"]), progress=done.append)

    assert [decision.tool for decision in decisions] == ["track_order", None, "no_tool"]
    assert decoder.requests == ["one", "two", "three"]
    assert done == [1, 2, 3]
    assert Router(decoder, catalogue).route_many([]) == []


def test_an_example_is_routed_against_its_own_catalogue(catalogue: Catalogue) -> None:
    other = catalogue_from_json([PING])
    example = Example("Anyone there?", ToolCall(tool="ping", arguments={}), other)
    decoder = ScriptedDecoder({"Anyone there?": '{"tool":"ping","arguments":{}}'})
    decision = Router(decoder, catalogue).route_example(example)

    assert (decision.tool, decision.catalogue_seen) == ("ping", False)
    assert decoder.systems == [system_message(other)]


def test_examples_and_requests_show_the_model_the_same_text(catalogue: Catalogue) -> None:
    """A router that was trained on a system text of its own must be measured with it."""
    decoder = ScriptedDecoder({REQUEST: CALL})
    manifest = manifest_of(catalogue, keep_system=True)
    router = Router(decoder, catalogue, system="You route.", manifest=manifest)
    target = ToolCall(tool="track_order", arguments={"order_id": "ORD-1234"})

    router.route(REQUEST)
    router.route_example(Example(REQUEST, target, catalogue, system="You route."))
    router.route_example(Example(REQUEST, target, catalogue))
    assert decoder.systems == ["You route."] * 3


def test_a_rows_own_system_text_is_only_kept_where_it_was_trained_on(catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder({REQUEST: CALL})
    example = Example(REQUEST, NoTool(reason="x"), catalogue, system="the row's own")
    Router(decoder, catalogue, manifest=manifest_of(catalogue)).route_example(example)
    Router(decoder, catalogue, manifest=manifest_of(catalogue, keep_system=True)).route_example(example)

    assert decoder.systems == [system_message(catalogue), "the row's own"]


def test_a_loaded_router_says_what_it_has_learnt(adapter: Path) -> None:
    router = Router.load(str(adapter))

    assert [tool.name for tool in router.catalogue] == ["track_order", "request_refund", "escalate"]
    for request, target in KNOWN.items():
        decision = router.route(request)
        assert decision.outcome.model_dump() == target  # type: ignore[union-attr]
        assert decision.catalogue_seen is True
    assert decision.timings is not None and decision.timings.cached_tokens > 100


def test_a_folder_can_be_loaded_with_models_for_its_tools(adapter: Path, catalogue: Catalogue) -> None:
    class TrackOrder(BaseModel):
        """get the status of an order."""

        order_id: Annotated[str, AfterValidator(lambda text: text.removeprefix("ORD-"))]

    class RequestRefund(BaseModel):
        """file a refund."""

        order_id: str
        reason: str

    class Escalate(BaseModel):
        """hand off to a human agent."""

        reason: str

    tools = from_models(TrackOrder, RequestRefund, Escalate, instructions=catalogue.instructions)
    decision = Router.load(adapter, catalogue=tools).route(REQUEST)

    assert decision.catalogue_seen is True
    assert decision.dispatch({"track_order": lambda order_id: order_id}) == "1234"
    fewer = from_models(TrackOrder, instructions=catalogue.instructions)
    assert Router.load(adapter, catalogue=fewer).route(REQUEST).catalogue_seen is False


def test_a_folder_is_refused_with_another_base(adapter: Path, tmp_path: Path) -> None:
    from tiny_models import make_model

    other = make_model(tmp_path / "other", "qwen3", seed=1)
    with pytest.raises(ModelError, match=r"another version of .*: weights differ") as caught:
        Router.load(adapter, base=str(other))
    assert caught.value.hint is not None and "--base" in caught.value.hint
