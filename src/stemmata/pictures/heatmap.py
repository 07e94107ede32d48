"""HeatMap: how far each module of each layer moved. Owns its scale, its words and its facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from stemmata.pictures import words
from stemmata.pictures.matrix import Cell, Entry, Kind, Matrix, matrix
from stemmata.pictures.picture import Picture, Table

DECADES = 4
"""How far below the greatest value colours still differ."""
STATES = {
    "still": "not moved",
    "strange": "not comparable",
    "added": "only in b",
    "removed": "only in a",
}
_MOST = 12


@dataclass(frozen=True, slots=True)
class Scale:
    """Which part of the ramp a value has."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """0 to 1, clamped."""
        if math.isinf(value):
            return 1.0
        if self.log:
            if value <= self.low:
                return 0.0
            # Of each by itself: their ratio may be beyond any float.
            low, high, here = map(math.log10, (self.low, self.high, value))
            return min(1.0, (here - low) / (high - low)) if high > low else 1.0
        span = self.high - self.low
        return min(1.0, max(0.0, (value - self.low) / span)) if span else 1.0

    def ticks(self, most: int = 6) -> list[float]:
        find = words.log_ticks if self.log else words.ticks
        return find(self.low, self.high, most)


@dataclass(frozen=True, repr=False)
class HeatMap(Picture):
    """Rows are layers, columns modules; a value is the L2 norm of the change against the norm before.

    With `kind` "mean" it is any other number of a module, and the mean of those a cell stands for.
    """

    about: str
    """What it is of: `sentiment@r8/epoch-1 → sentiment@r8/epoch-2`."""
    matrix: Matrix
    value_kind: Kind = "share"
    of: str = "weights"
    """What moved: weights, delta-W."""
    unit: str = "change"
    """What a value is; of a share it is said that it is of the norm before."""
    remarks: tuple[str, ...] = ()

    kind = "heatmap"
    heading = "Heat map"

    @classmethod
    def make(cls, about: str, entries: Iterable[Entry], *, kind: Kind = "share", **more: Any) -> HeatMap:
        return cls(about, matrix(entries, kind), kind, **more)

    # --- values ---------------------------------------------------------------------------------

    @cached_property
    def scale(self) -> Scale:
        """From the least to the greatest value, of a share over four powers of ten at most."""
        found = [c.value for c in self.matrix.cells.values() if c.value is not None]
        finite = [v for v in found if math.isfinite(v) and (v > 0 or self.value_kind == "mean")]
        if not finite:
            return Scale(0.01, 1.0, True) if self.value_kind == "share" else Scale(0.0, 1.0, False)
        low, high = min(finite), max(finite)
        if self.value_kind == "mean":
            return Scale(low, high, False)
        low = max(low, high / 10.0**DECADES)
        if high / low < 2:  # a little of a difference shall not look like the world's
            low, high = low / math.sqrt(2), high * math.sqrt(2)
        return Scale(low, high, True)

    def shown(self, value: float) -> str:
        """A value in words."""
        if self.value_kind == "share":
            return words.share(value)
        return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"

    @property
    def unit_of_numbers(self) -> str:
        """What the bare numbers in cells are."""
        return f"{self.unit}, in % of the norm before" if self.value_kind == "share" else self.unit

    @cached_property
    def states(self) -> tuple[str, ...]:
        """Other states than moved that occur."""
        there = {cell.state for cell in self.matrix.cells.values()}
        return tuple(state for state in STATES if state in there)

    @property
    def is_empty(self) -> bool:
        return not self.matrix.cells

    @cached_property
    def total(self) -> float | None:
        """Of all that moved, as one; None where nothing did or it is no share."""
        inner = [cell for _, _, cell in self.matrix.inner()]
        amount = math.hypot(*(c.amount for c in inner))
        against = math.hypot(*(c.against for c in inner))
        return None if self.value_kind != "share" or not amount else amount / against if against else math.inf

    def most(self) -> list[tuple[str, Cell]]:
        """Cells that have a value with their names, the greatest first."""
        found = [
            (self.name(row, column), cell)
            for row, column, cell in self.matrix.inner()
            if cell.value is not None
        ]
        return sorted(found, key=lambda each: -(each[1].value or 0.0))

    def name(self, row: int, column: int) -> str:
        """Of a cell, in words: `layer 3 q_proj`."""
        line, module = self.matrix.rows[row], self.matrix.columns[column]
        if line.beside:
            return line.label
        layer = f"layer {line.label}" if line.label.isdecimal() else line.label
        return layer if module.whole else f"{layer} {module.label}"

    # --- words ----------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        return f"{self.of[:1].upper()}{self.of[1:]}: {self.about}"

    @cached_property
    def finding(self) -> str:
        moved = self.most()
        if not moved:
            if "still" not in self.states:
                return "Nothing can be compared."
            return "Nothing that can be compared moved." if "strange" in self.states else "Nothing moved."
        if self.value_kind == "mean":
            low, high = moved[-1], moved[0]
            if self.shown(low[1].value or 0) == self.shown(high[1].value or 0):
                return f"{self.of} {self.shown(high[1].value or 0.0)} everywhere."
            return (
                f"{self.of} from {self.shown(low[1].value or 0.0)} ({low[0]}) "
                f"to {self.shown(high[1].value or 0.0)} ({high[0]})."
            )
        where, cell = moved[0]
        far = f"moved {self.shown(self.total)} in all" if self.total is not None else "moved"
        most = f"most in {where} ({self.shown(cell.value or 0.0)})" if len(moved) > 1 else f"in {where}"
        return f"{self._who_moved()} {far}, {most}."

    def _who_moved(self) -> str:
        """Which layers, where others stayed as they were."""
        of = self.of[:1].upper() + self.of[1:]
        rows = self.matrix.rows
        if len({rows[at].stack for at in self.matrix.layers}) != 1:
            return of
        known = {at: self.matrix.whole(at) for at in self.matrix.layers}
        moved = [rows[at].layer or 0 for at, cell in known.items() if cell and cell.state == "moved"]
        still = [rows[at].layer or 0 for at, cell in known.items() if cell and cell.state == "still"]
        if not moved or not still:
            return of
        word = "layer" if len(moved) == 1 else "layers"
        return f"{of} of {word} {words.ranges(moved)} alone (of {len(moved) + len(still)})"

    @property
    def notes(self) -> Sequence[str]:
        found = list(self.remarks)
        if self.matrix.left_out:
            many = words.count(len(self.matrix.left_out), "module")
            found.append(f"{many} outside the layers that moved least: not shown here, in the table of all.")
        merged = [c.label for c in self.matrix.columns if "*" in c.module]
        if merged:
            found.append(f"{words.listed(merged)}: all of a layer's together.")
        return found

    # --- facts ----------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for (row, column), cell in sorted(self.matrix.cells.items()):
            line, module = self.matrix.rows[row], self.matrix.columns[column]
            found.append(
                {
                    "stack": "" if line.beside else line.stack,
                    "layer": line.layer,
                    "module": line.stack if line.beside else module.module or None,
                    "state": cell.state,
                    "value": cell.value,
                    "elements": cell.elements,
                    "unchanged": cell.unchanged,
                    "tensors": len(cell.names),
                }
            )
        return found

    def tables(self) -> list[Table]:
        moved = self.most()
        if not moved:
            return []
        share = self.value_kind == "share"
        rows: list[tuple[str, ...]] = []
        for name, cell in moved[:_MOST]:
            kept = f"{cell.unchanged / cell.elements:.0%}" if share and cell.elements else ""
            rows.append((name, self.shown(cell.value or 0.0), kept))
        columns: tuple[str, ...] = ("module", "change" if share else self.of, "as before")
        if not any(row[2] not in ("", "0%") for row in rows):
            columns, rows = columns[:2], [row[:2] for row in rows]
        left = len(moved) - len(rows)
        more = f"and {words.count(left, 'module')} that moved less" if left > 0 and share else ""
        title = "Moved most" if share else "Greatest"
        return [Table(title, columns, tuple(rows), frozenset({1, 2}), more)]

    def text(self, width: int = 100, *, colours: int = 0) -> str:
        from stemmata.pictures.typed import heatmap

        return heatmap.lines(self, width, colours)

    def with_remarks(self, *remarks: str) -> HeatMap:
        return replace(self, remarks=(*self.remarks, *remarks))
