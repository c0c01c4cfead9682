"""The bag-of-words classifier: tools by words, arguments by what stands around them."""

import pytest
from reports import SUPPORT, call, no_tool, scored, tool

from mlx_router.bag_of_words import BagOfWords, spans, words
from mlx_router.calls import NoTool, Target, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.data import Example

TRAINING = [
    ("Where is order ORD-12?", call("track_order", order_id="ORD-12")),
    ("Please track order ORD-7.", call("track_order", order_id="ORD-7")),
    ("Is parcel ORD-345 on its way?", call("track_order", order_id="ORD-345")),
    ("Refund order ORD-1 because it is torn.", call("request_refund", order_id="ORD-1", reason="it is torn")),
    ("Refund order ORD-22 because it smells.", call("request_refund", order_id="ORD-22", reason="it smells")),
    ("I want my money back, ORD-9, because it broke.", call("request_refund", order_id="ORD-9", reason="it broke")),
    ("Let me talk to a human because I am angry.", call("escalate", reason="I am angry")),
    ("A person, now, because nobody answers.", call("escalate", reason="nobody answers")),
    ("Hello there!", no_tool("chitchat")),
    ("What is the weather like?", no_tool()),
]


def example(request: str, target: dict[str, object], catalogue: Catalogue = SUPPORT) -> Example:
    return scored(catalogue, request, target, no_tool()).example


@pytest.fixture(scope="module")
def classifier() -> BagOfWords:
    return BagOfWords([example(request, target) for request, target in TRAINING])


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        ("Can you track order ORD-98?", ToolCall(tool="track_order", arguments={"order_id": "ORD-98"})),
        (
            "Refund order ORD-45 because it leaks.",
            ToolCall(tool="request_refund", arguments={"order_id": "ORD-45", "reason": "it leaks"}),
        ),
        ("A human, because I am tired.", ToolCall(tool="escalate", arguments={"reason": "I am tired"})),
        ("Hello, how is the weather?", NoTool(reason="no_matching_tool")),
    ],
)
def test_it_generalises_to_new_names_and_reasons(request_: str, wanted: Target, classifier: BagOfWords) -> None:
    assert classifier.decide(request_, SUPPORT) == wanted


def test_two_parameters_never_copy_the_same_words(classifier: BagOfWords) -> None:
    request = "Refund ORD-45"
    found = classifier.arguments(SUPPORT.by_name["request_refund"], request)

    assert found["order_id"] == "ORD-45"
    assert found["reason"] == "Refund"


def test_a_tool_without_training_rows_is_known_by_its_description() -> None:
    catalogue = Catalogue.from_json(
        [*SUPPORT.to_json()["tools"], {"name": "play_music", "description": "play a song or an album."}]
    )
    classifier = BagOfWords([example(request, target, catalogue) for request, target in TRAINING])

    assert classifier.decide("play an album, a song", catalogue) == ToolCall(tool="play_music", arguments={})


def test_only_the_tools_of_the_rows_own_catalogue_are_called(classifier: BagOfWords) -> None:
    catalogue = Catalogue.from_json([tool("escalate", reason="string")])

    assert classifier.decide("Please track order ORD-7.", catalogue).tool in ("escalate", "no_tool")


def test_enums_numbers_and_the_usual_value() -> None:
    parameters = {
        "type": "object",
        "properties": {
            "amount": {"type": "integer"},
            "unit": {"type": "string", "enum": ["minutes", "hours"]},
            "loud": {"type": "boolean"},
            "share": {"type": "number"},
            "label": {"type": "string"},
        },
        "required": ["amount", "unit"],
    }
    catalogue = Catalogue.from_json([{"name": "set_timer", "parameters": parameters}])
    rows = [("5 minutes", 5, "minutes"), ("ten minutes", 10, "minutes"), ("2 hours", 2, "hours")]
    classifier = BagOfWords(
        [example(text, call("set_timer", amount=n, unit=unit, loud=True), catalogue) for text, n, unit in rows]
    )
    timer = catalogue.by_name["set_timer"]

    assert classifier.arguments(timer, "Timer of 35 hours!") == {"amount": 35, "unit": "hours", "loud": True}
    # Without a number and a unit the most frequent values of training stand in.
    assert classifier.arguments(timer, "A timer.")["unit"] == "minutes"
    # Optional parameters that most calls went without are left out.
    assert "share" not in classifier.arguments(timer, "0.5") and "label" not in classifier.arguments(timer, "0.5")


def test_a_value_that_nothing_is_known_of_is_left_out() -> None:
    catalogue = Catalogue.from_json([tool("mute", on="boolean")])

    assert BagOfWords([]).arguments(catalogue.by_name["mute"], "mute it") == {}


def test_spans_are_whole_pieces_and_not_too_many() -> None:
    request = "Track ORD-12, it's late."
    found = {request[span.start : span.end] for span in spans(request)}

    assert {"ORD-12", "it's late", "Track ORD-12, it's late."} <= found
    assert not {"ORD", "12", "it", "rack"} & found
    assert len(list(spans("a " * 1000))) <= 12 * 1000


def test_words_with_digits_are_one_word() -> None:
    assert words("Order ORD-12 & 7!") == words("order ord-99 & 8")
