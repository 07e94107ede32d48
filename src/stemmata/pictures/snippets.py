"""Snippets: what a notebook shows of a thing. Owns that it is small and markup alone: no script, no network.

Every style stands at its element, and colours are the notebook's own or readable on any: a snippet is shown
on paper of either scheme, and beside others.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape

from stemmata.errors import MissingExtra
from stemmata.pictures import colours, words
from stemmata.pictures.heatmap import STATES, HeatMap
from stemmata.pictures.picture import Picture, Table

_ROWS, _COLUMNS = 48, 16
_FONT = "font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;font-size:13px;line-height:1.45"
_SOFT = "opacity:.68"
_MARKS = {
    "good": "color:#1a8f6a",
    "bad": "color:#d0503f",
    "added": "color:#1a8f6a",
    "removed": "color:#d0503f",
}
_TONES = {f"run{at}": tone for at, tone in enumerate(colours.DAY.runs)} | {"faint": colours.DAY.strange}


def of(picture: Picture) -> str:
    """A picture: as one image where matplotlib is there, else its facts; of a heat map its cells."""
    head = line(picture.title, picture.finding)
    try:
        shown = image(picture)
    except MissingExtra:
        shown = cells(picture) if isinstance(picture, HeatMap) else tables(picture.tables())
        return block(head, shown)
    return block(shown)


def image(picture: Picture) -> str:
    """By matplotlib. Raises MissingExtra."""
    made = picture.figure()
    data = io.BytesIO()
    made.savefig(data, format="png")
    width = round(made.get_figwidth() * 100)
    encoded = base64.b64encode(data.getvalue()).decode()
    alt = text(f"{picture.title}. {picture.finding}")
    return f'<img alt="{alt}" width="{width}" style="max-width:100%" src="data:image/png;base64,{encoded}">'


def block(*parts: str) -> str:
    return f'<div style="{_FONT}">{"".join(parts)}</div>'


def line(head: str, soft: str = "") -> str:
    """A heading with words beside it."""
    beside = f' <span style="{_SOFT}">{text(soft)}</span>' if soft else ""
    return f'<div style="margin:0 0 6px"><b>{text(head)}</b>{beside}</div>'


def tables(found: Iterable[Table]) -> str:
    """Beside each other where there is room."""
    inner = "".join(f'<div style="min-width:0">{table(each)}</div>' for each in found if each.rows)
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px 32px;align-items:flex-start">{inner}</div>'


def table(found: Table) -> str:
    caption = ""
    if found.title:
        style = "text-align:left;font-weight:600;padding:0 0 2px;color:inherit;caption-side:top"
        caption = f'<caption style="{style}">{text(found.title)}</caption>'
    heads = "".join(
        f'<th style="{_cell(at in found.numeric)};font-weight:500;{_SOFT}">{text(name)}</th>'
        for at, name in enumerate(found.columns)
    )
    head = f"<thead><tr>{heads}</tr></thead>" if any(found.columns) else ""
    rows = []
    for place, row in enumerate(found.rows):
        inner = []
        for at, value in enumerate(row):
            mark = _MARKS.get(found.marks.get((place, at), ""), "")
            tone = _TONES.get(found.colours.get((place, at), ""), "")
            spot = f"{_spot(tone)} " if tone else ""
            style = f"{_cell(at in found.numeric)}{';' + mark if mark else ''}"
            inner.append(f'<td style="{style}">{spot}{text(value)}</td>')
        rows.append(f"<tr>{''.join(inner)}</tr>")
    more = f'<div style="{_SOFT}">{text(found.more)}</div>' if found.more else ""
    style = "border-collapse:collapse;margin:0;font-size:12.5px"
    return f'<table style="{style}">{caption}{head}<tbody>{"".join(rows)}</tbody></table>{more}'


def _cell(right: bool) -> str:
    side = "right" if right else "left"
    return f"text-align:{side};padding:2px 14px 2px 0;border:0;white-space:nowrap"


def _spot(tone: str) -> str:
    return (
        f'<span style="display:inline-block;width:9px;height:9px;border-radius:2px;background:{tone}"></span>'
    )


# --- a heat map -----------------------------------------------------------------------------------


def cells(picture: HeatMap) -> str:
    """Rows and columns of colours; of a very large one the whole layers alone."""
    rows, columns = picture.matrix.rows, picture.matrix.columns
    if not rows:
        return ""
    shown = list(range(len(columns))) if len(columns) <= _COLUMNS else [len(columns) - 1]
    lines = list(range(len(rows)))[:_ROWS]
    heads = "".join(
        f'<th style="padding:0 3px 2px;font-weight:500;font-size:11px;text-align:center;{_SOFT}">'
        f"{text(words.clipped(columns[x].label, 14))}</th>"
        for x in shown
    )
    body = []
    for y in lines:
        label = text(words.clipped(rows[y].label, 24))
        name = f'<th style="padding:0 8px 0 0;font-weight:500;font-size:11px;text-align:right">{label}</th>'
        body.append(f"<tr>{name}{''.join(_square(picture, y, x) for x in shown)}</tr>")
    more = (
        f'<div style="{_SOFT}">and {len(rows) - len(lines)} rows more</div>' if len(rows) > len(lines) else ""
    )
    table = f'<table style="border-collapse:separate;border-spacing:1px;margin:0"><tr><th></th>{heads}</tr>'
    key = [picture.unit_of_numbers, *(f"· {STATES[state]}" for state in picture.states if state == "still")]
    foot = f'<div style="font-size:11px;{_SOFT}">{text("; ".join(key))}</div>'
    return f"{table}{''.join(body)}</table>{more}{foot}"


def _square(picture: HeatMap, row: int, column: int) -> str:
    cell = picture.matrix.cells.get((row, column))
    base = "padding:1px 4px;min-width:34px;text-align:center;font-size:10.5px;border:0;border-radius:2px"
    if cell is None:
        return f'<td style="{base}"></td>'
    about = text(picture.name(row, column))
    if cell.value is None:
        mark = {"still": "·", "added": "+", "removed": "−", "strange": "≠"}[cell.state]
        style = f"{base};background:rgba(128,128,128,.13)"
        return f'<td title="{about}: {STATES[cell.state]}" style="{style}">{mark}</td>'
    share = picture.scale.at(cell.value)
    tones = f"background:{colours.ramp(share)};color:{colours.on_ramp(share)}"
    shown = "new" if cell.infinite else picture.shown(cell.value).removesuffix(" %")
    return f'<td title="{about}: {text(picture.shown(cell.value))}" style="{base};{tones}">{text(shown)}</td>'


# --- a line ---------------------------------------------------------------------------------------


def sparkline(lines: Sequence[tuple[str, Sequence[float]]], *, width: int = 180, height: int = 40) -> str:
    """Runs as small curves, SVG: each a tone and its values in order. What is not finite is left out."""
    finite = [v for _, values in lines for v in values if math.isfinite(v)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    longest = max(len(values) for _, values in lines)
    drawn = []
    for tone, values in lines:
        points = []
        for at, value in enumerate(values):
            if math.isfinite(value):
                x = 3 + (width - 6) * at / max(1, longest - 1)
                y = 3 + (height - 6) * (1 - (value - low) / (high - low) if high > low else 0.5)
                points.append(f"{x:.1f},{y:.1f}")
        if points:
            end_x, _, end_y = points[-1].partition(",")
            drawn.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{tone}" stroke-width="1.6"/>'
                f'<circle cx="{end_x}" cy="{end_y}" r="2.2" fill="{tone}"/>'
            )
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="vertical-align:middle">{"".join(drawn)}</svg>'
    )


def text(value: str) -> str:
    """Escaped, and nothing in it that does not print."""
    return escape(words.printable(value), quote=True)
