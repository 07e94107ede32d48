"""What walks come to: one figure of a tool on a history, with its spread, and when two of them differ.

Owns the arithmetic of the page of benchmarks; its words are benchpage.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from keeping import History, Results
from walking import Row, Walked

CHAIN = "G"
"""The history that is one chain."""
LARGE = "G4"
"""The history of versions of several GB; CHAIN's are of the same kind and a fraction as large."""
LINES = "T"
"""The history whose versions follow one another longest."""
ONCE = (LINES, LARGE)
"""Histories that a few tools walk once: they tell of sizes and of memory, not of seconds."""
USUAL = ("H", "B", "L", "R", LINES, CHAIN, LARGE)
"""The histories of the whole page."""
USUAL_WALKS = 3
"""Of each tool through each history, of those of ONCE one."""
COPIES = "cp"
"""The tool whose times tell the noise: it does the same work each time."""
OURS, ALONE, GONE = "stemmata", "stemmata-alone", "stemmata-gone"
"""Ours, none of them one of the others: as the page is about, no parent told, no parent's folder at hand."""
PATCHES = "zstd-patch"
"""The tool that rebuilds a parent from its store."""
_SIZES = 0.05
"""Of one walk each, sizes and memory that differ by less than this share are called equal."""
_TIMES = 0.05
"""The same of times, where `cp -r` was not measured and the noise is not known."""


_SLOWED = 1.25
"""Times the median of all tools' copies from which a walk's are told to be slow."""


@dataclass(frozen=True)
class Figure:
    """The same thing, once in each walk."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    @property
    def several(self) -> bool:
        return len(self.values) > 1

    def told(self, show: Callable[[float], str]) -> str:
        """The median, and the least and the most where there are several that do not read alike."""
        ends = [show(self.low), show(self.high)]
        if not self.several or ends[0] == ends[1]:
            return show(self.median)
        # The unit, if there is one, stands once.
        return f"{show(self.median)} ({ends[0].split(' ')[0]}-{ends[1].split(' ')[0]})"


@dataclass(frozen=True)
class Of:
    """One tool on one history: what its walks come to."""

    key: str
    title: str
    walks: Sequence[Walked]

    @cached_property
    def walked(self) -> Walked:
        """Version by version, the medians of all walks."""
        return Walked.of(self.title, [[*walk.rows, walk.again] for walk in self.walks], [])

    def figure(self, value: Callable[[Walked], float]) -> Figure:
        return Figure([value(walk) for walk in self.walks])

    @property
    def kept(self) -> float:
        return self.figure(kept).median

    @property
    def exact(self) -> bool:
        return all(row.exact for walk in self.walks for row in (*walk.rows, walk.again))


def kept(walk: Walked) -> float:
    return walk.total("kept")


def mean(field: str) -> Callable[[Walked], float]:
    return lambda walk: walk.total(field) / len(walk.rows)


def most(field: str) -> Callable[[Walked], float]:
    return lambda walk: max(float(getattr(row, field)) for row in (*walk.rows, walk.again))


@dataclass(frozen=True)
class Measure:
    """One figure by which tools are compared; less is better. `noise`: the field of Noise, empty of sizes."""

    name: str
    value: Callable[[Walked], float]
    show: Callable[[float], str]
    noise: str


def mb(size: float) -> str:
    """Bytes in MB, three figures of them."""
    decimals = 0 if size >= 100e6 else 1 if size >= 10e6 else 2
    return f"{size / 1e6:,.{decimals}f}"


def _whole_mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


MEASURES = (
    Measure("keeps less", kept, lambda v: f"{mb(v)} MB", ""),
    Measure("faster to save", mean("save"), lambda v: f"{v:.2f} s", "save"),
    Measure("faster to restore", mean("restore"), lambda v: f"{v:.2f} s", "restore"),
    Measure("faster to save nothing new", lambda walk: walk.again.save, lambda v: f"{v:.2f} s", "save"),
    Measure("less memory to save", most("save_peak"), _whole_mb, ""),
    Measure("less memory to restore", most("restore_peak"), _whole_mb, ""),
)


def tools_of(results: Results, history: History) -> list[Of]:
    """Those that walked the history, what keeps least of it first."""
    found = [
        Of(key, results.tools[key]["title"], [Walked.of(key, [walk.rows], []) for walk in walks])
        for key, walks in sorted(history.walks.items(), key=lambda item: list(results.tools).index(item[0]))
    ]
    # By what reads alike, and then as the tools stand in the results: a few bytes are no order.
    return sorted(found, key=lambda one: float(mb(one.kept).replace(",", "")))


def others_of(tools: Sequence[Of]) -> list[Of]:
    """Those that are not ours."""
    return [one for one in tools if one.key not in (OURS, ALONE, GONE)]


def ours_of(tools: Sequence[Of]) -> Of | None:
    return next((one for one in tools if one.key == OURS), None)


def floors(history: History) -> list[float]:
    """Seconds of `cp -r` and `sync` of each version and of `again`, the median of all tools' walks."""
    walks = [walk.rows for walks in history.walks.values() for walk in walks]
    return [median(row.copy for row in rows) for rows in zip(*walks, strict=True)]


def slowed(history: History) -> dict[str, float]:
    """Tools whose walks had the machine at its slower: the time of their copies over that of `floors`."""
    whole = sum(floors(history))
    found = {
        key: median(sum(row.copy for row in walk.rows) for walk in walks) / whole
        for key, walks in history.walks.items()
    }
    return {key: times for key, times in found.items() if times > _SLOWED}


# --- when two figures differ ---------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """How much longer than its fastest the slowest time of one piece of work was, as a share of it."""

    save: float
    restore: float
    known: bool


def noise_of(history: History) -> Noise:
    """Of `cp -r`, whose work on folders of one size is the same: how far its slowest was from its fastest.

    Large folders alone (more than half the largest): of small ones the clock tells little.
    """
    if COPIES not in history.walks:
        return Noise(_TIMES, _TIMES, known=False)
    rows = [row for walk in history.walks[COPIES] for row in walk.rows]
    saves, restores = [], []
    for group in _of_one_size([row for row in rows if row.bytes * 2 > max(r.bytes for r in rows)]):
        saves.append(_apart([time for row in group for time in (row.save, row.copy)]))
        restores.append(_apart([row.restore for row in group]))
    return Noise(max(saves), max(restores), known=True)


def _of_one_size(rows: Sequence[Row]) -> list[list[Row]]:
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: row.bytes):
        if groups and row.bytes <= groups[-1][0].bytes * 1.02:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _apart(times: Sequence[float]) -> float:
    return max(times) / min(times) - 1


def less(one: Figure, two: Figure, measure: Measure, noise: Noise) -> bool:
    """Whether the first is less by more than chance: all of its walks' under all of the other's, where there
    are several; of one walk each, by more than the noise."""
    if one.several and two.several:
        return one.high < two.low
    share = getattr(noise, measure.noise) if measure.noise else _SIZES
    return one.median * (1 + share) < two.median
