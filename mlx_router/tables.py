"""Tables as plain text."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Columns under each other; those in `left` begin at the left, the others end at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
