"""Settings against results in characters: a table, the best run first, what varies in columns."""

from __future__ import annotations

from stemmata.pictures import words
from stemmata.pictures.parallel import Parallel
from stemmata.pictures.typed import ink

_ROWS = 20
_GAP = 2


def lines(picture: Parallel, width: int, colours: int) -> str:
    found = [ink.bold(line, colours) for line in ink.wrapped(picture.finding, width)]
    if picture.is_empty:
        return "\n".join(found)
    columns: list[list[str]] = [["run", *(s.run for s in picture.strands[:_ROWS])]]
    order = [len(picture.axes) - 1, *range(len(picture.axes) - 1)]
    for at in order:
        axis = picture.axes[at]
        cells = [axis.shown(strand.values[at]) for strand in picture.strands[:_ROWS]]
        columns.append([axis.key, *cells])
    wide = [min(28, max(ink.columns(cell) for cell in column)) for column in columns]
    kept = [0]
    for at in range(1, len(columns)):
        if sum(wide[k] + _GAP for k in [*kept, at]) - _GAP <= width:
            kept.append(at)
    found.append("")
    for row in range(len(columns[0])):
        cells = [ink.fitted(columns[at][row], wide[at], right=at > 0) for at in kept]
        line = (" " * _GAP).join(cells).rstrip()
        found.append(ink.dim(line, colours) if not row else line)
    if len(picture.strands) > _ROWS:
        found.append(ink.dim(f"and {words.count(len(picture.strands) - _ROWS, 'run')} more", colours))
    for note in picture.notes:
        found += [ink.dim(line, colours) for line in ink.wrapped(note, width)]
    return "\n".join(found)
