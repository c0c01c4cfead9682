"""Learning curves: which rows a size holds, what is done again, and what may be said of the result."""

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, known_rows, write_rows
from tiny_models import make_recipe

from mlx_router.budget import count_rows, estimate
from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.config import TrainConfig
from mlx_router.curve_sizes import curve_plan, curve_sizes
from mlx_router.data import Example, read
from mlx_router.errors import DataError, TrainingError, UsageError
from mlx_router.evaluation import Scored
from mlx_router.learning_curve import Point, curve_folder, learning_curve, render, summarize
from mlx_router.preparing import prepare_run
from mlx_router.splits import first_rows
from mlx_router.trends import chi_square_tail, fit_power_law

# --- subsets


@pytest.fixture
def examples(catalogue: Catalogue, tmp_path: Path) -> list[Example]:
    """60 rows of one tool, 30 of another and 10 of no_tool."""
    rows = [{"request": f"Where is {at}?", "target": call("track_order", order_id=str(at))} for at in range(60)]
    rows += [{"request": f"A human, {at}!", "target": call("escalate", reason=str(at))} for at in range(30)]
    rows += [{"request": f"Hi {at}", "target": {"tool": "no_tool", "reason": "x"}} for at in range(10)]
    return read(str(write_rows(tmp_path / "many.jsonl", rows)), catalogue)


def call(tool: str, **arguments: str) -> dict[str, Any]:
    return {"tool": tool, "arguments": arguments}


def requests(examples: Sequence[Example]) -> list[str]:
    return [example.request for example in examples]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_size_holds_the_smaller_ones_and_every_tools_share(examples: list[Example], seed: int) -> None:
    smaller: set[str] = set()
    for count in (10, 20, 50, 100):
        chosen = first_rows(examples, count, seed)
        tools = Counter(example.target.tool for example in chosen)
        assert (tools["track_order"], tools["escalate"], tools["no_tool"]) == tuple(
            pytest.approx(count * share, abs=1) for share in (0.6, 0.3, 0.1)
        )
        assert smaller <= set(requests(chosen))
        smaller = set(requests(chosen))
    assert requests(first_rows(examples, 100, seed)) == requests(examples), "all rows, as they stand in the file"


def test_the_seed_chooses_and_the_order_of_the_file_does_not(examples: list[Example]) -> None:
    chosen = set(requests(first_rows(examples, 20, 0)))
    assert chosen == set(requests(first_rows(examples[::-1], 20, 0)))
    assert chosen != set(requests(first_rows(examples, 20, 1)))
    with pytest.raises(DataError, match="101 training rows are wanted, and there are 100"):
        first_rows(examples, 101)


def test_a_run_on_some_rows_keeps_the_catalogue_and_records_only_these(tmp_path: Path) -> None:
    config = make_recipe(tmp_path, train_rows=5)
    run = prepare_run(config, tmp_path / "unused", lambda event: None)
    assert len(run.plan) == run.data["train"]["rows"] == 5
    assert len(run.catalogue) == 3
    other = prepare_run(config.model_copy(update={"train_rows": 6}), tmp_path / "unused", lambda event: None)
    assert run.identity != other.identity


# --- what is planned


@pytest.mark.parametrize("fields", [{}, {"epochs": "auto"}, {"max_updates": 3}, {"gradient_accumulation_steps": 2}])
def test_the_budget_counts_the_updates_that_a_run_makes(fields: dict[str, Any], tmp_path: Path) -> None:
    config = make_recipe(tmp_path, batch_size=5, **fields)
    run = prepare_run(config, tmp_path / "unused", lambda event: None)
    budget = estimate(config)
    assert (budget.rows, budget.epochs, budget.updates) == (12, run.epochs, run.updates)
    assert f"about {run.updates} updates" in budget.render()
    assert curve_plan(config, [5, 12])[12] == (run.epochs, run.updates)


def test_rows_are_counted_without_being_read(tmp_path: Path) -> None:
    assert count_rows(str(write_rows(tmp_path / "rows.jsonl", known_rows()))) == 5
    assert count_rows("owner/dataset#train") is None
    (tmp_path / "torn.jsonl.gz").write_bytes(b"no gzip")
    assert count_rows(str(tmp_path / "torn.jsonl.gz")) is None


def test_sizes_rise_and_all_is_all() -> None:
    assert curve_sizes("100, 50,all", 300) == [50, 100, 300]
    assert curve_sizes("50,300,all", 300) == [50, 300]


@pytest.mark.parametrize("text", ["50", "all,300", "50,,100", "0,50", "many,all", "50,301", "-1,50"])
def test_a_list_of_sizes_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--curve"):
        curve_sizes(text, 300)


def test_a_dry_run_shows_the_sum_and_trains_nothing(tmp_path: Path, run: Run) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", known_rows(8))
    flags = ("--train", rows, "--adapter", tmp_path / "a", "--epochs", "2", "--dry-run")
    done = run("train", *flags, "--curve", "16,all", "--json")
    assert (done.code, done.json["curve"]["updates"]) == (0, 4 + 10)
    assert run("train", *flags, "--curve", "16,all").out.splitlines()[-1].split() == ["sum", "14"]
    assert list(tmp_path.iterdir()) == [rows]


# --- the walk


@pytest.fixture
def recipe(tmp_path: Path) -> TrainConfig:
    """A recipe with six validation rows of which two, "Hi!" and "Hello", are training rows."""
    made = make_recipe(tmp_path, epochs=1)
    known = known_rows()
    valid = write_rows(tmp_path / "valid.jsonl", [*known, {**known[3], "request": "Hello"}])
    return made.model_copy(update={"valid": str(valid)})


def test_a_curve_trains_each_size_routes_unseen_rows_and_does_nothing_twice(recipe: TrainConfig, run: Run) -> None:
    given = recipe.model_dump(exclude_defaults=True)
    flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    done = run("train", *flags, "--curve", "4,8,all", "--json")
    assert done.code == 0, done.err
    events = done.lines
    assert events[0]["event"] == "plan" and events[0]["updates"] == 1 + 2 + 3
    found = events[-1]
    assert [(point["rows"], point["updates"]) for point in found["points"]] == [(4, 1), (8, 2), (12, 3)]
    assert found["n"] == 4, "validation rows that are trained on are left out"
    assert [event["rows"] for event in events if event["event"] == "start"] == [4, 8, 12]
    assert any(event["event"] == "estimate" for event in events)
    folder = curve_folder(recipe)
    kept = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    assert kept == {"run": kept["run"], **{name: value for name, value in found.items() if name != "event"}}
    assert json.loads((folder / "8" / "router.json").read_text(encoding="utf-8"))["config"]["train_rows"] == 8

    again = run("train", *flags, "--curve", "4,8,all")
    assert again.code == 0
    assert again.err.count("done already") == 3 and "update " not in again.err
    assert again.out.splitlines()[2].split()[0] == "4"
    # A size whose run was not finished is done anew, the others are not.
    (folder / "8" / "router.json").unlink()
    third = run("train", *flags, "--curve", "4,8,all", "--json")
    assert third.lines[-1] == found
    assert [event["rows"] for event in third.lines if event["event"] == "start"] == [8]


def test_an_interrupted_curve_goes_on_where_it_was(recipe: TrainConfig) -> None:
    config = recipe.model_copy(update={"epochs": 2, "log_every": 1})
    other = config.model_copy(update={"adapter": f"{config.adapter}-whole"})
    whole = learning_curve(other, "4,all", lambda event: None)

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["train_rows"] == 12 and event["update"] == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        learning_curve(config, "4,all", interrupt)
    events: list[dict[str, Any]] = []
    assert learning_curve(config, "4,all", events.append) == whole
    assert [event["first_update"] for event in events if event["event"] == "start"] == [5]


def test_another_recipes_curve_is_not_mixed_in(recipe: TrainConfig) -> None:
    folder = curve_folder(recipe)
    folder.mkdir()
    (folder / "curve.json").write_text('{"run": "another"}', encoding="utf-8")
    with pytest.raises(TrainingError, match="of another recipe or of other rows"):
        learning_curve(recipe, "4,all", lambda event: None)


def test_a_curve_needs_validation_rows_that_are_no_training_rows(recipe: TrainConfig) -> None:
    with pytest.raises(UsageError, match="names none"):
        learning_curve(recipe.model_copy(update={"valid": None}), "4,all", lambda event: None)
    with pytest.raises(DataError, match="is a training row too"):
        learning_curve(recipe.model_copy(update={"valid": recipe.train}), "4,all", lambda event: None)


# --- what is said


@pytest.mark.parametrize(
    ("value", "degrees", "tail"), [(3.841, 1, 0.05), (5.991, 2, 0.05), (7.815, 3, 0.05), (13.277, 4, 0.01), (0, 3, 1.0)]
)
def test_the_chi_square_tail_is_the_tables(value: float, degrees: int, tail: float) -> None:
    assert chi_square_tail(value, degrees) == pytest.approx(tail, rel=1e-3)


def test_a_law_is_found_with_the_errors_that_a_simulation_gives() -> None:
    """Binomial counts about 2 × rows^-0.5: the exponent's error is its own, and p is below 5 % in some 5 % of cases."""
    random = np.random.default_rng(5)
    rows = (50, 100, 200, 400, 800)
    laws = [fit_power_law([(n, int(random.binomial(2000, 2 * n**-0.5)), 2000) for n in rows]) for _ in range(2000)]
    exponents = [law.exponent for law in laws if law]
    assert np.mean(exponents) == pytest.approx(0.5, abs=0.01)
    assert np.std(exponents) == pytest.approx(np.mean([law.exponent_error for law in laws if law]), rel=0.1)
    assert np.mean([law.p < 0.05 for law in laws if law]) == pytest.approx(0.05, abs=0.03)


def test_no_law_is_drawn_where_there_is_none() -> None:
    flat = fit_power_law([(50, 200, 1000), (100, 204, 1000), (200, 198, 1000), (400, 201, 1000)])
    assert flat is not None and not flat.fits, "nothing falls"
    bent = fit_power_law([(50, 500, 1000), (100, 490, 1000), (200, 100, 1000), (400, 90, 1000)])
    assert bent is not None and not bent.fits, "no straight line on a logarithmic paper"
    assert fit_power_law([(50, 5, 10), (100, 4, 10), (200, 3, 10)]) is None, "three points are too few"
    assert fit_power_law([(50, 5, 10), (100, 4, 10), (200, 3, 10), (400, 0, 10)]) is None, "no error has no logarithm"


def scored(catalogue: Catalogue, wrong: int, n: int = 400) -> tuple[Scored, ...]:
    """Rows of which the first so many are wrong."""
    right, other = ToolCall(tool="track_order", arguments={"order_id": "1"}), NoTool(reason="x")
    rows = [Example(request=f"Where is it? {at}", target=right, catalogue=catalogue) for at in range(n)]
    return tuple(Scored(row, "", other if at < wrong else right) for at, row in enumerate(rows))


def points(catalogue: Catalogue, *wrong: int) -> list[Point]:
    return [Point(50 * 2**at, 100, Path(str(50 * 2**at)), scored(catalogue, count)) for at, count in enumerate(wrong)]


def test_more_rows_are_recommended_where_the_last_ones_helped(catalogue: Catalogue) -> None:
    found = summarize(points(catalogue, 200, 141, 100, 72))
    step, law, caveat = found["suggests"]
    assert "from 200 to 400 rows exact_match changed by +7.0 points" in step and "still help" in step
    assert found["power_law"]["exponent"] == pytest.approx(0.5, abs=0.02) and "rows^-0.49" in law
    # 72 of 400 wrong at 400 rows: half of that takes about four times the rows.
    assert "exact_match would be 0.873 at 800 rows and 0.910 at 1,600, half the errors would take about 1,6" in law
    assert "one seed" in caveat
    shown = render(found)
    assert "0.500" in shown and "0.451–0.549" in shown, shown
    json.dumps(found)


def test_a_change_that_may_be_chance_is_called_so(catalogue: Catalogue) -> None:
    step, law, _ = summarize(points(catalogue, 100, 98))["suggests"]
    assert "+0.5 points" in step and "may be chance" in step and "still help" not in step
    assert "takes 4 sizes" in law
    step, law, _ = summarize(points(catalogue, 100, 100, 60, 100))["suggests"]
    assert "made it worse" in step
    assert "no power law is drawn" in law


def test_a_slope_is_told_a_doubling(catalogue: Catalogue) -> None:
    first, last = points(catalogue, 200, 100)
    step = summarize([first, Point(last.rows * 2, 100, last.folder, last.scored)])["suggests"][0]
    assert "changed by +25.0 points" in step and "+12.5 a doubling" in step
