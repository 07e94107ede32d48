"""A model of several GB on the page of benchmarks: what a walk through it took, beside a smaller one."""

from __future__ import annotations

from collections.abc import Callable

from figures import CHAIN, LARGE, Figure, Of, mb, most, ours_of, tools_of
from keeping import Results
from pagetables import cells, exactness, memory, table
from walking import Walked

ABOUT = """A version of {large} has {size} MB, {times:.1f} times as much as one of {chain}. stemmata took
{save} MB of memory at most to save one, {save_times:.1f} times the {save_chain} MB on {chain},
and {restore} MB to bring one back, {restore_times:.1f} times the {restore_chain} MB there. For want of time a
few tools walked it, and once each, which is enough for memory and not for seconds."""


def the_large(results: Results) -> list[str]:
    """Nothing where it was not walked."""
    named = {history.name: history for history in results.histories}
    if LARGE not in named:
        return []
    tools = tools_of(results, named[LARGE])
    smaller = {one.key: one for one in tools_of(results, named[CHAIN])} if CHAIN in named else {}
    size = max(int(version["bytes"]) for version in named[LARGE].versions)
    lines = [f"## A model of {size / 1e9:.1f} GB", ""]
    ours = ours_of(tools)
    if ours and ours.key in smaller:
        lines += [_told(ours, smaller[ours.key]), ""]
    heads = ["tool"]
    for column in memory():
        heads += [column.head, *([f"on {CHAIN}"] if smaller else [])]
    rows = []
    for one, peaks in zip(tools, cells(memory(), tools), strict=True):
        row = [one.title]
        for column, peak in zip(memory(), peaks, strict=True):
            row += [peak, *([_figure(smaller.get(one.key), column.value, column.show)] if smaller else [])]
        rows.append([*row, exactness(one)])
    heads.append("byte for byte")
    return [*lines, *table(heads, rows, range(1, len(heads) - 1)), ""]


def _figure(one: Of | None, value: Callable[[Walked], float], show: Callable[[float], str]) -> str:
    return one.figure(value).told(show) if one else "-"


def _told(large: Of, small: Of) -> str:
    sizes = [max(row.bytes for row in one.walked.rows) for one in (large, small)]
    words: dict[str, str | float] = {"large": LARGE, "chain": CHAIN, "size": mb(sizes[0])}
    words["times"] = sizes[0] / sizes[1]
    for field in ("save", "restore"):
        peaks: list[Figure] = [one.figure(most(f"{field}_peak")) for one in (large, small)]
        words[field], words[f"{field}_chain"] = (f"{peak.median / 1e6:,.0f}" for peak in peaks)
        words[f"{field}_times"] = peaks[0].median / peaks[1].median
    return ABOUT.format(**words)
