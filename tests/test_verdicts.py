"""Every verdict of verdicts.jsonl, judged by hand; and the page that is made from them."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, write_rows

from mlx_router.calls import Failure, ParseFailure
from mlx_router.catalogue import Catalogue
from mlx_router.evaluation import Scored, read_predictions
from mlx_router.interop import load_catalogue
from mlx_router.metrics import Row, measure, with_declared_comparison
from mlx_router.rendering import COMPANY


def script() -> ModuleType:
    """docs/make_metrics.py as a module."""
    spec = importlib.util.spec_from_file_location("make_metrics", ROOT / "docs" / "make_metrics.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = script()
VERDICTS: list[dict[str, Any]] = MAKE.read_verdicts()
CATALOGUE = load_catalogue(MAKE.CATALOGUE)


def score(folder: Path, catalogue: Catalogue) -> dict[str, Scored]:
    """The table read as predictions, by row."""
    kept = ("id", "alternatives", "output", "finished", "refused")
    rows = [{"target": row["gold"], **{key: row[key] for key in kept if key in row}} for row in VERDICTS]
    scored = read_predictions(write_rows(folder / "verdicts.jsonl", rows), catalogue)
    return {str(one.example.id): one for one in scored}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scored]:
    return score(tmp_path_factory.mktemp("verdicts"), CATALOGUE)


def strict(row: Row) -> dict[str, bool]:
    """What holds of a row, as the metrics of that row alone say it."""
    found = {name: metric.value == 1.0 for name, metric in measure([row]).items()}
    return {
        "parsed": found["valid_tool_call_rate"],
        "right_tool": found["tool_name_accuracy"],
        "arguments_equal": found["argument_match_accuracy"],
        "exact": found["exact_match"],
        "exact_with_alternatives": found["exact_match_with_alternatives"],
        "wrong_call": found["wrong_call_rate"],
        "missed_call": found["missed_call_rate"],
        "false_call": found["false_tool_call_rate"],
    }


def judged(row: Row) -> set[str]:
    """All that holds of a row, by declared comparison as well."""
    as_declared = with_declared_comparison([row])
    assert as_declared is not None
    facts = strict(row) | {
        "arguments_equal_as_declared": row.arguments_match_as_declared,
        "exact_as_declared": as_declared["exact_match"] == 1.0,
    }
    return {word for word, holds in facts.items() if holds}


@pytest.mark.parametrize("verdict", VERDICTS, ids=[row["id"] for row in VERDICTS])
def test_verdict(verdict: dict[str, Any], scored: dict[str, Scored]) -> None:
    one = scored[verdict["id"]]
    failure = one.outcome.reason if isinstance(one.outcome, ParseFailure) else None

    assert failure == verdict["failure"]
    assert judged(one.row) == set(verdict["holds"])


def test_the_table_has_everything() -> None:
    assert len({row["id"] for row in VERDICTS}) == len(VERDICTS) >= 70
    assert {row["failure"] for row in VERDICTS} == {str(reason) for reason in Failure} | {None}
    assert {word for row in VERDICTS for word in row["holds"]} == {*MAKE.COLUMNS, *MAKE.COUNTED}
    assert all(row["why"].strip() for row in VERDICTS)
    rules = json.dumps([tool.compare for tool in CATALOGUE])
    for rule in ("caseless", "folded", "date", "unordered", "tolerance", "relative", "properties"):
        assert f'"{rule}"' in rules, rule


def test_a_verdict_of_the_berkeley_checker_stands_only_where_it_differs() -> None:
    for row in VERDICTS:
        if "bfcl" in row:
            assert row["bfcl"]["right"] is not ("exact" in row["holds"]), row["id"]
            assert row["bfcl"]["why"].strip()


def test_the_metrics_of_the_whole_table_are_the_counts_of_its_verdicts(scored: dict[str, Scored]) -> None:
    counted = MAKE.totals(VERDICTS)
    rows = [one.row for one in scored.values()]
    measured = measure(rows)

    assert set(COMPANY) < set(counted)
    assert {name: (metric.value, metric.n) for name, metric in measured.items()} == {
        name: (count / n, n) for name, (count, n) in counted.items()
    }
    as_declared = with_declared_comparison(rows)
    assert as_declared is not None
    right = sum("exact_as_declared" in row["holds"] for row in VERDICTS)
    assert as_declared["exact_match"] == right / len(VERDICTS)
    # Every call that is right as declared is a wrong call less, and every false call that is, too.
    wrong = sum("wrong_call" in row["holds"] and "exact_as_declared" not in row["holds"] for row in VERDICTS)
    assert as_declared["wrong_call_rate"] == wrong / len(VERDICTS)


def test_strict_verdicts_do_not_depend_on_what_is_declared(tmp_path: Path) -> None:
    tools = [{key: value for key, value in tool.items() if key != "compare"} for tool in CATALOGUE.to_json()["tools"]]
    plain = Catalogue.from_json(tools)
    for name, one in score(tmp_path, plain).items():
        wanted = next(set(row["holds"]) for row in VERDICTS if row["id"] == name)
        assert {word for word, holds in strict(one.row).items() if holds} == {
            word for word in wanted if not word.endswith("as_declared")
        }
        assert with_declared_comparison([one.row]) is None


def test_the_page_is_what_the_script_writes() -> None:
    assert MAKE.PAGE.read_text(encoding="utf-8") == MAKE.page(), "run: python docs/make_metrics.py"
