"""A heat map by matplotlib: squares in rows, numbers in them, the scale at the foot."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stemmata.pictures import colours, words
from stemmata.pictures.drawn.sheet import SMALL, Sheet, literal
from stemmata.pictures.heatmap import STATES, HeatMap
from stemmata.pictures.matrix import Cell

_GAP = 0.4
"""Of a cell: between groups of rows, and before the column of whole layers."""


def draw(picture: HeatMap, dark: bool = False) -> Figure:
    rows, columns = picture.matrix.rows, picture.matrix.columns
    many = len(rows)
    high = 0.22 if many <= 40 else 0.16 if many <= 90 else 0.12
    wide = 0.52
    ys, last = _places_of_rows(picture), len(columns) - 1
    xs = [*range(last), last + (_GAP if last else 0)]
    names = [words.clipped(literal(c.label), 24) for c in columns]
    labels = [words.clipped(literal(row.label), 26) for row in rows]
    longest = max(map(len, names), default=0) * 0.075
    slanted = longest > wide - 0.06
    area_wide, area_high = max(2.6, (xs[-1] + 1) * wide), (ys[-1] + 1) * high if ys else 0.5
    ends = ((x + 0.5) * wide + 0.056 * len(name) for x, name in zip(xs, names, strict=True))
    overhang = max(0.0, max(ends, default=0.0) - area_wide) if slanted else 0.0
    sheet = Sheet(
        picture.title,
        picture.finding,
        area_wide,
        area_high,
        left=max(0.6, 0.35 + 0.075 * max(map(len, labels), default=0)),
        right=0.3 + overhang,
        top=0.1 + (longest * 0.66 if slanted else 0.2),
        bottom=0.95,
        notes=list(picture.notes),
        dark=dark,
    )
    axes = sheet.axes()
    axes.set_xlim(0, area_wide / wide)
    axes.set_ylim(ys[-1] + 1 if ys else 1, 0)
    squares, tones = [], []
    for (row, column), cell in picture.matrix.cells.items():
        squares.append(Rectangle((xs[column] + 0.02, ys[row] + 0.04), 0.96, 0.92))
        tones.append(_cell(picture, axes, sheet, cell, xs[column], ys[row], numbers=high > 0.14))
    axes.add_collection(PatchCollection(squares, facecolors=tones, linewidths=0))
    axes.set_yticks([y + 0.5 for y in ys], labels)
    axes.set_xticks([x + 0.5 for x in xs], names)
    axes.xaxis.tick_top()
    axes.tick_params(axis="both", colors=sheet.tones.ink, labelsize=SMALL, pad=3)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=42, ha="left", rotation_mode="anchor")
    if len(labels) > 90:
        for at, label in enumerate(axes.get_yticklabels()):
            label.set_visible(at % 4 == 0 or rows[at].beside)
    _scale(picture, sheet)
    return sheet.figure


def _places_of_rows(picture: HeatMap) -> list[float]:
    found: list[float] = []
    at, before = 0.0, None
    for row in picture.matrix.rows:
        group = (row.beside, "" if row.beside else row.stack)
        at += _GAP if before is not None and group != before else 0.0
        found.append(at)
        at, before = at + 1, group
    return found


def _cell(
    picture: HeatMap, axes: Axes, sheet: Sheet, cell: Cell, x: float, y: float, *, numbers: bool
) -> str:
    """Its colour; its number is written."""
    if cell.value is None:
        return str(getattr(sheet.tones, cell.state))
    share = picture.scale.at(cell.value)
    if numbers:
        shown = "new" if cell.infinite else picture.shown(cell.value).removesuffix(" %")
        tone = colours.on_ramp(share, dark=sheet.dark)
        axes.text(x + 0.5, y + 0.52, shown, ha="center", va="center", fontsize=6.5, color=tone)
    return colours.ramp(share, dark=sheet.dark)


def _scale(picture: HeatMap, sheet: Sheet) -> None:
    """The ramp with its marks, and what other tones mean."""
    scale = picture.scale
    y, x = -0.52, 0.0
    if any(c.value is not None for c in picture.matrix.cells.values()):
        bar = sheet.axes(0.0, y, 2.2, 0.11)
        bar.imshow([[k / 255 for k in range(256)]], aspect="auto", cmap=sheet.ramp(), extent=(0, 1, 0, 1))
        marks = _marks(picture)
        bar.set_xticks([scale.at(mark) for mark in marks], [picture.shown(mark) for mark in marks])
        bar.set_yticks([])
        bar.set_xlim(0, 1)
        bar.text(1.04, 0.5, picture.unit_of_numbers, va="center", fontsize=SMALL, color=sheet.tones.muted)
    keys = sheet.axes(0.0, y - 0.36, 4.0, 0.13)
    keys.set_xlim(0, 4.0)
    keys.set_ylim(0, 0.13)
    keys.set_xticks([])
    keys.set_yticks([])
    for state in picture.states:
        keys.add_patch(Rectangle((x, 0.0), 0.13, 0.13, facecolor=getattr(sheet.tones, state), linewidth=0))
        keys.text(x + 0.19, 0.065, STATES[state], va="center", fontsize=SMALL, color=sheet.tones.muted)
        x += 0.45 + 0.075 * len(STATES[state])


def _marks(picture: HeatMap) -> list[float]:
    """Three or four that do not touch each other."""
    found: list[float] = []
    for mark in picture.scale.ticks(4):
        share = picture.scale.at(mark)
        if all(abs(share - picture.scale.at(other)) > 0.24 for other in found) and math.isfinite(mark):
            found.append(mark)
    return found
