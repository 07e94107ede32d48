"""Page: one HTML file with pictures and the facts beside them, and snippets for notebooks.

Owns that a page needs no network and no other file, and that nothing in it but stemmata's own scripts can
run: its policy (CSP) names their digests, and what people named is JSON or escaped text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib import import_module, resources
from typing import Any

from stemmata.pictures import colours, words
from stemmata.pictures.picture import Picture, Table, written
from stemmata.pictures.web.parts import Chart

ECHARTS = "6.1.0"
ECHARTS_SHA256 = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
_RAMP = 65
"""Colours of the ramp that a page has."""
_NARROW = 5
"""Columns up to which a table stands beside others."""
_ALL = 2000
"""Rows of the table of all."""


@dataclass(frozen=True)
class Fact:
    """One figure at the head of a page. `mark`: good, bad or muted."""

    value: str
    about: str
    mark: str = ""


@dataclass(frozen=True)
class Section:
    """A picture with its tables, or tables alone."""

    heading: str
    finding: str = ""
    picture: Picture | None = None
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, picture: Picture, heading: str = "") -> Section:
        return cls(
            heading or picture.heading,
            picture.finding,
            picture,
            tuple(picture.tables()),
            tuple(picture.notes),
        )


@dataclass(frozen=True)
class Page:
    """What a file holds, from top to bottom."""

    title: str
    kicker: str = ""
    lead: str = ""
    facts: tuple[Fact, ...] = ()
    sections: tuple[Section, ...] = ()
    footer: str = field(default="")
    notes: tuple[str, ...] = ()
    """What is to be known of the whole."""

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The whole file; written to `path` if there is one. Raises PictureNotWritten."""
        html = _html(self)
        if path is not None:
            written(path, html)
        return html


def of(picture: Picture) -> Page:
    """A page with one picture."""
    return Page(picture.title, sections=(Section.of(picture, picture.heading),))


def charts_of(picture: Picture) -> list[Chart]:
    if picture.is_empty:
        return []
    found: list[Chart] = import_module(f"stemmata.pictures.web.{picture.kind}").charts(picture)
    return found


# --- the file -------------------------------------------------------------------------------------


def _html(page: Page) -> str:
    charts: list[Chart] = []
    body = "".join(_section(section, charts) for section in page.sections)
    data = {
        "schemes": {"day": _scheme(dark=False), "night": _scheme(dark=True)},
        "charts": [chart.option for chart in charts],
    }
    scripts = [_asset("echarts/echarts.min.js"), _asset("page.js")] if charts else []
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    facts = "".join(_fact(fact) for fact in page.facts)
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        '<meta name="referrer" content="no-referrer">\n',
        f"<title>{_text(page.title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n<header>\n",
        f'<p class="kicker">{_text(page.kicker)}</p>\n' if page.kicker else "",
        f"<h1>{_text(page.title)}</h1>\n",
        f'<p class="lead">{_text(page.lead)}</p>\n' if page.lead else "",
        *(f'<p class="note">{_text(note)}</p>\n' for note in page.notes),
        f'<ul class="facts">{facts}</ul>\n' if facts else "",
        f"</header>\n<main>\n{body}</main>\n<footer>{_text(page.footer or _made_by(charts))}</footer>\n",
    ]
    if charts:
        parts += [
            "<noscript><p>The charts need JavaScript; the tables do not.</p></noscript>\n",
            f'<script type="application/json" id="data">{_json(data)}</script>\n',
            *(f"<script>{script}</script>\n" for script in scripts),
        ]
    return "".join([*parts, "</body>\n</html>\n"])


def _made_by(charts: Sequence[Chart]) -> str:
    by = f" Charts by Apache ECharts {ECHARTS} (Apache-2.0), which is in this file." if charts else ""
    return f"Made by stemmata.{by}"


def _fact(fact: Fact) -> str:
    mark = f' class="{fact.mark}"' if fact.mark else ""
    return f"<li><b{mark}>{_text(fact.value)}</b><span>{_text(fact.about)}</span></li>"


def _section(section: Section, charts: list[Chart]) -> str:
    own = charts_of(section.picture) if section.picture is not None else []
    figures = "".join(_figure(chart, len(charts) + at) for at, chart in enumerate(own))
    charts += own
    tables = "".join(_table(table) for table in section.tables if table.rows)
    tables = f'<div class="tables">{tables}</div>' if tables else ""
    if figures:
        drawn = f'<div class="drawn"><div class="charts">{figures}</div></div>'
        inner = f'<div class="beside">{drawn}{tables}</div>'
    else:
        inner = tables
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in section.notes)
    finding = f'<p class="finding">{_text(section.finding)}</p>' if section.finding else ""
    everything = _everything(section.picture) if own and section.picture is not None else ""
    return f"<section>\n<h2>{_text(section.heading)}</h2>\n{finding}{inner}{notes}{everything}</section>\n"


def _table(table: Table) -> str:
    kind = "table wide" if table.code or len(table.columns) > _NARROW else "table"
    inner = f'<div class="{kind}">{table_html(table)}</div>'
    return f"<details><summary>{_text(table.title)}</summary>{inner}</details>" if table.folded else inner


def _figure(chart: Chart, number: int) -> str:
    heading = f"<h3>{_text(chart.heading)}</h3>" if chart.heading else ""
    key = "".join(f"<li>{_spot(tone)}{_text(meaning)}</li>" for tone, meaning in chart.key)
    key = f'<ul class="key">{key}</ul>' if key else ""
    half = ' class="half"' if chart.half else ""
    least = f";min-width:{chart.least}px" if chart.least else ""
    heights = json.dumps([[0, chart.height], *map(list, chart.heights)])
    return (
        f'<figure{half}>{heading}<div class="scroll"><div class="chart" id="chart-{number}" role="img" '
        f'aria-label="{_text(chart.label)}" data-heights="{heights}" '
        f'style="height:{chart.height}px{least}"></div></div>{key}</figure>'
    )


def _spot(tone: str) -> str:
    """A spot in a colour of the scheme."""
    return f'<i style="background:var(--{tone})"></i>' if tone else ""


def _everything(picture: Picture) -> str:
    """All that is drawn as a table, folded away."""
    rows = picture.rows()
    if not rows:
        return ""
    columns = [key for key in rows[0] if any(row.get(key) not in (None, "") for row in rows)]
    numeric = frozenset(
        at for at, key in enumerate(columns) if any(isinstance(row.get(key), int | float) for row in rows)
    )
    cells = tuple(tuple(_cell(row.get(key)) for key in columns) for row in rows[:_ALL])
    more = f"and {len(rows) - _ALL:,} more" if len(rows) > _ALL else ""
    table = Table("", tuple(c.replace("_", " ") for c in columns), cells, numeric, more)
    summary = f"All {words.count(len(rows), 'value')} as a table"
    return f'<details><summary>{summary}</summary><div class="table">{table_html(table)}</div></details>'


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return words.number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def table_html(table: Table) -> str:
    """A table as markup, every cell escaped."""
    caption = f"<caption>{_text(table.title)}</caption>" if table.title and not table.folded else ""
    heads = "".join(
        f'<th scope="col"{_numeric(at, table)}>{_text(name)}</th>' for at, name in enumerate(table.columns)
    )
    head = f"<thead><tr>{heads}</tr></thead>" if any(table.columns) else ""
    lines = []
    for place, row in enumerate(table.rows):
        cells = []
        for at, value in enumerate(row):
            mark = table.marks.get((place, at), "")
            kinds = " ".join(k for k in ("n" if at in table.numeric else "", mark) if k)
            colour = table.colours.get((place, at), "")
            spot = _spot(colour)
            kind = f' class="{kinds}"' if kinds else ""
            cells.append(f"<td{kind}>{spot}{_text(value)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    more = f'<p class="more">{_text(table.more)}</p>' if table.more else ""
    kind = ' class="code"' if table.code else ""
    return f"<table{kind}>{caption}{head}<tbody>{''.join(lines)}</tbody></table>{more}"


def _numeric(at: int, table: Table) -> str:
    return ' class="n"' if at in table.numeric else ""


# --- safe -----------------------------------------------------------------------------------------


def _text(value: str) -> str:
    """Escaped, without characters that turn the direction of what follows or do not print."""
    return escape(words.printable(value), quote=True)


def _json(value: Any) -> str:
    """JSON that no parser of HTML finds an end or a comment in."""
    text = json.dumps(_visible(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(value: Any) -> Any:
    """As `_text`, of every string in it: a chart would turn around too. Lines may end."""
    if isinstance(value, str):
        return value if value.isprintable() else "\n".join(map(words.printable, value.split("\n")))
    if isinstance(value, dict):
        return {key: _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list | tuple) else value


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    place = resources.files("stemmata.pictures") / "assets"
    return place.joinpath(*name.split("/")).read_text(encoding="utf-8")


def _style() -> str:
    day, night = (
        "".join(f"--{name}:{value};" for name, value in colours.scheme(dark=dark).words().items())
        for dark in (False, True)
    )
    schemes = f":root {{ {day} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {night} }} }}\n"
    return schemes + _asset("page.css")


def _scheme(*, dark: bool) -> dict[str, Any]:
    shares = [k / (_RAMP - 1) for k in range(_RAMP)]
    return {
        "tones": colours.scheme(dark=dark).words(),
        "ramp": [colours.ramp(share, dark=dark) for share in shares],
        "on": [colours.on_ramp(share, dark=dark) for share in shares],
    }
