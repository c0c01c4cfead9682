"""Scenes, from which the embedded base learns: their files, and the requests made of them."""

import random
import re
from pathlib import Path

import pytest

from mlx_router.calls import NoTool, ToolCall
from mlx_router.parsing import parse
from mlx_router.prompts import assistant_text
from mlx_router.tiny.pretrain.episodes import SceneEpisodes
from mlx_router.tiny.pretrain.generator import Episode
from mlx_router.tiny.pretrain.scenes import (
    Scene,
    held_scenes,
    kept,
    load_scenes,
    read_scene,
    training_scenes,
)
from mlx_router.tiny.pretrain.sources import LEFT_OUT
from mlx_router.tiny.pretrain.values import Words

BAKERY = """\
@ voice assistant of a bakery
// a comment
= bread: sourdough loaf; rye bread; two-day focaccia

# order_bread | Order bread. | bread: =bread, amount: int(1-40), method?: [pickup=pick up,collect | delivery]
+ I'd like {amount} {bread}[, I'll {method} it]
+ drop {amount} {bread} off at my door :: method=delivery
- missing amount: I want some {bread}
- invalid amount: minus three {bread}

# list_orders | Show the open orders. |
+ (what|anything) still open?
~ no_action_requested: how long does {=bread} keep?
"""

BAKE = """
# bake | Bake. | bread: =bread, amount: int, method?: [a | b]
+ bake {amount} {bread}
"""


def write(folder: Path, text: str) -> Scene:
    path = folder / "bakery.txt"
    path.write_text(text, encoding="utf-8")
    return read_scene(path)


def episodes(scenes: list[Scene], count: int, seed: int = 1, *, plain: bool = True) -> list[Episode]:
    source = SceneEpisodes(random.Random(seed), Words(), scenes, scenes, (0,), plain=plain)
    return [source.episode(8) for _ in range(count)]


def test_a_scene_is_read_with_its_lists_tools_and_texts(tmp_path: Path) -> None:
    scene = write(tmp_path, BAKERY)
    assert scene.problems == []
    order, orders = scene.tools
    assert scene.lists == {"bread": ("sourdough loaf", "rye bread", "two-day focaccia")}
    assert [(p.name, p.kind, p.required) for p in order.parameters] == [
        ("bread", "=bread", True),
        ("amount", "int", True),
        ("method", "enum", False),
    ]
    assert order.parameters[2].choices == {"pickup": ("pick up", "collect"), "delivery": ("delivery",)}
    assert order.calls[1].fixed == {"method": "delivery"}
    assert [frame.names for frame in (*order.missing, *order.invalid)] == [("amount",), ("amount",)]
    assert orders.parameters == ()
    assert scene.idle == [("no_action_requested", "how long does {=bread} keep?")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("+ I'd like {amount} {cake}", "no parameter 'cake'"),
        ("+ I'd like some {bread}", "amount not said"),
        ("+ [{amount}] {bread}", "amount not said"),
        ("+ {amount} {bread} :: method=mail", "method can't be 'mail'"),
        ("+ {amount} {bread} or {bread}", "slots stand twice"),
        ("- missing method: {amount} {bread}", "an optional parameter is missing"),
        ("~ no_action_requested: how long does {bread} keep?", "no parameter to say"),
        ("~ chitchat: is {=cake} nice?", "unknown list 'cake'"),
        ("# eat | Eat. | what: =cake", "unknown list '=cake'"),
        ("# eat | Eat. | what: meal", "unknown kind 'meal'"),
        ("? what", "unknown line"),
    ],
)
def test_what_is_wrong_in_a_scene_is_named_and_left_out(tmp_path: Path, line: str, problem: str) -> None:
    scene = write(
        tmp_path,
        BAKERY + "\n# bake | Bake. | bread: =bread, amount: int, method?: [a | b]\n+ bake {amount} {bread}\n" + line,
    )
    assert len(scene.problems) == 1 and problem in scene.problems[0]
    assert len(scene.tools[2].calls) == 1


def test_requests_state_their_arguments_and_answers_fit_the_catalogue(tmp_path: Path) -> None:
    scene = write(tmp_path, BAKERY)
    seen = set()
    for episode in episodes([scene], 200, plain=False):
        for turn in episode.turns:
            assert parse(assistant_text(turn.target, episode.catalogue), episode.catalogue) == turn.target, turn
            assert turn.request.strip() and not re.search(r"[{}\x02\x03]|::", turn.request), turn.request
            seen.add(turn.kind)
            if isinstance(turn.target, ToolCall):
                for value in turn.target.arguments.values():
                    if isinstance(value, str) and value not in ("pickup", "delivery"):
                        assert value in turn.request, turn
    assert {"call", "missing", "invalid", "no_action_requested"} <= seen


def test_amounts_are_numbers_and_ways_to_say_a_choice_give_its_value(tmp_path: Path) -> None:
    turns = [turn for episode in episodes([write(tmp_path, BAKERY)], 200) for turn in episode.turns]
    calls = [turn for turn in turns if isinstance(turn.target, ToolCall) and "amount" in turn.target.arguments]
    assert calls and all(type(turn.target.arguments["amount"]) is int for turn in calls)
    assert any("collect" in turn.request and turn.target.arguments.get("method") == "pickup" for turn in calls)


def test_every_scene_of_the_package_reads_without_a_problem() -> None:
    scenes = load_scenes()
    assert [problem for scene in scenes for problem in scene.problems] == []
    assert len(scenes) >= 80
    for scene in scenes:
        assert scene.about and len(scene.tools) >= 3 and scene.idle, scene.name
        assert not any(LEFT_OUT.search(tool.name) for tool in scene.tools), scene.name


def test_every_scene_makes_episodes_whose_answers_fit() -> None:
    for scene in load_scenes():
        for episode in episodes([scene], 6):
            for turn in episode.turns:
                assert parse(assistant_text(turn.target, episode.catalogue), episode.catalogue) == turn.target, turn


def test_what_is_held_out_never_reaches_training() -> None:
    held = held_scenes()
    training = {scene.name: scene for scene in training_scenes()}
    assert held and not held & training.keys()
    for scene in load_scenes():
        if scene.name in training:
            seen = {frame.text for tool in training[scene.name].tools for frame in tool.calls}
            unseen = {frame.text for tool in kept(scene, held=True).tools for frame in tool.calls}
            assert not seen & unseen
            assert seen | unseen == {frame.text for tool in scene.tools for frame in tool.calls}


def test_no_tool_is_between_a_tenth_and_a_fifth() -> None:
    targets = [turn.target for episode in episodes(training_scenes(), 300, plain=False) for turn in episode.turns]
    share = sum(isinstance(target, NoTool) for target in targets) / len(targets)
    assert 0.12 < share < 0.24
