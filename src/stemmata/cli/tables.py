"""Tables that fit: which columns stay and how wide each is. Owns layout; knows no versions.

A line never wraps. Columns give way in a fixed order: first the flexible ones shrink, then the
least important leave. rich's own Table costs seven times as much for a thousand rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stemmata.cli.styled import Text, cell_len, fold

_GAP = 2
_HEAD = "dim"


@dataclass(slots=True)
class Column:
    """One column. `rank` 0 always stays; the highest rank leaves first. `shrink` is how narrow
    it may become, None if it may not. `right` aligns numbers."""

    title: str
    rank: int = 0
    right: bool = False
    shrink: int | None = None
    cells: list[Text] = field(default_factory=list)

    def add(self, value: str | Text, style: str = "") -> None:
        self.cells.append(value if isinstance(value, Text) else Text(value, style))

    @property
    def natural(self) -> int:
        return max([cell_len(self.title), *(c.cell_len for c in self.cells)])

    @property
    def empty(self) -> bool:
        return not any(c.plain for c in self.cells)


def fit(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """The columns that stay, in order, with their widths; their sum with gaps is at most `width`
    unless only columns of rank 0 that cannot shrink are left."""
    natural = {id(c): c.natural for c in columns}
    least = {id(c): natural[id(c)] if c.shrink is None else min(c.shrink, natural[id(c)]) for c in columns}
    kept = [c for c in columns if not c.empty]
    while kept and sum(least[id(c)] for c in kept) + _GAP * (len(kept) - 1) > width:
        weakest = max(kept, key=lambda c: c.rank)
        if weakest.rank == 0:
            break
        kept.remove(weakest)
    widths = {id(c): least[id(c)] for c in kept}
    spare = width - sum(widths.values()) - _GAP * (len(kept) - 1)
    for column in sorted(kept, key=lambda c: c.rank):
        more = min(max(spare, 0), natural[id(column)] - widths[id(column)])
        widths[id(column)] += more
        spare -= more
    return [(c, widths[id(c)]) for c in kept]


def table(columns: Sequence[Column], width: int, *, indent: int = 0, head: bool = True) -> Text:
    """All rows as one text, a line each; no newline after the last."""
    laid = fit(columns, width - indent)
    lines = Text(no_wrap=True)
    margin = " " * indent
    rows = len(laid[0][0].cells) if laid else 0
    if head and laid:
        lines.append(margin)
        _line(lines, [(Text(c.title, _HEAD), c.right, w) for c, w in laid])
        lines.append("\n" if rows else "")
    for row in range(rows):
        lines.append(margin)
        _line(lines, [(c.cells[row], c.right, w) for c, w in laid])
        if row < rows - 1:
            lines.append("\n")
    return lines


def pairs(rows: Sequence[tuple[str, Text]], width: int, *, indent: int = 2, least: int = 0) -> Text:
    """Keys and values below each other; a long value goes on under itself."""
    widest = max(32, min(width // 2, 64))
    keys = max([least, *(min(cell_len(k), widest) for k, _ in rows)])
    lines = Text(no_wrap=True)
    room = max(width - indent - keys - _GAP, 16)
    hang = "\n" + " " * (indent + keys + _GAP)
    for place, (key, value) in enumerate(rows):
        lines.append("\n" if place else "")
        lines.append(" " * indent + key, _HEAD)
        over = cell_len(key) > keys
        lines.append(hang if over else " " * (keys - cell_len(key) + _GAP))
        for number, part in enumerate(fold(value, room)):
            lines.append(hang if number else "")
            lines.append_text(part)
    return lines


def _line(into: Text, cells: Sequence[tuple[Text, bool, int]]) -> None:
    pending = 0
    for cell, right, width in cells:
        length = cell.cell_len
        if length > width:
            cell = cell.truncate(width)
            length = cell.cell_len
        if not length:
            pending += width + _GAP
            continue
        lead = width - length if right else 0
        into.append(" " * (pending + lead))
        into.append_text(cell)
        # Blanks at a line's end would be garbage in a pipe: they wait for the next cell.
        pending = _GAP + (0 if right else width - length)
