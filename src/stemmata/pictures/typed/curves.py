"""Curves in characters: lines of braille dots, versions as marks on them, runs named where they end."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stemmata.pictures import colours as tones
from stemmata.pictures import words
from stemmata.pictures.curves import Curves, Line, Panel
from stemmata.pictures.typed import ink
from stemmata.pictures.typed.braille import Sheet

_HIGH = 11
_PANELS = 4
_NAMED = 10
"""Runs that are named at the end of their line."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def lines(picture: Curves, width: int, colours: int) -> str:
    found = [ink.bold(line, colours) for line in ink.wrapped(picture.finding, width)]
    for panel in picture.panels[:_PANELS]:
        found += ["", *_panel(picture, panel, width, colours)]
    left = [panel.metric for panel in picture.panels[_PANELS:]]
    if left:
        found += ["", ink.dim(f"not drawn: {words.listed(left, 8)}", colours)]
    for note in picture.notes:
        found += [ink.dim(line, colours) for line in ink.wrapped(note, width)]
    return "\n".join(found)


class _Frame:
    """From values to dots."""

    def __init__(self, panel: Panel, wide: int) -> None:
        values = panel.values or (0.0,)
        self.log = panel.log
        low, high = self._up(min(values)), self._up(max(values))
        room = (high - low) * 0.04 or abs(high) * 0.05 or 1.0
        self.low, self.high = low - room, high + room
        xs = panel.places or (0.0,)
        self.left, self.right = min(xs), max(xs)
        self.wide = wide

    def _up(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def y(self, value: float) -> int:
        share = (self._up(value) - self.low) / (self.high - self.low)
        return round((1 - share) * (_HIGH * 4 - 1))

    def x(self, value: float) -> int:
        span = self.right - self.left
        return round((value - self.left) / span * (2 * self.wide - 1)) if span else self.wide

    def ticks(self) -> list[float]:
        if self.log:
            return words.log_ticks(10**self.low, 10**self.high, 7)
        return words.ticks(self.low, self.high, 7)


def _panel(picture: Curves, panel: Panel, width: int, colours: int) -> Iterator[str]:
    named = [line for line in panel.lines if line.colour >= 0][:_NAMED]
    longest = max((ink.columns(line.run) for line in named), default=0)
    right = min(longest + 4, max(12, width // 4)) if width >= 56 else 0
    labels = {f"{words.number(t)}" for t in _Frame(panel, 10).ticks()}
    margin = max(map(len, labels), default=1) + 1
    wide = max(12, width - margin - right - 1)
    frame = _Frame(panel, wide)
    sheet = Sheet(wide, _HIGH)
    letters = {line.run: _LETTERS[at % 26] for at, line in enumerate(named)}
    for line in sorted(panel.lines, key=lambda each: each.colour >= 0):
        _draw(sheet, frame, line, letters.get(line.run, ""), colours)
    if panel.best is not None:
        line, point = panel.best
        sheet.mark(frame.x(point.x), frame.y(point.value), "★", _tone(line, colours))
    better = {"min": "  lower is better", "max": "  higher is better"}.get(panel.way or "", "")
    yield ink.bold(panel.metric, colours) + ink.dim(better, colours)
    ends = _ends(frame, named) if right else {}
    at_rows = {frame.y(tick) // 4: words.number(tick) for tick in frame.ticks()}
    for row, drawn in enumerate(sheet.rows(colours)):
        label = ink.fitted(at_rows.get(row, ""), margin - 1, right=True)
        tail = _tail(ends.get(row), letters, right, colours)
        yield f"{ink.dim(label, colours)} {'┤' if row in at_rows else '│'}{drawn}{tail}".rstrip()
    yield from _foot(picture, frame, margin, colours)
    if not right:
        parts = [(_called(line, letters, colours), ink.columns(line.run) + 2) for line in named]
        yield from ink.flowing(parts, width)
    yield from _marks(picture, panel, width, colours)


def _draw(sheet: Sheet, frame: _Frame, line: Line, letter: str, colours: int) -> None:
    tone = _tone(line, colours)
    before: tuple[int, int] | None = None
    for place, value in line.drawn:
        if not math.isfinite(value):
            before = None
            continue
        x, y = frame.x(place), frame.y(value)
        if before is None:
            sheet.dot(x, y, tone)
        else:
            sheet.line(*before, x, y, tone)
        before = x, y
    if letter and len(line.points) * 4 <= sheet.width:
        for point in line.points:
            if math.isfinite(point.value):
                mark = "●" if colours else letter
                sheet.mark(frame.x(point.x), frame.y(point.value), mark, tone)


def _tone(line: Line, colours: int) -> str:
    if not colours:
        return ""
    return tones.NIGHT.runs[line.colour] if line.colour >= 0 else tones.NIGHT.strange


def _ends(frame: _Frame, named: list[Line]) -> dict[int, Line]:
    """By row, the run that is named there: near where its line ends, each on a row of its own."""
    lasts = []
    for line in named:
        finite = [value for _, value in line.drawn if math.isfinite(value)]
        if finite:
            lasts.append((frame.y(finite[-1]) / 4, line))
    places = words.apart([row for row, _ in lasts], 1.0, 0.0, _HIGH - 1.0)
    found: dict[int, Line] = {}
    for place, (_, line) in sorted(zip(places, lasts, strict=True), key=lambda each: each[0]):
        row = round(place)
        while row in found:
            row += 1
        found[row] = line
    return found


def _tail(line: Line | None, letters: dict[str, str], width: int, colours: int) -> str:
    if line is None:
        return ""
    lead = "" if colours else f"{letters.get(line.run, ' ')} "
    name = ink.fitted(line.run, width - 1 - len(lead)).rstrip()
    return " " + lead + ink.inked(name, colours, fore=_tone(line, colours))


def _called(line: Line, letters: dict[str, str], colours: int) -> str:
    mark = "●" if colours else letters.get(line.run, "")
    return f"{ink.inked(mark, colours, fore=_tone(line, colours))} {words.printable(line.run)}"


def _foot(picture: Curves, frame: _Frame, margin: int, colours: int) -> Iterator[str]:
    """The axis below, with its numbers."""
    line, numbers, end = ["─"] * frame.wide, [" "] * (frame.wide + 12), 0
    whole = float(frame.left).is_integer() and float(frame.right).is_integer()
    for tick in words.ticks(frame.left, frame.right, max(2, min(10, frame.wide // 8))):
        if whole and not float(tick).is_integer():
            continue
        at, shown = frame.x(tick) // 2, words.number(tick)
        start = max(0, min(at - len(shown) // 2, frame.wide - len(shown)))
        line[min(at, frame.wide - 1)] = "┬"
        if start >= end:
            numbers[start : start + len(shown)] = shown
            end = start + len(shown) + 2
    yield " " * margin + "└" + "".join(line)
    written = "".join(numbers).rstrip()
    name = {"version": "version of its run"}.get(picture.axis, picture.axis)
    yield ink.dim(f"{' ' * (margin + 1)}{written}  {name}", colours)


def _marks(picture: Curves, panel: Panel, width: int, colours: int) -> Iterator[str]:
    """The best version, and those with an alias or a tag."""
    parts = []
    if panel.best is not None:
        line, point = panel.best
        told = f"★ {picture.called(line, point)}: {words.number(point.value)}"
        parts.append((told, ink.columns(told)))
    for line in panel.lines:
        for point in line.points:
            if point.marks:
                told = f"{', '.join(point.marks)}: {picture.called(line, point)}, {words.number(point.value)}"
                parts.append((words.printable(told), ink.columns(told)))
    yield from (ink.dim(line, colours) for line in ink.flowing(parts[:8], width))
