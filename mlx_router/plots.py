"""Line plots, as a PNG and in letters for a terminal."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL import ImageDraw

Point: TypeAlias = tuple[float, float]

WIDTH, PANEL_HEIGHT = 900, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 34, 40
TEXT = 14
# Lines are drawn three times as large and made smaller, which smooths them.
FINER = 3
INK, GREY, PAPER = "#24292f", "#d8dee4", "#ffffff"
# Dots of a braille character, by column and row within it.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BRAILLE = 0x2800


@dataclass(frozen=True)
class Line:
    """Points that rise in x. With a `mark`, each is shown: as a dot, or as this letter in a terminal."""

    name: str
    color: str
    points: Sequence[Point]
    mark: str = ""


@dataclass(frozen=True)
class Panel:
    """Lines over one axis; `y` is its range. A logarithmic axis takes values above zero only."""

    title: str
    lines: Sequence[Line]
    y: tuple[float, float]
    log: bool = False

    @property
    def x(self) -> tuple[float, float]:
        """From zero to the last point."""
        return 0.0, max((x for line in self.lines for x, _ in line.points), default=1.0) or 1.0

    def place(self, point: Point) -> Point:
        """A point as shares of the panel's width and height, counted from the left and the top, kept inside."""
        (low, high), value = self.y, point[1]
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        height = (value - low) / (high - low)
        return point[0] / self.x[1], 1 - min(max(height, 0.0), 1.0)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values of the y axis."""
        found = _log_ticks(*self.y) if self.log else []
        # A short stretch of a logarithmic axis is nearly even, and may hold no value of one digit.
        return found[:: -(-len(found) // most)] if len(found) > 1 else _ticks(*self.y, most)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """A range for a logarithmic axis that these values fill, with a little room."""
    known = [value for value in values if value > 0] or [1.0]
    return min(known) / 1.15, max(known) * 1.15


def _ticks(low: float, high: float, most: int) -> list[float]:
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(size * round_ for round_ in (1, 2, 5, 10) if (high - low) / (size * round_) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    # The more decades there are, the fewer values of each.
    rounds = (1, 2, 5) if high / low < 100 else (1,)
    return [value for power in powers for round_ in rounds if low <= (value := round_ * 10.0**power) <= high]


def _number(value: float) -> str:
    return f"{value:g}" if value == 0 or 1e-4 <= abs(value) < 1e5 else f"{value:.0e}"


# PNG


def write_png(path: Path, panels: Sequence[Panel], x_name: str, at: tuple[float, str] | None = None) -> None:
    """Draw the panels one below the other; `at` marks a place on the x axis with a word. Written aside and renamed."""
    from PIL import Image, ImageDraw, ImageFont

    size = (WIDTH, PANEL_HEIGHT * len(panels))
    lines = Image.new("RGB", (size[0] * FINER, size[1] * FINER), PAPER)
    for number, panel in enumerate(panels):
        _draw_lines(ImageDraw.Draw(lines), panel, number * PANEL_HEIGHT, at[0] if at is not None else None)
    image = lines.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    draw.font = ImageFont.load_default(TEXT)
    for number, panel in enumerate(panels):
        _draw_words(draw, panel, number * PANEL_HEIGHT, x_name, at)
    aside = path.with_name(f"{path.name}.part")
    image.save(aside, "png")
    aside.replace(path)


def _frame(top: int) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of a panel's inside."""
    return LEFT, top + TOP, WIDTH - RIGHT, top + PANEL_HEIGHT - BOTTOM


def _pixels(panel: Panel, top: int) -> Callable[[Point], Point]:
    left, upper, right, lower = _frame(top)

    def pixel(point: Point) -> Point:
        across, down = panel.place(point)
        return left + across * (right - left), upper + down * (lower - upper)

    return pixel


def _draw_lines(draw: "ImageDraw.ImageDraw", panel: Panel, top: int, at: float | None) -> None:
    left, upper, right, lower = (FINER * edge for edge in _frame(top))
    pixel = _pixels(panel, top)
    for tick in panel.ticks():
        y = FINER * pixel((0.0, tick))[1]
        draw.line([(left, y), (right, y)], GREY, FINER)
    if at is not None:
        x = FINER * pixel((at, panel.y[1]))[0]
        for y in range(upper, lower, 8 * FINER):
            draw.line([(x, y), (x, y + 4 * FINER)], INK, FINER)
    draw.line([(left, upper), (left, lower), (right, lower)], INK, FINER)
    for line in panel.lines:
        points = [(FINER * x, FINER * y) for x, y in map(pixel, line.points)]
        if len(points) > 1:
            draw.line(points, line.color, 2 * FINER, joint="curve")
        radius = 4 * FINER if line.mark or len(points) == 1 else 0
        for x, y in points if radius else []:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], line.color)


def _draw_words(
    draw: "ImageDraw.ImageDraw", panel: Panel, top: int, x_name: str, at: tuple[float, str] | None
) -> None:
    left, upper, right, lower = _frame(top)
    pixel = _pixels(panel, top)
    for tick in panel.ticks():
        draw.text((left - 8, pixel((0.0, tick))[1]), _number(tick), INK, anchor="rm")
    for tick in _ticks(*panel.x, most=10):
        draw.text((pixel((tick, panel.y[0]))[0], lower + 6), _number(tick), INK, anchor="mt")
    draw.text((right, lower + 22), x_name, INK, anchor="rt")
    if at is not None:
        x = pixel((at[0], panel.y[1]))[0]
        inside = x > (left + right) / 2
        draw.text((x - 6 if inside else x + 6, lower - 6), at[1], INK, anchor="rb" if inside else "lb")
    draw.text((left, upper - 12), panel.title, INK, anchor="ls")
    x = right
    for line in reversed(panel.lines):
        draw.text((x, upper - 12), line.name, line.color, anchor="rs")
        x -= round(draw.textlength(line.name)) + 34
        draw.line([(x + 10, upper - 17), (x + 28, upper - 17)], line.color, 3)


# Terminal


def draw_panel(panel: Panel, width: int = 72, height: int = 10) -> str:
    """The panel in so many columns and rows of characters, axis and legend apart."""
    cells = [[0] * width for _ in range(height)]
    marks: dict[tuple[int, int], str] = {}
    for line in panel.lines:
        places = [_dot(panel.place(point), width, height) for point in line.points]
        for dot in _dots_between(places):
            cells[dot[1] // 4][dot[0] // 2] |= DOTS[dot[0] % 2][dot[1] % 4]
        marks |= {(x // 2, y // 4): line.mark for x, y in places if line.mark}
    ticks = panel.ticks(most=max(2, height // 2))
    labels = {_dot(panel.place((0.0, tick)), width, height)[1] // 4: _number(tick) for tick in ticks}
    room = max(map(len, labels.values()), default=0)
    rows = []
    for row, cell in enumerate(cells):
        text = "".join(marks.get((at, row)) or chr(BRAILLE + dots) for at, dots in enumerate(cell))
        rows.append(f"{labels.get(row, ''):>{room}} │{text}".replace(chr(BRAILLE), " ").rstrip())
    legend = ", ".join(f"{line.name} ({line.mark})" if line.mark else line.name for line in panel.lines)
    last = _number(panel.x[1])
    axis = f"{'':>{room}} └{'─' * width}\n{'':>{room}}  0{last:>{width - 1}}"
    return "\n".join([f"{panel.title}: {legend}", *rows, axis])


def _dot(place: Point, width: int, height: int) -> tuple[int, int]:
    """A braille dot: two a column, four a row."""
    return round(place[0] * (2 * width - 1)), round(place[1] * (4 * height - 1))


def _dots_between(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found = list(places[:1])
    for (x, y), (to_x, to_y) in itertools.pairwise(places):
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        found += [
            (round(x + (to_x - x) * step / steps), round(y + (to_y - y) * step / steps))
            for step in range(1, steps + 1)
        ]
    return found
