"""Spectra by matplotlib: a line for each kind of module over thin ones for each module."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stemmata.pictures import words
from stemmata.pictures.drawn.sheet import SMALL, Sheet, literal
from stemmata.pictures.spectra import Spectra

_WIDE, _HIGH = 6.4, 3.4
_LINE = 0.17


def draw(picture: Spectra, dark: bool = False) -> Figure:
    names = [group.kind for group in picture.groups]
    sheet = Sheet(
        picture.title,
        picture.finding,
        _WIDE,
        _HIGH,
        left=0.75,
        right=0.3 + 0.078 * max((min(24, len(n)) for n in names), default=0),
        top=0.15,
        bottom=0.62,
        notes=_notes(picture),
        dark=dark,
    )
    if picture.is_empty:
        return sheet.figure
    axes = sheet.axes()
    low, high = picture.range
    colours = {m.module: group.colour for group in picture.groups for m in group.members}
    for module in picture.thin:
        shown = [v for v in module.values if v >= low]
        axes.plot(
            range(1, len(shown) + 1),
            shown,
            color=sheet.run(colours.get(module.module, -1)),
            linewidth=0.6,
            alpha=0.3,
        )
    ends: dict[str, tuple[float, int]] = {}
    longest = 2
    for group in picture.groups:
        shown = [v for v in group.median if v >= low]
        dashed = len(picture.sides) > 1 and group.side == 0
        axes.plot(
            range(1, len(shown) + 1),
            shown,
            color=sheet.run(group.colour),
            linewidth=1.2 if dashed else 2.0,
            linestyle="--" if dashed else "-",
            marker=None if dashed else "o",
            markersize=3.2,
            zorder=4,
        )
        longest = max(longest, len(shown))
        if shown:
            ends[group.kind] = (shown[-1], group.colour)
    _axes(axes, sheet, low, high, longest)
    _names(axes, sheet, ends)
    return sheet.figure


def _axes(axes: Axes, sheet: Sheet, low: float, high: float, longest: int) -> None:
    axes.set_yscale("log")
    axes.set_ylim(low * 0.9, high * 1.15)
    axes.set_xlim(0.7, longest + 0.3)
    ticks = words.log_ticks(low * 0.9, high * 1.15)
    axes.set_yticks(ticks, [words.number(t) for t in ticks])
    axes.yaxis.set_minor_formatter("")
    whole = [t for t in words.ticks(1, longest, 9) if float(t).is_integer() and t >= 1] or [1, longest]
    axes.set_xticks(whole, [words.number(t) for t in whole])
    axes.set_xlabel("direction", fontsize=SMALL, color=sheet.tones.muted)
    axes.set_ylabel("singular value", fontsize=SMALL, color=sheet.tones.muted)
    axes.grid(axis="y", color=sheet.tones.grid, linewidth=0.8)
    axes.tick_params(which="minor", length=0)


def _names(axes: Axes, sheet: Sheet, ends: dict[str, tuple[float, int]]) -> None:
    """Kinds of modules where their lines end, none upon another."""
    placed = [
        float(axes.transLimits.transform(axes.transScale.transform((1, value)))[1]) * _HIGH
        for value, _ in ends.values()
    ]
    for (kind, (_, colour)), y in zip(ends.items(), words.apart(placed, _LINE, 0.0, _HIGH), strict=True):
        axes.annotate(
            literal(words.clipped(kind, 24)),
            (1.015, y / _HIGH),
            xycoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color=sheet.run(colour),
            parse_math=False,
            annotation_clip=False,
        )


def _notes(picture: Spectra) -> list[str]:
    found = ["Thick: the median over the layers. Thin: each module."]
    if len(picture.sides) > 1:
        found.append(f"Dashed: a ({picture.sides[0]}). Solid: b ({picture.sides[1]}).")
    return [*found, *picture.notes]
