"""A matrix of a network: a row for each layer, a column for each module, and what stands in no layer beside.

Owns where each tensor goes and how the parts of a cell make one value; knows no file, version or renderer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stemmata.pictures.places import Place, comes_in, in_order, places, short, titles

State = Literal["moved", "still", "added", "removed", "strange"]
Kind = Literal["share", "mean"]
WHOLE = "whole layer"
MOST_COLUMNS = 28
MOST_BESIDE = 16
"""Things in no layer that get rows of their own: those that moved most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one tensor, or of one module."""

    name: str
    state: State = "moved"
    """moved: has a value. still: exactly as before. added, removed: on one side alone. strange: on both, but
    not comparable."""
    amount: float = 0.0
    """Of a share the L2 norm of what changed; else the value itself."""
    against: float = 0.0
    """Of a share the L2 norm before."""
    elements: int = 0
    unchanged: int = 0
    """Elements that are as before."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One module of one layer, or the whole layer: the parts of it together."""

    state: State
    value: float | None
    """None unless it moved; infinite where all was zero before."""
    amount: float
    against: float
    elements: int
    unchanged: int
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def infinite(self) -> bool:
        return self.value is not None and math.isinf(self.value)


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    stack: str
    layer: int | None

    @property
    def beside(self) -> bool:
        """It stands in no layer, and has a cell in the column of whole layers alone."""
        return self.layer is None


@dataclass(frozen=True, slots=True)
class Column:
    label: str
    module: str
    """Empty for the column of whole layers."""

    @property
    def whole(self) -> bool:
        return not self.module


@dataclass(frozen=True)
class Matrix:
    """Rows as numbers flow through the network, the entrance first. Cells that are not there are no keys."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[int, int], Cell]
    left_out: tuple[str, ...] = ()
    """Things in no layer for which there was no room."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Places of the rows that are layers."""
        return tuple(at for at, row in enumerate(self.rows) if not row.beside)

    def whole(self, row: int) -> Cell | None:
        return self.cells.get((row, len(self.columns) - 1))

    def inner(self) -> Iterable[tuple[int, int, Cell]]:
        """Cells of modules, and of what is in no layer; no cell of a whole layer."""
        for (row, column), cell in self.cells.items():
            if not self.columns[column].whole or self.rows[row].beside:
                yield row, column, cell


def matrix(entries: Iterable[Entry], kind: Kind = "share") -> Matrix:
    """Every entry in its place."""
    given = list(entries)
    found = places(entry.name for entry in given)
    inside: dict[tuple[str, int], dict[str, list[Entry]]] = {}
    beside: dict[str, list[Entry]] = {}
    for entry in given:
        place = found[entry.name]
        if place.layer is None:
            beside.setdefault(place.module, []).append(entry)
        else:
            inside.setdefault((place.stack, place.layer), {}).setdefault(place.module, []).append(entry)
    if not inside:
        return _list(beside, kind)
    modules = _modules(inside, kind)
    columns = (*(Column(modules[m], m) for m in modules), Column(WHOLE, ""))
    first, last, left_out = _around(beside, kind)
    rows: list[Row] = []
    cells: dict[tuple[int, int], Cell] = {}
    places_of = {column.module: at for at, column in enumerate(columns)}
    whole = len(columns) - 1

    def add_beside(module: str, label: str) -> None:
        cells[len(rows), whole] = together(beside[module], kind)
        rows.append(Row(label, module, None))

    for module, label in first.items():
        add_beside(module, label)
    for stack, title, layers in _stacks(inside):
        for layer in layers:
            parts = inside[stack, layer]
            for module, group in parts.items():
                if module in places_of:
                    cells[len(rows), places_of[module]] = together(group, kind)
            cells[len(rows), whole] = together([e for group in parts.values() for e in group], kind)
            rows.append(Row(f"{title} {layer}".strip(), stack, layer))
    for module, label in last.items():
        add_beside(module, label)
    return Matrix(tuple(rows), columns, cells, left_out)


def _list(beside: Mapping[str, list[Entry]], kind: Kind) -> Matrix:
    """Of a network without layers."""
    made = {module: together(group, kind) for module, group in beside.items()}
    shown = sorted(made, key=lambda m: -_weight(made[m]))[: 4 * MOST_BESIDE]
    kept = [module for module in beside if module in set(shown)]
    labels = short(kept, telling=True)
    rows = tuple(Row(labels[module], module, None) for module in kept)
    cells = {(at, 0): made[module] for at, module in enumerate(kept)}
    left_out = tuple(module for module in beside if module not in labels)
    return Matrix(rows, (Column("whole module", ""),), cells, left_out)


def _modules(inside: Mapping[tuple[str, int], Mapping[str, list[Entry]]], kind: Kind) -> dict[str, str]:
    """Modules with their labels; of very many those that moved most."""
    gathered: dict[str, list[Entry]] = {}
    for parts in inside.values():
        for module, group in parts.items():
            gathered.setdefault(module, []).extend(group)
    kept = list(gathered)
    if len(kept) > MOST_COLUMNS:
        kept = sorted(kept, key=lambda m: -_weight(together(gathered[m], kind)))[:MOST_COLUMNS]
    ordered = in_order(kept)
    labels = short(ordered)
    return {module: labels[module] for module in ordered}


def _around(
    beside: Mapping[str, list[Entry]], kind: Kind
) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    made = {module: together(group, kind) for module, group in beside.items()}
    shown = set(sorted(made, key=lambda m: -_weight(made[m]))[:MOST_BESIDE])
    kept = [module for module in beside if module in shown]
    labels = short(kept, telling=True)
    first = {module: labels[module] for module in kept if comes_in(module)}
    last = {module: labels[module] for module in kept if not comes_in(module)}
    return first, last, tuple(module for module in beside if module not in shown)


def _stacks(inside: Iterable[tuple[str, int]]) -> list[tuple[str, str, list[int]]]:
    layers: dict[str, list[int]] = {}
    for stack, layer in inside:
        layers.setdefault(stack, []).append(layer)
    # An encoder comes before its decoder, whatever the order of the file.
    ordered = sorted(layers, key=lambda s: ("decoder" in s, list(layers).index(s)))
    names = titles({stack: len(layers[stack]) for stack in ordered})
    return [(stack, names[stack], sorted(layers[stack])) for stack in ordered]


def together(entries: Sequence[Entry], kind: Kind = "share") -> Cell:
    """Of several as one. Shares add up as norms do; other values are averaged."""
    moved = [e for e in entries if e.state == "moved"]
    known = [e for e in entries if e.state in ("moved", "still")]
    amount = math.hypot(*(e.amount for e in moved))
    against = math.hypot(*(e.against for e in known))
    value: float | None = None
    state: State
    if moved:
        state = "moved"
        if kind == "mean":
            value = sum(e.amount for e in moved) / len(moved)
        else:
            value = amount / against if against else math.inf
    else:
        others = Counter(e.state for e in entries if e.state != "still")
        state = others.most_common(1)[0][0] if others else "still"
    return Cell(
        state=state,
        value=value,
        amount=amount,
        against=against,
        elements=sum(e.elements for e in entries),
        unchanged=sum(e.elements if e.state == "still" else e.unchanged for e in entries),
        names=tuple(e.name for e in entries),
        notes=tuple(dict.fromkeys(e.note for e in entries if e.note)),
    )


def _weight(cell: Cell) -> float:
    if cell.value is None:
        return -1.0 if cell.state == "still" else 0.0
    return cell.value if math.isfinite(cell.value) else 1e300


def place_of(name: str) -> Place:
    """Of a name alone."""
    return places([name])[name]
