"""The page of benchmarks in short: what stemmata keeps, by kind, and who is quicker and who slower."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import pagewords
from figures import (
    GONE,
    LARGE,
    LINES,
    MEASURES,
    ONCE,
    PATCHES,
    Measure,
    Noise,
    Of,
    less,
    mb,
    noise_of,
    others_of,
    ours_of,
    tools_of,
)
from keeping import History, Results
from manifests import BRANCHES
from pagekinds import FIRST, kinds_of
from pagetables import table
from pageweights import rest_kept


def in_short(results: Results) -> list[str]:
    rows, times = [], []
    for history in results.histories:
        tools = tools_of(results, history)
        ours = ours_of(tools)
        if history.name == LARGE or ours is None:
            continue
        rows += _kept_of(history, ours, others_of(tools))
        times += _times_of(history, tools) if others_of(tools) and history.name not in ONCE else []
    if not rows:
        return ["stemmata itself was not measured.", ""]
    heads = ["history", "versions", "MB", "stemmata keeps MB", "of the bytes", "without embeddings"]
    names = {history.name for history in results.histories}
    half = pagewords.HALF[names.issuperset(BRANCHES)]
    lines = [*table([*heads, "least of the others, MB"], rows, (2, 3, 4, 5)), ""]
    lines += [pagewords.SMALL.format(half=half, line=pagewords.LINE[LINES in names]), ""]
    heads = ["history", "mean seconds", "stemmata", "faster", "slower", "not to be told apart"]
    return [*lines, _how_timed(results), "", *table(heads, times), ""] if times else lines


def _how_timed(results: Results) -> str:
    """What *faster* means, by the walks that each tool made at least."""
    usual = [history for history in results.histories if history.name not in ONCE]
    walks = min(len(walks) for history in usual for walks in history.walks.values())
    middle = "mean" if walks == 2 else "median"
    # So many orders of the walks of two tools there are; in two of them all of the one come first.
    odds = comb(2 * walks, walks) // 2
    rebuilt = any({PATCHES, GONE} <= set(history.walks) for history in usual)
    left_out = " and ".join(history.name for history in results.histories if history.name in ONCE)
    once = f" ({left_out}, which few tools walked, and once, are not among them)" if left_out else ""
    words = {
        "walks": walks,
        "once": once,
        "middle": middle,
        "odds": odds,
        "again": pagewords.REBUILT if rebuilt else "",
    }
    return pagewords.TIMES[min(walks, max(pagewords.TIMES))].format(**words)


def _kept_of(history: History, ours: Of, others: Sequence[Of]) -> list[list[str]]:
    everything = list(range(len(history.versions)))
    words = pagewords.SHORT.get(history.name, history.name)
    whole = _row(f"{history.name}: {words}", f"all {len(everything)} versions", history, everything, ours)
    rows = [[*whole, _least(others, everything)]]
    for kind, places in kinds_of(history).items():
        row = _row("", pagewords.KINDS.get((history.name, kind), kind), history, places, ours)
        if not kind.startswith(FIRST):
            row[4] = f"**{row[4]}**"
        rows.append([*row, _least(others, places)])
    return rows


def _row(first: str, second: str, history: History, places: Sequence[int], ours: Of) -> list[str]:
    raw = sum(history.versions[at]["bytes"] for at in places)
    kept = sum(ours.walked.rows[at].kept for at in places)
    rest = rest_kept(history, places)
    return [first, second, mb(raw), mb(kept), f"{kept / raw:#.2g}", "-" if rest is None else f"{rest:#.2g}"]


def _least(others: Sequence[Of], places: Sequence[int]) -> str:
    """Who keeps least of some versions, of the others."""
    if not others:
        return "-"
    sums = [(sum(one.walked.rows[at].kept for at in places), one.title) for one in others]
    least = min(size for size, _ in sums)
    alike = [title for size, title in sums if mb(size) == mb(least)]
    return f"{mb(least)}: {' and '.join(alike)}"


def _times_of(history: History, tools: Sequence[Of]) -> list[list[str]]:
    """Who is quicker and who slower. Beside a tool that rebuilds parents from its store stands what stemmata
    takes where it has to as well."""
    rows = []
    for measure, what in zip(MEASURES[1:3], ("to save a version", "to bring one back"), strict=True):
        ours = ours_of(tools)
        assert ours is not None
        groups = _grouped(measure, tools, noise_of(history), what.startswith("to save"))
        cells = [", ".join(words for _, words in sorted(found)) or "-" for found in groups]
        rows.append([history.name, what, _seconds(ours, measure), *cells])
    return rows


def _grouped(
    measure: Measure, tools: Sequence[Of], noise: Noise, saving: bool
) -> list[list[tuple[float, str]]]:
    ours = ours_of(tools)
    assert ours is not None
    gone = next((one for one in tools if one.key == GONE), ours)
    faster: list[tuple[float, str]] = []
    slower: list[tuple[float, str]] = []
    neither: list[tuple[float, str]] = []
    for one in others_of(tools):
        theirs, mine = one.figure(measure.value), ours.figure(measure.value)
        is_slower = less(mine, theirs, measure, noise)
        where = faster if less(theirs, mine, measure, noise) else slower if is_slower else neither
        rebuilds = one.key == PATCHES and gone is not ours and saving
        again = f" ({gone.title}: {_seconds(gone, measure)})" if rebuilds else ""
        where.append((theirs.median, f"{one.title} {theirs.median:.2f}{again}"))
    return [faster, slower, neither]


def _seconds(one: Of, measure: Measure) -> str:
    return one.figure(measure.value).told("{:.2f}".format)
