"""mlx-lm's own functions behind the router's seam: they say what plain greedy decoding says."""

import copy
from pathlib import Path

import pytest
from conftest import KNOWN

from mlx_router.decoder import GreedyDecoder
from mlx_router.peers import MlxLmDecoder, load_with_mlx_lm
from mlx_router.router import Router


@pytest.fixture(scope="module")
def router(adapter: Path) -> Router:
    return Router.load(adapter)


def peer(router: Router, *, prompt_cache: bool) -> Router:
    model, other = router.decoder.model, copy.copy(router)
    other.decoder = MlxLmDecoder(model.network, model.chat, prompt_cache=prompt_cache)
    return other


@pytest.mark.parametrize("prompt_cache", [False, True])
def test_answers_and_passes_are_those_of_plain_greedy_decoding(router: Router, prompt_cache: bool) -> None:
    other = peer(router, prompt_cache=prompt_cache)
    plain = Router(GreedyDecoder(router.decoder.model, draft_length=0), router.catalogue, max_tokens=router.max_tokens)
    for request in (*KNOWN, *KNOWN):
        ours, theirs = plain.route(request), other.route(request)
        assert (theirs.raw, theirs.valid) == (ours.raw, True)
        timings = theirs.timings
        assert timings.prompt_tokens == ours.timings.prompt_tokens
        assert timings.cached_tokens == (ours.timings.cached_tokens if prompt_cache else 0)
        # It begins one pass more than it needs.
        assert timings.forward_passes == ours.timings.forward_passes + 1
        assert 0 < timings.prefill_ms <= timings.total_ms


@pytest.mark.parametrize("prompt_cache", [False, True])
def test_a_batch_gives_the_same_answers(router: Router, prompt_cache: bool) -> None:
    other = peer(router, prompt_cache=prompt_cache)
    messages = [other.prompt(request).messages for request in KNOWN]
    assert other.decoder.answer_batch(messages, 60) == [router.route(request).raw for request in KNOWN]


def test_an_answer_cut_off_is_not_finished(router: Router) -> None:
    other = peer(router, prompt_cache=False)
    generation = other.decoder.decode(other.prompt("Hi!").messages, 3)
    assert not generation.finished
    assert router.route("Hi!").raw.startswith(generation.text)


def test_mlx_lms_own_loader_gives_the_same_model(router: Router, adapter: Path, base: Path) -> None:
    network, chat = load_with_mlx_lm(str(base), str(adapter))
    other = copy.copy(router)
    other.decoder = MlxLmDecoder(network, chat)
    for request in KNOWN:
        assert other.route(request).raw == router.route(request).raw
