"""Pictures of figures as SVG: bars side by side, and lines that grow. Owns how they look, knows no tool.

Text stays text, and colours follow the reader's light or dark. No library's version matters here, so
the same figures give the same bytes, and a test can hold a picture against them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_LIGHT = (
    "#2f6db5", "#c2570c", "#8250df", "#b3261e", "#8a6d00", "#0e7c9b", "#c2408c", "#6b4f3a", "#59636e",
    "#24292f",
)  # fmt: skip
_DARK = (
    "#6cb0ff", "#ff9d57", "#c297ff", "#ff8a80", "#e0bd3c", "#5fd0ea", "#ff8fcb", "#c9a58a", "#b4bdc6",
    "#f0f6fc",
)  # fmt: skip
_DASHES = ("", "6 3", "2 2", "9 3 2 3", "4 2", "12 4", "", "2 4", "1 2", "14 3 2 3")
"""Of the lines that are not ours: as many as can be told apart, and then again."""


def _colours(values: Sequence[str]) -> str:
    """The rules of lines and their labels."""
    return "\n".join(f".line.c{i} {{ stroke: {c} }}\ntext.c{i} {{ fill: {c} }}" for i, c in enumerate(values))


_STYLE = f"""
text {{ font: 12px system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif }}
text {{ fill: #1f2328 }}
text.small {{ font-size: 10px }}
.told {{ stroke: #ffffff; stroke-width: 5; paint-order: stroke }}
.card {{ fill: #ffffff; stroke: #d1d9e0 }}
.title {{ font-size: 14px; font-weight: 600 }}
.soft {{ fill: #59636e }}
.grid {{ stroke: #d1d9e0; stroke-width: 1 }}
.span {{ stroke: #1f2328; stroke-width: 1.5 }}
rect.bar {{ fill: #8fa0b2 }}
rect.ours {{ fill: #0b7a5f }}
rect.kin {{ fill: #79b4a4 }}
.leader {{ fill: none; stroke: #b1bac4; stroke-width: 0.8 }}
.branch {{ stroke: #8c959f; stroke-width: 0.8; stroke-dasharray: 1 3 }}
.line {{ fill: none; stroke-width: 1.8 }}
.line.ours {{ stroke: #0b7a5f; stroke-width: 3.5 }}
.line.kin {{ stroke: #0b7a5f; stroke-width: 2; stroke-dasharray: 5 3 }}
.dot {{ fill: #0b7a5f }}
{_colours(_LIGHT)}
text.ours, text.kin {{ fill: #0b7a5f }}
text.ours {{ font-weight: 600 }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #f0f6fc }}
.card {{ fill: #0d1117; stroke: #3d444d }}
.told {{ stroke: #0d1117 }}
.soft {{ fill: #9198a1 }}
.grid {{ stroke: #2a313c }}
.span {{ stroke: #f0f6fc }}
rect.bar {{ fill: #5f6c7a }}
rect.ours {{ fill: #2fbf93 }}
rect.kin {{ fill: #1f705a }}
.leader {{ stroke: #4b535d }}
.branch {{ stroke: #6e7681 }}
.line.ours, .line.kin {{ stroke: #2fbf93 }}
.dot {{ fill: #2fbf93 }}
{_colours(_DARK)}
text.ours, text.kin {{ fill: #2fbf93 }}
}}
"""
_WIDTH = 860
_EDGE = 20
_ROW = 16
"""The height of a label beside a line."""
_LETTER, _SMALL = 6.3, 5.3
"""How wide a letter is at most on the average, of usual and of small text."""
_LEADER = 42
"""From the end of a line to its label."""

OURS, KIN = "ours", "kin"
"""What stands out, and what is close to it; anything else is one of the others."""


@dataclass(frozen=True)
class Panel:
    """One column of bars: a value for each label, and from where to where it was, if that is known."""

    title: str
    values: Sequence[float]
    spans: Sequence[tuple[float, float] | None]
    decimals: int
    unit: str


@dataclass(frozen=True)
class Line:
    label: str
    values: Sequence[float]
    kind: int | str
    """Which of the colours, or OURS or KIN."""


@dataclass(frozen=True)
class Label:
    text: str
    kind: str = ""
    """OURS, KIN, or empty."""


def bars(title: str, note: str, labels: Sequence[Label], panels: Sequence[Panel]) -> str:
    """Horizontal bars, a row a label, the panels beside each other, each with a scale below."""
    row, top, names = 25, 92, 16 + _LETTER * max(len(label.text) for label in labels)
    wide = (_WIDTH - 2 * _EDGE - names) / len(panels)
    bottom = top + row * len(labels)
    parts = _head(title, note)
    for at, label in enumerate(labels):
        middle = top + row * at + row / 2
        parts.append(_text(_EDGE + names - 12, middle + 4, label.text, label.kind, "end"))
    for number, panel in enumerate(panels):
        parts += _panel(panel, labels, (_EDGE + names + wide * number, top, wide, row))
    return _whole(parts, bottom + 40, title)


def _panel(panel: Panel, labels: Sequence[Label], place: tuple[float, float, float, float]) -> list[str]:
    """`place`: left, top, width, and the height of a row."""
    left, top, wide, row = place
    bottom = top + row * len(labels)
    ends = [
        max(value, *(span or ())) if span else value
        for value, span in zip(panel.values, panel.spans, strict=True)
    ]
    ticks = _ticks(max(ends), 4)
    ticks = [tick for tick in ticks if tick <= max(ends)] or ticks  # room for the figure behind the longest
    scale = (wide - 66) / (max(ends) or 1)
    parts = [_text(left, top - 14, panel.title, "soft")]
    for tick in ticks:
        x = left + tick * scale
        parts.append(f'<path class="grid" d="M{x:.1f} {top - 4}V{bottom + 4}"/>')
        parts.append(_text(x, bottom + 18, f"{tick:,g}", "soft small", "middle"))
    after = left + ticks[-1] * scale + 4 + _SMALL * len(f"{ticks[-1]:,g}") / 2
    parts.append(_text(after, bottom + 18, panel.unit, "soft small"))
    for at, (label, value, span) in enumerate(zip(labels, panel.values, panel.spans, strict=True)):
        y, long = top + row * at, max(value * scale, 1)
        kind = label.kind
        parts.append(
            f'<rect class="bar {kind}" x="{left:.1f}" y="{y + 4}" '
            f'width="{long:.1f}" height="{row - 8}" rx="2"/>'
        )
        if span:
            low, high = (left + end * scale for end in span)
            parts.append(f'<path class="span" d="M{low:.1f} {y + row / 2}H{high:.1f}"/>')
        told = f"{value:,.{panel.decimals}f}"
        parts.append(
            _text(left + max(ends[at] * scale, 1) + 6, y + row / 2 + 4, told, f"told {kind or 'soft'}")
        )
    return parts


def lines(
    title: str,
    note: str,
    steps: Sequence[str],
    found: Sequence[Line],
    decimals: int,
    unit: str,
    branches: Sequence[tuple[int, str]] = (),
) -> str:
    """One line for each of `found` over the same steps, each with a label of its own at its end.

    `branches`: before which steps something of another kind begins, and what.
    """
    top, left, below = 78 + 22 * bool(branches), _EDGE + 58, 74
    plot = max(400, _ROW * len(found))
    told_at_ends = {line.label: f"{line.label}: {line.values[-1]:,.{decimals}f}" for line in found}
    labels = _WIDTH - _EDGE - _LETTER * max(map(len, told_at_ends.values()))
    right = labels - _LEADER
    highest = max(max(line.values) for line in found)
    ticks = _ticks(highest)
    scale, apart = plot / max(highest, ticks[-1]), (right - left) / max(len(steps) - 1, 1)
    bottom = top + plot
    parts = _head(title, note)
    for tick in ticks:
        y = bottom - tick * scale
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right:.1f}"/>')
        told = f"{tick:,g} {unit}" if tick == ticks[-1] else f"{tick:,g}"
        parts.append(_text(left - 8, y + 4, told, "soft", "end"))
    parts += _branches(branches, lambda at: left + apart * (at - 0.5), top, bottom)
    for at, step in enumerate(steps):
        x = left + apart * at
        turned = f'transform="rotate(-40 {x:.1f} {bottom + 16})"'
        parts.append(_text(x, bottom + 16, step, "soft", "end", turned))
    for line in sorted(found, key=_above):
        points = [(left + apart * i, bottom - v * scale) for i, v in enumerate(line.values)]
        told = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line {_kind(line)}" {_dashes(line)} points="{told}"/>')
        if line.kind == OURS:
            parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points]
    ends = sorted(found, key=lambda line: -line.values[-1])
    wanted = [bottom - line.values[-1] * scale for line in ends]
    for line, end, y in zip(ends, wanted, _spread(wanted, _ROW, top, bottom), strict=True):
        leader = f"M{right + 6:.1f} {end:.1f}L{labels - 16:.1f} {y:.1f}H{labels - 6:.1f}"
        parts.append(f'<path class="leader" d="{leader}"/>')
        parts.append(_text(labels, y + 4, told_at_ends[line.label], _kind(line)))
    return _whole(parts, bottom + below, title)


def _branches(
    branches: Sequence[tuple[int, str]], place: Callable[[float], float], top: float, bottom: float
) -> list[str]:
    """Dotted lines with a label on top, which stands higher where the one before leaves it no room."""
    parts: list[str] = []
    end = 0.0
    for at, what in branches:
        x = place(at)
        raised = 12 if x + 4 < end else 0
        parts.append(f'<path class="branch" d="M{x:.1f} {top - 14 - raised}V{bottom}"/>')
        parts.append(_text(x + 4, top - 8 - raised, what, "soft small"))
        end = 0.0 if raised else x + 4 + _SMALL * len(what) + 6
    return parts


# --- where things go -----------------------------------------------------------------------------


def _ticks(highest: float, count: int = 5) -> list[float]:
    """About so many round steps from 0 to just over the highest."""
    rough = (highest or 1) / count
    size = 10.0 ** floor(log10(rough))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= rough)
    return [step * i for i in range(ceil(highest / step) + 1)]


def _spread(wanted: Sequence[float], tall: float, top: float, bottom: float) -> list[float]:
    """Where labels stand, from the top: near to where they are wanted, `tall` apart, from top to bottom."""
    places: list[float] = []
    for y in wanted:
        places.append(max(y, places[-1] + tall if places else top))
    lowest = bottom
    for at in reversed(range(len(places))):
        places[at] = min(places[at], lowest)
        lowest = places[at] - tall
    return places


def _kind(line: Line) -> str:
    return line.kind if isinstance(line.kind, str) else f"c{line.kind % len(_LIGHT)}"


def _above(line: Line) -> int:
    """Lines that stand out are drawn after the others."""
    return (KIN, OURS).index(line.kind) + 1 if isinstance(line.kind, str) else 0


def _dashes(line: Line) -> str:
    dashes = "" if isinstance(line.kind, str) else _DASHES[line.kind % len(_DASHES)]
    return f'stroke-dasharray="{dashes}"' if dashes else ""


# --- SVG -----------------------------------------------------------------------------------------


def _head(title: str, note: str) -> list[str]:
    return [_text(_EDGE, 32, title, "title"), _text(_EDGE, 52, note, "soft")]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _whole(parts: Sequence[str], height: float, title: str) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
            f'width="{_WIDTH}" height="{height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>',
            *parts,
            "</svg>\n",
        ]
    )
