"""A difference of two versions as tables, for pages and notebooks. Owns what stands in them, and how much.

Cells are plain text; whoever shows them escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from stemmata.compare import lora
from stemmata.compare.environment import counted
from stemmata.compare.records import Changes, MetricChange
from stemmata.metricnames import by_interest
from stemmata.pictures import words
from stemmata.pictures.picture import Table

if TYPE_CHECKING:
    from stemmata.compare.deltas import DeltaDiff, DeltaTable
    from stemmata.compare.diff import Diff, LoraDiff
    from stemmata.compare.environment import EnvironmentChange, EnvironmentDiff
    from stemmata.compare.source import CodeDiff
    from stemmata.compare.texts import TextChange
    from stemmata.compare.tokenizers import Token, TokenizerDiff

_FEW = 16
_ROWS = 60
"""Rows of a table of settings or files."""
_TOKENS = 200
_LINES = 400
"""Lines of one text that are shown."""
_UNFOLDED = 40
"""Lines of a text up to which it is shown without being asked for."""
_LONGEST = 400
"""Characters of a line, a token or a command."""
ABSENT = "–"

_Line = tuple[str, str, str, str]
"""A key, both values, and `added` or `removed` where one side alone has it."""


# --- metrics and settings -------------------------------------------------------------------------


def mark(metric: MetricChange) -> str:
    told = metric.better
    return "" if told is None else "good" if told else "bad"


def far(metric: MetricChange) -> str:
    if not metric.difference:
        return ""
    arrow = "▼" if metric.difference < 0 else "▲"
    told = metric.better
    how = "" if told is None else " better" if told else " worse"
    by = words.share(abs(metric.difference / metric.a)) if metric.a else words.number(abs(metric.difference))
    return f"{arrow} {by}{how}"


def metrics(diff: Diff, most: int = _ROWS) -> Table:
    """Those that differ, the most interesting first."""
    different = {m.key: m for m in diff.metrics if not m.same}
    rows, marks = [], {}
    for place, key in enumerate(by_interest(different)[:most]):
        metric = different[key]
        rows.append((key, value_of(metric.a), value_of(metric.b), far(metric)))
        if mark(metric):
            marks[place, 3] = mark(metric)
    more = _more(len(different) - len(rows), sum(m.same for m in diff.metrics))
    return Table("", ("metric", "a", "b", "change"), tuple(rows), frozenset({1, 2, 3}), more, marks)


def value_of(value: float | None) -> str:
    return ABSENT if value is None else words.number(value)


def changes(title: str, found: Changes, most: int = _ROWS) -> list[Table]:
    """What became of the keys of a mapping; many that one side alone has are folded away."""
    lines = [(c.key, setting(c.a), setting(c.b), "") for c in found.changed]
    apart = [(key, setting(value), ABSENT, "removed") for key, value in found.removed.items()]
    apart += [(key, ABSENT, setting(value), "added") for key, value in found.added.items()]
    if len(apart) <= _FEW:
        return [_sides(title, "", lines + apart, found.same, most)]
    count = f"{len(apart):,} more"
    return [
        _sides(title, "", lines, found.same, most),
        replace(_sides(f"{title}: {count}, on one side alone", "", apart, 0, 4 * most), folded=True),
    ]


def _sides(title: str, what: str, lines: Iterable[_Line], same: int, most: int) -> Table:
    """Keys with both values; the fourth of a line says that one side alone has it."""
    return _sided(title, what, sorted(lines), same, most)


def _sided(title: str, what: str, lines: Sequence[_Line], same: int, most: int) -> Table:
    """As `_sides`, in the order given."""
    shown = lines[:most]
    marks = {(k, 1 if line[3] == "removed" else 2): line[3] for k, line in enumerate(shown) if line[3]}
    rows = tuple(line[:3] for line in shown)
    return Table(title, (what, "a", "b"), rows, more=_more(len(lines) - len(rows), same), marks=marks)


def setting(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        value = [f"{key}={each}" for key, each in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value)) or "none"
    shown = str(value)
    return words.clipped(shown, 240) if shown.strip() else repr(shown)


def _more(left: int, same: int) -> str:
    parts = [f"and {left:,} more"] if left > 0 else []
    return "; ".join([*parts, *([f"{same:,} equal"] if same else [])])


def files(diff: Diff) -> Table:
    found = diff.files
    lines = [(c.path, words.size(c.a.size), words.size(c.b.size), "") for c in found.changed]
    lines += [(f.path, words.size(f.size), ABSENT, "removed") for f in found.removed]
    lines += [(f.path, ABSENT, words.size(f.size), "added") for f in found.added]
    return replace(_sides("", "file", lines, len(found.same), _ROWS), numeric=frozenset({1, 2}))


def _line(key: str, a: object, b: object) -> _Line:
    """None: that side has none."""
    missing = "added" if a is None else "removed" if b is None else ""
    left, right = (ABSENT if x is None else setting(x) for x in (a, b))
    return key, left, right, missing


def unknown(told: Mapping[str, str]) -> tuple[str, ...]:
    """What cannot be told, and why: notes."""
    return tuple(f"{kind}: {why}" for kind, why in told.items())


# --- texts ----------------------------------------------------------------------------------------


def texts(found: Iterable[TextChange], called: Mapping[str, str] | None = None) -> Iterator[Table]:
    """Each text line by line; long ones are folded away."""
    for each in found:
        name = (called or {}).get(each.name, each.name)
        if not each.lines:
            yield Table(name, ("",), ((each.note,),), marks={(0, 0): "muted"})
            continue
        rows = tuple((words.clipped(line, _LONGEST),) for line in each.lines[:_LINES])
        tones = {"+": "added", "-": "removed", "@": "muted"}
        marks = {(k, 0): tones[row[0][0]] for k, row in enumerate(rows) if row[0][:1] in tones}
        left = len(each.lines) - len(rows)
        count = f"{name}: +{each.added:,} −{each.removed:,} lines"
        more = f"and {words.count(left, 'line')} more" if left else ""
        yield Table(count, ("",), rows, more=more, marks=marks, folded=len(rows) > _UNFOLDED, code=True)


# --- how it came about ----------------------------------------------------------------------------


def environment(found: EnvironmentDiff) -> Iterator[Table]:
    """What matters first; the many that tell little by themselves are folded away."""
    folded = [c for c in found.changes if c.folded]
    few = len(folded) < 2
    shown = [c for c in found.changes if few or not c.folded]
    if shown:
        yield _sided("", "", [_of_item(c) for c in shown], found.same, len(shown))
    if folded and not few:
        same = 0 if shown else found.same
        lines = [_of_item(c) for c in folded]
        yield replace(_sided(f"{len(folded):,} others", "", lines, same, 8 * _ROWS), folded=True)


def _of_item(change: EnvironmentChange) -> _Line:
    a, b = (counted(value) if isinstance(value, list) else value for value in (change.a, change.b))
    return _line(change.item.name, a, b)


def code(found: CodeDiff) -> Iterator[Table]:
    """Commit, command and folder; then what was kept of the sources, line by line."""
    git = found.git
    told: dict[str, tuple[object, object]] = {c.key: (c.a, c.b) for c in git.changed}
    told |= {key: (value, None) for key, value in git.removed.items()}
    told |= {key: (None, value) for key, value in git.added.items()}
    first = [key for key in ("commit", "branch", "dirty", "remote") if key in told]
    lines = [
        _line("uncommitted changes" if key == "dirty" else key, *told[key])
        for key in [*first, *sorted(told.keys() - set(first))]
    ]
    if found.command is not None:
        lines.append(("command", " ".join(found.command.a), " ".join(found.command.b), ""))
    if found.folder is not None:
        lines.append(_line("folder", *(side or None for side in found.folder)))
    lines = [(key, words.clipped(a, _LONGEST), words.clipped(b, _LONGEST), mark) for key, a, b, mark in lines]
    if lines:
        yield _sided("", "", lines, 0, _ROWS)
    yield from texts(found.texts)


def tokenizer(found: TokenizerDiff) -> Iterator[Table]:
    """Vocabulary, special tokens, pipeline, settings; then tokens and templates."""
    lines: list[_Line] = []
    if found.sizes is not None:
        lines.append(("tokens", f"{found.sizes[0]:,}", f"{found.sizes[1]:,}", ""))
    for part in (found.special, found.pipeline, found.settings):
        lines += [_line(c.key, c.a, c.b) for c in part.changed]
        lines += [(key, setting(value), ABSENT, "removed") for key, value in part.removed.items()]
        lines += [(key, ABSENT, setting(value), "added") for key, value in part.added.items()]
    if lines:
        yield _sided("", "", lines, 0, 2 * _ROWS)
    added, removed, renumbered = found.counts
    yield from _tokens("came", found.added, added, "added")
    yield from _tokens("went", found.removed, removed, "removed")
    if renumbered:
        rows = tuple((_token(t.text), str(t.id), str(now)) for t, now in found.renumbered[:_TOKENS])
        title = f"{words.count(renumbered, 'token')} with another number"
        more = _more(renumbered - len(rows), 0)
        yield Table(title, ("token", "a", "b"), rows, frozenset({1, 2}), more, folded=len(rows) > _FEW)
    yield from texts(found.templates, {"default": "chat template"})


def _tokens(what: str, found: Sequence[Token], count: int, mark: str) -> Iterator[Table]:
    if not count:
        return
    rows = tuple((_token(token.text), str(token.id)) for token in found[:_TOKENS])
    marks = {(k, 0): mark for k in range(len(rows))}
    title = f"{words.count(count, 'token')} {what}"
    more = _more(count - len(rows), 0)
    yield Table(title, ("token", "number"), rows, frozenset({1}), more, marks, folded=len(rows) > _FEW)


def _token(text: str) -> str:
    """With what cannot be seen as Python writes it."""
    return repr(words.clipped(text, _LONGEST // 10))


# --- LoRA -----------------------------------------------------------------------------------------


def adapters(found: LoraDiff) -> Table:
    """The facts that differ, and what both make of the weights."""
    lines: list[_Line] = []
    if found.a is None or found.b is None:
        lines.append(
            _line("adapter", *(str(side) if side is not None else None for side in (found.a, found.b)))
        )
    else:
        lines += [
            _line(lora.FACTS.get(c.key, c.key.replace("_", " ")), c.a, c.b)
            for c in found.changed
            if c.key not in lora.UNSAID
        ]
        if not lines:
            lines.append(_line("both", str(found.a), str(found.b)))
    if (deltas := found.deltas) is not None:
        lines += _of_deltas(deltas)
    return _sided("", "", lines, 0, _ROWS)


def _of_deltas(deltas: DeltaDiff) -> Iterator[_Line]:
    sides = (deltas.a, deltas.b)
    if deltas.a.norm is not None and deltas.b.norm is not None:
        yield "norm of delta-W", words.number(deltas.a.norm), words.number(deltas.b.norm), ""
    ranks = [[m.spectrum for m in side.told if m.spectrum is not None] for side in sides]
    if all(ranks):
        a, b = (f"{fmean(s.effective_rank for s in side):.1f}" for side in ranks)
        yield "effective rank, mean of the modules", a, b, ""
        a, b = (f"{fmean(s.unused_rank for s in side):.1f}" for side in ranks)
        yield "unused rank, mean of the modules", a, b, ""
    magnitudes = [[m.magnitude for m in side.modules if m.magnitude is not None] for side in sides]
    if any(magnitudes):
        norms = [words.number(math.hypot(*side)) if side else None for side in magnitudes]
        yield _line("norm of DoRA's magnitudes", *norms)
    if deltas.added or deltas.dropped:
        yield "modules on this side alone", f"{len(deltas.dropped):,}", f"{len(deltas.added):,}", ""


def of_adapters(found: LoraDiff) -> str:
    """How far delta-W moved, in a sentence; empty where that is not known."""
    deltas = found.deltas
    if deltas is None or not deltas.common:
        return ""
    if deltas.equal:
        exactly = all(move.identical for move in deltas.common)
        return "Delta-W is the same" + ("." if exactly else ", by other factors, within their rounding.")
    if deltas.difference is None:
        return ""
    parts = [f"Delta-W changed by {words.number(deltas.difference)}"]
    if deltas.relative is not None:
        parts[0] += f", {words.share(deltas.relative)} of a"
    if deltas.cosine is not None:
        parts.append(f"cosine {deltas.cosine:.4g}")
    relations = [move.relation for move in deltas.common if move.relation is not None]
    for side, overlaps in (
        ("outputs", [r.output_overlap for r in relations]),
        ("inputs", [r.input_overlap for r in relations]),
    ):
        known = [x for x in overlaps if x is not None]
        if known:
            parts.append(f"{side} share {words.share(fmean(known))} of the subspace")
    return "; ".join(parts) + "."


def doubts(found: LoraDiff) -> tuple[str, ...]:
    """What of two adapters is odd, or could not be compared."""
    said = []
    for letter, side in (("a", found.a), ("b", found.b)):
        if side is not None and side.disagreements:
            said.append(f"{letter}: adapter_config.json disagrees: {'; '.join(side.disagreements)}")
    if (deltas := found.deltas) is not None:
        said += [f"{m.module}: {m.problem}" for m in deltas.common if m.problem]
        said += deltas.notes
        said += [note for side in (deltas.a, deltas.b) for note in notes_of(side)]
    return tuple(dict.fromkeys(said))


def notes_of(table: DeltaTable, most: int = 6) -> tuple[str, ...]:
    """What a table of delta-Ws says beside its numbers: of which modules nothing can be told, and why."""
    told = [f"{m.module}: {m.problem}" for m in table.modules if m.problem]
    left = len(told) - most
    more = [f"and {words.count(left, 'module')} more of which nothing can be told"] if left > 0 else []
    return (*table.notes, *told[:most], *more)
