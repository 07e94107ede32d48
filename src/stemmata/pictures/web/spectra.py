"""Spectra for a page: a line for each kind of module over thin ones for each module, then effective ranks."""

from __future__ import annotations

from dataclasses import replace

from stemmata.pictures import words
from stemmata.pictures.spectra import Group, Spectra, Values
from stemmata.pictures.web import heatmap
from stemmata.pictures.web.parts import FONT, Chart, Option, base, made, plain_axis, tip, tone


def charts(picture: Spectra) -> list[Chart]:
    low, high = picture.range
    marks = words.log_ticks(low * 0.9, high * 1.1)
    colours = {m.module: group.colour for group in picture.groups for m in group.members}
    option = base(
        grid={"left": 60, "right": 16, "top": 12, "bottom": 44},
        xAxis=plain_axis(
            type="value",
            name="direction",
            nameLocation="middle",
            nameGap=24,
            min=1,
            max=max(2, max(len(m.values) for m in picture.modules)),
            minInterval=1,
            axisLabel={"hideOverlap": True},
            axisLine={"show": True, "onZero": False, "lineStyle": {"color": tone("line")}},
        ),
        yAxis=plain_axis(
            type="log",
            min=low * 0.9,
            max=high * 1.1,
            splitLine={"show": True, "lineStyle": {"color": tone("grid")}},
            # By itself it marks powers of ten, and within one of them nothing at all.
            axisTick={"customValues": marks},
            axisLabel={"customValues": marks, "formatter": made("number"), "hideOverlap": True},
        ),
        series=[
            *(_thin(m, colours.get(m.module, -1), low) for m in picture.thin),
            *(_median(picture, group, low) for group in picture.groups),
        ],
    )
    spectrum = Chart(option, 340, f"Singular values. {picture.finding}", _key(picture), "Singular values")
    if len(picture.modules) < 2 or picture.ranks.is_empty:
        return [spectrum]
    ranks = heatmap.charts(picture.ranks)
    return [spectrum, *(replace(c, heading="Effective rank, layer by layer") for c in ranks)]


def _key(picture: Spectra) -> tuple[tuple[str, str], ...]:
    kinds = {group.kind: group.colour for group in picture.groups}
    found = [(f"run{colour}" if colour >= 0 else "faint", kind) for kind, colour in kinds.items()]
    if len(picture.sides) > 1:
        found.append(("", f"dashed: a ({picture.sides[0]}); solid: b ({picture.sides[1]})"))
    found.append(("", "thick: the median over the layers; thin: each module"))
    return tuple(found)


def _tone(colour: int) -> Option:
    return tone(f"run{colour}" if colour >= 0 else "faint")


def _thin(module: Values, colour: int, low: float) -> Option:
    told = (("effective rank", f"{module.effective:.1f} of r={module.rank}"),)
    return {
        "type": "line",
        "data": [
            {
                "value": [k, value],
                "tip": tip(module.module, (f"singular value {k}", words.number(value)), *told),
            }
            for k, value in enumerate(module.values, 1)
            if value >= low
        ],
        "symbolSize": 5,
        "itemStyle": {"opacity": 0, "color": _tone(colour)},
        "lineStyle": {"width": 1, "opacity": 0.28, "color": _tone(colour)},
        "emphasis": {"lineStyle": {"width": 2, "opacity": 1}},
        "z": 2,
    }


def _median(picture: Spectra, group: Group, low: float) -> Option:
    dashed = len(picture.sides) > 1 and group.side == 0
    side = f" ({'ab'[group.side]})" if len(picture.sides) > 1 else ""
    return {
        "type": "line",
        "name": f"{group.kind}{side}",
        "data": [
            {
                "value": [k, value],
                "tip": tip(
                    f"{group.kind}{side}",
                    (f"singular value {k}, median", words.number(value)),
                    ("modules", f"{len(group.members):,}"),
                    ("effective rank, mean", f"{group.effective:.1f}"),
                ),
            }
            for k, value in enumerate(group.median, 1)
            if value >= low
        ],
        "symbol": "circle",
        "symbolSize": 5,
        "itemStyle": {"color": _tone(group.colour)},
        "lineStyle": {
            "width": 1.6 if dashed else 2.6,
            "color": _tone(group.colour),
            "type": [5, 4] if dashed else "solid",
        },
        "label": {"fontSize": FONT},
        "z": 4,
    }
