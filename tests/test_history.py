"""What a run reported: kept line by line, cut where a run goes on, and drawn."""

from pathlib import Path
from typing import Any

from PIL import Image

from mlx_router import history


def progress(update: int) -> dict[str, Any]:
    return {"event": "progress", "update": update, "epoch": update / 10, "loss": 3.0 / update}


def valid(epoch: int, exact: float | None = None, best: bool = False) -> dict[str, Any]:
    figures = dict.fromkeys(("exact_match", "wrong_call_rate", "false_call_rate_on_no_tool"), exact)
    rows = 0 if exact is None else 20
    at = {"update": 10 * epoch, "epoch": epoch, "epochs_trained": epoch}
    return {"event": "valid", **at, "loss": 1.0, "rows": rows, "best": best, **figures}


def written(folder: Path, *events: dict[str, Any]) -> Path:
    for event in events:
        history.append(folder, event)
    return folder


def test_only_what_can_be_drawn_is_kept(tmp_path: Path) -> None:
    events = [progress(5), {"event": "checkpoint", "epoch": 1, "file": "x"}, valid(1)]
    assert history.read(written(tmp_path, *events)) == [events[0], events[2]]
    assert history.read(tmp_path / "nowhere") == []


def test_a_run_that_goes_on_forgets_what_it_will_do_again(tmp_path: Path) -> None:
    written(tmp_path, progress(5), progress(10), valid(1), progress(15))
    history.cut(tmp_path, 10)
    assert history.read(tmp_path) == [progress(5), progress(10), valid(1)]
    history.cut(tmp_path, 0)
    assert (history.read(tmp_path), history.draw(tmp_path), history.draw_for_terminal(tmp_path)) == ([], None, "")


def test_a_line_that_a_killed_run_left_torn_ends_the_history(tmp_path: Path) -> None:
    written(tmp_path, progress(5))
    for rest in (b'{"event": "prog', b"\0\0\0\0\n", b"\xff\xfe"):
        path = tmp_path / history.FILE
        path.write_bytes(path.read_bytes() + rest)
        assert history.read(tmp_path) == [progress(5)]
        history.cut(tmp_path, 5)
        assert path.read_bytes().endswith(b"}\n")


def test_the_plot_has_a_panel_of_losses_and_one_of_routing_if_rows_were_routed(tmp_path: Path) -> None:
    written(tmp_path, progress(5), progress(10), valid(1))
    (losses,) = history.panels(history.read(tmp_path))
    assert [(line.name, line.points) for line in losses.lines] == [
        ("training", [(0.5, 0.6), (1.0, 0.3)]),
        ("validation", [(1, 1.0)]),
    ]
    written(tmp_path, valid(2, 0.5, best=True), progress(25), valid(3, 0.4))
    routed = history.panels(history.read(tmp_path))[1]
    assert routed.title == "20 validation rows routed"
    assert [line.points for line in routed.lines] == [[(2, 0.5), (3, 0.4)]] * 3
    assert history.best_epoch(history.read(tmp_path)) == 2
    path = history.draw(tmp_path)
    assert path is not None and path.name == "training.png"
    with Image.open(path) as image:
        assert image.size == (900, 640)
    text = history.draw_for_terminal(tmp_path)
    assert "loss: training, validation (o)" in text and "exact match (e), wrong calls (w)" in text


def test_an_epoch_that_was_cut_short_is_drawn_where_it_ended(tmp_path: Path) -> None:
    """`max_updates` may end a run within its first epoch, whose checkpoint is called epoch 1 all the same."""
    written(tmp_path, progress(4), valid(1, 0.5, best=True) | {"update": 4, "epochs_trained": 0.4})
    losses, routed = history.panels(history.read(tmp_path))
    assert {point[0] for line in (*losses.lines, *routed.lines) for point in line.points} == {0.4}
    assert history.best_epoch(history.read(tmp_path)) == 0.4


def test_validation_rows_that_all_want_a_call_have_no_false_calls_to_draw(tmp_path: Path) -> None:
    event = valid(1, 0.5) | {"false_call_rate_on_no_tool": None}
    _, routed = history.panels([event])
    assert [line.name for line in routed.lines] == ["exact match", "wrong calls"]
