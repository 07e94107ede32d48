"""A difference as pictures, a snippet for notebooks and a frame. Owns which of its numbers are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from stemmata.compare.adapterfiles import factor
from stemmata.compare.tabled import changes, metrics, notes_of
from stemmata.pictures import snippets
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.matrix import Entry
from stemmata.pictures.picture import frame
from stemmata.pictures.spectra import Spectra, Values

if TYPE_CHECKING:
    from stemmata.compare.deltas import DeltaDiff, DeltaTable
    from stemmata.compare.diff import Diff
    from stemmata.compare.statistics import Movement
    from stemmata.compare.tensors import Tensor

# --- the heat map ---------------------------------------------------------------------------------


def heatmap(diff: Diff) -> HeatMap:
    """How far each module of each layer moved. Of two LoRAs delta-W, for their factors say little."""
    about = f"{diff.label_a} → {diff.label_b}"
    deltas = diff.lora.deltas if diff.lora.a is not None and diff.lora.b is not None else None
    if deltas is not None and deltas.common:
        beside = [entry for entry in _tensors(diff) if factor(entry.name) is None]
        entries = [*_modules(deltas), *beside]
        notes = list(dict.fromkeys((*deltas.notes, *deltas.a.notes, *deltas.b.notes)))
        return HeatMap.make(about, entries, of="delta-W", remarks=tuple(notes))
    remarks = []
    if diff.weights is None and diff.tensors.changed:
        remarks.append("How far they moved was not asked for.")
    return HeatMap.make(about, _tensors(diff), remarks=tuple(remarks))


def _modules(deltas: DeltaDiff) -> Iterator[Entry]:
    for move in deltas.common:
        size = prod(move.b.shape or ())
        if move.relation is None or move.relation.difference is None:
            yield Entry(move.module, "strange", elements=size, note=move.problem or "not comparable")
        elif move.identical or move.relation.equal:
            yield Entry(move.module, "still", 0.0, move.a.norm or 0.0, size, size)
        else:
            yield Entry(move.module, "moved", move.relation.difference, move.a.norm or 0.0, size)
    yield from (Entry(m.module, "added", elements=prod(m.shape or ())) for m in deltas.added)
    yield from (Entry(m.module, "removed", elements=prod(m.shape or ())) for m in deltas.dropped)


def _tensors(diff: Diff, *, whole: bool = True) -> Iterator[Entry]:
    """`whole`: the norms of tensors that did not move are asked for too, which reads a table."""
    weights = diff.weights
    norms = weights.norms() if weights is not None and whole else {}
    for change in (*diff.tensors.changed, *diff.tensors.refitted):
        size = prod(change.b.shape)
        moved = weights.moved.get(change.name) if weights is not None else None
        if moved is None:
            note = f"{shape(change.a)} → {shape(change.b)}" if change.reshaped or change.retyped else ""
            yield Entry(change.name, "strange", elements=size, note=note)
        else:
            yield way_of(change.name, moved, size)
    for tensor in diff.tensors.same:
        size = prod(tensor.shape)
        yield Entry(tensor.label, "still", 0.0, norms.get((tensor.path, tensor.name), 0.0), size, size)
    yield from (Entry(t.label, "added", elements=prod(t.shape)) for t in diff.tensors.added)
    yield from (Entry(t.label, "removed", elements=prod(t.shape)) for t in diff.tensors.removed)


def way_of(name: str, moved: Movement, size: int) -> Entry:
    """A tensor of `size` elements by how it moved. Of what became NaN or infinite no number tells how far."""
    if moved.change > 0:
        return Entry(name, "moved", moved.change, moved.before, size, moved.unchanged)
    if moved.change == 0 and moved.unchanged >= size:
        return Entry(name, "still", 0.0, moved.before, size, size)
    return Entry(name, "strange", elements=size, note="what differs is not finite")


def shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {'×'.join(map(str, tensor.shape)) or 'scalar'}"


# --- spectra --------------------------------------------------------------------------------------


def spectra(diff: Diff) -> Spectra | None:
    """Of both sides' delta-Ws; None unless both have a LoRA that can be read."""
    deltas = diff.lora.deltas
    if deltas is None:
        return None
    both = [*values_of(deltas.a), *values_of(deltas.b, 1)]
    notes = dict.fromkeys((*deltas.notes, *notes_of(deltas.a), *notes_of(deltas.b)))
    return Spectra.make(f"{diff.label_a} → {diff.label_b}", [diff.label_a, diff.label_b], both, tuple(notes))


def values_of(table: DeltaTable, side: int = 0) -> Iterator[Values]:
    """The modules of which something can be told."""
    for module in table.told:
        if module.spectrum is not None:
            found = module.spectrum
            yield Values(module.module, found.singular_values, found.rank, found.effective_rank, side)


# --- a notebook -----------------------------------------------------------------------------------


def snippet(diff: Diff) -> str:
    """Metrics and settings that differ, and where the weights moved as far as is known without reading."""
    found = [replace(metrics(diff, 8), title="Metrics"), *changes("Config", diff.config, 8)[:1]]
    parts = [snippets.line(f"{diff.label_a} → {diff.label_b}", f"{diff.a.short} → {diff.b.short}")]
    if diff.same_bytes:
        parts.append("<div>Both hold the very same files.</div>")
    parts.append(snippets.tables(found))
    if diff.weights is not None and diff.lora.a is None and diff.lora.b is None:
        drawn = HeatMap.make("", _tensors(diff, whole=False))
        if not drawn.is_empty:
            parts += [snippets.line("Weights", drawn.finding), snippets.cells(drawn)]
    return snippets.block(*parts)


# --- a table --------------------------------------------------------------------------------------


def to_pandas(diff: Diff) -> Any:
    """A row for each tensor of either side. Raises MissingExtra."""
    rows: list[dict[str, Any]] = []
    moved = diff.weights.moved if diff.weights is not None else {}
    for change in (*diff.tensors.changed, *diff.tensors.refitted):
        found = moved.get(change.name)
        kind = "refitted" if change.reshaped or change.retyped else "changed"
        rows.append(_row(change.name, kind, change.b) | (found.to_dict() if found is not None else {}))
    for kind, tensors in (
        ("same", diff.tensors.same),
        ("added", diff.tensors.added),
        ("removed", diff.tensors.removed),
    ):
        rows += [_row(tensor.label, kind, tensor) for tensor in tensors]
    return frame(rows, "Diff.to_pandas()")


def _row(name: str, state: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "tensor": name,
        "state": state,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "elements": prod(tensor.shape),
        "bytes": tensor.length,
        "file": tensor.path,
    }
