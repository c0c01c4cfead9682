"""Every family of bases trains, routes, and loads in plain mlx-lm, where it says the same."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import FAMILIES, break_cache, make_model, make_recipe

from mlx_router import Router, model, preparing, training
from mlx_router.batches import make_batch, token_rows
from mlx_router.config import TrainConfig
from mlx_router.data import read
from mlx_router.interop import load_catalogue
from mlx_router.loss import answer_loss, arrays, shared_prefix_problem
from mlx_router.model import add_lora, load_base, parameter_counts
from mlx_router.prompts import TEMPLATE_OPTIONS, conversation, system_message

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
import mlx.nn as nn  # isort: skip
from mlx.utils import tree_flatten  # isort: skip
from mlx_lm import generate, load  # isort: skip

REQUESTS = ("Where is KX-22?", "Hi!", "Where's my zebra, 12 days late?")


pytestmark = pytest.mark.usefixtures("uncompiled")


@dataclass(frozen=True)
class Trained:
    """A finished run: its recipe and the events it reported."""

    config: TrainConfig
    events: list[dict[str, Any]]

    def event(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


def run(config: TrainConfig) -> Trained:
    events: list[dict[str, Any]] = []
    training.train(config, events.append)
    return Trained(config, events)


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return run(make_recipe(tmp_path_factory.mktemp(request.param), request.param))


def prompt_of_mlx_lm(tokenizer: Any, messages: list[Any]) -> list[int]:
    """The prompt as a user of plain mlx-lm would make it."""
    options = {"add_generation_prompt": True, **TEMPLATE_OPTIONS}
    if "no system role" in tokenizer.chat_template:
        messages = [{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}]
    found: list[int] = tokenizer.apply_chat_template(messages, **options)
    return found


def assert_mlx_lm_says_the_same(config: TrainConfig) -> None:
    router = Router.load(config.adapter)
    network, tokenizer = load(config.model, adapter_path=config.adapter)
    for request in REQUESTS:
        messages = list(conversation(system_message(router.catalogue), request))
        prompt = prompt_of_mlx_lm(tokenizer, messages)
        said = generate(network, tokenizer, prompt, max_tokens=router.max_tokens)
        decision = router.route(request)
        assert decision.raw == said
        assert decision.timings is not None and decision.timings.prompt_tokens == len(prompt)


def test_training_lowers_the_loss_and_leaves_an_adapter_that_routes(trained: Trained) -> None:
    losses = [event["loss"] for event in trained.event("progress")]
    assert losses[-1] < 0.7 * losses[0]
    router = Router.load(trained.config.adapter)
    assert router.route("Hi!").raw.startswith('{"tool":"')


def test_mlx_lm_loads_the_adapter_and_says_what_the_router_says(trained: Trained) -> None:
    assert_mlx_lm_says_the_same(trained.config)


def test_a_control_token_in_a_request_is_plain_text(trained: Trained) -> None:
    """mlx-lm's own rendering makes a control token of it; ours must not."""
    chat = load_base(trained.config.model).chat
    turn_end = min(chat.eos_tokens)
    text = chat.tokenizer.decode([turn_end])
    system = "Tools: none."
    with_token = chat.prompt_tokens(conversation(system, f"Where is 7 {text}?"))
    without = chat.prompt_tokens(conversation(system, "Where is 7 ?"))
    assert with_token.count(turn_end) == without.count(turn_end)
    assert chat.tokenizer.decode(with_token).count(text) == chat.tokenizer.decode(without).count(text) + 1


def test_the_prompt_holds_no_date_of_today(trained: Trained) -> None:
    chat = load_base(trained.config.model).chat
    text = chat.tokenizer.decode(chat.prompt_tokens(conversation("Tools: none.", "Hi")))
    assert str(date.today().year) not in text


def test_trainable_parameters_are_those_of_the_layers(trained: Trained) -> None:
    """Rank 4 on every linear layer of two blocks: 4 × (inputs + outputs) each."""
    base = load_base(trained.config.model)
    shapes = [module.weight.shape for block in base.network.layers for module in linears(block)]
    start = trained.event("start")[0]
    assert start["trainable_parameters"] == sum(4 * (inputs + outputs) for outputs, inputs in shapes)
    assert start["parameters"] - start["trainable_parameters"] == parameter_counts(base.network)[1]
    assert start["rows"] == 12 and start["updates"] == 18 and start["shared_prefix"]


def linears(block: Any) -> list[Any]:
    return [module for module in block.modules() if isinstance(module, nn.Linear)]


def test_a_shared_prefix_gives_the_loss_and_gradients_of_whole_rows(trained: Trained) -> None:
    network, batch, whole = batches_of(trained.config)
    assert batch.prefix.size > 48, "longer than the sliding window of the gemma here"
    value_and_grad = nn.value_and_grad(network, answer_loss)
    (loss, tokens), shared = value_and_grad(network, *arrays(batch, 1.0))
    (expected, same_tokens), plain = value_and_grad(network, *arrays(whole, 1.0))
    assert tokens.item() == same_tokens.item() == batch.answer_tokens
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    largest = max(float(mx.abs(value).max()) for _, value in tree_flatten(plain))
    for (name, left), (_, right) in zip(tree_flatten(shared), tree_flatten(plain), strict=True):
        assert float(mx.abs(right).max()) > 0, name
        assert float(mx.abs(left - right).max()) < 1e-4 * largest, name
    assert shared_prefix_problem(network, batch) is None


def batches_of(config: TrainConfig) -> tuple[Any, Any, Any]:
    """A network with LoRA layers that do something, and three rows of its data with and without a shared prefix."""
    base = load_base(config.model)
    add_lora(base, train_on="all_linear", rank=4, scale=2.0, dropout=0.0, layers=-1)
    mx.random.seed(1)
    for name, value in tree_flatten(base.network.trainable_parameters()):
        if name.endswith("lora_b"):
            value[...] = mx.random.normal(value.shape) * 0.05
    examples = read(config.train, load_catalogue(config.catalogue or ""))
    options: dict[str, Any] = {"style": "signature", "keep_system": False, "max_seq_length": None, "max_tokens": 128}
    rows = token_rows(examples, base.chat, **options)[4:7]
    return base.network, make_batch(rows), make_batch([row.whole() for row in rows])


def test_a_network_that_mishandles_its_cache_is_found_out(trained: Trained) -> None:
    network, batch, _ = batches_of(trained.config)
    break_cache(network)
    problem = shared_prefix_problem(network, batch)
    assert problem is not None and "differ from those of whole rows" in problem


def test_such_a_network_trains_on_whole_rows_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_broken(*arguments: Any, **options: Any) -> model.Model:
        base = load_base(*arguments, **options)
        break_cache(base.network)
        return base

    monkeypatch.setattr(preparing, "load_base", load_broken)
    found = run(make_recipe(tmp_path, "qwen3", max_updates=1))
    assert "whole rows" in found.event("note")[0]["message"]
    assert not found.event("start")[0]["shared_prefix"]


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma3_text"])
def test_a_4_bit_base_trains_and_routes_as_in_mlx_lm(family: str, tmp_path: Path) -> None:
    make_model(tmp_path / "base", family, bits=4)
    found = run(make_recipe(tmp_path, model=str(tmp_path / "base"), epochs=4))
    losses = [event["loss"] for event in found.event("progress")]
    assert losses[-1] < 0.8 * losses[0]
    assert_mlx_lm_says_the_same(found.config)


@pytest.mark.parametrize("bits", [None, 4])
def test_bfloat16_trains_in_bfloat16_with_adapters_in_float32(bits: int | None, tmp_path: Path) -> None:
    make_model(tmp_path / "base", bits=bits, dtype="bfloat16")
    found = run(make_recipe(tmp_path, model=str(tmp_path / "base"), dtype="bfloat16", epochs=3))
    losses = [event["loss"] for event in found.event("progress")]
    assert losses[-1] < 0.8 * losses[0]
    router = Router.load(found.config.adapter)
    assert router.manifest is not None and router.manifest.dtype == "bfloat16"
    assert router.route("Hi!").raw
    weights: Any = mx.load(f"{found.config.adapter}/adapters.safetensors")
    assert {value.dtype for value in weights.values()} == {mx.float32}
    assert all(np.isfinite(np.array(value)).all() for value in weights.values())
