"""A lineage by matplotlib: a lane for each run, versions as dots along it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stemmata.pictures import words
from stemmata.pictures.drawn.sheet import SMALL, Sheet, literal
from stemmata.pictures.lineage import LOST, LineageGraph, Spot

_HIGH = 0.33
_STEP = 0.36
_STYLES = {"base": ":", "merge": "--", "resume": "--"}


def draw(picture: LineageGraph, dark: bool = False) -> Figure:
    names = [literal(words.clipped(name, 26)) for name in picture.lanes]
    high = max(0.6, _HIGH * len(names))
    sheet = Sheet(
        picture.title,
        picture.finding,
        max(4.2, _STEP * (picture.depth + 1)),
        high,
        left=0.5 + 0.075 * max(map(len, names), default=0),
        right=0.5,
        top=0.35,
        bottom=0.3,
        notes=list(picture.notes),
        dark=dark,
    )
    if picture.is_empty:
        return sheet.figure
    axes = sheet.axes()
    axes.set_xlim(-0.4, picture.depth + 0.4)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(axis="y", colors=sheet.tones.ink, pad=6)
    for link in picture.links:
        source, target = picture.by_id[link.source], picture.by_id[link.target]
        axes.plot(
            [source.depth, target.depth],
            [source.lane, target.lane],
            color=_tone(picture, target, sheet),
            linewidth=1.0 if link.kind in _STYLES else 1.5,
            linestyle=_STYLES.get(link.kind, "-"),
            zorder=2,
        )
    for spot in picture.spots:
        _spot(picture, spot, sheet, axes)
    return sheet.figure


def _tone(picture: LineageGraph, spot: Spot, sheet: Sheet) -> str:
    place = picture.tones.get(spot.lane, -1)
    return sheet.run(place) if place >= 0 else sheet.tones.muted


def _spot(picture: LineageGraph, spot: Spot, sheet: Sheet, axes: Axes) -> None:
    kin, colour = spot.kin, _tone(picture, spot, sheet)
    lost = kin.state in LOST
    axes.plot(
        [spot.depth],
        [spot.lane],
        marker="*" if kin.best else "o",
        markersize=12 if kin.best else 8.5 if kin.focus else 6,
        markerfacecolor=sheet.tones.card if lost else colour,
        markeredgecolor=colour if lost else sheet.tones.card,
        markeredgewidth=1.1,
        linestyle="none",
        zorder=3,
        clip_on=False,
    )
    if kin.marks:
        axes.annotate(
            literal(words.clipped(words.listed(kin.marks, 2), 28)),
            (spot.depth, spot.lane),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL - 1,
            color=sheet.tones.ink,
            parse_math=False,
            zorder=4,
            annotation_clip=False,
            bbox={
                "boxstyle": "round,pad=0.2",
                "facecolor": sheet.tones.card,
                "edgecolor": colour,
                "linewidth": 0.7,
            },
        )
