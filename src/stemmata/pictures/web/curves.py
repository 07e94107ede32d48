"""Curves for a page: a chart for each metric, runs named where their lines end, versions as dots."""

from __future__ import annotations

import math
from typing import Any

from stemmata.pictures import words
from stemmata.pictures.curves import Curves, Line, Panel, Point
from stemmata.pictures.web.parts import EM, FONT, Chart, Option, base, made, plain_axis, tip, tone, widest

STAR = "path://M12 1.5l3.2 6.6 7.3 1-5.3 5.1 1.3 7.2L12 18l-6.5 3.4 1.3-7.2L1.5 9.1l7.3-1z"
_NAME = 22
_LINE = 15
"""Pixels between the names of two runs."""
_FULL, _HALF = 360, 250
_ABOVE, _BELOW = 22, 40
_WIDE = 520
"""Pixels from which runs are named at their ends; below, in a legend."""
_DOTS = 40
"""Versions of a run up to which each is a dot of its own."""
_ZOOM = 60
_MANY = 100
"""Places of a line from which it is a thin one: logged rows scatter."""


def charts(picture: Curves) -> list[Chart]:
    found = []
    for place, panel in enumerate(picture.panels):
        better = {"min": ", lower is better", "max": ", higher is better"}.get(panel.way or "", "")
        height = _HALF if place else _FULL
        found.append(
            Chart(
                _chart(picture, panel, height, first=not place),
                height,
                label=f"Curves of {panel.metric}{better}, over the {picture.axis}. {picture.finding}",
                heading=f"{panel.metric}{better}",
                half=place > 0,
            )
        )
    return found


def _chart(picture: Curves, panel: Panel, height: int, *, first: bool) -> Option:
    named = [line for line in panel.lines if line.colour >= 0]
    ordered = sorted(panel.lines, key=lambda line: line.colour >= 0)  # the grey ones lie below
    right = 16 + min(widest([words.clipped(line.run, _NAME) for line in named]), _NAME * EM)
    several = len(panel.lines) > 1
    marks = _marks(panel)
    long = max((len(line.drawn) for line in panel.lines), default=0) > _ZOOM
    legend = {
        "show": several and first,
        "type": "scroll",
        "bottom": 2,
        "left": 0,
        "icon": "roundRect",
        "itemWidth": 14,
        "itemHeight": 4,
        "data": [line.run for line in named],
        "textStyle": {"color": tone("muted"), "fontSize": FONT, "width": 150, "overflow": "truncate"},
        "pageTextStyle": {"color": tone("muted")},
        "pageIconColor": tone("muted"),
        "pageIconInactiveColor": tone("line"),
    }
    option = base(
        grid={"left": 52, "right": 16, "top": _ABOVE, "bottom": _BELOW + (26 if several and first else 0)},
        legend=legend,
        xAxis=_x_axis(picture, panel),
        yAxis=_y_axis(panel, marks),
        series=[_series(picture, panel, line, named=first) for line in ordered],
    )
    if long:
        option["dataZoom"] = [{"type": "inside", "xAxisIndex": 0, "zoomOnMouseWheel": "ctrl"}]
    moved = _moved(panel, named, marks, height - _ABOVE - _BELOW)
    shown = [
        {
            "endLabel": {
                "show": line.run in moved and several and first,
                "offset": [0, moved.get(line.run, 0.0)],
            }
        }
        for line in ordered
    ]
    wide: Option = {
        "legend": {"show": False},
        "grid": {"right": right if several and first else 16, "bottom": _BELOW},
        "series": shown,
    }
    return {"baseOption": option, "media": [{"query": {"minWidth": _WIDE}, "option": wide}]}


def _x_axis(picture: Curves, panel: Panel) -> Option:
    xs = panel.places
    whole = all(float(x).is_integer() for x in xs)
    name = {"version": "version of its run"}.get(picture.axis, picture.axis)
    found = plain_axis(
        type="value",
        name=name,
        nameLocation="middle",
        nameGap=24,
        min="dataMin",
        max="dataMax",
        axisLine={"show": True, "lineStyle": {"color": tone("line")}, "onZero": False},
        axisLabel={"hideOverlap": True, "formatter": made("number")},
    )
    if whole:
        found["minInterval"] = 1
    if len(set(xs)) == 1:
        found["min"], found["max"] = xs[0] - 1, xs[0] + 1
    return found


def _marks(panel: Panel) -> list[float]:
    """Of the axis on the left, from end to end."""
    low, high = min(panel.values, default=0.0), max(panel.values, default=1.0)
    return words.log_around(low, high) if panel.log else words.around(low, high)


def _y_axis(panel: Panel, marks: list[float]) -> Option:
    found = plain_axis(
        type="log" if panel.log else "value",
        min=marks[0],
        max=marks[-1],
        splitLine={"show": True, "lineStyle": {"color": tone("grid")}},
        axisLabel={"formatter": made("number"), "hideOverlap": True},
    )
    if not panel.log:
        found["interval"] = round(marks[1] - marks[0], 12)
    return found


def _moved(panel: Panel, named: list[Line], marks: list[float], pixels: float) -> dict[str, float]:
    """By run, how many pixels its name is moved down or up, so that none covers another."""
    low, high = (math.log(m) if panel.log else m for m in (marks[0], marks[-1]))
    ends: dict[str, float] = {}
    for line in named:
        finite = [value for _, value in line.drawn if math.isfinite(value)]
        if finite:
            value = math.log(finite[-1]) if panel.log else finite[-1]
            ends[line.run] = (high - value) / (high - low) * pixels
    placed = words.apart(list(ends.values()), _LINE, 0.0, pixels)
    return {run: round(to - at, 1) for (run, at), to in zip(ends.items(), placed, strict=True)}


def _series(picture: Curves, panel: Panel, line: Line, *, named: bool) -> Option:
    own = line.colour >= 0
    colour = tone(f"run{line.colour}") if own else tone("faint")
    many = len(line.points) > _DOTS
    size = 3 if many else 7 if own else 4
    best = panel.best[1] if panel.best is not None and panel.best[0] is line else None
    last = max(panel.places, default=0.0)
    data = [_point(picture, panel, line, point, best=point is best) for point in line.points]
    for point, drawn in zip(line.points, data, strict=True):
        if named and drawn.get("called"):
            # At the right edge it would cover the runs' names.
            room = 3.2 * len(drawn["called"]) + 6 if point.x == last else 0.0
            drawn["label"] = {"show": True, "offset": [-round(room), 0]}
    versions = {point.x for point in line.points}
    data += [_between(x, value) for x, value in line.logged if x not in versions]
    data.sort(key=lambda drawn: drawn["value"][0])
    return {
        "type": "line",
        "name": line.run,
        "data": data,
        "color": colour,
        "z": 3 if own else 2,
        "symbol": "circle",
        "symbolSize": size,
        "showAllSymbol": True,
        "lineStyle": {"width": 2 if own and len(line.drawn) <= _MANY else 1, "color": colour},
        "itemStyle": {
            "color": colour,
            "borderColor": tone("card"),
            "borderWidth": 1 if own and not many else 0,
        },
        "emphasis": {"focus": "series", "lineStyle": {"width": 3}},
        "blur": {"lineStyle": {"opacity": 0.25}, "itemStyle": {"opacity": 0.25}},
        "label": {
            "show": False,
            "position": "top",
            "distance": 8,
            "formatter": made("called"),
            "color": tone("ink"),
            "backgroundColor": tone("card"),
            "borderColor": colour,
            "borderWidth": 1,
            "borderRadius": 4,
            "padding": [2, 5],
            "lineHeight": 13,
            "fontSize": 11,
        },
        "endLabel": {
            "show": False,
            "formatter": made("series"),
            "color": colour,
            "fontSize": FONT,
            "distance": 8,
        },
        "labelLayout": {"hideOverlap": True},
    }


def _between(x: float, value: float) -> dict[str, Any]:
    """What was logged: the line goes through it, and that is all."""
    return {"value": [x, value if math.isfinite(value) else "-"], "symbol": "none"}


def _point(picture: Curves, panel: Panel, line: Line, point: Point, *, best: bool) -> dict[str, Any]:
    finite = math.isfinite(point.value)
    seen = point.seen
    found: dict[str, Any] = {"value": [point.x, point.value if finite else "-"]}
    found["tip"] = tip(
        picture.called(line, point),
        (panel.metric, f"{point.value:.6g}"),
        ("version", seen.name),
        ("id", seen.id),
        ("epoch", "" if seen.epoch is None else f"{seen.epoch:g}"),
        ("step", "" if seen.step is None else f"{seen.step:,}"),
        ("called", ", ".join(point.marks)),
        ("", "the best" if best else ""),
    )
    if point.marks and finite:
        found["called"] = words.clipped(words.listed(point.marks, 2), 30)
        found["symbolSize"] = 11
    if best:
        found["symbol"] = STAR
        found["symbolSize"] = 19
    return found
