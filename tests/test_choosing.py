"""The choice of a run's checkpoint: rows routed for real, by which metric, how often, and when a run gives up."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ScriptedDecoder, known_rows, write_rows
from tiny_models import GREETINGS, make_recipe

from mlx_router import Router, calibrating, calibration, history, training, watching
from mlx_router.catalogue import Catalogue
from mlx_router.choosing import chosen_by, is_due, rank, route_sample, sample
from mlx_router.config import TrainConfig
from mlx_router.data import Example, read
from mlx_router.errors import TrainingError
from mlx_router.manifest import read_manifest
from mlx_router.preparing import prepare_run
from mlx_router.training import train

CALL = {"tool": "escalate", "arguments": {"reason": "angry"}}
NO_TOOL = {"tool": "no_tool", "reason": "greeting"}

Events = list[dict[str, Any]]


pytestmark = pytest.mark.usefixtures("uncompiled")


def rows_of(path: Path, catalogue: Catalogue, count: int) -> list[Example]:
    return read(write_rows(path, [{"request": f"number {at}", "target": CALL} for at in range(count)]), catalogue)


def test_the_sample_is_the_same_whatever_the_order_of_the_rows(tmp_path: Path, catalogue: Catalogue) -> None:
    rows = rows_of(tmp_path / "rows.jsonl", catalogue, 40)
    found = sample(rows, 10)
    assert len(found) == 10 and found != rows[:10]
    assert [row for row in rows if row in found] == found
    assert {row.request for row in sample(rows[::-1], 10)} == {row.request for row in found}
    assert (sample(rows, 99), sample(rows, 0)) == (rows, [])


def test_routing_the_sample_gives_the_metrics_of_its_answers(tmp_path: Path, catalogue: Catalogue) -> None:
    answers = {"a": (CALL, CALL), "b": (CALL, NO_TOOL), "c": (NO_TOOL, CALL), "d": (NO_TOOL, NO_TOOL)}
    rows = write_rows(tmp_path / "r.jsonl", [{"request": at, "target": gold} for at, (gold, _) in answers.items()])
    router = Router(ScriptedDecoder({at: json.dumps(said) for at, (_, said) in answers.items()}), catalogue)
    found = route_sample(router, read(rows, catalogue))
    assert found == {"exact_match": 0.5, "wrong_call_rate": 0.25, "false_call_rate_on_no_tool": 0.5}


def figures(exact: float, wrong: float, false: float | None = 0.0) -> dict[str, float | None]:
    return {"exact_match": exact, "wrong_call_rate": wrong, "false_call_rate_on_no_tool": false}


def test_the_metric_comes_first_then_exact_match_then_wrong_calls_then_the_loss() -> None:
    good, worse = figures(0.9, 0.1, 0.3), figures(0.8, 0.05, 0.2)
    by_metric = {
        "exact_match": (good, worse),
        "wrong_call_rate": (worse, good),
        "false_call_rate_on_no_tool": (worse, good),
    }
    for by, (better, other) in by_metric.items():
        assert rank(by, 2.0, better) < rank(by, 1.0, other)  # type: ignore[arg-type, operator]
    assert rank("loss", 1.0, worse) < rank("loss", 2.0, good)  # type: ignore[operator]
    assert rank("exact_match", 2.0, figures(0.9, 0.05)) < rank("exact_match", 1.0, good)  # type: ignore[operator]
    assert rank("wrong_call_rate", 2.0, figures(0.95, 0.1)) < rank("wrong_call_rate", 1.0, good)  # type: ignore[operator]
    assert rank("exact_match", 1.0, good) < rank("exact_match", 2.0, good)  # type: ignore[operator]


def test_what_was_not_measured_is_not_compared() -> None:
    assert rank("exact_match", 1.0, {}) is None
    assert rank("false_call_rate_on_no_tool", 1.0, figures(0.9, 0.1, None)) is None
    assert rank("loss", 1.0, {}) == (1.0,)
    assert (chosen_by("exact_match", 0), chosen_by("exact_match", 1)) == ("loss", "exact_match")


def test_at_most_every_ninth_row_of_a_run_is_a_routed_one() -> None:
    assert (is_due(799, 100), is_due(800, 100)) == (False, True)


# In a run


def recipe(folder: Path, **fields: Any) -> TrainConfig:
    """Twelve rows in three updates an epoch, and as many others to validate with."""
    config = make_recipe(folder, **{"epochs": 3, "valid_rows": 1, **fields})
    rows = [{"request": f"{greeting} you!", "target": NO_TOOL} for greeting in GREETINGS]
    rows += [{"request": f"Number {at}?", "target": CALL} for at in range(6)]
    return config.model_copy(update={"valid": str(write_rows(folder / "valid.jsonl", rows))})


def told(monkeypatch: pytest.MonkeyPatch, *exact: float, first: int = 1) -> None:
    """Validation says these, one after the other; its losses rise from `first`."""
    found, losses = iter(exact), iter(range(first, 99))
    monkeypatch.setattr(watching, "route_sample", lambda router, rows, ranks: figures(next(found), 0.1))
    monkeypatch.setattr(watching, "mean_loss", lambda network, batches, ranks: float(next(losses)))


def kept(folder: Path) -> str:
    """The checkpoint whose weights the adapter has."""
    weights = (folder / "adapters.safetensors").read_bytes()
    (name,) = (path.name for path in (folder / "checkpoints").iterdir() if path.read_bytes() == weights)
    return name


def of_kind(events: Events, kind: str) -> Events:
    return [event for event in events if event["event"] == kind]


def test_the_checkpoint_that_routes_best_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, 0.2, 0.9, 0.5)
    events: Events = []
    folder = train(recipe(tmp_path), events.append)
    assert kept(folder) == "epoch-002.safetensors"
    assert [event["best"] for event in of_kind(events, "valid")] == [True, True, False]
    assert read_manifest(folder).metrics == {
        "valid_loss": 2.0,
        "best_by": "exact_match",
        "valid_rows": 1,
        **figures(0.9, 0.1),
        "checkpoint": "epoch-002.safetensors",
    }
    assert history.best_epoch(history.read(folder)) == 2
    assert [event["event"] for event in events][-2:] == ["plot", "done"]
    assert of_kind(events, "plot")[0]["file"] == str(folder / "training.png")
    assert (folder / "training.png").is_file()


def test_the_loss_chooses_where_that_is_asked_for_or_no_rows_are_routed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, fields in enumerate(({"best_by": "loss"}, {"valid_rows": 0})):
        told(monkeypatch, 0.2, 0.9, 0.5)
        folder = train(recipe(tmp_path, adapter=str(tmp_path / f"by-{number}"), **fields), lambda event: None)
        assert kept(folder) == "epoch-001.safetensors"
        assert read_manifest(folder).metrics["best_by"] == "loss"
    assert "exact_match" not in read_manifest(folder).metrics


def test_routing_takes_its_share_of_a_run_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows take 24 trained ones, two epochs; the last weights are routed in any case."""
    told(monkeypatch, 0.2, 0.9, 0.5)
    events: Events = []
    folder = train(recipe(tmp_path, epochs=5, valid_rows=3), events.append)
    assert [event["rows"] for event in of_kind(events, "valid")] == [0, 3, 0, 3, 3]
    assert [event["exact_match"] for event in of_kind(events, "valid")] == [None, 0.2, None, 0.9, 0.5]
    assert all(event["seconds"] >= 0 for event in of_kind(events, "valid"))
    # Epochs that routed nothing have the lowest losses, and are not chosen by them.
    assert kept(folder) == "epoch-004.safetensors"


def test_a_run_stops_when_it_has_lost_its_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, 0.5, 0.6, 0.4, 0.3)
    events: Events = []
    folder = train(recipe(tmp_path, epochs=9, patience=2), events.append)
    assert kept(folder) == "epoch-002.safetensors"
    assert of_kind(events, "stopped") == [{"event": "stopped", "update": 12, "updates": 27, "validations": 2}]
    assert of_kind(events, "progress")[-1]["update"] == 12
    assert Router.load(folder).route("Hi!").raw is not None


def test_a_run_that_was_killed_after_it_stopped_ends_as_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, 0.6, 0.5, 0.4)
    config = recipe(tmp_path, epochs=9, patience=2)
    with monkeypatch.context() as patched:
        patched.setattr(training, "_finish", lambda run, watch: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(config, lambda event: None)
    events: Events = []
    folder = train(config, events.append, resume=True)
    assert of_kind(events, "progress") == []
    assert of_kind(events, "stopped") == [{"event": "stopped", "update": 9, "updates": 27, "validations": 2}]
    assert kept(folder) == "epoch-001.safetensors"
    assert len(of_kind(history.read(folder), "valid")) == 3


def test_a_run_that_goes_on_chooses_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was the best so far, how long nothing better was found, and when rows were routed last, are in the state."""
    exact, epochs = (0.2, 0.9, 0.8, 0.7, 0.6), 5
    whole = recipe(tmp_path, epochs=epochs, valid_rows=1, patience=4, adapter=str(tmp_path / "whole"))
    told(monkeypatch, *exact)
    train(whole, lambda event: None)
    broken = whole.model_copy(update={"adapter": str(tmp_path / "broken")})
    told(monkeypatch, *exact)

    for epoch in (2, 4):

        def stop(event: dict[str, Any], epoch: int = epoch) -> None:
            if event["event"] == "checkpoint" and event["epoch"] == epoch:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(broken, stop, resume=epoch > 2)
        # The epoch whose state was not saved is done again, and says the same.
        told(monkeypatch, *exact[epoch - 1 :], first=epoch)
    train(broken, lambda event: None, resume=True)
    assert read_manifest(tmp_path / "broken").metrics == read_manifest(tmp_path / "whole").metrics
    assert lasting(tmp_path / "broken") == lasting(tmp_path / "whole")
    names = ("adapters.safetensors", f"checkpoints/epoch-00{epochs}.safetensors")
    assert all((tmp_path / "broken" / at).read_bytes() == (tmp_path / "whole" / at).read_bytes() for at in names)


def lasting(folder: Path) -> Events:
    """The events of a run but for how long they took."""
    names = ("event", "update", "loss", "rows", "exact_match", "best")
    return [{name: event.get(name) for name in names} for event in history.read(folder)]


def test_the_figures_are_those_of_the_router_that_ships(adapter: Path, tmp_path: Path) -> None:
    """With the real decoder: what the last validation said is what the finished folder does."""
    router = Router.load(adapter)
    shipped = route_sample(router, read(write_rows(tmp_path / "rows.jsonl", known_rows()), router.catalogue))
    metrics = read_manifest(adapter).metrics
    assert (metrics["valid_rows"], {name: metrics[name] for name in shipped}) == (5, shipped)
    assert shipped["exact_match"] == 1.0, "a model that gets nothing right would agree with anything"


def test_what_a_half_trained_model_gets_wrong_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program that trains is not told of each invalid answer of its validation, and one that routes is."""
    events: Events = []
    folder = train(recipe(tmp_path, max_updates=1, valid_rows=12), events.append)
    assert of_kind(events, "valid")[0]["rows"] == 12 and caplog.messages == []
    Router.load(folder).route("Hi!")
    assert "invalid output" in caplog.text


def test_rows_that_choose_do_not_calibrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "CALLS_NEEDED", 3)
    monkeypatch.setattr(calibration, "CALLS_NEEDED", 3)
    run = prepare_run(recipe(tmp_path, valid_rows=200), tmp_path / "unused", lambda event: None)
    chosen, kept_apart = {row.request for row in run.sample}, {row.request for row in run.validation.calibrating}
    assert len(chosen) == len(kept_apart) == 6 and not chosen & kept_apart


def test_false_calls_can_not_choose_where_no_row_wants_no_tool(tmp_path: Path) -> None:
    config = recipe(tmp_path, best_by="false_call_rate_on_no_tool", valid_rows=200)
    rows = write_rows(tmp_path / "calls.jsonl", [{"request": "Now!", "target": CALL}])
    with pytest.raises(TrainingError, match="none of the 1 validation rows"):
        train(config.model_copy(update={"valid": str(rows)}), lambda event: None)
    assert not Path(config.adapter).exists()


def test_a_plot_that_can_not_be_written_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "draw", full)
    events: Events = []
    folder = train(make_recipe(tmp_path, max_updates=1), events.append)
    assert any("no plot was drawn: " in note["message"] for note in of_kind(events, "note"))
    assert of_kind(events, "plot") == [] and (folder / "router.json").is_file()
