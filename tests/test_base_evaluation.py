"""What the embedded base is measured on: scenes that training never sees, in catalogues of every size."""

import random

import pytest

from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.parsing import parse
from mlx_router.prompts import assistant_text
from mlx_router.tiny.pretrain.evaluate import scene_questions, with_tools_at_most
from mlx_router.tiny.pretrain.generator import Episode, Turn

ROWS = 60


@pytest.mark.parametrize("tools", [3, 10, 40])
def test_catalogues_have_the_size_that_was_asked_for(tools: int) -> None:
    asked = scene_questions(True, ROWS, tools)
    assert len(asked) > ROWS / 2
    assert {len(question.catalogue) for question in asked} == {tools}
    kinds = {type(question.target) for question in asked}
    assert kinds == {ToolCall, NoTool}
    for question in asked:
        text = assistant_text(question.target, question.catalogue)
        assert parse(text, question.catalogue) == question.target


def test_nested_scenes_have_calls_with_objects() -> None:
    calls = [question.target for question in scene_questions(True, ROWS, nested=True)]
    values = [value for call in calls if isinstance(call, ToolCall) for value in call.arguments.values()]
    assert any(isinstance(value, dict) for value in values)


def test_a_cut_catalogue_keeps_what_is_called_and_rows_without_a_call() -> None:
    catalogue = Catalogue(tuple(Tool(name, f"do {name}.") for name in "abcdef"))

    def turn(name: str) -> Turn:
        return Turn(f"{name} please", ToolCall(tool=name, arguments={}), "call")

    nothing = Turn("hello", NoTool(reason="chitchat"), "chitchat")
    cut = with_tools_at_most(random.Random(0), Episode(catalogue, (turn("e"), nothing, turn("b"))), 3)
    names = [tool.name for tool in cut.catalogue]
    assert len(names) == 3 and names == sorted(names) and {"b", "e"} <= set(names)
    assert cut.turns == (turn("e"), nothing, turn("b"))
    cut = with_tools_at_most(random.Random(0), Episode(catalogue, (turn("e"), nothing, turn("b"))), 1)
    (name,) = (tool.name for tool in cut.catalogue)
    assert cut.turns == tuple(kept for kept in (turn("e"), nothing, turn("b")) if kept in (turn(name), nothing))
