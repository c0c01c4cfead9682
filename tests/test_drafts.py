"""Drafts: what is proposed, and that a whole answer can be reached through its own continuations."""

import json
from dataclasses import replace

import pytest

from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.drafts import HEAD, Drafter
from mlx_router.prompts import assistant_text

TEXT = {"type": "string"}
ORDER = {"properties": {"order_id": TEXT}, "required": ["order_id"]}
CATALOGUE = Catalogue(
    (
        Tool("track_order", "get the status of an order.", ORDER),
        Tool(
            "request_refund",
            "file a refund.",
            {"properties": {"order_id": TEXT, "reason": TEXT}, "required": ["order_id", "reason"]},
        ),
        Tool(
            "set_timer",
            "start a countdown.",
            {
                "properties": {
                    "amount": {"type": "integer"},
                    "unit": {"enum": ["seconds", "minutes"]},
                    "label": TEXT,
                    "loud": {"type": "boolean"},
                },
                "required": ["amount", "unit"],
            },
        ),
        Tool("lock_screen", "lock the screen."),
    )
)


def draft(request: str, answer: str) -> str:
    return Drafter(CATALOGUE, request).continuation(answer)


def passes(request: str, answer: str) -> int:
    """Forward passes if a token were a character: each adds what was guessed right and one more character."""
    at = count = 0
    while at < len(answer):
        guess = draft(request, answer[:at])
        right = next((k for k, char in enumerate(guess) if answer[at + k : at + k + 1] != char), len(guess))
        at, count = at + right + 1, count + 1
    return count


def test_the_tool_whose_words_the_request_has_is_guessed_first() -> None:
    assert draft("please refund A-1, it broke", "").startswith(f'{HEAD}request_refund","arguments":{{"order_id":"')
    assert draft("lock the screen now", "") == f'{HEAD}lock_screen","arguments":{{}}}}'


def test_a_name_that_has_begun_is_ended_with_one_of_the_catalogue() -> None:
    assert draft("anything", f"{HEAD}set_").startswith('timer","arguments":{"amount":')
    assert draft("anything", f"{HEAD}no").startswith('_tool","reason":"')
    assert draft("anything", f"{HEAD}unheard_of") == ""


def test_the_one_code_of_a_request_is_guessed_as_an_identifier() -> None:
    assert draft("where is ORD-1234?", f'{HEAD}track_order","arguments":{{').startswith('"order_id":"ORD-1234')
    # Of two codes neither is guessed.
    assert draft("not A1, I mean B2", f'{HEAD}track_order","arguments":{{') == '"order_id":"'


def test_numbers_and_enums_of_the_request_are_guessed() -> None:
    answer = f'{HEAD}set_timer","arguments":{{'
    assert draft("wake me in 20 minutes", answer) == '"amount":20'
    assert draft("wake me in 20 minutes", f'{answer}"amount":20') == ',"unit":"minutes"'
    assert draft("wake me in 20 minutes", f'{answer}"amount":20,"unit":"mi') == 'nutes"}}'


def test_a_value_that_has_begun_goes_on_with_the_request_s_words() -> None:
    begun = f'{HEAD}request_refund","arguments":{{"order_id":"A1","reason":"it'
    assert draft('refund A1, it says "no" and broke', begun) == ' says \\"no\\" and broke'
    # "it" within a word is no beginning.
    assert draft("refund A1, the kit is broken", begun) == ""


def test_arguments_that_are_given_are_not_asked_for_again() -> None:
    begun = f'{HEAD}request_refund","arguments":{{"reason":"late"'
    assert draft("late", begun).startswith(',"order_id":"')
    assert draft("late", f'{begun},"order_id":"A1"') == "}}"
    assert draft("late", f'{begun},"order_id":"A1"}}') == "}"
    assert draft("late", f'{begun},"order_id":"A1"}}}}') == ""


def test_an_optional_parameter_that_has_begun_is_ended() -> None:
    begun = f'{HEAD}set_timer","arguments":{{"amount":1,"unit":"minutes","la'
    assert draft("tea", begun) == 'bel":"'


def test_reasons_are_guessed_by_their_codes() -> None:
    assert draft("hi", f'{HEAD}no_tool","reason":"ch') == 'itchat"}'
    assert draft("hi", f'{HEAD}no_tool","reason":"mi') == "ssing_information: "
    assert draft("hi", f'{HEAD}no_tool","reason":"something else') == ""


def test_a_catalogues_reasons_are_guessed_from_the_start() -> None:
    listing = Drafter(replace(CATALOGUE, reasons=('no "such" tool', "missing_information: ...", "chitchat")), "hi")
    begun = f'{HEAD}no_tool","reason":"'
    assert listing.continuation(f"{HEAD}no_") == 'tool","reason":"no \\"such\\" tool"}'
    assert listing.continuation(begun) == 'no \\"such\\" tool"}'
    assert listing.continuation(f"{begun}c") == 'hitchat"}'
    assert listing.continuation(f"{begun}miss") == "ing_information: "
    assert listing.continuation(f"{begun}missing_information: ") == ""
    assert listing.continuation(f"{begun}out_of") == ""


@pytest.mark.parametrize("answer", ["Sure! ", '{ "tool"', '{"tool": "track_order"', "[]", f'{HEAD}track_order"}}', "�"])
def test_text_that_has_left_the_grammar_gets_no_guess(answer: str) -> None:
    assert draft("where is ORD-1234?", answer) == ""


def test_guesses_never_raise() -> None:
    arguments = {"amount": 5, "unit": "minutes", "label": 'a "b" \\ é'}
    whole = assistant_text(ToolCall(tool="set_timer", arguments=arguments))
    odd = ["", "\\", '"', "\n", "}", "{", ":", ",", "é", "\ud83d"]
    for at in range(len(whole) + 1):
        for extra in odd:
            assert isinstance(draft('in 5 minutes: a "b" \\ é', whole[:at] + extra), str)


@pytest.mark.parametrize(
    ("request_text", "target", "most"),
    [
        ("Where's my order ORD-1234?", ToolCall(tool="track_order", arguments={"order_id": "ORD-1234"}), 3),
        ("refund 8-B: broken", ToolCall(tool="request_refund", arguments={"order_id": "8-B", "reason": "broken"}), 6),
        ("countdown 20 minutes", ToolCall(tool="set_timer", arguments={"amount": 20, "unit": "minutes"}), 4),
        ("lock the screen", ToolCall(tool="lock_screen", arguments={}), 1),
        ("hi", NoTool(reason="chitchat"), 4),
    ],
)
def test_an_answer_takes_few_passes(request_text: str, target: ToolCall | NoTool, most: int) -> None:
    answer = assistant_text(target, CATALOGUE)
    assert json.loads(answer)
    assert passes(request_text, answer) <= most
