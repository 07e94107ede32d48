"""Settings against results for a page: parallel axes, a line for each run in the colour of its result."""

from __future__ import annotations

from stemmata.pictures import words
from stemmata.pictures.parallel import AxisOf, Parallel
from stemmata.pictures.web.parts import FONT, Chart, Option, base, made, on_ramp, plain_axis, tip, tone

_LABEL = 14
_NAME = 15
_PALEST = 0.16
"""Of the ramp, for the worst: a line must be seen."""


def charts(picture: Parallel) -> list[Chart]:
    option = base(
        parallel={"left": 48, "right": 90, "top": 40, "bottom": 26},
        parallelAxis=[_axis(at, axis) for at, axis in enumerate(picture.axes)],
        series=[_series(picture)],
    )
    height = 360 if len(picture.axes) < 8 else 400
    word = {"min": "lowest", "max": "highest"}.get(picture.way or "", "greatest")
    key = (("", f"Colour: from the worst {picture.metric}, faint, to the {word}, strong."),)
    label = f"Parallel coordinates. {picture.finding}"
    return [Chart(option, height, label, key, least=112 * len(picture.axes))]


def _axis(at: int, axis: AxisOf) -> Option:
    found = plain_axis(
        dim=at,
        z=8,
        name=words.clipped(axis.key, _NAME),
        nameGap=14,
        nameTextStyle={"color": tone("ink"), "fontSize": FONT, "fontWeight": 600},
        axisLine={"show": True, "lineStyle": {"color": tone("line"), "width": 1.5}},
        axisTick={"show": True, "lineStyle": {"color": tone("line")}},
        axisLabel={
            "color": tone("muted"),
            "fontSize": 11,
            "backgroundColor": tone("card"),
            "padding": [0, 4],
            "lineHeight": 11,  # it is measured by a letter that a browser may have no font for
            "borderRadius": 3,
        },
        type={"number": "value", "log": "log", "words": "category"}[axis.kind],
    )
    if axis.labels:
        found["data"] = [words.clipped(label, _LABEL) for label in axis.labels]
    else:
        marks = (words.log_around if axis.kind == "log" else words.around)(axis.low, axis.high)
        found["min"], found["max"] = marks[0], marks[-1]
        if axis.kind == "number":
            found["interval"] = round(marks[1] - marks[0], 12)
        found["axisLabel"] |= {"formatter": made("number"), "hideOverlap": True}
    return found


def _series(picture: Parallel) -> Option:
    data = []
    for place, strand in enumerate(reversed(picture.strands)):  # the best lies above the others
        best = place == len(picture.strands) - 1
        facts = [(a.key, a.shown(v)) for a, v in zip(picture.axes, strand.values, strict=True)]
        share = _PALEST + (1 - _PALEST) * picture.goodness(strand)
        data.append(
            {
                "value": [
                    round(v) if a.labels else v for a, v in zip(picture.axes, strand.values, strict=True)
                ],
                "tip": tip(strand.run, ("version", strand.version), *facts),
                "lineStyle": {"color": on_ramp(share), "width": 4 if best else 2, "opacity": 0.95},
            }
        )
    return {
        "type": "parallel",
        "data": data,
        "smooth": 0.15,
        "emphasis": {"lineStyle": {"width": 5, "opacity": 1}},
        "inactiveOpacity": 0.06,
    }
