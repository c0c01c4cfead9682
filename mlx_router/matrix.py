"""The confusion matrix as HTML: with three tools as with forty, and the confusions as a list, for narrow screens."""

from collections.abc import Mapping, Sequence
from typing import Final

from .calls import NO_TOOL
from .markup import code, scroll, table, text
from .metrics import INVALID, Row, confusion

# So many names are still readable on a laptop's screen; of more, those with the most confusions and rows.
MOST: Final = 41
# With more columns than this the cells get small.
ROOMY: Final = 14
OTHERS: Final = "(other tools)"


def confusion_matrix(rows: Sequence[Row]) -> str:
    """The matrix, and the confusions in order of their number."""
    counts = confusion(rows)
    shown = _shown(counts)
    said = {name for row in counts.values() for name in row}
    folded = (counts.keys() | said) - {INVALID} - set(shown)
    columns = [*shown, *([OTHERS] if folded else []), *([INVALID] if INVALID in said else [])]
    heads = "".join(f'<th scope="col"><span>{text(name)}</span></th>' for name in columns)
    lines = "".join(_line(gold, columns, counts[gold]) for gold in shown if gold in counts)
    size = "matrix" if len(columns) <= ROOMY else "matrix dense"
    left = len(set(counts) - set(shown))
    more = f"<p>{left} more gold tools, with fewer rows and confusions, stand in report.json.</p>" if left else ""
    drawn = scroll(
        "Confusion matrix",
        f'<table class="{size}"><thead><tr><td class="corner">gold ↓ output →</td>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table>",
    )
    about = '<p class="about">A row for each gold tool, a column for what came out: green is right, red is not.</p>'
    return about + drawn + more + _list(counts)


def _shown(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The tools of the matrix by name, `no_tool` last, beside what is no decision."""
    weight: dict[str, int] = {}
    for gold, row in counts.items():
        for said, count in row.items():
            # A confusion says more than a right row.
            heavy = count if gold == said else 3 * count
            weight[gold] = weight.get(gold, 0) + heavy
            weight[said] = weight.get(said, 0) + heavy
    weight.pop(INVALID, None)
    heaviest = sorted(weight, key=lambda name: (name != NO_TOOL, -weight[name], name))[:MOST]
    return sorted(heaviest, key=lambda name: (name == NO_TOOL, name))


def _line(gold: str, columns: Sequence[str], row: Mapping[str, int]) -> str:
    shown = {name: count for name, count in row.items() if name in columns}
    shown[OTHERS] = sum(row.values()) - sum(shown.values())
    total = sum(row.values())
    cells = "".join(_cell(gold, name, shown.get(name, 0), total) for name in columns)
    return f'<tr><th scope="row"><span>{text(gold)}</span></th>{cells}</tr>'


def _cell(gold: str, said: str, count: int, total: int) -> str:
    if not count:
        return "<td></td>"
    kind = "right" if gold == said else "wrong"
    # Even one in a hundred must be seen.
    share = 18 + 62 * count // total
    title = f"{text(gold)} → {text(said)}: {count} of {total}"
    return f'<td class="{kind}" style="--share:{share}%" title="{title}">{count}</td>'


def _list(counts: Mapping[str, Mapping[str, int]]) -> str:
    wrong = [(count, gold, said) for gold, row in counts.items() for said, count in row.items() if gold != said]
    if not wrong:
        return "<p>No tool was taken for another.</p>"
    wrong.sort(key=lambda one: (-one[0], one[1:]))
    rows = [
        [code(gold), code(said), str(count), f"{count / sum(counts[gold].values()):.3f}"] for count, gold, said in wrong
    ]
    listed = table("Confusions", ["gold", "output", "rows", "of the gold tool's"], rows, left=(1,))
    return f"<details><summary>The {len(rows)} confusions as a list</summary>{listed}</details>"
