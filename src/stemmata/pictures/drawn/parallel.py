"""Settings against results by matplotlib: parallel axes, a line for each run in the colour of its result."""

from __future__ import annotations

from matplotlib.figure import Figure

from stemmata.pictures import colours, words
from stemmata.pictures.drawn.sheet import SMALL, Sheet, literal
from stemmata.pictures.parallel import AxisOf, Parallel

_HIGH = 3.0
_APART = 1.25
_PALEST = 0.16


def draw(picture: Parallel, dark: bool = False) -> Figure:
    wide = max(4.0, _APART * max(1, len(picture.axes) - 1))
    sheet = Sheet(
        picture.title,
        picture.finding,
        wide,
        _HIGH,
        left=0.75,
        right=0.95,
        top=0.45,
        bottom=0.55,
        notes=list(picture.notes),
        dark=dark,
    )
    if picture.is_empty:
        return sheet.figure
    axes = sheet.axes()
    last = len(picture.axes) - 1
    axes.set_xlim(0, last)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks([])
    axes.set_yticks([])
    for at, axis in enumerate(picture.axes):
        axes.plot([at, at], [0, 1], color=sheet.tones.line, linewidth=1.2, zorder=1, clip_on=False)
        axes.text(
            at,
            1.1,
            literal(words.clipped(axis.key, 15)),
            ha="center",
            fontsize=SMALL,
            fontweight="bold",
            color=sheet.tones.ink,
            parse_math=False,
        )
        for value, label in _marks(axis):
            axes.text(
                at + 0.035,
                place(axis, value),
                literal(words.clipped(label, 13)),
                va="center",
                ha="left",
                fontsize=SMALL - 1,
                color=sheet.tones.muted,
                parse_math=False,
                zorder=4,
                bbox={
                    "boxstyle": "round,pad=0.12",
                    "facecolor": sheet.tones.card,
                    "linewidth": 0,
                    "alpha": 0.85,
                },
            )
    for number, strand in enumerate(reversed(picture.strands)):
        best = number == len(picture.strands) - 1
        share = _PALEST + (1 - _PALEST) * picture.goodness(strand)
        axes.plot(
            range(last + 1),
            [place(a, v) for a, v in zip(picture.axes, strand.values, strict=True)],
            color=colours.ramp(share, dark=dark),
            linewidth=2.6 if best else 1.3,
            zorder=3 if best else 2,
            clip_on=False,
        )
    word = {"min": "lowest", "max": "highest"}.get(picture.way or "", "greatest")
    told = literal(f"Colour: from the worst {picture.metric}, faint, to the {word}, strong.")
    axes.text(0, -0.15, told, fontsize=SMALL, color=sheet.tones.muted, parse_math=False)
    return sheet.figure


def place(axis: AxisOf, value: float) -> float:
    """0 to 1. Labels stand as in rows, half a row from the ends."""
    if axis.labels:
        return (value + 0.5) / len(axis.labels)
    return axis.at(value)


def _marks(axis: AxisOf) -> list[tuple[float, str]]:
    if axis.labels:
        return [(float(at), label) for at, label in enumerate(axis.labels)]
    inner = (
        words.log_ticks(axis.low, axis.high, 5) if axis.kind == "log" else words.ticks(axis.low, axis.high, 5)
    )
    return [(tick, words.number(tick)) for tick in inner if axis.low <= tick <= axis.high]
