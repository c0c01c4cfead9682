"""Several requests at once give the decisions that each gives alone, whatever the family."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_model

from mlx_router import attention, streams
from mlx_router.calls import Generation, Prompt
from mlx_router.catalogue import Catalogue
from mlx_router.decoder import GreedyDecoder
from mlx_router.errors import RequestError
from mlx_router.lockstep import guess_length
from mlx_router.model import BACKEND, Model, load_base
from mlx_router.prompts import conversation, system_message
from mlx_router.router import Router

import mlx.core as mx  # isort: skip  (model has put the BLAS in place)

REQUESTS = [
    "Where's my order ORD-1234?",
    "Hi!",
    "I want my money back for ORD-77, it arrived broken and nobody has answered me for three weeks.",
    "A human, now!",
    "Ich möchte 返金 🙂 please.",
]
# Families, and whether requests run together: a window's keys can be laid out in rows, a state can't.
TOGETHER = {"qwen3": True, "llama": True, "gemma3_text": True, "lfm2": False}


@pytest.fixture(scope="module", params=TOGETHER)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_base(str(make_model(tmp_path_factory.mktemp("models") / "model", family)))


def prompts_of(system: str, requests: Sequence[str], **fields: Any) -> list[Prompt]:
    return [Prompt(conversation(system, request), **fields) for request in requests]


def told(found: Sequence[Generation | RequestError]) -> list[tuple[str, bool]]:
    assert all(isinstance(one, Generation) for one in found)
    return [(one.text, one.finished) for one in found if isinstance(one, Generation)]


def alone(model: Model, prompts: Sequence[Prompt], max_tokens: int, draft_length: int) -> list[tuple[str, bool]]:
    decoder = GreedyDecoder(model, draft_length=draft_length)
    return told([decoder.decode(one.messages, max_tokens, draft=one.draft) for one in prompts])


@pytest.mark.parametrize("kernels", ["own", "mlx"])
@pytest.mark.parametrize("draft_length", [0, 4])
def test_together_or_alone(
    model: Model, family: str, catalogue: Catalogue, draft_length: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two groups with one prefix, as on an x86 processor, and in one with copies of it, as elsewhere."""
    monkeypatch.setattr(attention, "is_fast", lambda: kernels == "own")
    monkeypatch.setattr(streams, "_second", mx.new_stream(mx.cpu) if kernels == "own" else None)
    system = system_message(catalogue)
    plain = alone(model, prompts_of(system, REQUESTS), 14, 0)
    # Guesses that are right for some tokens and then wrong, at different places in each row.
    prompts = [
        Prompt(conversation(system, request), draft=lambda answer, text=text, cut=cut: text[len(answer) : cut] + "no")
        for cut, (request, (text, _)) in enumerate(zip(REQUESTS, plain, strict=True), start=3)
    ]
    decoder = GreedyDecoder(model, draft_length=draft_length, batch_size=4)
    found = decoder.decode_many(prompts, 14)

    assert told(found) == plain
    assert alone(model, prompts, 14, draft_length) == plain
    sizes = [one.timings.batch_size for one in found if isinstance(one, Generation) and one.timings]
    assert max(sizes) == (4 if TOGETHER[family] else 1)


def test_a_prompt_that_is_too_long_leaves_the_others_alone(tmp_path: Path, catalogue: Catalogue) -> None:
    model = load_base(str(make_model(tmp_path / "model", "qwen3", max_position_embeddings=400)))
    system = system_message(catalogue)
    done: list[int] = []
    requests = [REQUESTS[0], "word " * 400, REQUESTS[1]]
    found = GreedyDecoder(model).decode_many(prompts_of(system, requests), 5, done.append)

    assert [type(one) for one in found] == [Generation, RequestError, Generation]
    assert done[-1] == 3
    with pytest.raises(RequestError, match=r"request 2: .* the model's context is 400"):
        Router(GreedyDecoder(model), catalogue, max_tokens=5).route_many(requests)


def test_several_system_messages_in_turn(model: Model, catalogue: Catalogue) -> None:
    systems = [system_message(catalogue), "You route. " * 12]
    prompts = [prompt for request in REQUESTS[:3] for system in systems for prompt in prompts_of(system, [request])]

    assert told(GreedyDecoder(model).decode_many(prompts, 6)) == alone(model, prompts, 6, 0)


def test_the_embedded_base_decides_the_same_in_batches(catalogue: Catalogue) -> None:
    router = Router(GreedyDecoder(load_base("tiny")), catalogue, max_tokens=40)
    one_by_one = [router.route(request) for request in REQUESTS]
    together = router.route_many(REQUESTS)

    assert [one.raw for one in together] == [one.raw for one in one_by_one]
    assert [one.confidence for one in together] == pytest.approx([one.confidence for one in one_by_one], abs=1e-4)
    assert together[0].timings is not None and together[0].timings.batch_size == len(REQUESTS)


def test_threads_with_models_of_their_own_and_batches(
    tmp_path: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two routers in one process, used from threads that loaded neither, one by one and in batches."""
    models = [load_base(str(make_model(tmp_path / name, name))) for name in ("qwen3", "llama")]
    wanted = [[Router(GreedyDecoder(m), catalogue, max_tokens=6).route(r).raw for r in REQUESTS] for m in models]
    routers = [Router(GreedyDecoder(m), catalogue, max_tokens=6) for m in models]

    def ask(turn: int) -> list[str]:
        router = routers[turn % 2]
        if turn % 3:
            return [router.route(request).raw for request in REQUESTS]
        return [decision.raw for decision in router.route_many(REQUESTS)]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(8))) == [wanted[turn % 2] for turn in range(8)]


@pytest.mark.skipif(BACKEND.device != "cpu", reason="on a GPU drafts are not shortened")
def test_the_more_rows_the_shorter_their_guesses() -> None:
    assert [guess_length(16, rows) for rows in (1, 4, 8, 16, 100)] == [16, 16, 8, 4, 4]
    assert guess_length(2, 16) == 2 and guess_length(0, 1) == 0
