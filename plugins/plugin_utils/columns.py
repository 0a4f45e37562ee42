"""Text in columns for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def widths(lines: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column; all lines have the same number of cells."""
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Each line with its cells padded to the width of their column, without spaces at the end."""
    sizes = widths(lines)
    return [
        GAP.join(cell.ljust(size) for cell, size in zip(line, sizes, strict=True)).rstrip() for line in lines
    ]
