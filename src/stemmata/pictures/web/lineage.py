"""A lineage for a page: a lane for each run, versions as dots along it, what came from what as lines."""

from __future__ import annotations

from typing import Any

from stemmata.pictures import words
from stemmata.pictures.lineage import LOST, LineageGraph, Spot
from stemmata.pictures.web.curves import STAR
from stemmata.pictures.web.parts import FONT, Chart, Option, base, made, plain_axis, tip, tone, widest

_NAME = 24
_HIGH = 30
_STEP = 26
"""Pixels from a version to the next, at least."""
_DASHED = {"base": [2, 3], "merge": [6, 4], "resume": [6, 4]}


def charts(picture: LineageGraph) -> list[Chart]:
    names = [words.clipped(name, _NAME) for name in picture.lanes]
    left = 22 + widest(names)
    option = base(
        grid={"left": left, "right": 40, "top": 22, "bottom": 12},
        xAxis=plain_axis(type="value", min=-0.3, max=picture.depth + 0.3, show=False),
        yAxis=plain_axis(
            type="category",
            inverse=True,
            data=names,
            axisLabel={"interval": 0, "color": tone("ink"), "fontSize": FONT, "margin": 14},
        ),
        series=[_graph(picture)],
    )
    key = [
        ("", "A dot is a version; lines lead to what came from it, dashed to what was merged or loaded on.")
    ]
    if any(spot.kin.best for spot in picture.spots):
        key.append(("", "★ the best"))
    if any(spot.kin.state in LOST for spot in picture.spots):
        key.append(("", "○ deleted, or not in this repository"))
    height = 44 + _HIGH * len(picture.lanes)
    least = round(left + 50 + _STEP * picture.depth)
    return [Chart(option, height, f"Lineage. {picture.finding}", tuple(key), least=least)]


def _graph(picture: LineageGraph) -> Option:
    places = {spot.kin.id: at for at, spot in enumerate(picture.spots)}
    links = []
    for link in picture.links:
        target = picture.by_id[link.target]
        links.append(
            {
                "source": places[link.source],
                "target": places[link.target],
                "lineStyle": {
                    "color": _tone(picture, target),
                    "type": _DASHED.get(link.kind, "solid"),
                    "width": 1.4 if link.kind in _DASHED else 2,
                },
            }
        )
    return {
        "type": "graph",
        "coordinateSystem": "cartesian2d",
        "layout": "none",
        "data": [_spot(picture, spot) for spot in picture.spots],
        "edges": links,
        "symbol": "circle",
        "symbolSize": 10,
        "lineStyle": {"opacity": 0.9, "curveness": 0},
        "label": {"show": False},
        "labelLayout": {"hideOverlap": True},
        "emphasis": {"focus": "adjacency", "lineStyle": {"width": 3}},
    }


def _tone(picture: LineageGraph, spot: Spot) -> Option:
    place = picture.tones.get(spot.lane, -1)
    return tone(f"run{place}" if place >= 0 else "muted")


def _spot(picture: LineageGraph, spot: Spot) -> dict[str, Any]:
    kin, colour = spot.kin, _tone(picture, spot)
    lost = kin.state in LOST
    found: dict[str, Any] = {
        "name": kin.id,
        "value": [spot.depth, spot.lane],
        "tip": tip(kin.name, *kin.facts, ("called", ", ".join(kin.marks)), ("", _state(kin.state))),
        "itemStyle": {
            "color": tone("card") if lost else colour,
            "borderColor": colour if lost else tone("card"),
            "borderWidth": 1.5,
        },
    }
    if kin.best:
        found |= {"symbol": STAR, "symbolSize": 18}
    elif kin.focus:
        found["symbolSize"] = 16
    if kin.marks:
        found["called"] = words.clipped(words.listed(kin.marks, 2), 30)
        found["label"] = {
            "show": True,
            "position": "top",
            "distance": 6,
            "formatter": made("called"),
            "color": tone("ink"),
            "fontSize": 11,
            "backgroundColor": tone("card"),
            "borderColor": colour,
            "borderWidth": 1,
            "borderRadius": 4,
            "padding": [2, 5],
            "lineHeight": 13,
        }
    return found


def _state(state: str) -> str:
    return {"visible": "", "absent": "not in this repository", "outside": "a base model, not stored"}.get(
        state, state
    )
