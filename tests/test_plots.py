"""Plots: where things are drawn, in a PNG and in letters."""

from pathlib import Path

import pytest
from PIL import Image

from mlx_router.plots import Line, Panel, draw_panel, spread, write_png

BLUE, RED = "#0000ff", "#ff0000"


def panel(log: bool = False) -> Panel:
    lines = (Line("up", BLUE, [(0, 0), (5, 5), (10, 10)]), Line("flat", RED, [(0, 2), (10, 2)], "f"))
    return Panel("both", lines, (0.0, 10.0), log)


def test_points_are_placed_from_the_upper_left_and_kept_inside() -> None:
    found = [panel().place(point) for point in ((0, 0), (5, 5), (10, 10), (10, 99))]
    assert found == [(0, 1), (0.5, 0.5), (1, 0), (1, 0)]
    log = Panel("", [Line("", BLUE, [(4, 1)])], (0.01, 100.0), log=True)
    assert log.place((2, 1.0)) == (0.5, pytest.approx(0.5))
    assert log.place((2, 0.0)) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("y", "log", "ticks"),
    [
        ((0.0, 1.0), False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ((0.0, 4.0), False, [0, 1, 2, 3, 4]),
        ((0.09, 2.3), True, [0.1, 0.2, 0.5, 1, 2]),
        ((0.004, 9.0), True, [0.01, 0.1, 1]),
        ((0.211, 0.24), True, [0.215, 0.22, 0.225, 0.23, 0.235, 0.24]),
        ((1e-7, 1e4), True, [1e-7, 1e-5, 1e-3, 0.1, 10, 1000]),
    ],
)
def test_ticks_are_round_numbers(y: tuple[float, float], log: bool, ticks: list[float]) -> None:
    assert Panel("", [], y, log).ticks() == pytest.approx(ticks)


def test_a_logarithmic_range_holds_its_values() -> None:
    low, high = spread([0.2, 3.0, 0.0])
    assert 0.1 < low < 0.2 and 3.0 < high < 4.0
    assert spread([0.0])[0] < spread([0.0])[1]


def test_a_png_shows_the_lines_where_their_points_are(tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    write_png(path, [panel(), panel()], "x", at=(5.0, "here"))
    assert [file.name for file in tmp_path.iterdir()] == ["chart.png"]
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (900, 640))
        pixels = image.convert("RGB")
    left, right, upper, lower = 62, 900 - 24, 34, 320 - 40
    for top in (0, 320):
        middle = ((left + right) // 2, top + (upper + lower) // 2)
        assert near(pixels.getpixel(middle), (0, 0, 255))
        assert near(pixels.getpixel((right, top + round(lower - 0.2 * (lower - upper)))), (255, 0, 0))
        assert near(pixels.getpixel((left + 30, top + upper + 10)), (255, 255, 255))


def near(found: object, wanted: tuple[int, int, int]) -> bool:
    return isinstance(found, tuple) and all(abs(a - b) < 80 for a, b in zip(found, wanted, strict=True))


def test_a_chart_in_letters() -> None:
    assert draw_panel(panel(), width=20, height=5).splitlines() == [
        "both: up, flat (f)",
        "10 │                ⢀⡠⠔⠊",
        "   │            ⢀⡠⠔⠊⠁",
        " 5 │        ⢀⡠⠔⠊⠁",
        "   │f⣀⣀⣀⣀⣤⣔⣊⣁⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀f",
        " 0 │⣀⠤⠒⠉",
        "   └────────────────────",
        "    0                 10",
    ]
