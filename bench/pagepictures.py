"""The pictures of the page of benchmarks, made of results alone. See charts.py for how they look."""

from __future__ import annotations

from collections.abc import Sequence

import charts
from figures import ALONE, GONE, LARGE, OURS, Figure, Of, kept, mb, mean, others_of, ours_of, tools_of
from keeping import History, Results
from pagekinds import branches
from walking import Row

_ONE_LINE = 0.01
_KINDS = {OURS: charts.OURS, ALONE: charts.KIN, GONE: charts.KIN}


def pictures(results: Results) -> dict[str, str]:
    """File name to SVG; of the large history none, its section is a table."""
    drawn = {}
    for history in results.histories:
        if history.name != LARGE:
            drawn[f"{history.name}-bars.svg"] = _bars(results, history)
            drawn[f"{history.name}-growth.svg"] = _growth(results, history)
    return drawn


def _decimals(history: History) -> int:
    return 0 if history.bytes >= 100e6 else 2


def _whole(history: History) -> str:
    return f"{len(history.versions)} versions, {mb(history.bytes)} MB"


def _bars(results: Results, history: History) -> str:
    tools = tools_of(results, history)
    several = any(len(one.walks) > 1 for one in tools)
    return charts.bars(
        f"{history.name}: {_whole(history)}",
        "Kept: all versions; seconds: means. Less is better, sorted by what is kept."
        + (" Thin lines: least to most." if several else "")
        + (" Light: the same tool, used otherwise." if len(tools) > len(others_of(tools)) + 1 else ""),
        [charts.Label(one.title, _KINDS.get(one.key, "")) for one in tools],
        [
            _panel(
                "kept", "MB", [one.figure(lambda walk: kept(walk) / 1e6) for one in tools], _decimals(history)
            ),
            _panel("per save", "s", [one.figure(mean("save")) for one in tools], 2),
            _panel("per restore", "s", [one.figure(mean("restore")) for one in tools], 2),
        ],
    )


def _panel(title: str, unit: str, figures: Sequence[Figure], decimals: int) -> charts.Panel:
    return charts.Panel(
        title,
        [f.median for f in figures],
        [(f.low, f.high) if f.several else None for f in figures],
        decimals,
        unit,
    )


def _growth(results: Results, history: History) -> str:
    others = [key for key in results.tools if key not in _KINDS]

    def line(one: Of) -> charts.Line:
        kind = _KINDS[one.key] if one.key in _KINDS else others.index(one.key)
        return charts.Line(one.title, _grown(one.walked.rows), kind)

    tools = tools_of(results, history)
    ours = ours_of(tools)
    # Where the lines of stemmata's other rows would lie on its own, they are left out.
    kin = [one for one in tools if one.key in (ALONE, GONE)]
    close = ours is not None and all(abs(one.kept / ours.kept - 1) < _ONE_LINE for one in kin)
    drawn = [one for one in tools if one not in kin] if close else tools
    begun = branches(history)
    return charts.lines(
        f"{history.name}: MB in the store after each version",
        f"{_whole(history)}. Lines that end at nearly the same place lie on each other"
        + (", as all ways of stemmata do." if close and kin else ".")
        + (" Dotted: where a branch begins, and of what kind." if begun else ""),
        [str(version["name"]) for version in history.versions],
        [line(one) for one in drawn],
        _decimals(history),
        "MB",
        begun,
    )


def _grown(rows: Sequence[Row]) -> list[float]:
    grown, total = [], 0.0
    for row in rows:
        total += row.kept / 1e6
        grown.append(total)
    return grown
