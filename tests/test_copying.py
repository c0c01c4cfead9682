"""Requests whose texts are changed for other words: the call follows the request, and times and enums stay."""

import random
import re

from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.tiny.pretrain.copying import with_other_words
from mlx_router.tiny.pretrain.generator import Turn

VOCABULARY = ("walnut", "gravel", "Sprocket")
CATALOGUE = Catalogue(
    (
        Tool(
            "note",
            "Write a note.",
            {
                "properties": {
                    "text": {"type": "string"},
                    "when": {"type": "string"},
                    "kind": {"enum": ["private", "work"]},
                },
                "required": ["text"],
            },
        ),
    )
)


def turn(request: str, **arguments: str) -> Turn:
    return Turn(request, ToolCall(tool="note", arguments=arguments), "call")


def many(given: Turn, vocabulary: tuple[str, ...] = VOCABULARY) -> list[Turn]:
    return [with_other_words(random.Random(seed), given, CATALOGUE, vocabulary) for seed in range(200)]


def arguments(given: Turn) -> dict[str, str]:
    assert isinstance(given.target, ToolCall)
    return given.target.arguments


def test_a_changed_text_stands_in_the_request_and_the_rest_stays() -> None:
    made = many(turn("note buy oat milk, please", text="buy oat milk"))
    changed = [one for one in made if one.request != "note buy oat milk, please"]
    assert 60 < len(changed) < 140
    for one in changed:
        assert one.request == f"note {arguments(one)['text']}, please"
    words = " ".join(arguments(one)["text"] for one in changed).split()
    assert {"walnut", "gravel", "sprocket"} <= set(words), "vocabulary in the case of what it stands for"


def test_times_and_enums_keep_their_words() -> None:
    made = many(turn("work note for tomorrow at noon", when="tomorrow at noon", kind="work"))
    assert all(one.request == "work note for tomorrow at noon" for one in made)


def test_a_text_that_stands_twice_or_within_another_is_left_alone() -> None:
    twice = turn("tea, note tea", text="tea")
    within = turn("note call Ann on Monday", text="call Ann", when="call Ann on Monday")
    assert all(one == twice for one in many(twice))
    assert all(one == within for one in many(within))


def test_case_is_kept() -> None:
    for one in many(turn("NOTE BUY MILK", text="BUY MILK")):
        assert one.request == one.request.upper()
    titles = {arguments(one)["text"] for one in many(turn("note Blue Danube", text="Blue Danube"))}
    assert all(re.fullmatch("[A-Z][a-z]+ [A-Z][a-z]+", title) for title in titles) and len(titles) > 5


def test_without_a_vocabulary_or_a_call_nothing_changes() -> None:
    call = turn("note buy oat milk", text="buy oat milk")
    refusal = Turn("hello there", NoTool(reason="chitchat"), "chitchat")
    assert all(one == call for one in many(call, ()))
    assert all(one == refusal for one in many(refusal))
