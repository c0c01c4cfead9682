"""Charts as inline SVG: numbers in, markup out. Colours are the style sheet's, so that both modes look right."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .curves import Bin, Point
from .metrics import Metric

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 24, 14, 46
BAR_WIDTH = 150


@dataclass(frozen=True)
class Axes:
    """A frame with two scales; `x` and `y` turn values into places on the drawing."""

    low_x: float
    high_x: float
    high_y: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.low_x) / (self.high_x - self.low_x) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - min(value, self.high_y) / self.high_y * (HEIGHT - TOP - BOTTOM)

    def frame(self, label_x: str, label_y: str, *, percent_x: bool = True, percent_y: bool = True) -> str:
        """Grid, ticks and names of both axes."""
        parts = []
        for value in ticks(self.high_y):
            parts.append(_line(LEFT, self.y(value), WIDTH - RIGHT, self.y(value), "grid"))
            parts.append(_text(LEFT - 8, self.y(value) + 4, _tick(value, self.high_y, percent_y), "end"))
        for value in ticks(self.high_x):
            if value >= self.low_x:
                parts.append(_text(self.x(value), HEIGHT - BOTTOM + 18, _tick(value, self.high_x, percent_x), "middle"))
        parts.append(_line(LEFT, self.y(0), WIDTH - RIGHT, self.y(0), "axis"))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, label_x, "middle", "label"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turned = f'transform="rotate(-90 13 {middle:.1f})"'
        parts.append(
            f'<text x="13" y="{middle:.1f}" text-anchor="middle" class="label" {turned}>{escape(label_y)}</text>'
        )
        return "".join(parts)


def ticks(high: float) -> list[float]:
    """About five round values from 0 to `high`."""
    step = 10.0 ** math.floor(math.log10(high))
    step = next(step * part for part in (0.2, 0.25, 0.5, 1.0, 2.0) if high / (step * part) < 6.001)
    return [number * step for number in range(int(high / step + 1e-9) + 1)]


def _tick(value: float, high: float, percent: bool) -> str:
    if not percent:
        return f"{value:g}"
    return f"{100 * value:.0f} %" if high >= 0.05 or value == 0 else f"{100 * value:.2g} %"


def risk_chart(points: Sequence[Point]) -> str:
    """The risk at every coverage, with its 95 % interval as a band."""
    bounds = [point.risk.ci95 or (0.0, 1.0) for point in points]
    # A few calls alone have an interval that is no news; the drawing need not hold it.
    most = max(high for point, (_, high) in zip(points, bounds, strict=True) if point.coverage >= 0.25)
    axes = Axes(0.0, 1.0, _round_up(max(0.02, most, 1.2 * max(_value(point.risk) for point in points))))
    places = [axes.x(point.coverage) for point in points]
    upper = [(x, axes.y(high)) for x, (_, high) in zip(places, bounds, strict=True)]
    lower = [(x, axes.y(low)) for x, (low, _) in zip(places, bounds, strict=True)]
    curve = [(x, axes.y(_value(point.risk))) for x, point in zip(places, points, strict=True)]
    last = points[-1]
    label = (
        f"Risk by coverage. Acting on all {last.n} calls, {_value(last.risk):.1%} are wrong; the table has more points."
    )
    parts = [
        axes.frame("calls acted on, the surest first", "wrong among them"),
        f'<polygon class="band" points="{_points([*upper, *lower[::-1]])}"/>',
        f'<polyline class="curve" points="{_points(curve)}"/>',
        *(_dot(x, y, "mark", 2.5) for x, y in (curve if len(curve) <= 40 else curve[-1:])),
    ]
    return _svg(label, "".join(parts))


def reliability_chart(bins: Sequence[Bin]) -> str:
    """What was right, with its interval, against what was said, bin by bin; on the diagonal the two are the same."""
    low = 0.5 if min(one.mean for one in bins) >= 0.5 else 0.0
    axes = Axes(low, 1.0, 1.0)
    parts = [
        axes.frame("what the router said", "what was right"),
        _line(axes.x(low), axes.y(low), axes.x(1), axes.y(1), "diagonal"),
    ]
    for one in bins:
        x, (bottom, top) = axes.x(one.mean), one.rate.ci95 or (0.0, 1.0)
        parts.append(_line(x, axes.y(bottom), x, axes.y(top), "whisker"))
        title = f"{one.n} calls: said {one.mean:.3f}, right {_value(one.rate):.3f}"
        parts.append(_dot(x, axes.y(_value(one.rate)), "mark", 4, title))
    label = (
        f"Reliability in {len(bins)} bins of calls: what was said against what was right; the table has the numbers."
    )
    return _svg(label, "".join(parts))


def histogram(values: Sequence[float], marks: Mapping[str, float], bins: int = 24) -> str:
    """How often values fell where, with named marks; `values` are sorted and not empty.

    The last bar holds what is more.
    """
    high = _round_up(max(values[-(-99 * len(values) // 100) - 1], *marks.values()) * 1.05 or 1.0)
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(value / high * bins))] += 1
    axes = Axes(0.0, high, _round_up(max(counts)))
    parts = [axes.frame("milliseconds", "decisions", percent_x=False, percent_y=False)]
    for place, count in enumerate(counts):
        x, y = axes.x(place * high / bins), axes.y(count)
        width = axes.x((place + 1) * high / bins) - x - 1
        parts.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{axes.y(0) - y:.1f}"/>')
    for row, (name, value) in enumerate(marks.items()):
        x = axes.x(min(value, high))
        parts.append(_line(x, TOP, x, axes.y(0), "best"))
        left = x > WIDTH - 60
        parts.append(_text(x + (-4 if left else 4), TOP + 10 + 14 * row, name, "end" if left else "start", "label"))
    said = ", ".join(f"{name} {value:.0f}" for name, value in marks.items())
    return _svg(f"Latency of {len(values)} decisions in milliseconds: {said}.", "".join(parts))


def interval_bar(metric: Metric, best: float | None = None) -> str:
    """A rate as a dot on a line from 0 to 1, with its interval, and a tick for the best value that can be attained.

    It only draws what the text beside it says, so it is hidden from readers aloud.
    """
    if metric.value is None:
        return ""
    at = [f'<line class="track" x1="4" y1="9" x2="{BAR_WIDTH - 4}" y2="9"/>']
    if metric.ci95 is not None:
        low, high = (_along(end) for end in metric.ci95)
        at.append(f'<rect class="interval" x="{low:.1f}" y="5" width="{max(1.0, high - low):.1f}" height="8" rx="4"/>')
    if best is not None:
        at.append(_line(_along(best), 1, _along(best), 17, "best"))
    at.append(_dot(_along(metric.value), 9, "mark", 3.5))
    return f'<svg class="rate" viewBox="0 0 {BAR_WIDTH} 18" aria-hidden="true">{"".join(at)}</svg>'


def _value(metric: Metric) -> float:
    """The value of a rate that was measured."""
    assert metric.value is not None
    return metric.value


def _along(value: float) -> float:
    return 4 + value * (BAR_WIDTH - 8)


def _round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 and 10 times a power of ten; rates end at 1."""
    if 0.8 <= value <= 1:
        return 1.0
    step = 10.0 ** math.floor(math.log10(value))
    return next(step * part for part in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 100) if step * part >= value - 1e-12)


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(_thinned(places))


def _thinned(places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """The places as text, without those less than a pixel from the last."""
    last = (-9.0, -9.0)
    for x, y in places:
        if math.hypot(x - last[0], y - last[1]) >= 0.5:
            last = (x, y)
            yield f"{x:.1f},{y:.1f}"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, kind: str, radius: float, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{inner}</circle>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(label: str, inner: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{inner}</svg>'
