"""The pictures of the page of benchmarks, made of results alone. See charts.py for how they look."""

from __future__ import annotations

from collections.abc import Sequence

import charts
from figures import Figure, kept, mb, mean, tools_of
from keeping import Results
from walking import Row

OURS = "stemmata"


def pictures(results: Results) -> dict[str, str]:
    """File name to SVG."""
    drawn = {}
    for history in results.histories:
        tools = tools_of(results, history)
        ours = results.tools[OURS]["title"] if OURS in results.tools else ""
        order = [tool["title"] for tool in results.tools.values() if tool["title"] != ours]
        whole = f"{len(history.versions)} versions, {mb(history.bytes)} MB"
        decimals = 0 if history.bytes >= 100e6 else 2
        several = any(len(one.walks) > 1 for one in tools)
        drawn[f"{history.name}-bars.svg"] = charts.bars(
            f"{history.name}: {whole}",
            "Less is better. cp -r is what it takes without a tool."
            + (" Thin lines: from the least to the most of all walks." if several else ""),
            [one.title for one in tools],
            [
                _panel("MB kept", [one.figure(lambda walk: kept(walk) / 1e6) for one in tools], decimals),
                _panel("seconds per save", [one.figure(mean("save")) for one in tools], 2),
                _panel("seconds per restore", [one.figure(mean("restore")) for one in tools], 2),
            ],
            ours,
        )
        drawn[f"{history.name}-growth.svg"] = charts.lines(
            f"{history.name}: MB in the store after each version",
            f"{whole}. Lines that end at nearly the same place lie on each other.",
            [str(version["name"]) for version in history.versions],
            [
                charts.Line(
                    one.title, _grown(one.walked.rows), None if one.title == ours else order.index(one.title)
                )
                for one in tools
            ],
            decimals,
        )
    return drawn


def _panel(title: str, figures: Sequence[Figure], decimals: int) -> charts.Panel:
    return charts.Panel(
        title,
        [f.median for f in figures],
        [(f.low, f.high) if f.several else None for f in figures],
        decimals,
    )


def _grown(rows: Sequence[Row]) -> list[float]:
    grown, total = [], 0.0
    for row in rows:
        total += row.kept / 1e6
        grown.append(total)
    return grown
