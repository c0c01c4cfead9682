"""Pieces of an HTML page. What a row holds goes through `text`, and through nothing else, since it is anybody's."""

from collections.abc import Container, Iterable, Sequence
from html import escape

from .metrics import Metric
from .rendering import interval as ends_of
from .rendering import one_line, rate

# More lines than these are folded away.
OPEN_LINES = 6


def text(value: object) -> str:
    """Text as HTML: escaped, on one line, its control and direction characters made visible."""
    return escape(one_line(str(value)))


def own(value: object) -> str:
    """The same in a direction of its own, so that Hebrew or Arabic does not reorder what stands around it."""
    return f'<bdi dir="auto">{text(value)}</bdi>'


def code(value: object) -> str:
    """A name or an output."""
    return f"<code>{own(value)}</code>"


def breakable(name: str) -> str:
    """A name of ours that may be broken after its underscores."""
    return text(name).replace("_", "_<wbr>")


def small(value: str) -> str:
    """A remark; it is HTML already."""
    return f'<span class="small">{value}</span>'


def banner(kind: str, title: str, lines: Sequence[str] = ()) -> str:
    """A box that says something: "good", "bad" or "note"."""
    listed = f"<ul>{''.join(f'<li>{own(line)}</li>' for line in lines)}</ul>" if lines else ""
    if len(lines) > OPEN_LINES:
        listed = f"<details><summary>Show them</summary>{listed}</details>"
    return f'<div class="banner {kind}"><strong>{own(title)}</strong>{listed}</div>'


def interval(ends: tuple[float, float] | None) -> str:
    """A 95 % interval."""
    return "–" if ends is None else f'<span class="nowrap">{ends_of(ends)}</span>'


def rated(metric: Metric) -> str:
    """A rate with its interval."""
    ends = metric.ci95
    beside = "" if ends is None else f'<br><span class="small nowrap">{ends_of(ends)}</span>'
    return f"<b>{rate(metric.value)}</b>{beside}"


def table(label: str, head: Iterable[str], rows: Iterable[Sequence[str]], *, left: Container[int] = ()) -> str:
    """A table of cells that are HTML already, in a frame of its own that scrolls where the screen is narrow.

    The first column and those in `left` begin at the left, the others end at the right.
    """

    def side(column: int) -> str:
        return "" if column == 0 or column in left else ' class="number"'

    heads = "".join(f'<th scope="col"{side(column)}>{breakable(title)}</th>' for column, title in enumerate(head))
    lines = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if column == 0 else f"<td{side(column)}>{cell}</td>"
            for column, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return scroll(label, f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>")


def scroll(label: str, inner: str) -> str:
    """A frame that scrolls by itself, with keys too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{inner}</div>'
