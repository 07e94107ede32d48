"""The tables of one history on the page of benchmarks: what each tool came to, by kind, by version.

Owns which columns there are and what is bold. Every cell is a figure of the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from figures import ALONE, GONE, OURS, Figure, Of, kept, mb, mean, most, noise_of, slowed
from keeping import History
from pagekinds import kinds_of
from pagewords import FOLLOWED, NOISE
from walking import Row, Walked


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """A table; `right` are the columns of figures."""
    rules = ["---:" if at in right else "---" for at in range(len(heads))]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]


@dataclass(frozen=True)
class Column:
    """A figure of each tool. `best`: which of the medians is bold."""

    head: str
    value: Callable[[Walked], float]
    show: Callable[[float], str]
    best: Callable[[Sequence[float]], float] = min


_TWO, _NONE = "{:.2f}".format, "{:,.0f}".format


def kept_and_speed(history: History) -> list[Column]:
    return [
        Column("MB kept", kept, mb),
        Column("of the bytes", lambda walk: kept(walk) / history.bytes, "{:.3f}".format),
        Column("s per save", mean("save"), _TWO),
        Column("s per restore", mean("restore"), _TWO),
    ]


def memory() -> list[Column]:
    return [
        Column("MB of memory to save", lambda walk: most("save_peak")(walk) / 1e6, _NONE),
        Column("to restore", lambda walk: most("restore_peak")(walk) / 1e6, _NONE),
    ]


def cells(columns: Sequence[Column], tools: Sequence[Of]) -> list[list[str]]:
    """A row of a tool for each of `tools`, without its name; the best of each column is bold."""
    found = [[one.figure(column.value) for one in tools] for column in columns]
    told = [_told(column, figures) for column, figures in zip(columns, found, strict=True)]
    return [list(row) for row in zip(*told, strict=True)]


def _told(column: Column, figures: Sequence[Figure]) -> list[str]:
    """What reads like the best is bold with it."""
    best = column.show(column.best([figure.median for figure in figures]))
    told = [figure.told(column.show) for figure in figures]
    return [
        f"**{words}**" if column.show(figure.median) == best else words
        for words, figure in zip(told, figures, strict=True)
    ]


def exactness(one: Of) -> str:
    return "yes" if one.exact else "NO"


def the_tables(history: History, tools: Sequence[Of]) -> list[str]:
    again = Column("s to save nothing new", lambda walk: walk.again.save, _TWO)
    columns = [*kept_and_speed(history), again, *memory()]
    heads = ["tool", *(column.head for column in columns), "byte for byte"]
    found = zip(tools, cells(columns, tools), strict=True)
    rows = [[one.title, *row, exactness(one)] for one, row in found]
    return table(heads, rows, range(1, len(columns) + 1))


def by_kind(history: History, tools: Sequence[Of]) -> list[str]:
    rows = []
    for kind, places in kinds_of(history).items():
        total = sum(history.versions[at]["bytes"] for at in places)
        sums = [sum(one.walked.rows[at].kept for at in places) for one in tools]
        least = mb(min(sums))
        told = [f"**{least}**" if mb(size) == least else mb(size) for size in sums]
        rows.append([kind, str(len(places)), mb(total), *told])
    heads = ["kind", "versions", "MB", *(one.title for one in tools)]
    return table(heads, rows, range(1, len(heads)))


def by_version(history: History, tools: Sequence[Of], told: Callable[[Row], str]) -> list[str]:
    """A row a version."""
    heads = ["version", "MB", *(one.title for one in tools)]
    rows = []
    for at, version in enumerate([*history.versions, None]):
        found = [one.walked.again if version is None else one.walked.rows[at] for one in tools]
        rows.append([found[0].name, f"{found[0].bytes / 1e6:.1f}", *map(told, found)])
    return table(heads, rows, range(1, len(heads)))


def the_noise(history: History, tools: Sequence[Of]) -> list[str]:
    """What differences mean anything."""
    noise, slower = noise_of(history), slowed(history)
    if all(len(one.walks) > 1 for one in tools):
        lines = [" ".join([NOISE["several"], *_same_work(history)])]
    elif noise.known:
        lines = [NOISE["one"].format(save=noise.save, restore=noise.restore)]
    else:
        lines = [NOISE["unknown"]]
    for one in tools:
        if one.key in slower:
            lines += ["", NOISE["slower"].format(title=one.title, times=slower[one.key])]
    return lines


def _same_work(history: History) -> list[str]:
    """How far apart the rows of stemmata saved the first version, where nothing differs."""
    kin = [key for key in (OURS, ALONE, GONE) if key in history.walks]
    first = history.versions[0]
    if len(kin) < 2 or first.get("parents") != []:
        return []
    low, *_, high = sorted(walk.rows[0].save for key in kin for walk in history.walks[key])
    method = max(min(FOLLOWED), *(walk.method for key in kin for walk in history.walks[key]))
    return [NOISE["same"].format(name=first["name"], low=low, high=high, why=FOLLOWED[method])]


def left_aside(history: History, tools: Sequence[Of]) -> list[str]:
    """What lay beside the stores when the walks had ended; nothing of results that do not know it."""
    found = []
    for one in tools:
        sizes = [walk.aside for walk in history.walks[one.key] if walk.aside is not None]
        if sizes and max(sizes) >= 0.005e6:
            found.append(f"{one.title} {Figure(sizes).told(mb)}")
    if not found:
        return []
    return [f"Left aside of *MB kept*, in MB when a walk had ended: {'; '.join(found)}.", ""]
