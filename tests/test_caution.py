"""Repeated `no_tool` rows and changed catalogues: what a run sees of them, and that it is the seed's alone."""

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from conftest import CATALOGUE, write_rows
from tiny_models import make_recipe

from mlx_router.batches import Batch, Plan, TokenRow
from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.caution import MOST_ADDED, Varying, other_names, repeated, varying
from mlx_router.config import TrainConfig, load_config
from mlx_router.data import Example
from mlx_router.distractors import fitting, shipped
from mlx_router.errors import ConfigError, TrainingError
from mlx_router.harder import OTHER_TOOLS
from mlx_router.interop import load_catalogue
from mlx_router.leaks import find_leaks
from mlx_router.parsing import parse
from mlx_router.preparing import Run, prepare_run
from mlx_router.signature import parse_signatures
from mlx_router.training import train
from mlx_router.variants import name_words

ALL: dict[str, Any] = {
    "no_tool_share": 0.6,
    "remove_tools": 0.3,
    "rename_tools": 0.5,
    "add_tools": 0.5,
    "shuffle_tools": 0.5,
    "max_tokens": 128,
}


pytestmark = pytest.mark.usefixtures("uncompiled")


def nowhere(_: object) -> None:
    """Nobody listens."""


def test_tools_are_not_left_out_where_the_catalogue_lists_no_reason_for_it(catalogue: Catalogue) -> None:
    listing = replace(catalogue, reasons=("out_of_scope",))
    examples = [Example("Hello!", NoTool(reason="out_of_scope"), listing, where="rows:1")]
    config = TrainConfig(train="rows.jsonl", remove_tools=0.2)
    with pytest.raises(TrainingError, match=r"'no_matching_tool', which the catalogue of rows:1 does not list"):
        varying(config, examples, lambda _: [], nowhere)
    more = replace(listing, reasons=("out_of_scope", "no_matching_tool"))
    assert varying(config, [replace(examples[0], catalogue=more)], lambda _: [], nowhere) is not None


# --- repeated rows


def made_plan(share: float, calls: int = 16, others: int = 4, **fields: Any) -> tuple[Plan, list[TokenRow]]:
    """A plan of rows whose places say what they are: "call 3", "none 0"."""
    kinds = ["call"] * calls + ["none"] * others
    rows = [TokenRow((1, 2, 3), (5, 6, 7, 8), 2, f"{kind} {at}") for at, kind in enumerate(kinds)]
    catalogue = load_catalogue(CATALOGUE)
    targets = {"call": ToolCall(tool="escalate", arguments={"reason": "x"}), "none": NoTool(reason="chitchat")}
    examples = [Example("x", targets[kind], catalogue) for kind in kinds]
    numbers, again = repeated(examples, share, nowhere)
    options = {"batch_size": 4, "accumulation": 1, "seed": 0} | fields
    return Plan(rows, repeated=numbers, again=again, **options), rows


def seen(plan: Plan, epoch: int) -> Counter[str]:
    return Counter(
        where for group in plan.epoch(epoch) for batch in group if batch.answer_tokens for where in batch.rows
    )


@pytest.mark.parametrize("share", [0.25, 0.4, 0.8])
def test_no_tool_rows_are_repeated_to_the_wanted_share(share: float) -> None:
    plan, rows = made_plan(share)
    found = seen(plan, 0)
    none = sum(count for where, count in found.items() if where.startswith("none"))
    assert none / sum(found.values()) == pytest.approx(share, abs=0.02)
    assert all(found[row.where] == 1 for row in rows if row.where.startswith("call"))
    counts = [found[row.where] for row in rows if row.where.startswith("none")]
    assert min(counts) >= 1 and max(counts) - min(counts) <= 1, "none is seen again before all others were"


def test_other_rows_are_repeated_in_another_epoch_and_the_number_of_batches_stays() -> None:
    plan, _ = made_plan(0.3, others=5)
    found = [seen(plan, epoch) for epoch in range(6)]
    assert len({tuple(sorted(where for where, count in one.items() if count > 1)) for one in found}) > 1
    assert {len(list(plan.epoch(epoch))) for epoch in range(6)} == {plan.updates_per_epoch}
    assert seen(plan, 3) == seen(made_plan(0.3, others=5)[0], 3)


def test_rows_that_have_the_share_already_are_left(catalogue: Catalogue) -> None:
    said: list[str] = []
    examples = [Example("Hi", NoTool(reason="chitchat"), catalogue)] * 3
    assert repeated(examples, 0.5, said.append) == ([], 0)
    assert "100.0% of the rows are no_tool already" in said[0]
    assert repeated(examples, None, nowhere) == ([], 0)


def test_without_a_no_tool_row_none_can_be_repeated(catalogue: Catalogue) -> None:
    call = ToolCall(tool="escalate", arguments={"reason": "x"})
    with pytest.raises(TrainingError, match="no training row wants no_tool"):
        repeated([Example("x", call, catalogue)], 0.5, nowhere)


# --- tools that are added


def test_the_shipped_tools_are_dozens_and_none_is_one_that_stress_adds() -> None:
    tested = parse_signatures(OTHER_TOOLS)
    assert tested is not None
    assert len(shipped()) == 60
    assert all(tool.description for tool in shipped())
    assert not {tool.name for tool in shipped()} & {tool.name for tool in tested}


def test_tools_that_might_be_right_are_not_added(catalogue: Catalogue) -> None:
    others = [
        Tool("track_parcel", "Track a parcel."),
        Tool("water_plants", "Water the plants."),
        Tool("feedFish", "Feed the fish."),
    ]
    row = Example("Could you water my ferns?", NoTool(reason="no_matching_tool"), catalogue)
    assert [tool.name for tool in fitting(others, catalogue, [row])] == ["feedFish"]


# --- other names


@pytest.mark.parametrize("seed", range(30))
def test_other_names_are_distinct_and_say_something_where_nothing_else_does(seed: int) -> None:
    desktop = load_catalogue(CATALOGUE.parents[1] / "desktop" / "catalogue.json")
    bare = Tool("play_song", "", {"properties": {"song_name": {"type": "string"}, "artist": {"type": "string"}}})
    odd = Tool("odd", "Odd.", {"properties": {"a b": {"type": "string"}, "$": {"type": "string"}}})
    catalogue = Catalogue((*desktop, bare, odd))
    tools, parameters = other_names(catalogue, Random(seed))
    for names, old in ((tools, {tool.name for tool in catalogue}), (parameters, parameters.keys())):
        assert names.keys() == old
        assert len(set(names.values())) == len(names)
    assert {"play", "song"} <= name_words(tools["play_song"].replace("-", " "))
    assert {"song", "name"} <= name_words(parameters["song_name"])


# --- variants of batches


def prepared(folder: Path, **fields: Any) -> Run:
    return prepare_run(make_recipe(folder, **fields), folder / "unused", nowhere)


def texts(run: Run, batch: Batch) -> list[tuple[str, str]]:
    """Prompt and answer of a batch's rows."""
    decode = run.model.chat.tokenizer.decode
    rows = zip(batch.suffix, batch.lengths, strict=True)
    prefix = list(batch.prefix)
    return [(decode([*prefix, *row[:start]]), decode(list(row[start:end]))) for row, (start, end, _) in rows]


def shown(prompt: str) -> Catalogue:
    found = parse_signatures(prompt.split("Respond with")[0])
    assert found is not None
    return found


def test_a_batch_shares_its_variant_and_every_answer_fits_it(tmp_path: Path) -> None:
    run = prepared(tmp_path, **ALL)
    catalogues, invented = set(), 0
    for epoch in range(12):
        for (batch,) in run.plan.epoch(epoch):
            assert batch.prefix.size > 0
            found = texts(run, batch)
            assert len({shown(prompt).hash for prompt, _ in found}) == 1
            for prompt, answer in found:
                catalogue = shown(prompt)
                catalogues.add(catalogue.hash)
                outcome = parse(answer.partition("<|im_end|>")[0], catalogue)
                assert isinstance(outcome, NoTool | ToolCall), (answer, prompt)
                invented += isinstance(outcome, NoTool) and "Where is" in prompt
    assert len(catalogues) > 20
    assert invented > 5


@pytest.mark.parametrize("field", ["shuffle_tools", "add_tools", "rename_tools"])
def test_each_change_is_itself(field: str, tmp_path: Path) -> None:
    run = prepared(tmp_path, **{field: 1.0, "max_tokens": 128})
    own = run.catalogue
    orders = set()
    for epoch in range(4):
        for (batch,) in run.plan.epoch(epoch):
            tools = list(shown(texts(run, batch)[0][0]))
            names = [tool.name for tool in tools]
            orders.add(tuple(names))
            if field == "shuffle_tools":
                assert sorted(names) == sorted(tool.name for tool in own)
            elif field == "add_tools":
                assert [name for name in names if name in own] == [tool.name for tool in own]
                assert 1 <= len(names) - len(own) <= MOST_ADDED
            else:
                assert len(names) == len(own)
                assert [tool.description for tool in tools] == [tool.description for tool in own]
    assert len(orders) > 4


def test_the_chance_of_a_tool_is_the_share_of_rows_that_lose_it(catalogue: Catalogue) -> None:
    config = TrainConfig(train="x", remove_tools=0.2)
    varying = Varying(config, {}, (), lambda _: [], nowhere)
    kept = Counter(name for seed in range(2000) for name in varying.variant(catalogue, [], Random(seed)).tools)
    assert all(count / 2000 == pytest.approx(0.8, abs=0.04) for count in kept.values())
    always = Varying(config.model_copy(update={"remove_tools": 0.999}), {}, (), lambda _: [], nowhere)
    assert {len(always.variant(catalogue, [], Random(seed)).tools) for seed in range(50)} == {1}


def test_rows_of_several_catalogues_get_a_variant_each(tmp_path: Path) -> None:
    """Batches that mix catalogues run whole rows; so they do with variants."""
    desktop = str(CATALOGUE.parents[1] / "desktop" / "catalogue.json")
    rows = [
        {"request": f"Lock {at}", "target": {"tool": "lock_screen", "arguments": {}}, "catalogue": desktop}
        for at in range(3)
    ]
    rows += [{"request": f"Hi {at}", "target": {"tool": "no_tool", "reason": "chitchat"}} for at in range(3)]
    made = write_rows(tmp_path / "mixed.jsonl", rows)
    run = prepared(tmp_path, train=str(made), shuffle_tools=1.0)
    made_batches = batches(run, 0)
    assert [batch.prefix.size for batch in made_batches] == [0, 0]
    found = {len(shown(prompt)) for batch in made_batches for prompt, _ in texts(run, batch)}
    assert found == {3, len(load_catalogue(desktop))}


def test_a_variant_that_is_too_long_leaves_the_batch_as_it_is_and_says_so_once(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    plain = prepared(tmp_path)
    longest = max(len(row.prefix) + len(row.suffix) for row in plain.plan.rows)
    config = make_recipe(tmp_path, add_tools=1.0, max_seq_length=longest)
    run = prepare_run(config, tmp_path / "unused", events.append)
    assert all(same(one, other) for one, other in zip(batches(run, 0), batches(plain, 0), strict=True))
    said = [event["message"] for event in events if "does not fit" in event["message"]]
    assert len(said) == 1 and f"would be cut at {longest}" in said[0]


def batches(run: Run, epoch: int, skip: int = 0) -> list[Batch]:
    return [batch for group in run.plan.epoch(epoch, skip) for batch in group]


def same(one: Batch, other: Batch) -> bool:
    return one.rows == other.rows and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("prefix", "suffix", "lengths")
    )


def test_batches_are_the_seeds_and_do_not_depend_on_those_before(tmp_path: Path) -> None:
    run, again, other = (prepared(tmp_path, **ALL, seed=seed) for seed in (5, 5, 6))
    whole = batches(run, 1)
    assert all(same(one, two) for one, two in zip(whole[2:], batches(again, 1, skip=2), strict=True))
    assert not all(same(one, two) for one, two in zip(whole, batches(other, 1), strict=True))


# --- whole runs


def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = make_recipe(tmp_path, epochs=2, lora_dropout=0.1, save_every=2, **ALL)
    broken = unbroken.model_copy(update={"adapter": str(tmp_path / "broken")})

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["update"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    train(unbroken, nowhere)
    with pytest.raises(KeyboardInterrupt):
        train(broken, stop)
    train(broken, nowhere, resume=True)
    one, two = ((Path(config.adapter) / "adapters.safetensors").read_bytes() for config in (unbroken, broken))
    assert one == two


def test_the_manifest_knows_the_rows_as_they_stand_in_the_file(tmp_path: Path) -> None:
    plain, changed = prepared(tmp_path), prepared(tmp_path, **ALL)
    assert changed.data["train"] == plain.data["train"]
    assert changed.data["distractors"] == {
        "source": "mlx_router",
        "tools": 60,
        "hash": changed.data["distractors"]["hash"],
    }
    assert "distractors" not in plain.data
    row = Example("Where is KX-22?", NoTool(reason="x"), plain.catalogue)
    assert len(find_leaks([row], changed.data).train) == 1
    assert changed.identity != plain.identity


def test_ones_own_distractors_are_read_and_belong_to_the_runs_identity(tmp_path: Path) -> None:
    path = tmp_path / "others.json"
    tools = [{"name": f"zither_{at}", "description": "Play it."} for at in range(3)]
    path.write_text(json.dumps(tools), encoding="utf-8")
    one = prepared(tmp_path, add_tools=1.0, distractors=str(path))
    names = {tool.name for batch in batches(one, 0) for tool in shown(texts(one, batch)[0][0])}
    assert names - {tool.name for tool in one.catalogue} <= {tool["name"] for tool in tools}
    assert one.data["distractors"]["source"] == "others.json"
    path.write_text(json.dumps(tools[:2]), encoding="utf-8")
    assert prepared(tmp_path, add_tools=1.0, distractors=str(path)).identity != one.identity


def test_a_path_of_a_recipe_is_relative_to_it_and_kept_text_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(
        "train: rows.jsonl\nadd_tools: 0.5\ndistractors: others.json\nkeep_system: false\n", encoding="utf-8"
    )
    assert load_config(tmp_path / "train.yaml").distractors == str(tmp_path / "others.json")
    with pytest.raises(ConfigError, match=r"add_tools: .*not with keep_system"):
        load_config(tmp_path / "train.yaml", {"keep_system": True})
