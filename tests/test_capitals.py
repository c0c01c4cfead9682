"""Requests in capitals: read in small letters, answered with the values as they were written."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ScriptedDecoder, write_rows
from tiny_models import make_recipe

from mlx_router import Router
from mlx_router.calls import ToolCall
from mlx_router.capitals import as_written, quiet, quiet_target
from mlx_router.catalogue import Catalogue
from mlx_router.data import Example
from mlx_router.interop import catalogue_from_json
from mlx_router.preparing import prepare_run


def call(tool: str, **arguments: Any) -> str:
    return json.dumps({"tool": tool, "arguments": arguments}, separators=(",", ":"))


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        ("WHERE IS MY ORDER ORD-12?", "where is my order ord-12?"),
        ("PLEASE REFUND A-1. ÜBERALL RISSE!", "please refund a-1. überall risse!"),
        ("REFUND eBAY-77 AT ONCE, IT BROKE", "refund ebay-77 at once, it broke"),
        ("Where is my order ORD-12?", "Where is my order ORD-12?"),
        ("track ORD-12-XYZ-ABCDEF", "track ORD-12-XYZ-ABCDEF"),
        ("PDF", "PDF"),
        ("1234 + 5678 = ?", "1234 + 5678 = ?"),
        ("我的订单在哪里", "我的订单在哪里"),
    ],
)
def test_only_a_request_in_capitals_is_shown_in_small_letters(request_: str, shown: str) -> None:
    assert quiet(request_) == shown


def test_every_character_keeps_its_place() -> None:
    # The small form of U+0130 has two characters.
    request = "İSTANBUL FLIGHT TO İZMİR, PLEASE"
    assert len(quiet(request)) == len(request)
    assert quiet(request).endswith("flight to İzmİr, please")


def test_the_model_reads_small_letters_and_the_caller_gets_what_was_written(catalogue: Catalogue) -> None:
    answer = call("request_refund", order_id="ord-7", reason="it broke")
    decoder = ScriptedDecoder({"refund ord-7 please, it broke": answer})
    decision = Router(decoder, catalogue).route("REFUND ORD-7 PLEASE, IT BROKE")
    assert decision.arguments == {"order_id": "ORD-7", "reason": "IT BROKE"}
    assert decision.raw == call("request_refund", order_id="ORD-7", reason="IT BROKE")
    assert decision.grounded is True


def test_other_requests_and_answers_are_left_as_they_are(catalogue: Catalogue) -> None:
    answer = call("track_order", order_id="ord-7")
    decoder = ScriptedDecoder({"Where is ORD-7?": answer, "who are you": "{", "hello there": '{"tool":"no_tool"'})
    router = Router(decoder, catalogue)
    assert router.route("Where is ORD-7?").arguments == {"order_id": "ord-7"}
    assert router.route("WHO ARE YOU").raw == "{"
    assert router.route("HELLO THERE").raw == '{"tool":"no_tool"'


TOOLS = catalogue_from_json(
    {
        "tools": [
            {
                "name": "book",
                "description": "book seats.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"},
                        "class": {"enum": ["economy", "first"]},
                        "names": {"type": "array", "items": {"type": "string"}},
                        "note": {"type": "object", "properties": {"text": {"type": "string"}}},
                    },
                },
            }
        ]
    }
)


def test_values_are_checked_as_they_were_written_and_listed_ones_stay() -> None:
    request = "BOOK LX-318 IN FIRST FOR ANNA AND BO, NOTE: WINDOW SEATS"
    said = {"code": "lx-318", "class": "first", "names": ["anna", "bo", "carl"], "note": {"text": "window seats"}}
    decoder = ScriptedDecoder({quiet(request): call("book", **said)})
    decision = Router(decoder, TOOLS).route(request)
    assert decision.arguments == {
        "code": "LX-318",
        "class": "first",
        "names": ["ANNA", "BO", "carl"],
        "note": {"text": "WINDOW SEATS"},
    }
    assert decision.grounded is False, "nobody spoke of carl"


def test_a_value_is_looked_for_as_whole_words(catalogue: Catalogue) -> None:
    tool = catalogue.get("escalate")
    assert tool is not None
    request = "CALL ME ABOUT wiTHIN THE HOUR, ABOUT IT AND THE BILL I GOT"
    assert as_written(tool, {"reason": "it"}, request, quiet(request)) == {"reason": "IT"}
    assert as_written(tool, {"reason": "ithin"}, request, quiet(request)) == {"reason": "ithin"}


def test_a_target_says_what_the_model_reads(catalogue: Catalogue) -> None:
    gold = ToolCall(tool="request_refund", arguments={"order_id": "ORD-7", "reason": "Not In The Request"})
    shown = quiet_target(gold, catalogue, quiet("REFUND ORD-7 NOW"))
    assert shown == ToolCall(tool="request_refund", arguments={"order_id": "ord-7", "reason": "Not In The Request"})
    unchanged = Example("Refund ORD-7 now", gold, catalogue)
    assert unchanged.as_shown() is unchanged and unchanged.as_shown().target is gold


def test_training_rows_are_shown_as_routing_shows_requests(tmp_path: Path) -> None:
    config = make_recipe(tmp_path)
    gold = {"tool": "track_order", "arguments": {"order_id": "ORD-55"}}
    write_rows(Path(config.train), [{"request": "WHERE IS ORD-55?", "target": gold}] * 4)
    run = prepare_run(config, tmp_path / "unused", lambda event: None)
    text = run.model.chat.tokenizer.decode(run.plan.rows[0].suffix)
    assert "where is ord-55?" in text and '"ord-55"' in text and "ORD-55" not in text
