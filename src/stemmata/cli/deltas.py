"""LoRA's delta-W for people: a summary, the modules that moved most, a version's spectra. Owns words only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.styled import Text
from stemmata.cli.tables import Column, table

if TYPE_CHECKING:
    from stemmata.compare.adapters import Relation, Spectrum
    from stemmata.compare.deltas import DeltaDiff, DeltaTable, ModuleDelta, ModuleMove

_Row = tuple[str, Text]
_MOST = 10
"""Modules of a diff that are listed; --json has all."""
_STEPS = "▁▂▃▄▅▆▇█"
_BARS = 16
_NAME = 32
"""Columns that a module keeps where the table is narrow: its end tells modules apart, and is cut off."""
_UNUSED = "directions that together carry less than 1% of it"


# --- a difference ---------------------------------------------------------------------------------


def summary(deltas: DeltaDiff | None) -> list[_Row]:
    """Of all modules together. None: nothing to tell."""
    if deltas is None:
        return []
    rows: list[_Row] = []
    moved = [m for m in deltas.common if m.relation is not None and not m.relation.equal]
    known = [m for m in deltas.common if m.relation is not None and m.relation.difference is not None]
    if known and not moved and not (deltas.added or deltas.dropped):
        same = Text(f"equal in {_all(len(known), len(deltas.common))}", "green")
        if not all(m.identical for m in known):
            types = ", ".join(sorted({m.b.dtype for m in known}))
            same.append(f", within the rounding of {types}: other factors, the same product", "dim")
        rows.append(("delta-W", same))
    elif deltas.common or deltas.added or deltas.dropped:
        rows += _change(deltas)
    rows += _ranks(deltas)
    rows += _subspaces([m.relation for m in moved if m.relation is not None])
    rows += [("only in a", _folded(deltas.dropped, "- ", "red"))] if deltas.dropped else []
    rows += [("only in b", _folded(deltas.added, "+ ", "green"))] if deltas.added else []
    rows += _magnitudes(deltas)
    told = [(m.module, m.problem) for m in deltas.common]
    told += [(m.module, m.problem) for m in (*deltas.added, *deltas.dropped)]
    rows += _problems(told)
    notes = dict.fromkeys((*deltas.notes, *deltas.a.notes, *deltas.b.notes))
    rows += [("note", Text(text.plain(note), "dim")) for note in notes]
    return rows + _biases(max(deltas.a.biases, deltas.b.biases))


def _all(count: int, whole: int) -> str:
    return text.count(count, "module") if count == whole else f"{count} of {text.count(whole, 'module')}"


def _change(deltas: DeltaDiff) -> Iterator[_Row]:
    if deltas.a.norm is not None and deltas.b.norm is not None:
        yield "norm of delta-W", _from_to(*text.apart(deltas.a.norm, deltas.b.norm))
    if deltas.difference is not None:
        line = Text(text.number(deltas.difference))
        if deltas.relative is not None:
            line.append(f", {share(deltas.relative)} of a", "yellow")
        if deltas.cosine is not None:
            line.append(f", cosine {cosine(deltas.cosine)}", "dim")
        yield "change", line


def _ranks(deltas: DeltaDiff) -> Iterator[_Row]:
    spectra = [[m.spectrum for m in side.told if m.spectrum is not None] for side in (deltas.a, deltas.b)]
    if not all(spectra):
        return
    shown = [f"{fmean(s.effective_rank for s in side):.1f}" for side in spectra]
    line = _from_to(*shown)
    line.append(f"  of {_of_ranks(spectra)}", "dim")
    yield "effective rank", line
    line = _from_to(*(f"{fmean(s.unused_rank for s in side):.1f}" for side in spectra))
    line.append(f"  {_UNUSED}", "dim")
    yield "unused rank", line


def _of_ranks(sides: Iterable[Iterable[Spectrum]]) -> str:
    """r=16; r=8–16 where modules differ; both sides' where they do."""
    shown = []
    for side in sides:
        ranks = {s.rank for s in side}
        shown.append(f"r={min(ranks)}" + (f"–{max(ranks)}" if len(ranks) > 1 else ""))
    return " → ".join(dict.fromkeys(shown)) + ", mean of the modules"


def _subspaces(relations: Sequence[Relation]) -> Iterator[_Row]:
    for title, overlaps, angles in (
        (
            "outputs shared",
            [r.output_overlap for r in relations],
            [x for r in relations for x in r.output_angles],
        ),
        (
            "inputs shared",
            [r.input_overlap for r in relations],
            [x for r in relations for x in r.input_angles],
        ),
    ):
        known = [x for x in overlaps if x is not None]
        if known:
            line = Text(share(fmean(known)))
            line.append(f"  of the subspace, angles {_angles(angles)}", "dim")
            yield title, line


def _magnitudes(deltas: DeltaDiff) -> Iterator[_Row]:
    sides = [[m.magnitude for m in side.modules if m.magnitude is not None] for side in (deltas.a, deltas.b)]
    if any(sides):
        shown = [math.hypot(*side) if side else None for side in sides]
        yield "norm of DoRA's magnitudes", _from_to(*text.apart(*shown))


def _biases(count: int) -> list[_Row]:
    return [("note", Text(f"{text.count(count, 'bias', 'biases')} left out", "dim"))] if count else []


def _problems(told: Iterable[tuple[str, str]]) -> Iterator[_Row]:
    by_reason: dict[str, list[str]] = {}
    for module, problem in told:
        if problem:
            by_reason.setdefault(problem, []).append(module)
    for problem, modules in list(by_reason.items())[:_MOST]:
        line = Text(f"{text.plain(_names(modules))}: {text.plain(problem)}", "yellow")
        yield "not compared", line
    if len(by_reason) > _MOST:
        yield "not compared", Text(f"and {len(by_reason) - _MOST} more; see --json", "dim")


def _folded(modules: Iterable[ModuleDelta], mark: str, style: str) -> Text:
    return Text(mark + text.plain(_names([m.module for m in modules])), style)


def _names(modules: Sequence[str]) -> str:
    """Modules as a list in which layers are folded."""
    groups: dict[str, list[str]] = {}
    for module in modules:
        groups.setdefault(text.unnumbered(module), []).append(module)
    shown = [text.fold(names) for names in groups.values()]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def moved(deltas: DeltaDiff | None, width: int) -> list[Text]:
    """The modules whose delta-W changed most, as a table; nothing where none did."""
    most = deltas.most_moved() if deltas is not None else []
    if not most:
        return []
    columns = [
        Column("moved most", shrink=_NAME),
        Column("norm", 1, right=True),
        Column("change", right=True),
        Column("of a", right=True),
        Column("cosine", 2, right=True),
        Column("effective rank", 3, right=True),
        Column("output angles", 4, right=True),
        Column("input angles", 5, right=True),
    ]
    shown = most[:_MOST]
    changes = text.numbers([m.difference for m in shown])
    for move, change in zip(shown, changes, strict=True):
        cells = _cells(move, change)
        for column, cell in zip(columns, cells, strict=True):
            column.add(cell)
    lines = [table(columns, width, indent=2)]
    if len(most) > _MOST:
        lines.append(Text(f"  and {len(most) - _MOST} more; list all with --json", "dim"))
    return lines


def _cells(move: ModuleMove, change: str) -> list[Text]:
    relation, a, b = move.relation, move.a.spectrum, move.b.spectrum
    assert relation is not None
    assert a is not None
    assert b is not None
    return [
        Text(text.plain(move.module)),
        _from_to(*text.apart(a.norm, b.norm)),
        Text(change),
        Text("" if relation.relative is None else share(relation.relative), "yellow"),
        Text("" if relation.cosine is None else cosine(relation.cosine)),
        _from_to(f"{a.effective_rank:.1f}", f"{b.effective_rank:.1f}"),
        Text(_angles(relation.output_angles), "dim"),
        Text(_angles(relation.input_angles), "dim"),
    ]


# --- one version ----------------------------------------------------------------------------------


def spectra(found: DeltaTable, width: int) -> list[Text]:
    """Every module of a version: how large its delta-W is, and in how many directions."""
    from stemmata.cli.tables import pairs

    rows: list[_Row] = []
    told = [m.spectrum for m in found.told if m.spectrum is not None]
    if told:
        rows.append(("norm of delta-W", Text("not known" if found.norm is None else text.number(found.norm))))
        line = Text(f"{fmean(s.effective_rank for s in told):.1f}")
        line.append(f"  of {_of_ranks([told])}", "dim")
        rows.append(("effective rank", line))
        line = Text(f"{fmean(s.unused_rank for s in told):.1f}")
        line.append(f"  {_UNUSED}", "dim")
        rows.append(("unused rank", line))
    rows += _problems((m.module, m.problem) for m in found.modules)
    unknown = [(m.module, f"its scale is not known ({m.scale.unknown}): norms of B A") for m in found.told]
    scaled = {m.module for m in found.told if m.scale.value is not None}
    rows += [("note", line) for _, line in _problems(x for x in unknown if x[0] not in scaled)]
    rows += [("note", Text(text.plain(note), "dim")) for note in found.notes] + _biases(found.biases)
    lines = [Text("LoRA", "bold"), pairs(rows, width)]
    return [*lines, Text(), _modules(found.told, width)] if told else lines


def _modules(modules: Sequence[ModuleDelta], width: int) -> Text:
    columns = [
        Column("module", shrink=_NAME),
        Column("r", right=True),
        Column("norm", right=True),
        Column("greatest", 3, right=True),
        Column("effective", right=True),
        Column("stable", 4, right=True),
        Column("99% in", 2, right=True),
        Column("singular values", 1),
        Column("DoRA", 5, right=True),
    ]
    told = [m.spectrum for m in modules if m.spectrum is not None]
    norms = text.numbers([s.norm for s in told])
    greatest = text.numbers([s.spectral_norm for s in told])
    for module, spectrum, norm, first in zip(modules, told, norms, greatest, strict=True):
        cells = [text.plain(module.module), str(spectrum.rank), norm, first]
        cells += [f"{spectrum.effective_rank:.1f}", f"{spectrum.stable_rank:.1f}", str(spectrum.used_rank)]
        cells += [bars(spectrum.singular_values)]
        cells += ["" if module.magnitude is None else text.number(module.magnitude)]
        for column, cell in zip(columns, cells, strict=True):
            column.add(cell, "dim" if column.title in ("greatest", "stable", "DoRA") else "")
    return table(columns, width, indent=2)


def bars(values: Sequence[float]) -> str:
    """A bar for each singular value against the first, for the first sixteen."""
    if not values or not values[0]:
        return ""
    shown = "".join(_STEPS[min(7, int(8 * v / values[0]))] for v in values[:_BARS])
    return shown + ("…" if len(values) > _BARS else "")


# --- words ----------------------------------------------------------------------------------------


def share(value: float) -> str:
    """A ratio: 26.0%, 0.0013%, ×12."""
    if value >= 10:
        return f"×{value:.3g}"
    return f"{100 * value:.1f}%" if value >= 0.001 or not value else f"{100 * value:.2g}%"


def cosine(value: float) -> str:
    """With as many digits as tell it from 1, up to what rounding leaves of it."""
    left = 1 - abs(value)
    digits = max(3, 2 - math.floor(math.log10(left))) if left > 1e-10 else 3
    return f"{value:.{digits}f}"


def _angles(angles: Sequence[float]) -> str:
    """Least and greatest, in degrees."""
    if not angles:
        return ""
    low, high = (_degrees(x) for x in (min(angles), max(angles)))
    return f"{low}°" if low == high else f"{low}–{high}°"


def _degrees(angle: float) -> str:
    degrees = math.degrees(angle)
    return f"{degrees:.0f}" if degrees >= 9.95 else f"{degrees:.1f}" if degrees >= 0.1 else f"{degrees:.1g}"


def _from_to(before: str, after: str) -> Text:
    if before == after:
        return Text(after)
    line = Text(before)
    line.append(" → ", "dim")
    line.append(after)
    return line
