"""Families whose caches can't be trimmed after a wrong guess: their answers are those of plain greedy decoding too."""

from pathlib import Path
from typing import Any

import pytest
from tiny_models import UNTRIMMED, by_full_passes, make_model

from mlx_router import decoder
from mlx_router.calls import Generation, Prompt
from mlx_router.catalogue import Catalogue
from mlx_router.decoder import GreedyDecoder
from mlx_router.model import Model, load_base
from mlx_router.prefixes import PrefixFiles
from mlx_router.prompts import conversation, system_message
from mlx_router.router import Router

from mlx.utils import tree_map  # isort: skip
from mlx_lm.models.cache import can_trim_prompt_cache  # isort: skip

REQUESTS = ("Where's my order ORD-1234?", "Hi!")
TOKENS = 12
# What weights are multiplied by, so that a random model's answer hangs on all that it reads.
FACTORS = {"gpt_oss": 1.0}


pytestmark = pytest.mark.usefixtures("uncompiled")


@pytest.fixture(scope="module", params=UNTRIMMED)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    found = load_base(str(make_model(tmp_path_factory.mktemp(request.param) / "model", request.param)))
    factor = FACTORS.get(request.param, 3.0)
    weights = found.network.parameters()
    found.network.update(tree_map(lambda weight: weight * factor if weight.ndim == 2 else weight, weights))
    return found


def test_guesses_right_and_wrong_change_no_answer(model: Model, catalogue: Catalogue) -> None:
    system = system_message(catalogue)
    plain = GreedyDecoder(model, draft_length=0)
    for request in REQUESTS:
        messages = conversation(system, request)
        wanted = by_full_passes(model, model.chat.prompt_tokens(messages), TOKENS)
        assert plain.decode(messages, TOKENS).text == wanted
        guesses = {
            "right": lambda answer, wanted=wanted: wanted[len(answer) :],
            "right at first": lambda answer, wanted=wanted: wanted[len(answer) : len(answer) + 5] + "no, wrong",
            "wrong": lambda answer: "something else altogether",
        }
        for name, guess in guesses.items():
            found = GreedyDecoder(model, draft_length=16).decode(messages, TOKENS, draft=guess)
            assert found.text == wanted, (request, name)
            # Each pass makes a token at least, also the one that runs what was right once more.
            assert found.timings is not None and found.timings.forward_passes <= TOKENS


def test_a_cache_that_is_not_taken_back_would_be_noticed(
    model: Model, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What wrong guesses leave in these caches changes answers, so that the test above shows something."""
    messages = conversation(system_message(catalogue), REQUESTS[0])
    wanted = GreedyDecoder(model, draft_length=0).decode(messages, TOKENS).text
    monkeypatch.setattr(decoder, "_can_take_back", lambda cache, tokens: True)
    found = GreedyDecoder(model, draft_length=16).decode(messages, TOKENS, draft=lambda answer: "something else")
    assert found.text != wanted


def test_their_prefixes_can_not_be_trimmed_and_are_kept_on_disk(
    model: Model, catalogue: Catalogue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = conversation(system_message(catalogue), REQUESTS[0])
    first = GreedyDecoder(model, files=PrefixFiles(tmp_path))
    wanted = first.decode(messages, TOKENS).text
    assert not can_trim_prompt_cache(first.prefixes.get(messages).cache)

    second = GreedyDecoder(model, files=PrefixFiles(tmp_path))
    assert (
        second.decode(messages, TOKENS, draft=lambda answer: wanted[len(answer) : len(answer) + 3] + "no").text
        == wanted
    )
    assert len(list(tmp_path.glob("*.prefix"))) == 1
    assert "damaged" not in caplog.text and "can't be kept" not in caplog.text


def test_batches_and_the_grammar_work_with_them(model: Model, catalogue: Catalogue) -> None:
    system = system_message(catalogue)
    prompts = [Prompt(conversation(system, request)) for request in REQUESTS]
    plain = [GreedyDecoder(model, draft_length=0).decode(one.messages, TOKENS).text for one in prompts]
    found: list[Any] = GreedyDecoder(model).decode_many(prompts, TOKENS)
    assert all(isinstance(one, Generation) for one in found)
    assert [one.text for one in found] == plain
    router = Router(GreedyDecoder(model), catalogue, max_tokens=40, mode="constrained")
    assert all(decision.valid for decision in router.route_many(REQUESTS))
