"""LoRA, DoRA, QLoRA and full fine-tuning: what is trained, and that mlx-lm and the router load what was saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import make_model, make_recipe

from mlx_router import Router
from mlx_router.config import TrainConfig
from mlx_router.errors import ModelError
from mlx_router.fusing import fuse_adapter
from mlx_router.model import load_base
from mlx_router.prompts import TEMPLATE_OPTIONS, conversation, system_message
from mlx_router.training import train

import mlx.core as mx  # isort: skip  (training has put the BLAS in place)
import mlx_lm  # isort: skip

KINDS: list[tuple[str, int | None]] = [("lora", None), ("dora", None), ("full", None), ("lora", 4), ("dora", 4)]
REQUESTS = ("Where is KX-22?", "Hi!", "Where's my zebra, 12 days late?")


pytestmark = pytest.mark.usefixtures("uncompiled")


def run(config: TrainConfig) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    train(config, events.append)
    return events


def recipe(folder: Path, kind: str, bits: int | None = None, **fields: Any) -> TrainConfig:
    base = make_model(folder / "base", bits=bits)
    rate = {"learning_rate": 3e-3} if kind == "full" else {}
    return make_recipe(folder, model=str(base), fine_tune_type=kind, **(rate | fields))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1] or 'plain'}")
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, list[dict[str, Any]]]:
    config = recipe(tmp_path_factory.mktemp("trained"), *request.param)
    return config, run(config)


Trained = tuple[TrainConfig, list[dict[str, Any]]]


def answers_of_mlx_lm(folder: str, config: TrainConfig, router: Router) -> list[str]:
    network, tokenizer = mlx_lm.load(folder, adapter_path=None if folder != config.model else config.adapter)[:2]
    said = []
    for request in REQUESTS:
        messages = list(conversation(system_message(router.catalogue), request))
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **TEMPLATE_OPTIONS)
        said.append(mlx_lm.generate(network, tokenizer, prompt, max_tokens=router.max_tokens))
    return said


def test_it_learns_with_the_catalogue_run_once_a_batch(trained: Trained) -> None:
    losses = [event["loss"] for event in trained[1] if event["event"] == "progress"]
    assert losses[-1] < 0.8 * losses[0]
    assert next(event for event in trained[1] if event["event"] == "start")["shared_prefix"]


def test_the_router_and_mlx_lm_load_it_and_say_the_same(trained: Trained) -> None:
    config = trained[0]
    router = Router.load(config.adapter)
    said = [router.route(request).raw for request in REQUESTS]
    assert said == answers_of_mlx_lm(config.model, config, router)
    base = mlx_lm.load(config.model)[0]
    tuned = mlx_lm.load(config.model, adapter_path=config.adapter)[0]
    tokens = mx.arange(1, 30)[None]
    assert not np.allclose(np.array(base(tokens)), np.array(tuned(tokens)), atol=1e-3), "it is the base"


def test_the_configuration_is_that_of_mlx_lm(trained: Trained) -> None:
    config = trained[0]
    found = json.loads((Path(config.adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    assert (found["fine_tune_type"], found["num_layers"]) == (config.fine_tune_type, 2)
    assert (found["lora_parameters"] is None) == (config.fine_tune_type == "full")
    weights: Any = mx.load(f"{config.adapter}/adapters.safetensors")
    ends = {name.rpartition(".")[2] for name in weights}
    added = {"lora": {"lora_a", "lora_b"}, "dora": {"lora_a", "lora_b", "m"}}
    assert ends == added.get(config.fine_tune_type, {"weight"})


def test_fused_it_decides_the_same(trained: Trained, tmp_path: Path) -> None:
    config = trained[0]
    fuse_adapter(Path(config.adapter), tmp_path / "fused")
    one, other = Router.load(config.adapter), Router.load(tmp_path / "fused")
    assert [one.route(request).raw for request in REQUESTS] == [other.route(request).raw for request in REQUESTS]


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_a_stopped_run_ends_with_the_weights_of_an_unbroken_one(kind: str, tmp_path: Path) -> None:
    unbroken = recipe(tmp_path, kind, epochs=2, save_every=2)
    broken = unbroken.model_copy(update={"adapter": str(tmp_path / "broken")})

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["update"] == 3:
            raise KeyboardInterrupt

    run(unbroken)
    with pytest.raises(KeyboardInterrupt):
        train(broken, stop)
    events: list[dict[str, Any]] = []
    train(broken, events.append, resume=True)
    assert next(event for event in events if event["event"] == "start")["first_update"] == 3
    one, other = ((Path(config.adapter) / "adapters.safetensors").read_bytes() for config in (unbroken, broken))
    assert one == other


def test_full_fine_tuning_trains_whole_blocks_or_the_layers_named(tmp_path: Path) -> None:
    def names(**fields: Any) -> set[str]:
        config = recipe(tmp_path / str(len(fields)), "full", max_updates=1, **fields)
        run(config)
        weights: Any = mx.load(f"{config.adapter}/adapters.safetensors")
        return {name.removeprefix("model.layers.") for name in weights}

    block = names(num_layers=1)
    assert {"1.self_attn.q_proj.weight", "1.mlp.down_proj.weight", "1.input_layernorm.weight"} < block
    assert all(name.startswith("1.") for name in block)
    some = names(train_on=["q_proj", "v_proj"], num_layers=-1)
    assert some == {f"{at}.self_attn.{name}.weight" for at in (0, 1) for name in ("q_proj", "v_proj")}


def test_a_quantized_base_is_not_fully_fine_tuned(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="packed weights can't be trained") as caught:
        run(recipe(tmp_path, "full", bits=4))
    assert caught.value.hint and "lora or dora" in caught.value.hint
    with pytest.raises(ModelError, match="num_layers is 0"):
        run(recipe(tmp_path / "none", "full", num_layers=0))


def test_full_fine_tuning_in_16_bits_says_what_is_lost(tmp_path: Path) -> None:
    events = run(recipe(tmp_path, "full", dtype="bfloat16", max_updates=1))
    assert "bfloat16: small updates are lost" in events[0]["message"]
    assert Router.load(tmp_path / "adapter").route("Hi!").raw


def test_weights_that_lack_tensors_are_refused(tmp_path: Path) -> None:
    config = recipe(tmp_path, "full", max_updates=1)
    run(config)
    weights: Any = mx.load(f"{config.adapter}/adapters.safetensors")
    lost = sorted(weights)[0]
    mx.save_safetensors(f"{config.adapter}/adapters.safetensors", {k: v for k, v in weights.items() if k != lost})
    with pytest.raises(ModelError, match=f"has {len(weights) - 1} of its {len(weights)} tensors"):
        Router.load(config.adapter)


EXPERTS = {
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}


def test_layers_of_experts_are_linear_layers_too(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", **EXPERTS)
    config = make_recipe(tmp_path, model=str(base), train_on=["q_proj", "switch_mlp.up_proj"], max_updates=2)
    run(config)
    weights: Any = mx.load(f"{config.adapter}/adapters.safetensors")
    assert "model.layers.0.mlp.switch_mlp.up_proj.lora_a" in weights
    assert Router.load(config.adapter).route("Hi!").raw == Router.load(config.adapter).route("Hi!").raw
    assert load_base(str(base)).network is not None
    with pytest.raises(ModelError, match="doesn't support DoRA") as caught:
        run(config.model_copy(update={"fine_tune_type": "dora", "adapter": str(tmp_path / "other")}))
    assert caught.value.hint and "train_on" in caught.value.hint
