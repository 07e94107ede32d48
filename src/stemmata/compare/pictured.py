"""A difference as pictures, as a page and as a table. Owns which of its numbers are shown, and where."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from stemmata.compare.adapterfiles import factor
from stemmata.compare.records import Changes, MetricChange
from stemmata.metricnames import by_interest, is_aside
from stemmata.pictures import snippets, words
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.matrix import Entry
from stemmata.pictures.page import Fact, Page, Section
from stemmata.pictures.picture import Table, frame
from stemmata.pictures.spectra import Spectra, Values

if TYPE_CHECKING:
    from stemmata.compare.deltas import DeltaDiff, DeltaTable
    from stemmata.compare.diff import Diff
    from stemmata.compare.tensors import Tensor

_FEW = 16
_ROWS = 60
"""Rows of a table of settings or files."""


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
        if moved is None or math.isnan(moved.change):
            note = f"{shape(change.a)} → {shape(change.b)}" if change.reshaped or change.retyped else ""
            yield Entry(change.name, "strange", elements=size, note=note)
        elif moved.change:
            yield Entry(change.name, "moved", moved.change, moved.before, size, moved.unchanged)
        else:
            yield Entry(change.name, "still", 0.0, moved.before, size, size)
    for tensor in diff.tensors.same:
        size = prod(tensor.shape)
        yield Entry(tensor.name, "still", 0.0, norms.get((tensor.path, tensor.name), 0.0), size, size)
    yield from (Entry(t.name, "added", elements=prod(t.shape)) for t in diff.tensors.added)
    yield from (Entry(t.name, "removed", elements=prod(t.shape)) for t in diff.tensors.removed)


def shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {'×'.join(map(str, tensor.shape)) or 'scalar'}"


# --- spectra --------------------------------------------------------------------------------------


def spectra(diff: Diff) -> Spectra | None:
    """Of both sides' delta-Ws; None unless both have a LoRA that can be read."""
    deltas = diff.lora.deltas
    if deltas is None:
        return None
    both = [*values_of(deltas.a), *values_of(deltas.b, 1)]
    notes = dict.fromkeys((*deltas.notes, *deltas.a.notes, *deltas.b.notes))
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
        rows += [_row(tensor.name, kind, tensor) for tensor in tensors]
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


# --- a page ---------------------------------------------------------------------------------------


def page(diff: Diff) -> Page:
    """Metrics first, then where the weights moved, then what was set otherwise."""
    weights = heatmap(diff)
    sections = [Section("Metrics", _told(diff), tables=tuple(t for t in [metrics(diff)] if t.rows))]
    if not weights.is_empty:
        of = "delta-W moved" if weights.of == "delta-W" else "the weights moved"
        sections.append(Section.of(weights, f"Where {of}"))
    if (directions := spectra(diff)) is not None and not directions.is_empty:
        sections.append(Section.of(directions))
    settings = [
        *changes("Config", diff.config),
        *changes("Data", diff.data),
        *changes("Run", diff.about),
    ]
    sections.append(Section("Settings", tables=tuple(t for t in settings if t.rows)))
    sections.append(Section("Files", tables=tuple(t for t in [_files(diff)] if t.rows)))
    return Page(
        title=f"{diff.label_a} → {diff.label_b}",
        kicker="Comparison of two versions",
        lead=f"{diff.a.short} → {diff.b.short}",
        facts=tuple(_facts(diff, weights)),
        sections=tuple(s for s in sections if s.tables or s.picture is not None),
    )


def _facts(diff: Diff, weights: HeatMap) -> Iterator[Fact]:
    different = {m.key: m for m in diff.metrics if not m.same and not is_aside(m.key)}
    for key in by_interest(different)[:3]:
        metric = different[key]
        value = words.number(metric.b) if metric.b is not None else "–"
        far = _far(metric)
        yield Fact(value, f"{key}{', ' + far if far else ''}", _mark(metric))
    if weights.total is not None:
        yield Fact(words.share(weights.total), f"of the norm of {weights.of} changed")
    tensors = diff.tensors
    touched = len(tensors.changed) + len(tensors.refitted) + len(tensors.added) + len(tensors.removed)
    whole = touched + len(tensors.same)
    if whole:
        yield Fact(f"{touched:,} of {whole:,}", "tensors differ")
    set_otherwise = len(diff.config.changed) + len(diff.config.added) + len(diff.config.removed)
    if set_otherwise:
        yield Fact(f"{set_otherwise:,}", "settings differ" if set_otherwise > 1 else "setting differs")


def _mark(metric: MetricChange) -> str:
    told = metric.better
    return "" if told is None else "good" if told else "bad"


def _far(metric: MetricChange) -> str:
    if not metric.difference:
        return ""
    arrow = "▼" if metric.difference < 0 else "▲"
    told = metric.better
    how = "" if told is None else " better" if told else " worse"
    by = words.share(abs(metric.difference / metric.a)) if metric.a else words.number(abs(metric.difference))
    return f"{arrow} {by}{how}"


def _told(diff: Diff) -> str:
    known = [m for m in diff.metrics if m.better is not None]
    if not known:
        return ""
    up = sum(m.better is True for m in known)
    if up in (0, len(known)):
        subject = f"All {len(known)} are" if len(known) > 1 else f"{words.printable(known[0].key)} is"
        return f"{subject} {'better' if up else 'worse'}."
    return f"{up} better, {len(known) - up} worse."


def metrics(diff: Diff, most: int = _ROWS) -> Table:
    """Those that differ, the most interesting first."""
    different = {m.key: m for m in diff.metrics if not m.same}
    rows, marks = [], {}
    for place, key in enumerate(by_interest(different)[:most]):
        metric = different[key]
        rows.append((key, _value(metric.a), _value(metric.b), _far(metric)))
        if _mark(metric):
            marks[place, 3] = _mark(metric)
    more = _more(len(different) - len(rows), sum(m.same for m in diff.metrics))
    return Table("", ("metric", "a", "b", "change"), tuple(rows), frozenset({1, 2, 3}), more, marks)


def _value(value: float | None) -> str:
    return "–" if value is None else words.number(value)


def changes(title: str, found: Changes, most: int = _ROWS) -> list[Table]:
    """What became of the keys of a mapping; many that one side alone has are folded away."""
    lines = [(c.key, _setting(c.a), _setting(c.b), "") for c in found.changed]
    apart = [(key, _setting(value), "–", "removed") for key, value in found.removed.items()]
    apart += [(key, "–", _setting(value), "added") for key, value in found.added.items()]
    if len(apart) <= _FEW:
        return [_sides(title, "", lines + apart, found.same, most)]
    count = f"{len(apart):,} more"
    return [
        _sides(title, "", lines, found.same, most),
        replace(_sides(f"{title}: {count}, on one side alone", "", apart, 0, 4 * most), folded=True),
    ]


def _sides(title: str, what: str, lines: list[tuple[str, str, str, str]], same: int, most: int) -> Table:
    """Keys with both values; the fourth of a line says that one side alone has it."""
    lines = sorted(lines)
    shown = lines[:most]
    marks = {(k, 1 if line[3] == "removed" else 2): line[3] for k, line in enumerate(shown) if line[3]}
    rows = tuple(line[:3] for line in shown)
    return Table(title, (what, "a", "b"), rows, more=_more(len(lines) - len(rows), same), marks=marks)


def _setting(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return words.clipped(shown, 240)


def _more(left: int, same: int) -> str:
    parts = [f"and {left:,} more"] if left > 0 else []
    return "; ".join([*parts, *([f"{same:,} equal"] if same else [])])


def _files(diff: Diff) -> Table:
    files = diff.files
    lines = [(c.path, words.size(c.a.size), words.size(c.b.size), "") for c in files.changed]
    lines += [(f.path, words.size(f.size), "–", "removed") for f in files.removed]
    lines += [(f.path, "–", words.size(f.size), "added") for f in files.added]
    return replace(_sides("", "file", lines, len(files.same), _ROWS), numeric=frozenset({1, 2}))
