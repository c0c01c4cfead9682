"""Parameters put into objects: catalogues and calls still fit, and nothing of a call is lost."""

import random
from typing import Any

from mlx_router.calls import ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.parsing import parse
from mlx_router.prompts import assistant_text, system_message
from mlx_router.tiny.pretrain.generator import Episode, SyntheticEpisodes, Turn
from mlx_router.tiny.pretrain.nesting import Group, with_nested_parameters
from mlx_router.tiny.pretrain.values import Words

BOOK = Tool(
    "book",
    "book a table.",
    {
        "properties": {name: {"type": "string"} for name in ("day", "guest", "phone", "note")},
        "required": ["day", "guest"],
    },
)


def leaves(value: Any) -> list[Any]:
    """Names and values of the innermost arguments."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return leaves(value[0])
    if isinstance(value, dict):
        return [leaf for name, one in value.items() for leaf in (leaves(one) if nested(one) else [(name, one)])]
    return []


def nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def test_a_group_is_an_object_whose_required_parameters_stay_required() -> None:
    group = Group("info", ("guest", "phone"), False)
    assert group.schema(BOOK) == {
        "type": "object",
        "properties": {"guest": {"type": "string"}, "phone": {"type": "string"}},
        "required": ["guest"],
    }
    assert group.nested({"day": "Monday", "guest": "Ann"}) == {"day": "Monday", "info": {"guest": "Ann"}}
    assert Group("all", ("phone", "note"), True).nested({"day": "Monday", "guest": "Ann"}) == {
        "day": "Monday",
        "guest": "Ann",
    }


def test_nested_episodes_fit_and_lose_nothing() -> None:
    changed = 0
    for seed in range(300):
        before = SyntheticEpisodes(random.Random(seed), Words()).episode(8)
        after = with_nested_parameters(random.Random(seed), before)
        changed += before.catalogue != after.catalogue
        for old, new in zip(before.turns, after.turns, strict=True):
            assert old.request == new.request
            assert parse(assistant_text(new.target, after.catalogue), after.catalogue) == new.target
            if isinstance(old.target, ToolCall) and isinstance(new.target, ToolCall):
                assert sorted(map(str, leaves(new.target.arguments))) == sorted(map(str, old.target.arguments.items()))
            else:
                assert old.target == new.target
    assert 10 < changed < 60


def test_the_model_is_shown_the_object() -> None:
    catalogue = Catalogue((BOOK,))
    turn = Turn("Monday for Ann, 555", ToolCall(tool="book", arguments={"day": "Monday", "guest": "Ann"}), "call")
    texts = {
        system_message(with_nested_parameters(random.Random(seed), Episode(catalogue, (turn,))).catalogue)
        for seed in range(400)
    }
    assert any("{guest: str, phone?: str}" in text for text in texts)
    assert any("list[{" in text for text in texts)
