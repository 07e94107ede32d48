"""A heat map in characters: a cell is a block in its colour, with its number where there is room."""

from __future__ import annotations

from collections.abc import Iterator

from stemmata.pictures import colours as tones
from stemmata.pictures import words
from stemmata.pictures.heatmap import STATES, HeatMap
from stemmata.pictures.matrix import Cell
from stemmata.pictures.typed import ink

_MARKS = {"still": "·", "strange": "≠", "added": "+", "removed": "-"}
_NUMBER = 6
"""Columns that a cell's number needs, with a blank."""
_NARROW = 2
_NAME = 14
"""Columns of a module's name at most."""


def lines(picture: HeatMap, width: int, colours: int) -> str:
    found = [ink.bold(line, colours) for line in ink.wrapped(picture.finding, width)]
    if not picture.is_empty:
        found += ["", *_grid(picture, width, colours), "", *_key(picture, width, colours)]
    for note in picture.notes:
        found += [ink.dim(line, colours) for line in ink.wrapped(note, width)]
    return "\n".join(found)


def _grid(picture: HeatMap, width: int, colours: int) -> Iterator[str]:
    rows, columns = picture.matrix.rows, picture.matrix.columns
    margin = min(max(ink.columns(row.label) for row in rows), max(8, width // 4)) + 2
    names = [words.clipped(column.label, _NAME) for column in columns]
    wide = [max(ink.columns(name) + 2, _NUMBER + 1) for name in names]
    letters = sum(wide) > width - margin
    if letters:
        room = (width - margin) // len(columns)
        wide = [_NUMBER + 1 if room > _NUMBER else max(1, min(room, _NARROW))] * len(columns)
    heads = (_letter(at) if letters else name for at, name in enumerate(names))
    yield (" " * margin + "".join(map(ink.fitted, heads, wide))).rstrip()
    for at, row in enumerate(rows):
        line, pending = "", 0
        for column in range(len(columns)):
            mark, used = _cell(picture, picture.matrix.cells.get((at, column)), wide[column], colours)
            # Blanks at a line's end would be garbage in a pipe: they wait for the next cell.
            line += (" " * pending + mark) if used else ""
            pending = (0 if used else pending) + wide[column] - used
        label = ink.fitted(row.label, margin - 2, right=True)
        yield f"{ink.dim(label, colours)}  {line}"
    if letters:
        yield ""
        parts = [(f"{_letter(at)} {c.label}", ink.columns(c.label) + 2) for at, c in enumerate(columns)]
        yield from (ink.dim(line, colours) for line in ink.flowing(parts, width))


def _letter(at: int) -> str:
    return chr(ord("a") + at) if at < 26 else chr(ord("A") + at - 26)


def _cell(picture: HeatMap, cell: Cell | None, width: int, colours: int) -> tuple[str, int]:
    """What is written, and its columns; where there are several the last one stays blank between cells."""
    if cell is None:
        return "", 0
    if cell.value is None:
        return ink.dim(_MARKS[cell.state], colours), 1
    inner = width - 1 if width > _NARROW else width
    share = picture.scale.at(cell.value)
    number = _number(picture, cell.value) if inner >= _NUMBER else ""
    if not colours:
        return (number, len(number)) if number else (ink.shade(share) * inner, inner)
    back, fore = tones.ramp(share, dark=True), tones.on_ramp(share, dark=True)
    return ink.inked(ink.fitted(f" {number}", inner), colours, back=back, fore=fore), inner


def _number(picture: HeatMap, value: float) -> str:
    """In five columns; of a share its percentage, without the sign."""
    shown = picture.shown(value)
    if shown == "from zero":
        return "new"
    short = shown.removesuffix(" %").replace("-fold", "×")
    return short if len(short) <= _NUMBER - 1 else f"{float(value) * 100:.0e}".replace("e-0", "e-")


def _key(picture: HeatMap, width: int, colours: int) -> Iterator[str]:
    """The scale, and what other marks mean."""
    scale, bar = picture.scale, min(24, max(8, width // 4))
    if any(cell.value is not None for cell in picture.matrix.cells.values()):
        low, high = picture.shown(scale.low), picture.shown(scale.high)
        if colours:
            parts = (ink.inked(" ", colours, back=tones.ramp(k / (bar - 1), dark=True)) for k in range(bar))
        else:
            parts = (ink.shade(k / bar) for k in range(bar))
        line = f"{low} {''.join(parts)} {high}"
        yield from ink.flowing(
            [
                (line, len(low) + bar + len(high) + 2),
                (ink.dim(picture.unit_of_numbers, colours), len(picture.unit_of_numbers)),
            ],
            width,
        )
    others = [(f"{_MARKS[state]} {STATES[state]}", len(STATES[state]) + 2) for state in picture.states]
    if any(cell.infinite for cell in picture.matrix.cells.values()):
        others.append(("new: all was zero before", 24))
    yield from (ink.dim(line, colours) for line in ink.flowing(others, width))
