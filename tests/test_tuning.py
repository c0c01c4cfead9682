"""Draft lengths from replayed answers: a replay counts the passes that decoding makes, and prices decide."""

from pathlib import Path

import pytest
from conftest import KNOWN

from mlx_router.decoder import GreedyDecoder
from mlx_router.router import Router
from mlx_router.tuning import LENGTHS, Known, replay, tune

FLAT = {1: 1.0, 65: 1.0}
STEEP = {1: 0.1, 65: 1000.0}


@pytest.fixture(scope="module")
def router(adapter: Path) -> Router:
    return Router.load(adapter)


def known(router: Router, request: str) -> Known:
    decision, chat = router.route(request), router.decoder.model.chat
    answer = (*chat.tokenizer.encode(decision.raw, add_special_tokens=False), min(chat.eos_tokens))
    suffix = decision.timings.prompt_tokens - decision.timings.cached_tokens
    return Known(suffix, answer, router.prompt(request).draft)


@pytest.mark.parametrize("length", [0, 1, 4, 16, 32])
@pytest.mark.parametrize("request_", KNOWN)
def test_a_replay_makes_the_passes_that_decoding_makes(request_: str, length: int, router: Router) -> None:
    one = known(router, request_)
    other = Router(
        GreedyDecoder(router.decoder.model, draft_length=length), router.catalogue, max_tokens=router.max_tokens
    )
    decision = other.route(request_)
    assert decision.valid

    found = replay(router.decoder.model.chat, one.answer, one.draft, length, router.max_tokens)

    assert found.passes == decision.timings.forward_passes
    assert max(found.guesses) <= length


def test_where_passes_cost_the_same_long_drafts_are_best(router: Router) -> None:
    decoder = GreedyDecoder(router.decoder.model, draft_length=0)
    found = tune(decoder, [known(router, request) for request in KNOWN], FLAT, router.max_tokens)
    assert found.draft_length >= 8
    assert found.default == 0
    assert set(found.expected_ms) == set(LENGTHS)
    assert found.expected_ms[found.draft_length] < found.expected_ms[0]


def test_where_each_token_costs_drafts_are_left_out(router: Router) -> None:
    decoder = GreedyDecoder(router.decoder.model, draft_length=16)
    assert tune(decoder, [known(router, request) for request in KNOWN], STEEP, router.max_tokens).draft_length == 0


def test_the_default_is_kept_where_nothing_is_clearly_better(router: Router) -> None:
    """Between lengths that make the same passes, no measurement decides."""
    decoder = GreedyDecoder(router.decoder.model, draft_length=30)
    answers = [known(router, request) for request in KNOWN]
    assert tune(decoder, answers, FLAT, router.max_tokens).draft_length == 30
