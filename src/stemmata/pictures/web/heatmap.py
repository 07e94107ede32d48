"""A heat map for a page: cells in rows and columns, the scale below, numbers in cells where they fit."""

from __future__ import annotations

import math

from stemmata.pictures import words
from stemmata.pictures.heatmap import STATES, HeatMap
from stemmata.pictures.matrix import Cell
from stemmata.pictures.web.parts import (
    FONT,
    Chart,
    Option,
    base,
    made,
    on_ramp,
    plain_axis,
    tip,
    tone,
    widest,
    words_on,
)

_LABEL = 24
"""Characters of a row's or column's name; the pointer is told all of it."""
_FLAT = 30
_BROADEST = 84
_CELL = 48
"""Pixels that a number in a cell needs."""
_STOPS = 24


def charts(picture: HeatMap) -> list[Chart]:
    rows, columns = _spaced_rows(picture), _spaced_columns(picture)
    high = 22 if len(rows) <= 44 else 17 if len(rows) <= 90 else 13
    heads, lines = picture.matrix.columns, picture.matrix.rows
    names = [words.clipped(heads[x].label, _LABEL) if x is not None else "" for x in columns]
    labels = [words.clipped(lines[y].label, _LABEL) if y is not None else "" for y in rows]
    left = 18 + widest(labels)
    upright, slanted = 16 + widest(names), 16 + widest(names) * 0.72
    needed = left + 24 + len(columns) * max(_CELL, widest(names) + 10)
    numbers = left + 24 + len(columns) * _CELL
    bottom = 58
    option = base(
        grid={"left": left, "right": 12, "top": upright, "bottom": bottom},
        xAxis=plain_axis(
            type="category",
            position="top",
            data=names,
            axisLabel={
                "rotate": -90,
                "interval": 0,
                "color": tone("ink"),
                "fontSize": FONT,
                "margin": 8,
            },
        ),
        yAxis=plain_axis(
            type="category",
            inverse=True,
            data=labels,
            axisLabel={
                "interval": 0 if high > 14 else "auto",
                "color": tone("ink"),
                "fontSize": min(FONT, high - 2),
            },
        ),
        visualMap=_visual(picture),
        series=[_series(picture, rows, columns)],
    )
    room = left + 24 + len(columns) * 22
    overhang = 12 + widest(names[-1:]) * 0.72
    broad = len(columns) * max(_BROADEST, widest(names) + 10)
    media = [
        _from(room, {"grid": {"left": left, "right": overhang, "top": slanted}, **_heads(-42)}),
        _from(numbers, {"series": [{"label": {"show": high > 14}}]}),
        _from(needed, {"grid": {"left": left, "right": 12, "top": _FLAT}, **_heads(0)}),
        # Few columns do not fill the page: a cell stays a cell.
        _from(left + 24 + broad, {"grid": {"left": left, "width": broad}}),
    ]
    body = bottom + high * len(rows)
    chart = Chart(
        {"baseOption": option, "media": media},
        round(upright + body),
        f"Heat map. {picture.finding}",
        (("", picture.unit_of_numbers), *((state, STATES[state]) for state in picture.states)),
        heights=(
            (math.ceil(room), round(slanted + body)),
            (math.ceil(needed), round(_FLAT + body)),
        ),
        least=round(left + 24 + 14 * len(columns)),
    )
    return [chart]


def _from(width: float, option: Option) -> Option:
    """What holds from so many pixels on."""
    return {"query": {"minWidth": math.ceil(width)}, "option": option}


def _heads(degrees: int) -> Option:
    return {"xAxis": {"axisLabel": {"rotate": degrees}}}


def _spaced_columns(picture: HeatMap) -> list[int | None]:
    """With a gap before the column of whole layers."""
    last = len(picture.matrix.columns) - 1
    return [*range(last), *([None] if last else []), last]


def _spaced_rows(picture: HeatMap) -> list[int | None]:
    """With gaps between the entrance, each stack of layers and the rest."""
    found: list[int | None] = []
    before: tuple[bool, str] | None = None
    for at, row in enumerate(picture.matrix.rows):
        group = (row.beside, "" if row.beside else row.stack)
        if before is not None and group != before:
            found.append(None)
        found.append(at)
        before = group
    return found


def _value(picture: HeatMap, value: float) -> float:
    """Where it stands on the scale, as the page has it: a logarithm where that is one."""
    scale = picture.scale
    kept = min(scale.high, max(scale.low, value))
    return round(math.log10(kept), 5) if scale.log else kept


def _visual(picture: HeatMap) -> Option:
    scale = picture.scale
    return {
        "type": "continuous",
        "min": _value(picture, scale.low),
        "max": _value(picture, scale.high),
        "dimension": 2,
        "calculable": True,
        "realtime": True,
        "orient": "horizontal",
        "left": 6,
        "bottom": 4,
        "itemWidth": 12,
        "itemHeight": 190,
        "precision": 5,
        "formatter": made("log-share" if scale.log else "tenth"),
        "textStyle": {"color": tone("muted"), "fontSize": FONT},
        "inRange": {"color": [on_ramp(k / (_STOPS - 1)) for k in range(_STOPS)]},
        "outOfRange": {"color": tone("grid")},
    }


def _series(picture: HeatMap, rows: list[int | None], columns: list[int | None]) -> Option:
    places_x = {at: x for x, at in enumerate(columns) if at is not None}
    places_y = {at: y for y, at in enumerate(rows) if at is not None}
    data = []
    for (row, column), cell in picture.matrix.cells.items():
        found = _item(picture, cell, [places_x[column], places_y[row]])
        found["tip"] = _tip(picture, row, column, cell)
        data.append(found)
    return {
        "type": "heatmap",
        "data": data,
        "label": {"show": False, "fontSize": 11},
        "itemStyle": {"borderWidth": 1, "borderColor": tone("card"), "borderRadius": 2},
        "emphasis": {"itemStyle": {"borderColor": tone("ink"), "borderWidth": 1.5}},
    }


def _item(picture: HeatMap, cell: Cell, at: list[float]) -> Option:
    if cell.value is None:
        return {
            "value": [*at, 0],
            "visualMap": False,
            "itemStyle": {"color": tone(cell.state)},
            "label": {"show": False},
        }
    share = picture.scale.at(cell.value)
    shown = "new" if cell.infinite else picture.shown(cell.value).removesuffix(" %")
    return {
        "value": [*at, _value(picture, cell.value)],
        "label": {"color": words_on(share), "formatter": shown},
    }


def _tip(picture: HeatMap, row: int, column: int, cell: Cell) -> list[list[str]]:
    value = picture.shown(cell.value) if cell.value is not None else STATES[cell.state]
    facts = [(picture.unit if cell.value is not None else "", value)]
    if picture.value_kind == "share" and cell.elements:
        facts.append(("elements", f"{cell.elements:,}"))
        if cell.value is not None and cell.unchanged:
            facts.append(("as before", f"{cell.unchanged:,} ({cell.unchanged / cell.elements:.0%})"))
    shown = [words.clipped(name, 64) for name in cell.names[:4]]
    more = [f"and {len(cell.names) - 4} more"] if len(cell.names) > 4 else []
    facts += [("of" if not at else " ", name) for at, name in enumerate([*shown, *more])]
    facts += [("note", note) for note in cell.notes[:2]]
    return tip(picture.name(row, column), *((name or " ", value) for name, value in facts))
