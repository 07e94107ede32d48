"""Pictures of figures as SVG: bars side by side, and lines that grow. Owns how they look, knows no tool.

Text stays text, and colours follow the reader's light or dark. No library's version matters here, so
the same figures give the same bytes, and a test can hold a picture against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_STYLE = """
text { font: 12px system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif; fill: #1f2328 }
.card { fill: #ffffff; stroke: #d1d9e0 }
.title { font-size: 14px; font-weight: 600 }
.soft { fill: #59636e }
.ours { font-weight: 600 }
.grid { stroke: #d1d9e0; stroke-width: 1 }
rect.bar { fill: #b4bfca }
rect.ours { fill: #0b7a5f }
.line { fill: none; stroke: #98a4b0; stroke-width: 1.5 }
.line.ours { stroke: #0b7a5f; stroke-width: 3 }
.dot { fill: #0b7a5f }
text.ours { fill: #0b7a5f }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.card { fill: #0d1117; stroke: #3d444d }
.soft { fill: #9198a1 }
.grid { stroke: #2a313c }
rect.bar { fill: #4d5763 }
rect.ours { fill: #2fbf93 }
.line { stroke: #6e7985 }
.line.ours { stroke: #2fbf93 }
.dot { fill: #2fbf93 }
text.ours { fill: #2fbf93 }
}
"""
_WIDTH = 860
_EDGE = 20


@dataclass(frozen=True)
class Panel:
    """One column of bars: a value for each label."""

    title: str
    values: Sequence[float]
    decimals: int


@dataclass(frozen=True)
class Line:
    label: str
    values: Sequence[float]


def bars(title: str, note: str, labels: Sequence[str], panels: Sequence[Panel], ours: str) -> str:
    """Horizontal bars, a row a label, the panels beside each other."""
    row, top, names = 25, 92, 16 + 7 * max(map(len, labels))
    wide = (_WIDTH - 2 * _EDGE - names) / len(panels)
    height = top + row * len(labels) + 18
    parts = _head(title, note)
    for at, label in enumerate(labels):
        middle = top + row * at + row / 2
        parts.append(_text(_EDGE + names - 12, middle + 4, label, _ours(label, ours), "end"))
    for number, panel in enumerate(panels):
        left = _EDGE + names + wide * number
        room = wide - 62  # for the figure behind the longest bar
        scale = room / (max(panel.values) or 1)
        parts.append(_text(left, top - 14, panel.title, "soft"))
        parts.append(f'<path class="grid" d="M{left:.1f} {top - 4}V{top + row * len(labels)}"/>')
        for at, (label, value) in enumerate(zip(labels, panel.values, strict=True)):
            y, long = top + row * at, max(value * scale, 1)
            kind = _ours(label, ours)
            parts.append(
                f'<rect class="bar {kind}" x="{left:.1f}" y="{y + 4}" '
                f'width="{long:.1f}" height="{row - 8}" rx="2"/>'
            )
            told = f"{value:,.{panel.decimals}f}"
            parts.append(_text(left + long + 6, y + row / 2 + 4, told, kind or "soft"))
    return _whole(parts, height, title)


def lines(
    title: str, note: str, steps: Sequence[str], found: Sequence[Line], decimals: int, ours: str
) -> str:
    """One line for each of `found` over the same steps; those that end together share a label."""
    top, left, plot, below = 78, _EDGE + 52, 300, 74
    right = _WIDTH - _EDGE - 210
    highest = max(max(line.values) for line in found)
    ticks = _ticks(highest)
    scale, apart = plot / max(highest, ticks[-1]), (right - left) / max(len(steps) - 1, 1)
    bottom = top + plot
    parts = _head(title, note)
    for tick in ticks:
        y = bottom - tick * scale
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(_text(left - 8, y + 4, f"{tick:,g}", "soft", "end"))
    for at, step in enumerate(steps):
        x = left + apart * at
        turned = f'transform="rotate(-40 {x:.1f} {bottom + 16})"'
        parts.append(_text(x, bottom + 16, step, "soft", "end", turned))
    for line in sorted(found, key=lambda line: line.label == ours):  # ours last: above the others
        points = " ".join(
            f"{left + apart * i:.1f},{bottom - v * scale:.1f}" for i, v in enumerate(line.values)
        )
        parts.append(f'<polyline class="line {_ours(line.label, ours)}" points="{points}"/>')
        if line.label == ours:
            dots = (point.split(",") for point in points.split())
            parts += [f'<circle class="dot" cx="{x}" cy="{y}" r="3.5"/>' for x, y in dots]
    ends = _together(found, highest * 0.02, ours)
    told = [_wrapped(labels, values, decimals) for labels, values in ends]
    middles = [sum(values) / len(values) for _, values in ends]
    heights = _spread([bottom - value * scale for value in middles], [15.0 * len(rows) for rows in told])
    for (labels, _), value, rows, y in zip(ends, middles, told, heights, strict=True):
        kind, x = "ours" if ours in labels else "soft", right + 24
        parts.append(f'<path class="grid" d="M{right + 5} {bottom - value * scale:.1f}L{x - 4} {y:.1f}"/>')
        parts += [_text(x, y + 4 + 15 * i, text, kind) for i, text in enumerate(rows)]
    return _whole(parts, bottom + below, title)


# --- where things go -----------------------------------------------------------------------------


def _ticks(highest: float) -> list[float]:
    """About five round steps from 0 to just over the highest."""
    rough = (highest or 1) / 5
    size = 10.0 ** floor(log10(rough))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= rough)
    return [step * i for i in range(ceil(highest / step) + 1)]


def _together(found: Sequence[Line], near: float, ours: str) -> list[tuple[list[str], list[float]]]:
    """Labels with the values at which their lines end, highest first; ours stands alone."""
    ends: list[tuple[list[str], list[float]]] = []
    for line in sorted(found, key=lambda line: -line.values[-1]):
        alone = line.label == ours or (bool(ends) and ours in ends[-1][0])
        if ends and not alone and ends[-1][1][0] - line.values[-1] <= near:
            ends[-1][0].append(line.label)
            ends[-1][1].append(line.values[-1])
        else:
            ends.append(([line.label], [line.values[-1]]))
    return ends


def _spread(wanted: Sequence[float], tall: Sequence[float]) -> list[float]:
    """Where labels begin, from the top: as near to where they are wanted as they fit without touching."""
    groups: list[tuple[float, list[int]]] = []  # of labels that touch: where the first begins, and which
    for at in range(len(wanted)):
        members, top = [at], wanted[at]
        while groups and groups[-1][0] + sum(tall[i] for i in groups[-1][1]) > top:
            members = groups.pop()[1] + members
            above = [sum(tall[i] for i in members[:n]) for n in range(len(members))]
            top = sum(wanted[i] - over for i, over in zip(members, above, strict=True)) / len(members)
        groups.append((top, members))
    return [top + sum(tall[i] for i in members[:n]) for top, members in groups for n in range(len(members))]


def _wrapped(labels: Sequence[str], values: Sequence[float], decimals: int, widest: int = 30) -> list[str]:
    """The labels joined by commas and the span of their figures, on as many rows as that takes."""
    least, most = (f"{end(values):,.{decimals}f}" for end in (min, max))
    span = most if least == most else f"{least} to {most}"
    rows = [labels[0]]
    for piece in labels[1:]:
        rows[-1] += ","
        if len(rows[-1]) + len(piece) < widest:
            rows[-1] += f" {piece}"
        else:
            rows.append(piece)
    return [*rows[:-1], f"{rows[-1]}: {span}"] if len(rows[-1]) + len(span) < widest else [*rows, span]


# --- SVG -----------------------------------------------------------------------------------------


def _head(title: str, note: str) -> list[str]:
    return [_text(_EDGE, 32, title, "title"), _text(_EDGE, 52, note, "soft")]


def _ours(label: str, ours: str) -> str:
    return "ours" if label == ours else ""


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
