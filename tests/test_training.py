"""Training: what a run computes, in which order, what it keeps and what it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_models import break_cache, make_model, make_recipe

from mlx_router import Router, preparing, watching
from mlx_router.batches import Plan, TokenRow, make_batch
from mlx_router.config import TrainConfig
from mlx_router.errors import ModelError, RequestError, TrainingError
from mlx_router.loss import answer_loss, arrays
from mlx_router.model import BACKEND
from mlx_router.optimizer import ClippedAdamW, learning_rates
from mlx_router.preparing import prepare_run
from mlx_router.training import train

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
import mlx.nn as nn  # isort: skip
from mlx.utils import tree_flatten  # isort: skip

PLAIN: dict[str, Any] = {"group_by_length": False, "warmup_ratio": 0.0, "lora_dropout": 0.0}


pytestmark = pytest.mark.usefixtures("uncompiled")


def nowhere(event: dict[str, Any]) -> None:
    """A report that nobody reads."""


def weights(folder: str | Path) -> dict[str, np.ndarray]:
    found: Any = mx.load(f"{folder}/adapters.safetensors")
    return {name: np.array(value) for name, value in found.items()}


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


# --- the optimizer


def hugging_face_cosine(step: int, updates: int, warmup_ratio: float, peak: float) -> float:
    """transformers' `get_cosine_schedule_with_warmup` with the Trainer's number of warm-up steps."""
    warmup = math.ceil(updates * warmup_ratio)
    if step < warmup:
        return peak * step / max(1, warmup)
    progress = (step - warmup) / max(1, updates - warmup)
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * 2.0 * 0.5 * progress)))


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.03, 0.3])
def test_a_run_has_the_learning_rates_of_hugging_face(warmup_ratio: float, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    config = make_recipe(tmp_path, epochs=4, learning_rate=2e-4, warmup_ratio=warmup_ratio)
    train(config, events.append)
    rates = [event["learning_rate"] for event in events if event["event"] == "progress"]
    assert rates == pytest.approx([hugging_face_cosine(step, 12, warmup_ratio, 2e-4) for step in range(12)], abs=1e-9)


def test_the_other_schedules_go_down_in_a_line_or_stay() -> None:
    def rates(schedule: str) -> list[float]:
        config = TrainConfig.model_validate(
            {"train": "x.jsonl", "learning_rate": 1.0, "warmup_ratio": 0.2, "lr_schedule": schedule}
        )
        rate = learning_rates(config, 10)
        return [float(rate(mx.array(step)).item()) for step in range(10)]

    assert rates("linear") == pytest.approx([0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert rates("constant") == pytest.approx([0, 0.5] + [1] * 8)


def torch_adamw(start: np.ndarray, gradients: list[np.ndarray], decay: float, clip: float | None) -> np.ndarray:
    """torch's AdamW after `clip_grad_norm_`, betas 0.9 and 0.999, epsilon 1e-8, learning rate 0.1."""
    value, mean, square = start.astype(np.float64), np.zeros_like(start), np.zeros_like(start)
    for step, gradient in enumerate(gradients, start=1):
        if clip is not None:
            gradient = gradient * min(1.0, clip / (np.linalg.norm(gradient) + 1e-6))
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        value = value * (1 - 0.1 * decay)
        value = value - 0.1 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return value


@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_optimizer_is_torchs_with_clipped_gradients(decay: float, clip: float | None) -> None:
    config = TrainConfig(
        train="x", learning_rate=0.1, lr_schedule="constant", warmup_ratio=0, weight_decay=decay, max_grad_norm=clip
    )
    random = np.random.default_rng(0)
    start = random.normal(size=8)
    gradients = [random.normal(size=8) * size for size in (0.01, 30.0, 1.0, 0.2)]
    optimizer, parameters = ClippedAdamW(config, 4), {"weight": mx.array(start.astype(np.float32))}
    for gradient in gradients:
        parameters = optimizer.apply_gradients({"weight": mx.array(gradient.astype(np.float32))}, parameters)
    expected = torch_adamw(start, gradients, decay, clip)
    assert np.array(parameters["weight"]) == pytest.approx(expected, abs=1e-5)


# --- batches


def made_rows(count: int, prefixes: int = 1) -> list[TokenRow]:
    random = np.random.default_rng(7)
    return [
        TokenRow(
            tuple(range(1, 20 + at % prefixes)), tuple(map(int, random.integers(1, 400, size))), 5, f"rows.jsonl:{at}"
        )
        for at, size in enumerate(random.integers(8, 40, count))
    ]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("prefixes", [1, 3])
@pytest.mark.parametrize("by_length", [True, False])
def test_an_epoch_sees_every_row_once(shared: bool, prefixes: int, by_length: bool) -> None:
    rows = made_rows(23, prefixes)
    plan = Plan(rows, batch_size=4, accumulation=2, seed=0, group_by_length=by_length, shared_prefix=shared)
    orders = []
    for number in range(2):
        groups = list(plan.epoch(number))
        assert len(groups) == plan.updates_per_epoch
        assert all(len(group) == 2 for group in groups)
        seen = [where for group in groups for batch in group if batch.answer_tokens for where in batch.rows]
        assert sorted(seen) == sorted(row.where for row in rows)
        orders.append(seen)
    assert orders[0] != orders[1]


def test_a_batch_holds_the_rows_tokens_whatever_it_shares() -> None:
    rows = {row.where: row for row in made_rows(23, 3)}
    shared = 0
    for group in Plan(list(rows.values()), batch_size=4, accumulation=1, seed=0).epoch(0):
        for batch in group:
            shared += batch.prefix.size > 0
            for where, suffix, (start, end, _) in zip(batch.rows, batch.suffix, batch.lengths, strict=True):
                row = rows[where]
                assert (*batch.prefix, *suffix[:end]) == (*row.prefix, *row.suffix)
                assert (*suffix[start:end],) == row.suffix[row.offset :]
    assert shared == 5, "8, 8 and 7 rows make two, two and one full batch; the three rows left over run whole"


def test_the_seed_makes_the_order() -> None:
    def order(seed: int) -> list[str]:
        plan = Plan(made_rows(23), batch_size=4, accumulation=2, seed=seed)
        return [where for group in plan.epoch(1) for batch in group for where in batch.rows]

    assert order(1) == order(1) != order(2)


# --- the loss


class Indifferent(nn.Module):
    """A network that says the same whatever it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = mx.random.normal((64, 400))
        self.layers: list[nn.Module] = []

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        shape = (*tokens.shape, 400)
        return mx.broadcast_to(self.logits[: tokens.shape[1]], shape)


def loss_of(network: Any, rows: list[TokenRow]) -> float:
    loss, _ = answer_loss(network, *arrays(make_batch(rows), 1.0))
    return float(loss.item())


def test_only_the_answer_is_learnt() -> None:
    network = Indifferent()
    row = TokenRow((), tuple(range(10, 30)), 15, "")
    other_prompt = TokenRow((), tuple(range(110, 125)) + row.suffix[15:], 15, "")
    other_answer = TokenRow((), (*row.suffix[:15], 200, *row.suffix[16:]), 15, "")
    assert loss_of(network, [row]) == loss_of(network, [other_prompt])
    assert loss_of(network, [row]) != loss_of(network, [other_answer])


def test_the_loss_is_the_cross_entropy_of_the_answers_tokens() -> None:
    network = Indifferent()
    rows = [TokenRow((), tuple(range(10, 10 + size)), size - 4, "") for size in (20, 27)]
    table = np.array(network.logits, np.float64)
    table = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
    by_hand = sum(-table[at - 1, row.suffix[at]] for row in rows for at in range(row.offset, len(row.suffix)))
    assert loss_of(network, rows) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("name_weight", [0.5, 1.0, 3.0])
def test_tokens_up_to_the_names_end_weigh_more(name_weight: float) -> None:
    network = Indifferent()
    rows = [TokenRow((), tuple(range(10, 10 + size)), size - 9, "", named=named) for size, named in ((20, 3), (27, 5))]
    parts = [
        (loss_of(network, [replace(row, suffix=row.suffix[: row.offset + row.named])]), loss_of(network, [row]))
        for row in rows
    ]
    expected = sum(name_weight * named + (whole - named) for named, whole in parts)
    batch = make_batch(rows)
    loss, tokens = answer_loss(network, *arrays(batch, 0.25, name_weight))
    assert float(loss.item()) == pytest.approx(0.25 * expected, rel=1e-5)
    assert tokens.item() == 18 and batch.weight(name_weight) == 8 * name_weight + 10


def test_a_rows_name_ends_where_its_tools_does(tmp_path: Path) -> None:
    run = prepare_run(make_recipe(tmp_path), tmp_path / "unused", nowhere)
    decode = run.model.chat.tokenizer.decode
    heads = {decode(row.suffix[row.offset : row.offset + row.named]) for row in run.plan.rows}
    assert heads == {f'{{"tool":"{name}' for name in ("track_order", "no_tool")}


def test_the_first_reported_loss_is_the_weighted_mean_over_the_answers_tokens(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    config = make_recipe(tmp_path, max_updates=1, gradient_accumulation_steps=3, **PLAIN)
    run = prepare_run(config, tmp_path / "unused", nowhere)
    batch = make_batch(run.plan.rows)
    loss, _ = answer_loss(run.model.network, *arrays(batch, 1.0, config.name_weight))
    expected = float(loss.item()) / batch.weight(config.name_weight)
    train(config, events.append)
    assert next(event["loss"] for event in events if event["event"] == "progress") == pytest.approx(expected, rel=1e-5)


def group_gradient(network: Any, group: list[Any]) -> tuple[float, dict[str, np.ndarray]]:
    """What the trainer makes of a group of micro-batches: the mean of their losses and gradients."""
    weight = len(group) / sum(batch.answer_tokens for batch in group)
    total, gradients = 0.0, {}
    for batch in group:
        (loss, _), gradient = nn.value_and_grad(network, answer_loss)(network, *arrays(batch, weight))
        total += float(loss.item()) / len(group)
        for name, value in tree_flatten(gradient):
            gradients[name] = gradients.get(name, 0) + np.array(value) / len(group)
    return total, gradients


def test_the_short_last_group_of_an_epoch_weighs_its_own_tokens_only(tmp_path: Path) -> None:
    """12 rows in micro-batches of 5, two an update: the last update has two rows and nothing else."""
    config = make_recipe(tmp_path, batch_size=5, gradient_accumulation_steps=2, **PLAIN)
    run = prepare_run(config, tmp_path / "unused", nowhere)
    groups = list(run.plan.epoch(0))
    assert [[batch.answer_tokens > 0 for batch in group] for group in groups] == [[True, True], [True, False]]
    names = {where for batch in groups[1] for where in batch.rows}
    rows = [row for row in run.plan.rows if row.where in names]
    loss, gradients = group_gradient(run.model.network, groups[1])
    expected_loss, expected = group_gradient(run.model.network, [make_batch(rows)])
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert largest_difference(gradients, expected) < 1e-6


def test_accumulated_micro_batches_equal_one_big_batch(tmp_path: Path) -> None:
    # A large epsilon, for near zero Adam turns a gradient's rounding into a whole step.
    same = {"max_updates": 1, "adam_epsilon": 1e-3, "learning_rate": 1e-3, **PLAIN}
    big = make_recipe(tmp_path, batch_size=12, adapter=str(tmp_path / "big"), **same)
    small = make_recipe(tmp_path, batch_size=3, gradient_accumulation_steps=4, adapter=str(tmp_path / "small"), **same)
    one, other = weights(train(big, nowhere)), weights(train(small, nowhere))
    assert largest_difference(one, other) < 1e-6
    assert max(np.abs(value).max() for name, value in one.items() if name.endswith("lora_b")) > 1e-4


# --- a run


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    def run(name: str, seed: int) -> bytes:
        config = make_recipe(tmp_path, epochs=2, lora_dropout=0.1, seed=seed, adapter=str(tmp_path / name))
        return (train(config, nowhere) / "adapters.safetensors").read_bytes()

    first = run("one", 3)
    mx.random.normal((5,))
    assert run("two", 3) == first
    assert run("three", 4) != first


@pytest.mark.skipif(not BACKEND.compile_enabled, reason="this machine can't compile kernels")
def test_compiled_and_plain_runs_agree(tmp_path: Path) -> None:
    plain = weights(train(make_recipe(tmp_path, epochs=2, adapter=str(tmp_path / "plain")), nowhere))
    mx.enable_compile()
    try:
        compiled = weights(train(make_recipe(tmp_path, epochs=2, adapter=str(tmp_path / "compiled")), nowhere))
    finally:
        mx.disable_compile()
    assert largest_difference(plain, compiled) < 1e-3


def test_the_checkpoint_with_the_lowest_validation_loss_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(watching, "mean_loss", lambda network, batches, ranks: next(losses))
    events: list[dict[str, Any]] = []
    config = make_recipe(tmp_path, epochs=3, best_by="loss", valid_rows=0)
    folder = train(config.model_copy(update={"valid": config.train}), events.append)
    kept = (folder / "adapters.safetensors").read_bytes()
    checkpoints = {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    assert checkpoints.keys() == {"epoch-002.safetensors", "epoch-003.safetensors"}
    assert kept == checkpoints["epoch-002.safetensors"] != checkpoints["epoch-003.safetensors"]
    manifest = json.loads((folder / "router.json").read_text(encoding="utf-8"))
    assert manifest["metrics"] == {"valid_loss": 1.0, "best_by": "loss", "checkpoint": "epoch-002.safetensors"}
    assert events[-1]["event"] == "done" and events[-1]["checkpoint"] == "epoch-002.safetensors"
    assert [event["loss"] for event in events if event["event"] == "valid"] == [3.0, 1.0, 2.0]


def test_without_validation_rows_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    folder = train(make_recipe(tmp_path, epochs=2), nowhere)
    kept = (folder / "adapters.safetensors").read_bytes()
    assert kept == (folder / "checkpoints" / "epoch-002.safetensors").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapters.safetensors",
        "checkpoints",
        "router.json",
        "training.jsonl",
        "training.png",
    ]


def test_validation_does_not_change_the_run(tmp_path: Path) -> None:
    config = make_recipe(tmp_path, epochs=2, lora_dropout=0.1)
    without = weights(train(config, nowhere))
    # One row is so little that it is routed after the first epoch too.
    rows = Path(config.train).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "valid.jsonl").write_text("".join(rows[:1]), encoding="utf-8")
    update = {"valid": str(tmp_path / "valid.jsonl"), "adapter": str(tmp_path / "with")}
    folder = train(config.model_copy(update=update), nowhere)
    last: Any = mx.load(str(folder / "checkpoints" / "epoch-002.safetensors"))
    assert largest_difference(without, {name: np.array(value) for name, value in last.items()}) == 0


def test_the_rate_counts_training_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a micro-batch takes a second, and a checkpoint, after every second update, a hundred."""
    clock, sizes, events = [0.0], [], []

    def seconds_pass(batch: Any, weight: float, name_weight: float) -> Any:
        clock[0] += 1.0
        sizes.append(batch.prefix.size + batch.suffix.size)
        return arrays(batch, weight, name_weight)

    def slow_save(*_: Any) -> None:
        clock[0] += 100.0

    monkeypatch.setattr(watching, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(watching, "arrays", seconds_pass)
    save = watching._save_weights
    monkeypatch.setattr(watching, "_save_weights", lambda *given: (slow_save(), save(*given))[1])
    config = make_recipe(tmp_path, batch_size=6, epochs=3, log_every=3)
    train(config, events.append)
    first = next(event for event in events if event["event"] == "progress")
    assert first["tokens_per_second"] == pytest.approx(sum(sizes[:3]) / 3.0)


def test_nothing_is_printed_but_what_the_report_prints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(make_recipe(tmp_path, max_updates=1, adapter=str(tmp_path / "silent")), nowhere)
    assert capfd.readouterr() == ("", "")
    train(make_recipe(tmp_path, max_updates=1), lambda event: print(event["event"]))
    assert capfd.readouterr().out.split() == ["start", "progress", "checkpoint", "note", "plot", "done"]


# --- what a run refuses


def test_a_loss_that_is_no_number_names_the_rows(tmp_path: Path) -> None:
    config = make_recipe(tmp_path, learning_rate=1e30, batch_size=2, **PLAIN)
    with pytest.raises(TrainingError) as caught:
        train(config, nowhere)
    assert caught.value.message.startswith("the loss is nan at update 2, on these rows:")
    assert caught.value.message.count("rows.jsonl:") == 2
    with pytest.raises(ModelError, match=r"has no router\.json"):
        Router.load(config.adapter)


def test_weights_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    config = make_recipe(tmp_path, learning_rate=1e39, batch_size=12, epochs=1, **PLAIN)
    with pytest.raises(TrainingError, match="no longer numbers after epoch 1"):
        train(config, nowhere)
    assert not (Path(config.adapter) / "adapters.safetensors").exists()


def test_a_run_without_trainable_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing would be trained"):
        train(make_recipe(tmp_path, num_layers=0), nowhere)


def test_only_the_last_blocks_are_trained_where_that_is_asked_for(tmp_path: Path) -> None:
    found = weights(train(make_recipe(tmp_path, num_layers=1, train_on=["q_proj", "mlp.up_proj"]), nowhere))
    names = {name.removeprefix("model.layers.").rpartition(".")[0] for name in found}
    assert names == {"1.self_attn.q_proj", "1.mlp.up_proj"}


def test_names_that_no_layer_has_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        train(make_recipe(tmp_path, train_on=["q_proj", "qproj", "mlp.v_proj"]), nowhere)
    assert "'qproj', 'mlp.v_proj'; there are " in caught.value.message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"max_seq_length": 150}, "would be cut at 150, where the answer is"),
        ({"max_tokens": 8}, "routing stops at max_tokens = 8"),
    ],
)
def test_a_row_whose_answer_would_be_cut_is_named(fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    config = make_recipe(tmp_path, **fields)
    with pytest.raises(TrainingError) as caught:
        train(config, nowhere)
    assert reason in caught.value.message
    assert f"{config.train}:1: " in caught.value.message
    assert not Path(config.adapter).exists()


def test_rows_that_routing_has_no_room_for_are_refused_by_both(tmp_path: Path) -> None:
    config = make_recipe(tmp_path, epochs=1)
    folder = train(config, nowhere)
    decision = Router.load(folder).route("Hello")
    assert decision.timings is not None
    room = decision.timings.prompt_tokens + config.max_tokens
    for context, fits in ((room, True), (room - 1, False)):
        (tmp_path / "row.jsonl").write_text(
            '{"request": "Hello", "target": {"tool": "no_tool", "reason": "greeting"}}', encoding="utf-8"
        )
        name = str(make_model(tmp_path / f"base-{context}", max_position_embeddings=context))
        update = {"model": name, "train": str(tmp_path / "row.jsonl"), "adapter": str(tmp_path / f"to-{context}")}
        if fits:
            assert Router.load(train(config.model_copy(update=update), nowhere)).route("Hello").raw
            continue
        with pytest.raises(TrainingError, match=f"the model's context is {context}"):
            train(config.model_copy(update=update), nowhere)
        with pytest.raises(RequestError, match=f"the model's context is {context}"):
            Router.load(folder, base=name).route("Hello")


def test_a_finished_adapter_is_replaced_only_when_asked(tmp_path: Path) -> None:
    config = make_recipe(tmp_path, epochs=1)
    folder = train(config, nowhere)
    before = weights(folder)
    with pytest.raises(TrainingError, match="already holds a finished adapter"):
        train(config, nowhere)
    assert largest_difference(weights(folder), before) == 0
    train(config.model_copy(update={"seed": 9}), nowhere, overwrite=True)
    assert largest_difference(weights(folder), before) > 0


def test_an_interrupted_run_leaves_no_finished_adapter(tmp_path: Path) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            raise KeyboardInterrupt

    config = make_recipe(tmp_path, epochs=2)
    train(config, nowhere)
    with pytest.raises(KeyboardInterrupt):
        train(config, interrupt, overwrite=True)
    with pytest.raises(ModelError, match=r"has no router\.json"):
        Router.load(config.adapter)
    train(config, nowhere)
    assert Router.load(config.adapter).route("Hi!").raw


def test_a_network_that_mishandles_its_cache_learns_as_with_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_base = preparing.load_base

    def load_broken(*arguments: Any, **options: Any) -> Any:
        base = load_base(*arguments, **options)
        break_cache(base.network)
        return base

    monkeypatch.setattr(preparing, "load_base", load_broken)
    fallen_back = weights(train(make_recipe(tmp_path, epochs=1), nowhere))
    whole = make_recipe(tmp_path, epochs=1, shared_prefix=False, adapter=str(tmp_path / "whole"))
    assert largest_difference(fallen_back, weights(train(whole, nowhere))) == 0
