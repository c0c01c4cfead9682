"""Answers held to the catalogue's grammar: always valid, always in time, and open about what was overridden."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_models import make_model

from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.decoder import GreedyDecoder
from mlx_router.errors import CatalogueError, RequestError
from mlx_router.grammar import Grammar, Vocabulary, grammar_text
from mlx_router.model import Model, load_base
from mlx_router.parsing import parse
from mlx_router.router import Router

REQUESTS = ["Where's my order ORD-1234?", "Hi!", "Ich möchte 返金 🙂 please."]


def tool(name: str, **parameters: Any) -> Tool:
    return Tool(name, "do it.", {"properties": parameters, "required": list(parameters)})


HARD = Catalogue(
    (
        tool(
            "book",
            order={"type": "string", "pattern": r"^ORD-\d{4}$"},
            when={"type": "string", "format": "date-time"},
            count={"type": "integer"},
            price={"type": "number", "minimum": 0},
        ),
        tool("tag", tags={"type": "array", "items": {"enum": ["red", "ünï"]}, "minItems": 2}, note={"minLength": 12}),
        tool("wait"),
    )
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_base(str(make_model(tmp_path_factory.mktemp("models") / "model", "qwen3")))


@pytest.fixture(scope="module")
def vocabulary(model: Model) -> Vocabulary:
    return Vocabulary(model.chat.tokenizer, sorted(model.chat.eos_tokens), int(model.config["vocab_size"]))


@pytest.mark.parametrize("seed", range(12))
def test_any_logits_give_a_valid_answer_within_the_limit(
    seed: int, model: Model, vocabulary: Vocabulary, catalogue: Catalogue
) -> None:
    random = np.random.default_rng(seed)
    listing = replace(catalogue, reasons=("größer gewünscht", "missing: ...", 'said "no"'))
    chosen = (catalogue, HARD, listing, HARD)[seed % 4]
    grammar = Grammar(grammar_text(chosen), vocabulary)
    limit = len(grammar.refusal) + int(random.integers(0, 120))
    path = grammar.begin(limit)
    output: list[int] = []
    while not output or output[-1] not in model.chat.eos_tokens:
        assert len(output) < limit
        logits = random.normal(size=vocabulary.size)
        output.append(path.take(int(np.where(path.allowed(), logits, -np.inf).argmax())))
    text = model.chat.tokenizer.decode(output[:-1])

    assert isinstance(parse(text, chosen), ToolCall | NoTool), text


@pytest.mark.parametrize(
    "answer",
    [
        {"tool": "book", "arguments": {"order": "ORD-1234", "when": "2026-01-02T03:04:05Z", "count": -7, "price": 1.5}},
        {"tool": "tag", "arguments": {"tags": ["red", "ünï", "red"], "note": 'said "no\n" twice'}},
        {"tool": "wait", "arguments": {}},
        {"tool": "no_tool", "reason": "missing_information: order"},
    ],
)
def test_every_call_can_be_said(answer: dict[str, Any], model: Model, vocabulary: Vocabulary) -> None:
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    path = Grammar(grammar_text(HARD), vocabulary).begin(200)
    for token in [*model.chat.tokenizer.encode(text, add_special_tokens=False), vocabulary.end]:
        assert path.allowed()[token]
        assert path.take(token) == token


LISTED = ("chitchat", "a.b (c) \"d\" é", "missing_information: ...", "q?*...")


@pytest.mark.parametrize(
    ("reason", "allowed"),
    [
        ("chitchat", True),
        ('a.b (c) "d" é', True),
        ("missing_information: order_id, reason", True),
        ("q?* and more", True),
        ("chit", False),
        ("chitchat: weather", False),
        ("missing_information: ", False),
        ("missing_information:  ", False),
        ("qq and more", False),
        ("other", False),
    ],
)
def test_a_catalogues_reasons_are_in_its_grammar(reason: str, allowed: bool, vocabulary: Vocabulary) -> None:
    """What the grammar lets through is what the catalogue takes for one of its reasons."""
    listing = replace(HARD, reasons=LISTED)
    assert listing.lists(reason) is allowed
    text = json.dumps({"tool": "no_tool", "reason": reason}, ensure_ascii=False, separators=(",", ":"))
    path = Grammar(grammar_text(listing), vocabulary).begin(200)
    for token in vocabulary.answer(text):
        if not path.allowed()[token]:
            assert not allowed
            return
        path.take(token)
    assert allowed


def test_without_room_the_shortest_listed_reason_is_said(model: Model, catalogue: Catalogue) -> None:
    listing = replace(catalogue, reasons=("far too long a reason to be said", "none"))
    refusal = '{"tool":"no_tool","reason":"none"}'
    limit = len(model.chat.tokenizer.encode(refusal, add_special_tokens=False)) + 1
    router = Router(GreedyDecoder(model), listing, max_tokens=limit, mode="constrained")
    assert router.route("Hi!").raw == refusal
    with pytest.raises(RequestError, match=f"needs room for {limit} tokens"):
        Router(GreedyDecoder(model), listing, max_tokens=limit - 1, mode="constrained").route("Hi!")


def test_a_grammar_without_listed_reasons_has_no_comment(catalogue: Catalogue) -> None:
    assert grammar_text(catalogue).startswith("start: ")


def test_unsupported_keywords_are_named_with_their_tools(model: Model) -> None:
    catalogue = Catalogue(
        (
            tool("fine", x={"type": "string"}),
            tool("unique", x={"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
            tool("never", x={"not": {"type": "string"}}),
        ),
        reasons=("none",),
    )
    router = Router(GreedyDecoder(model), catalogue, max_tokens=60)
    with pytest.raises(CatalogueError, match=r"(?s)'unique'.*uniqueItems.*'never'.*not") as caught:
        router.route("Hi!", mode="constrained")
    assert "'fine'" not in caught.value.message
    assert caught.value.hint is not None and "default mode" in caught.value.hint
    # The default mode does not mind.
    router.route("Hi!")


def test_too_small_a_limit_is_an_error_that_says_so(model: Model, catalogue: Catalogue) -> None:
    with pytest.raises(RequestError, match="needs room"):
        Router(GreedyDecoder(model), catalogue, max_tokens=3, mode="constrained").route("Hi!")


def test_a_random_model_is_made_valid_and_says_how_much_was_overridden(model: Model) -> None:
    router = Router(GreedyDecoder(model), HARD, max_tokens=60, mode="constrained")
    for request in REQUESTS:
        free, held = router.route(request, mode="greedy"), router.route(request)
        assert (free.valid, free.overridden) == (False, None)
        assert held.valid
        # A random model never means a call.
        assert held.overridden is not None and held.overridden > 0.9
        assert held.overridden_tokens is not None and held.overridden_tokens > 0
    assert held.to_json()["overridden"] == held.overridden


def test_guesses_and_batches_change_no_constrained_answer(model: Model, catalogue: Catalogue) -> None:
    plain = Router(GreedyDecoder(model, draft_length=0), catalogue, max_tokens=60, mode="constrained")
    drafting = Router(GreedyDecoder(model), catalogue, max_tokens=60, mode="constrained")
    wanted = [plain.route(request).raw for request in REQUESTS]

    assert [drafting.route(request).raw for request in REQUESTS] == wanted
    assert [decision.raw for decision in drafting.route_many(REQUESTS)] == wanted
