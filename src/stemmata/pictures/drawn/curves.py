"""Curves by matplotlib: the first metric large, the others in pairs below it."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from stemmata.pictures import words
from stemmata.pictures.curves import Curves, Line, Panel
from stemmata.pictures.drawn.sheet import NORMAL, SMALL, Sheet, literal

_WIDE, _HIGH, _LOW = 7.2, 3.0, 1.75
_GAP = 0.72
_NAMED = 22
_MANY = 100
"""Places of a line from which it is a thin one: logged rows scatter."""
_LINE = 0.165
"""Inches between the names of two runs."""


def draw(picture: Curves, dark: bool = False) -> Figure:
    below = math.ceil((len(picture.panels) - 1) / 2) if picture.panels else 0
    names = [line.run for panel in picture.panels for line in panel.lines if line.colour >= 0]
    several = len(set(names)) > 1
    margin = 0.25 + 0.075 * max((min(_NAMED, len(n)) for n in names), default=0) if several else 0.3
    sheet = Sheet(
        picture.title,
        picture.finding,
        _WIDE,
        _HIGH + below * (_LOW + _GAP),
        left=0.7,
        right=margin,
        bottom=0.65,
        top=0.35,
        notes=list(picture.notes),
        dark=dark,
    )
    if not picture.panels:
        return sheet.figure
    _panel(picture, picture.panels[0], sheet, sheet.axes(0, below * (_LOW + _GAP), _WIDE, _HIGH), _HIGH)
    half = (_WIDE - 0.75) / 2
    for number, panel in enumerate(picture.panels[1:]):
        row, column = divmod(number, 2)
        y = (below - 1 - row) * (_LOW + _GAP)
        axes = sheet.axes(column * (half + 0.75), y, half, _LOW)
        _panel(picture, panel, sheet, axes, _LOW, named=False)
    return sheet.figure


def _panel(
    picture: Curves, panel: Panel, sheet: Sheet, axes: Axes, inches: float, *, named: bool = True
) -> None:
    better = {"min": ", lower is better", "max": ", higher is better"}.get(panel.way or "", "")
    axes.set_title(
        literal(f"{panel.metric}{better}"), loc="left", fontsize=NORMAL, color=sheet.tones.ink, pad=7
    ).set_parse_math(False)
    for line in sorted(panel.lines, key=lambda each: each.colour >= 0):
        own = line.colour >= 0
        versions = {p.x for p in line.points}
        axes.plot(
            [x for x, _ in line.drawn],
            [value if math.isfinite(value) else math.nan for _, value in line.drawn],
            color=sheet.run(line.colour),
            linewidth=(0.9 if len(line.drawn) > _MANY else 1.6) if own else 0.7,
            marker="o" if len(line.points) <= 40 else None,
            markevery=[at for at, (x, _) in enumerate(line.drawn) if x in versions],
            markersize=(4.2 if named else 3.2) if own else 1.8,
            markeredgecolor=sheet.tones.card,
            markeredgewidth=0.6,
            zorder=3 if own else 2,
        )
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    marks = _marks(panel)
    axes.set_ylim(marks[0], marks[-1])
    axes.set_yticks(marks, [words.number(m) for m in marks])
    _x_axis(picture, panel, axes, sheet, named=named)
    axes.grid(axis="y", color=sheet.tones.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    if panel.best is not None:
        line, point = panel.best
        axes.plot(
            [point.x],
            [point.value],
            marker="*",
            markersize=13 if named else 10,
            color=sheet.run(line.colour),
            markeredgecolor=sheet.tones.card,
            markeredgewidth=0.8,
            zorder=5,
            clip_on=False,
        )
    if named:
        _aliases(panel, axes, sheet)
        _ends(panel, axes, sheet, inches)


def _marks(panel: Panel) -> list[float]:
    low, high = min(panel.values, default=0.0), max(panel.values, default=1.0)
    return words.log_around(low, high) if panel.log else words.around(low, high)


def _x_axis(picture: Curves, panel: Panel, axes: Axes, sheet: Sheet, *, named: bool) -> None:
    xs = panel.places
    low, high = min(xs), max(xs)
    pad = (high - low) * 0.02 or 1.0
    axes.set_xlim(low - pad, high + pad)
    whole = all(float(x).is_integer() for x in xs)
    found = [t for t in words.ticks(low, high, 9 if named else 5) if not whole or float(t).is_integer()]
    axes.set_xticks(found, [words.number(t) for t in found])
    name = {"version": "version of its run"}.get(picture.axis, picture.axis)
    axes.set_xlabel(name, fontsize=SMALL, color=sheet.tones.muted)
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_color(sheet.tones.line)


def _aliases(panel: Panel, axes: Axes, sheet: Sheet) -> None:
    right = axes.get_xlim()[1]
    for line in panel.lines:
        for point in line.points:
            if point.marks and math.isfinite(point.value):
                edge = point.x > right - (right - axes.get_xlim()[0]) * 0.1
                axes.annotate(
                    literal(words.clipped(words.listed(point.marks, 2), 30)),
                    (point.x, point.value),
                    xytext=(-4 if edge else 0, 9),
                    textcoords="offset points",
                    ha="right" if edge else "center",
                    fontsize=SMALL - 0.5,
                    color=sheet.tones.ink,
                    parse_math=False,
                    zorder=6,
                    bbox={
                        "boxstyle": "round,pad=0.25",
                        "facecolor": sheet.tones.card,
                        "edgecolor": sheet.run(line.colour),
                        "linewidth": 0.8,
                    },
                )


def _ends(panel: Panel, axes: Axes, sheet: Sheet, inches: float) -> None:
    """Names where the lines end, none upon another."""
    lines: list[tuple[Line, float]] = []
    for line in panel.lines:
        finite = [(x, value) for x, value in line.drawn if math.isfinite(value)]
        if line.colour >= 0 and finite:
            place = axes.transLimits.transform(axes.transScale.transform(finite[-1]))
            lines.append((line, float(place[1]) * inches))
    if len(lines) < 2:
        return
    for (line, _), y in zip(lines, words.apart([y for _, y in lines], _LINE, 0.0, inches), strict=True):
        axes.annotate(
            literal(words.clipped(line.run, _NAMED)),
            (1.015, y / inches),
            xycoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color=sheet.run(line.colour),
            parse_math=False,
            annotation_clip=False,
        )
