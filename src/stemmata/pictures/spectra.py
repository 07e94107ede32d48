"""Spectra: what directions a LoRA's delta-W has, module by module. Owns which are drawn as one kind."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stemmata.pictures import colours, words
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.matrix import Entry
from stemmata.pictures.picture import Picture, Table
from stemmata.pictures.places import in_order, places, short

FLOOR = 1e-6
"""Of the greatest value: what is below is not drawn, rounding made it."""
_EACH = 240
"""Thin lines at most, one a module."""


@dataclass(frozen=True, slots=True)
class Values:
    """Of one module."""

    module: str
    values: tuple[float, ...]
    """Singular values, descending."""
    rank: int
    effective: float
    side: int = 0
    """0 for the first version, 1 for the second."""


@dataclass(frozen=True, slots=True)
class Group:
    """The modules of one kind over all layers, of one version."""

    kind: str
    side: int
    colour: int
    members: tuple[Values, ...]

    @property
    def median(self) -> tuple[float, ...]:
        """Of each direction, over the modules that have it."""
        longest = max(len(m.values) for m in self.members)
        return tuple(
            statistics.median(m.values[k] for m in self.members if k < len(m.values)) for k in range(longest)
        )

    @property
    def effective(self) -> float:
        return statistics.fmean(m.effective for m in self.members)


@dataclass(frozen=True, repr=False)
class Spectra(Picture):
    """Singular values of delta-W against their number, and the effective rank of each module."""

    about: str
    sides: tuple[str, ...]
    """Names of the versions: one, or two that are compared."""
    modules: tuple[Values, ...]
    remarks: tuple[str, ...] = ()

    kind = "spectra"
    heading = "Spectrum of delta-W"

    @classmethod
    def make(
        cls, about: str, sides: Sequence[str], modules: Iterable[Values], remarks: Sequence[str] = ()
    ) -> Spectra:
        return cls(about, tuple(sides), tuple(modules), tuple(remarks))

    @property
    def is_empty(self) -> bool:
        return not any(m.values and m.values[0] > 0 for m in self.modules)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """By kind, in the order of a layer; both sides of a kind have its colour."""
        found = places({m.module for m in self.modules})
        kinds = in_order({found[m.module].module for m in self.modules})
        labels = short(kinds)
        made = []
        for colour, kind in enumerate(kinds):
            for side in range(len(self.sides)):
                members = tuple(
                    m for m in self.modules if m.side == side and found[m.module].module == kind and m.values
                )
                if members:
                    tone = colour if colour < colours.RUNS else -1
                    made.append(Group(labels[kind], side, tone, members))
        return tuple(made)

    @cached_property
    def range(self) -> tuple[float, float]:
        """Least and greatest value that are drawn."""
        every = [v for m in self.modules for v in m.values if v > 0]
        high = max(every)
        return max(min(every), high * FLOOR), high

    @property
    def thin(self) -> tuple[Values, ...]:
        """Modules that get a line of their own; none where there are too many to see one."""
        newest = self._told(len(self.sides) - 1)
        return tuple(newest[:: max(1, math.ceil(len(newest) / _EACH))])

    @cached_property
    def ranks(self) -> HeatMap:
        """Effective ranks of the last version, layer by module."""
        last = self._told(len(self.sides) - 1)
        entries = [Entry(m.module, "moved", m.effective) for m in last]
        return HeatMap.make(self.sides[-1], entries, kind="mean", of="effective rank", unit="effective rank")

    def _told(self, side: int) -> list[Values]:
        """Modules of a side that have values: none where a training diverged."""
        return [m for m in self.modules if m.side == side and m.values]

    # --- words ----------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        return f"Spectrum of delta-W: {self.about}"

    @cached_property
    def finding(self) -> str:
        if self.is_empty:
            return "Delta-W is zero." if any(m.values for m in self.modules) else "Nothing can be told."
        last, before = self._told(len(self.sides) - 1), self._told(0)
        if not last:
            middle = statistics.median(m.effective for m in before)
            told = f"Of {self.sides[-1]} nothing can be told; before it"
            return f"{told} the median module had an effective rank of {middle:.1f}."
        median = statistics.median(m.effective for m in last)
        ranks = {m.rank for m in last}
        of = f"r={ranks.pop()}" if len(ranks) == 1 else f"r={min(ranks)} to {max(ranks)}"
        told = f"The median module has an effective rank of {median:.1f}, of {of}"
        if len(last) > 1:
            low, high = min(last, key=lambda m: m.effective), max(last, key=lambda m: m.effective)
            told += f"; from {low.effective:.1f} ({low.module}) to {high.effective:.1f} ({high.module})"
        if len(self.sides) == 2 and before:
            told += f"; before it was {statistics.median(m.effective for m in before):.1f}"
        return told + "."

    @property
    def notes(self) -> Sequence[str]:
        return self.remarks

    # --- facts ----------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "version": self.sides[m.side],
                "module": m.module,
                "r": m.rank,
                "effective_rank": m.effective,
                "norm": math.hypot(*m.values),
                "singular_values": [float(f"{v:.6g}") for v in m.values],
            }
            for m in self.modules
        ]

    def tables(self) -> list[Table]:
        rows, tones = [], {}
        for place, group in enumerate(self.groups):
            name = f"{group.kind} ({'ab'[group.side]})" if len(self.sides) > 1 else group.kind
            greatest = statistics.median(m.values[0] for m in group.members)
            rows.append((name, f"{group.effective:.1f}", words.number(greatest)))
            tones[place, 0] = f"run{group.colour}" if group.colour >= 0 else "faint"
        columns = ("module", "effective rank", "greatest")
        return [Table("By kind", columns, tuple(rows), frozenset({1, 2}), colours=tones)]

    def text(self, width: int = 100, *, colours: int = 0) -> str:
        from stemmata.pictures.typed import spectra

        return spectra.lines(self, width, colours)
