"""Declared comparison of arguments: what each rule takes for equal, where rules are declared, and what they show."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from mlx_router import matching
from mlx_router.catalogue import Catalogue, Tool, union
from mlx_router.errors import CatalogueError, ModelError
from mlx_router.evaluation import Evaluation, read_predictions, write_predictions
from mlx_router.interop import load_catalogue, to_mcp, to_openai
from mlx_router.manifest import Base, Manifest
from mlx_router.matching import read_rule
from mlx_router.prompts import system_message
from mlx_router.rendering import render_evaluation

BOOK = {
    "name": "book",
    "description": "book a table.",
    "parameters": {
        "properties": {
            "city": {"type": "string"},
            "guests": {"type": "integer"},
            "day": {"type": ["string", "null"]},
            "wishes": {"type": "array", "items": {"$ref": "#/$defs/Wish"}},
            "sums": {"type": "array", "items": {"type": "number"}},
            "anything": {},
            "loud": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        },
        "$defs": {"Wish": {"type": "object", "properties": {"what": {"type": "string"}, "price": {"type": "number"}}}},
    },
}


def book(compare: object) -> dict[str, Any]:
    return {"instructions": "You book tables.", "tools": [{**BOOK, "compare": compare}, {"name": "ping"}]}


def catalogue(**compare: Any) -> Catalogue:
    return Catalogue.from_json(book(compare))


@pytest.mark.parametrize(
    ("rule", "gold", "said", "equal"),
    [
        ("exact", "Paris", "Paris", True),
        ("exact", "Paris", "paris", False),
        ("caseless", "Paris", "PARIS", True),
        ("caseless", "Straße", "STRASSE", True),
        ("caseless", "é", "E\u0301", True),
        ("caseless", "Paris", "Paris ", False),
        ("caseless", "Paris", "Pari", False),
        ("folded", "It broke.", "it  broke", True),
        ("folded", "e-mail,\tplease!", "E mail – please", True),
        ("folded", "\u201cso\u201d", "'so'", True),
        ("folded", "a\u00a0b", " a b ", True),
        ("folded", "e-mail", "email", False),
        ("folded", "1.5", "15", False),
        ("folded", "C#", "C", False),
        ("folded", "100 %", "100", False),
        ("folded", "a@b.de", "a b de", False),
        ("folded", "5 €", "5", False),
        ("folded", "?", "!", False),
        ("folded", "", "?", False),
        ("folded", "①", "1", False),
        ("folded", "5", 5, False),
        ("date", "2026-11-23", "20261123", True),
        ("date", "2026-11-23", "2026-W48-1", True),
        ("date", "2026-11-23T10:00:00Z", "2026-11-23 11:00+01:00", True),
        ("date", "2026-11-23T10:00", "2026-11-23T10:00:00.000", True),
        ("date", "2026-11-23T10:00", "2026-11-23T10:00Z", False),
        ("date", "2026-11-23", "2026-11-23T00:00", False),
        ("date", "2026-11-23", "2026-11-24", False),
        ("date", "2026-11-23", "23.11.2026", False),
        ("date", "tomorrow", "tomorrow", True),
        ("date", "tomorrow", "Tomorrow", False),
        ("date", "2026-11-23", 20261123, False),
        ({"date": ["%d.%m.%Y", "%B %d, %Y"]}, "23.11.2026", "November 23, 2026", True),
        ({"date": ["%d.%m.%Y"]}, "23.11.2026", "2026-11-23", False),
        ({"date": ["%d/%m/%Y", "%m/%d/%Y"]}, "03/04/2026", "3/4/2026", True),
        ({"date": ["%H:%M", "%I %p"]}, "17:00", "5 pm", True),
        ({"date": ["%d.%m.%Y", "%d.%m.%Y %H:%M"]}, "23.11.2026", "23.11.2026 00:00", False),
        ({"tolerance": 0.01}, 1, 1.01, True),
        ({"tolerance": 0.01}, 1.00, 0.99, True),
        ({"tolerance": 0.01}, 1, 1.0101, False),
        ({"tolerance": 1}, 10**20, 10**20 - 1, True),
        ({"tolerance": 1}, 10**20, 10**20 - 2, False),
        ({"tolerance": 1}, 1, True, False),
        ({"tolerance": 1}, 1, "1", False),
        ({"tolerance": 0.5}, 1e308, 1.7e308, False),
        ({"relative": 0.05}, 200, 190, True),
        ({"relative": 0.05}, 190, 200, False),
        ({"relative": 0.05}, -200, -209, True),
        ({"relative": 0.05}, 0, 0.0001, False),
        ({"relative": 0.05, "tolerance": 0.001}, 0, 0.0001, True),
        ({"relative": 0.05, "tolerance": 0.001}, 200, 209, True),
        ("unordered", [1, 2, 2], [2, 1.0, 2], True),
        ("unordered", [1, 2, 2], [1, 1, 2], False),
        ("unordered", [1], [1, 1], False),
        ("unordered", [True], [1], False),
        ("unordered", ["a", "b"], ["B", "A"], False),
        ("unordered", [[1, 2]], [[2, 1]], False),
        ({"unordered": "unordered"}, [[1, 2], [3]], [[3], [2, 1]], True),
        ({"unordered": "folded"}, ["No nuts", "quiet"], ["Quiet.", "no-nuts"], True),
        # The first that fits 1.1 is needed by 1.0.
        ({"unordered": {"tolerance": 0.1}}, [1.1, 1.0], [1.0, 1.2], True),
        ({"unordered": {"tolerance": 0.1}}, [1.1, 1.0], [1.2, 1.2], False),
        ("folded", ["No nuts", "quiet"], ["no-nuts", "Quiet!"], True),
        ("folded", ["No nuts", "quiet"], ["quiet", "no nuts"], False),
        ("folded", ["a"], ["a", "a"], False),
        ({"properties": {"what": "folded"}}, {"what": "A b", "n": 1}, {"n": 1.0, "what": "a-B"}, True),
        ({"properties": {"what": "folded"}}, {"what": "A b", "n": 1}, {"what": "a-B", "n": 2}, False),
        ({"properties": {"what": "folded"}}, {"what": "A"}, {"what": "a", "n": 2}, False),
        ({"properties": {"what": "folded"}}, {"n": 2}, {"what": "a", "n": 2}, False),
        ({"properties": {"what": "folded"}}, [{"what": "A"}], [{"what": "a"}], True),
        ({"unordered": {"properties": {"what": "folded"}}}, [{"what": "A"}, {"what": "b"}],
         [{"what": "B"}, {"what": "a"}], True),
        ("folded", None, None, True),
        ("folded", None, "", False),
        ("date", {}, [], False),
    ],
)  # fmt: skip
def test_what_each_rule_takes_for_equal(rule: Any, gold: Any, said: Any, equal: bool) -> None:
    assert read_rule(rule).holds(gold, said) is equal


VALUES: list[Any] = [
    *(None, True, 0, 1, -1.5, 1e308, "", "a", "A b.", "2026-11-23", "2026-11-23T10:00Z", "?"),
    *([], [1, "a"], ["a", 1], [[1]], {}, {"a": "A"}, {"a": [1, 2]}),
]
RULES: list[Any] = [
    *("exact", "caseless", "folded", "date", "unordered", {"date": ["%Y"]}, {"tolerance": 0.5}, {"relative": 0.1}),
    *({"unordered": "folded"}, {"unordered": {"tolerance": 1}}, {"properties": {"a": "caseless"}}),
]


@pytest.mark.parametrize("rule", RULES, ids=json.dumps)
def test_a_rule_judges_any_two_values_and_never_falls_short_of_equality(rule: Any) -> None:
    one = read_rule(rule)
    for gold, said in itertools.product(VALUES, VALUES):
        verdict = one.holds(gold, said)
        assert verdict or not matching.json_equal(gold, said), (gold, said)
        assert not verdict or isinstance(gold, bool) == isinstance(said, bool), (gold, said)


def test_unordered_items_are_paired_wherever_they_can_be() -> None:
    chance = random.Random(5)
    found = set()
    rule = read_rule({"unordered": {"tolerance": 1}})
    for _ in range(400):
        size = chance.randint(0, 5)
        gold, said = ([chance.randint(0, 6) for _ in range(size)] for _ in range(2))
        pairings = itertools.permutations(said)
        wanted = any(all(abs(one - other) <= 1 for one, other in zip(gold, order, strict=True)) for order in pairings)
        assert rule.holds(gold, said) is wanted, (gold, said)
        found.add(wanted)
    assert found == {True, False}


def test_rules_are_kept_in_files_and_reach_no_model(tmp_path: Path) -> None:
    declared = {
        "city": "folded",
        "guests": {"tolerance": 1},
        "wishes": {"unordered": {"properties": {"what": "folded"}}},
    }
    compared, plain = catalogue(**declared), catalogue()
    compared.save(tmp_path / "catalogue.json")

    for again in (load_catalogue(tmp_path / "catalogue.json"), Catalogue.from_json(compared.to_json())):
        assert again.tools[0].compare == declared
        assert set(again.comparisons["book"]) == set(declared)
    assert "compare" not in plain.to_json()["tools"][0]
    assert plain.comparisons == {}
    # Adapters that were trained before a rule was declared stay valid.
    assert compared.hash == plain.hash
    assert compared.tools != plain.tools
    for style in ("signature", "json_schema"):
        assert system_message(compared, style) == system_message(plain, style)  # type: ignore[arg-type]
    assert to_openai(compared) == to_openai(plain)
    assert to_mcp(compared) == to_mcp(plain)


def test_a_manifest_keeps_rules_and_its_hash() -> None:
    compared, plain = catalogue(city="folded"), catalogue()
    base = Base(name="b", model_type="qwen3", tokenizer_hash="0", template_hash="0")
    manifest = Manifest(
        base=base, catalogue=compared.to_json(), catalogue_hash=plain.hash, max_tokens=128, dtype="float32"
    )
    again = Manifest.model_validate_json(manifest.model_dump_json()).read_catalogue()
    assert again.tools[0].compare == {"city": "folded"}

    changed = compared.to_json()
    changed["tools"][0]["description"] = "book two tables."
    with pytest.raises(ModelError, match="changed after training"):
        manifest.model_copy(update={"catalogue": changed}).read_catalogue()


def test_a_union_keeps_declared_rules_and_refuses_two_kinds() -> None:
    plain, compared, other = catalogue(), catalogue(city="folded"), catalogue(city="caseless")
    for pair in ([plain, compared], [compared, plain], [compared, compared]):
        assert union(pair).comparisons.keys() == {"book"}
    assert union([plain, plain]).tools[0] is plain.tools[0]
    with pytest.raises(CatalogueError, match="'book' is declared in two different ways"):
        union([compared, other])


@pytest.mark.parametrize(
    ("compare", "wrong"),
    [
        ({"town": "folded"}, "compare.town: there is no such parameter"),
        ({"citi": "folded"}, "compare.citi: there is no such parameter; did you mean 'city'?"),
        ({"city": "fold"}, "compare.city: unknown rule 'fold'; rules are exact, caseless, folded, date, unordered"),
        ({"city": None}, "compare.city: unknown rule None"),
        ({"city": {}}, "compare.city: unknown rule {}"),
        ({"city": {"caseless": True}}, "compare.city: unknown rule {'caseless': True}"),
        ({"city": {"date": ["%Y"], "tolerance": 1}}, "compare.city: unknown rule"),
        ({"guests": "folded"}, "compare.guests: 'folded' is for values of type string, which this parameter never has"),
        ({"city": {"tolerance": 1}}, "compare.city: {'tolerance': 1} is for values of type number"),
        ({"city": "unordered"}, "compare.city: 'unordered' is for values of type array"),
        ({"city": {"unordered": "folded"}}, "compare.city: {'unordered': 'folded'} is for values of type array"),
        ({"loud": "date"}, "compare.loud: 'date' is for values of type string"),
        ({"sums": {"unordered": "folded"}}, "compare.sums: 'folded' is for values of type string"),
        ({"sums": "date"}, "compare.sums: 'date' is for values of type string"),
        ({"wishes": {"properties": {"size": "folded"}}}, "compare.wishes.size: there is no such parameter"),
        ({"wishes": {"unordered": {"properties": {"price": "date"}}}}, "compare.wishes.price: 'date' is for values of"),
        ({"wishes": {"properties": "folded"}}, "compare.wishes: properties must be an object of rules by name"),
        ({"guests": {"tolerance": 0}}, "compare.guests: tolerance must be a number above 0, not 0"),
        ({"guests": {"tolerance": True}}, "compare.guests: tolerance must be a number above 0, not True"),
        ({"guests": {"tolerance": "1"}}, "compare.guests: tolerance must be a number above 0, not '1'"),
        ({"guests": {"relative": 5}}, "compare.guests: relative must be below 1, not 5: 5 % is 0.05"),
        ({"day": {"date": []}}, "compare.day: date needs a list of formats, not []"),
        ({"day": {"date": "%Y"}}, "compare.day: date needs a list of formats, not '%Y'"),
        ({"day": {"date": [5]}}, "compare.day: date format 5 must be text"),
        ({"day": {"date": ["%Q"]}}, "compare.day: date format '%Q' has an unknown directive %Q"),
        ({"day": {"date": ["%Y-%m-%d", "%Y %"]}}, "compare.day: date format '%Y %' has an unknown directive %"),
        ({"day": {"date": ["today"]}}, "compare.day: date format 'today' needs directives"),
        ({"day": {"date": ["%Y %Y"]}}, "compare.day: date format '%Y %Y' needs directives such as %Y, each once"),
        ({"day": {"date": ["%d.%m."]}}, "compare.day: date format '%d.%m.' has a day but no year"),
        (["city"], "compare must be an object of rules by parameter, not ['city']"),
    ],
)
def test_a_rule_that_can_not_be_meant_is_an_error_of_the_catalogue(compare: Any, wrong: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        Catalogue.from_json(book(compare))
    assert caught.value.message.splitlines()[1].startswith("  tool 'book'")
    assert wrong in caught.value.message


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(CatalogueError) as caught:
        catalogue(
            town="folded", city="fold", guests="date", wishes={"properties": {"what": {"relative": 2}, "x": "date"}}
        )
    assert "the catalogue has 5 error(s)" in caught.value.message
    for place in ("town", "city", "guests", "wishes.what", "wishes.x"):
        assert f"tool 'book', compare.{place}: " in caught.value.message


@pytest.mark.parametrize(
    "compare",
    [
        {"anything": "folded"},
        {"anything": {"unordered": {"tolerance": 1}}},
        {"day": "date"},
        {"guests": {"tolerance": 1}},
        {"sums": {"relative": 0.1}},
        {"wishes": {"unordered": {"properties": {"what": "folded", "price": {"tolerance": 0.01}}}}},
        {"city": "exact", "loud": "exact"},
        {},
        None,
    ],
)
def test_rules_that_fit_their_parameters(compare: Any) -> None:
    found = Catalogue.from_json(book(compare))
    assert found.tools[0].compare == (compare or {})


def test_parameters_are_found_through_references_and_alternatives() -> None:
    parameters = {
        "$defs": {
            "Tree": {"type": "object", "properties": {"name": {"type": "string"}, "parts": {"$ref": "#/$defs/Trees"}}},
            "Trees": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
            "Size": {"enum": [1, 2]},
        },
        "oneOf": [
            {"properties": {"tree": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]}}},
            {"properties": {"size": {"$ref": "#/$defs/Size"}, "trees": {"$ref": "#/$defs/Trees"}}},
        ],
    }
    compare = {
        "tree": {"properties": {"name": "folded", "parts": {"unordered": {"properties": {"name": "folded"}}}}},
        "size": {"tolerance": 1},
        "trees": "unordered",
    }
    assert Catalogue((Tool("f", "does f.", parameters, compare=compare),)).tools[0].rules.keys() == compare.keys()
    for wrong in ({"size": "folded"}, {"trees": "folded"}, {"tree": {"tolerance": 1}}):
        with pytest.raises(CatalogueError, match="never has"):
            Catalogue((Tool("f", "does f.", parameters, compare=wrong),))


GOLD = {"tool": "book", "arguments": {"city": "Paris", "guests": 4}}


def call(**arguments: Any) -> dict[str, Any]:
    return {"tool": "book", "arguments": arguments}


def predictions(tmp_path: Path, compare: dict[str, Any]) -> Evaluation:
    """Six rows: equal; equal as declared; as an alternative; as declared, to an alternative; wrong; left alone."""
    said = [call(city=city, guests=4) for city in ("Paris", "paris.", "Rome", "ROME")]
    said += [call(city="Paris", guests=5), {"tool": "no_tool", "reason": "chitchat"}]
    rows = [
        {"target": GOLD, "alternatives": [call(city="Rome", guests=4)], "output": json.dumps(output)} for output in said
    ]
    return Evaluation.of(read_predictions(write_rows(tmp_path / "o.jsonl", rows), catalogue(**compare)))


def test_an_evaluation_shows_declared_comparison_beside_the_strict_figures(tmp_path: Path) -> None:
    evaluation = predictions(tmp_path, {"city": "folded"})
    found = evaluation.to_json()

    assert {name: found["metrics"][name]["value"] for name in found["with_declared_comparison"]} == {
        "valid_tool_call_rate": 1.0,
        "tool_name_accuracy": 5 / 6,
        "argument_match_accuracy": 1 / 6,
        "false_tool_call_rate": 0.0,
        "exact_match": 1 / 6,
        "argument_match_on_calls": 1 / 5,
        "wrong_call_rate": 4 / 6,
    }
    assert found["with_alternatives"]["argument_match_accuracy"] == 2 / 6
    assert found["with_declared_comparison"] == {
        "valid_tool_call_rate": 1.0,
        "tool_name_accuracy": 5 / 6,
        "argument_match_accuracy": 4 / 6,
        "false_tool_call_rate": 0.0,
        "exact_match": 4 / 6,
        "argument_match_on_calls": 4 / 5,
        "wrong_call_rate": 1 / 6,
    }
    assert [one["right_as_declared"] for one in found["failures"]] == [True, True, True, False, False]
    assert [one["is_alternative"] for one in found["failures"]] == [False, True, False, False, False]


def test_without_rules_nothing_is_shown_by_declared_comparison(tmp_path: Path) -> None:
    strict = predictions(tmp_path, {})
    found = strict.to_json()
    assert found["with_declared_comparison"] is None
    assert all("right_as_declared" not in failure for failure in found["failures"])
    assert "declared" not in render_evaluation(strict)
    # The strict figures do not depend on rules.
    assert found["metrics"] == predictions(tmp_path, {"city": "folded"}).to_json()["metrics"]


def test_the_table_has_a_column_more(tmp_path: Path) -> None:
    text = render_evaluation(predictions(tmp_path, {"city": "folded"}))
    lines = {line.split()[0]: line.split() for line in text.splitlines()[1:13] if line}

    assert text.splitlines()[0].endswith("with alternatives  by declared comparison")
    assert lines["argument_match_accuracy"][-2:] == ["0.333", "0.667"]
    assert lines["exact_match"][-1] == "0.667"
    assert lines["wrong_call_rate"][-1] == "0.167"
    assert lines["missed_call_rate"][-1] == "6"
    assert text.count("(right by declared comparison)") == 2
    assert text.count("(an alternative of the row)") == 1
    # What is really wrong is shown first.
    outputs = [line for line in text.splitlines() if line.startswith("  output")]
    assert '"guests": 5' in outputs[0]


def test_rules_stay_with_the_predictions_that_are_written(tmp_path: Path) -> None:
    evaluation = predictions(tmp_path, {"city": "folded"})
    write_predictions(evaluation.scored, tmp_path / "again.jsonl")
    again = Evaluation.of(read_predictions(tmp_path / "again.jsonl"))
    assert again.to_json()["with_declared_comparison"] == evaluation.to_json()["with_declared_comparison"]


def test_a_tool_declared_in_python_takes_rules_too(tmp_path: Path) -> None:
    module = tmp_path / "my_tools.py"
    module.write_text(
        "from dataclasses import replace\n"
        "from mlx_router.catalogue import Catalogue\n"
        "from mlx_router.interop import from_functions\n"
        "def book(city: str) -> None:\n    'Book a table.'\n"
        "CATALOGUE = Catalogue(replace(tool, compare={'city': 'folded'}) for tool in from_functions(book))\n",
        encoding="utf-8",
    )
    assert load_catalogue(module).comparisons["book"]["city"].holds("Paris", "PARIS!")


def test_the_rules_of_the_documentation_are_all_there_are() -> None:
    listed = [line.strip() for line in str(matching.__doc__).splitlines() if line.startswith('    "')]
    assert {json.loads(line.split("  ")[0]) for line in listed} == set(matching.NAMED)
