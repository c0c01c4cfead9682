"""Harder tests made from a test: every slice's rows, and the command that measures them."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, ScriptedDecoder, write_rows

from mlx_router.calls import NoTool, Target, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.data import Example
from mlx_router.harder import Slice, harder
from mlx_router.parsing import parse
from mlx_router.prompts import assistant_text


def call(tool: str, **arguments: Any) -> ToolCall:
    return ToolCall(tool=tool, arguments=arguments)


def rows(catalogue: Catalogue) -> list[Example]:
    refund = call("request_refund", order_id="ORD-7", reason="It broke, badly")
    other = call("request_refund", order_id="ORD-7", reason="broke, badly")
    return [
        Example("Where's my order ORD-1234?", call("track_order", order_id="ORD-1234"), catalogue),
        Example("Refund ORD-7, please. It broke, badly!", refund, catalogue, alternatives=(other,)),
        Example("Hi there!", NoTool(reason="chitchat"), catalogue),
        Example("please escalate this: I'm furious", call("escalate", reason="I'm furious"), catalogue),
    ]


def slices(examples: list[Example], seed: int = 0) -> dict[str, Slice]:
    return {one.name: one for one in harder(examples, seed)}


def test_every_changed_row_has_a_target_that_fits_its_catalogue(catalogue: Catalogue) -> None:
    found = slices(rows(catalogue))
    assert list(found) == [
        *("tool removed", "negated", "tools renamed", "names restyled", "order shuffled", "tools added"),
        *("lower case", "capitals", "no punctuation", "typing error"),
    ]
    for one in found.values():
        assert len(one.examples) == len(one.origins) > 0
        for example in one.examples:
            for target in (example.target, *example.alternatives):
                assert parse(assistant_text(target), example.catalogue) == target, (one.name, example)


def test_a_call_whose_tool_is_gone_and_one_that_is_refused_want_no_tool(catalogue: Catalogue) -> None:
    found = slices(rows(catalogue))
    removed = found["tool removed"]
    assert removed.origins == (0, 1, 3)
    for example, gone in zip(removed.examples, ("track_order", "request_refund", "escalate"), strict=True):
        assert gone not in example.catalogue and len(example.catalogue) == 2
        assert isinstance(example.target, NoTool) and example.alternatives == ()
    negated = found["negated"]
    assert negated.origins == (1, 3)
    assert all(isinstance(example.target, NoTool) for example in negated.examples)
    assert "efund ORD-7, please. It broke, badly" in negated.examples[0].request


def test_renamed_tools_keep_their_parameters_and_their_order(catalogue: Catalogue) -> None:
    found = slices(rows(catalogue))["tools renamed"]
    renamed = found.examples[0].catalogue
    assert [tool.description for tool in renamed] == [tool.description for tool in catalogue]
    assert not {tool.name for tool in renamed} & {tool.name for tool in catalogue}
    target = found.examples[1].target
    assert isinstance(target, ToolCall) and target.tool in renamed
    assert target.arguments == {"order_id": "ORD-7", "reason": "It broke, badly"}
    # The catalogue is the same for all rows, so that it is read once.
    assert len({example.catalogue.hash for example in found.examples}) == 1


def test_tools_without_a_description_are_not_renamed() -> None:
    bare = Catalogue((Tool("play", "", {}), Tool("stop", "Stop.", {})))
    assert "tools renamed" not in slices([Example("stop it", call("stop"), bare)])


def test_names_change_their_style_and_back(catalogue: Catalogue) -> None:
    once = slices(rows(catalogue))["names restyled"].examples
    assert [tool.name for tool in once[0].catalogue] == ["trackOrder", "requestRefund", "escalate"]
    assert once[0].target == call("trackOrder", orderId="ORD-1234")
    back = slices(list(once))["names restyled"].examples
    assert back[0].target == call("track_order", order_id="ORD-1234")
    assert {tool.name: dict(tool.parameters) for tool in back[0].catalogue} == {
        tool.name: dict(tool.parameters) for tool in catalogue
    }


def test_order_and_company_change_and_nothing_else(catalogue: Catalogue) -> None:
    found = slices(rows(catalogue))
    shuffled = found["order shuffled"].examples[0].catalogue
    assert sorted(tool.name for tool in shuffled) == sorted(tool.name for tool in catalogue)
    added = found["tools added"].examples[0].catalogue
    assert len(added) == len(catalogue) + 10
    assert all(tool.name in added for tool in catalogue)
    assert [example.target for example in found["tools added"].examples] == [row.target for row in rows(catalogue)]


def texts(target: Target) -> list[str]:
    return list(target.arguments.values()) if isinstance(target, ToolCall) else []


def test_lower_case_lowers_what_is_copied(catalogue: Catalogue) -> None:
    example = slices(rows(catalogue))["lower case"].examples[1]
    assert example.request == "refund ord-7, please. it broke, badly!"
    assert example.target == call("request_refund", order_id="ord-7", reason="it broke, badly")
    assert example.alternatives == (call("request_refund", order_id="ord-7", reason="broke, badly"),)


def test_capitals_raise_what_is_copied(catalogue: Catalogue) -> None:
    example = slices(rows(catalogue))["capitals"].examples[1]
    assert example.request == "REFUND ORD-7, PLEASE. IT BROKE, BADLY!"
    assert example.target == call("request_refund", order_id="ORD-7", reason="IT BROKE, BADLY")


def test_another_letter_case_leaves_the_choices_of_an_enum() -> None:
    schema = {"properties": {"mode": {"enum": ["Dark", "Light"]}, "room": {"type": "string"}}}
    made = Catalogue((Tool("set_mode", "Set a mode.", schema),))
    row = Example("Dark in the Attic", call("set_mode", mode="Dark", room="Attic"), made)
    assert slices([row])["lower case"].examples[0].target == call("set_mode", mode="Dark", room="attic")
    assert slices([row])["capitals"].examples[0].target == call("set_mode", mode="Dark", room="ATTIC")


@pytest.mark.parametrize("seed", range(8))
def test_punctuation_and_typing_errors_spare_the_values(seed: int, catalogue: Catalogue) -> None:
    found = slices(rows(catalogue), seed)
    assert found["no punctuation"].examples[1].request == "Refund ORD-7 please It broke, badly"
    for name in ("no punctuation", "typing error"):
        for origin, example in zip(found[name].origins, found[name].examples, strict=True):
            assert example.request != rows(catalogue)[origin].request
            assert all(text in example.request for text in texts(example.target))


def test_the_same_seed_makes_the_same_rows_and_another_one_others(catalogue: Catalogue) -> None:
    def requests(seed: int) -> list[str]:
        return [example.request for example in slices(rows(catalogue), seed)["typing error"].examples]

    assert requests(1) == requests(1)
    assert len({tuple(requests(seed)) for seed in range(6)}) > 1


@pytest.fixture
def written(tmp_path: Path, catalogue: Catalogue) -> Path:
    return write_rows(
        tmp_path / "test.jsonl",
        [
            {"request": example.request, "target": json.loads(assistant_text(example.target))}
            for example in rows(catalogue)
        ],
    )


def test_the_command_shows_each_slice_beside_the_same_rows_unchanged(
    scripted: ScriptedDecoder, written: Path, catalogue: Catalogue, run: Run
) -> None:
    # It knows its requests by heart, whatever the catalogue says.
    scripted.answers = {example.request: assistant_text(example.target) for example in rows(catalogue)}
    scripted.otherwise = '{"tool":"escalate","arguments":{"reason":"?"}}'
    ran = run("stress", "anywhere", "--data", written, "--json")
    assert ran.code == 0
    found = ran.json
    assert found["metrics"]["exact_match"]["value"] == 1.0
    removed = found["slices"]["tool removed"]
    assert removed["n"] == 3 and removed["unchanged"]["exact_match"]["value"] == 1.0
    assert removed["metrics"]["exact_match"]["value"] == 0.0
    assert found["slices"]["order shuffled"]["metrics"]["exact_match"]["value"] == 1.0
    assert found["slices"]["negated"]["metrics"]["wrong_call_rate"]["value"] == 1.0

    shown = run("stress", "anywhere", "--data", written)
    line = next(line for line in shown.out.splitlines() if line.startswith("negated"))
    assert line.split()[:4] == ["negated", "2", "0.000", "(1.000)"]
    assert "in brackets: the same rows unchanged" in shown.out
