"""Differences as pages: of two versions, and of several side by side. Owns what stands on them, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stemmata.compare import lora, tabled
from stemmata.compare.environment import Item, counted, is_folded
from stemmata.compare.many import letter
from stemmata.compare.pictured import heatmap, spectra
from stemmata.compare.records import by_data, equal
from stemmata.metricnames import by_interest, is_aside
from stemmata.pictures import snippets, words
from stemmata.pictures.page import Fact, Page, Section
from stemmata.pictures.parallel import Parallel
from stemmata.pictures.picture import Table
from stemmata.pictures.seen import Seen

if TYPE_CHECKING:
    from stemmata.compare.diff import Diff
    from stemmata.compare.many import Comparison, MetricRow, Part, Row
    from stemmata.compare.many import Table as Varying
    from stemmata.pictures.heatmap import HeatMap
    from stemmata.records import Value

_ROWS = 120
_WIDE = 8
"""Columns up to which a table is read across."""
_TITLES: dict[Part, str] = {"lora": "LoRA", "config": "Settings", "about": "Run"}
_ARROWS = {"min": " ↓", "max": " ↑"}


# --- two versions ---------------------------------------------------------------------------------


def page(diff: Diff) -> Page:
    """Metrics first, then where the weights moved, then what was set otherwise and how it came about."""
    weights = heatmap(diff)
    told = [tabled.metrics(diff)]
    sections = [_section(_metrics_at(diff), told, _better(diff), _remarks(diff))]
    if diff.lora.a is not None or diff.lora.b is not None:
        said = tabled.of_adapters(diff.lora)
        sections.append(_section("LoRA", [tabled.adapters(diff.lora)], said, tabled.doubts(diff.lora)))
    if not weights.is_empty:
        of = "delta-W moved" if weights.of == "delta-W" else "the weights moved"
        sections.append(Section.of(weights, f"Where {of}"))
    if (directions := spectra(diff)) is not None and not directions.is_empty:
        sections.append(Section.of(directions))
    settings = [
        *tabled.changes("Config", diff.config),
        *tabled.changes("Data", diff.data),
        *tabled.changes("Run", diff.about),
    ]
    environment, code, tokenizer = diff.environment, diff.code, diff.tokenizer
    sections += [
        _section("Settings", settings),
        _section("Environment", tabled.environment(environment), notes=tabled.unknown(environment.unknown)),
        _section("Code", tabled.code(code), notes=tabled.unknown(code.unknown)),
        _section("Tokenizer", tabled.tokenizer(tokenizer), notes=tokenizer.notes),
        _section("Files", [tabled.files(diff), *tabled.texts(diff.texts)]),
    ]
    ids = f"{diff.a.short} → {diff.b.short}"
    return Page(
        title=f"{diff.label_a} → {diff.label_b}",
        kicker="Comparison of two versions",
        lead=f"{ids} · {diff.descent}" if diff.descent else ids,
        facts=tuple(_facts(diff, weights)),
        sections=tuple(s for s in sections if s.tables or s.picture is not None or s.notes),
        notes=(*diff.notes, *_unmoved(diff)),
    )


def _section(heading: str, tables: Iterable[Table], finding: str = "", notes: Sequence[str] = ()) -> Section:
    return Section(heading, finding, tables=tuple(t for t in tables if t.rows), notes=tuple(notes))


def _metrics_at(found: Diff | Comparison) -> str:
    return f"Metrics at {found.point}" if found.point is not None else "Metrics"


def _remarks(found: Diff | Comparison) -> list[str]:
    """What metrics were measured on, if that differs; where those at a step or an epoch stand."""
    readings = enumerate(found.readings or ())
    return [
        *by_data((metric.key, metric.differing_data) for metric in found.metrics),
        *(f"{letter(place)}: {each.problem or ' and '.join(each.sources)}" for place, each in readings),
    ]


def _unmoved(diff: Diff) -> Iterator[str]:
    if diff.a == diff.b:
        yield "They are the same version."
    elif diff.same_bytes:
        yield "Both hold the very same files."


def _facts(diff: Diff, weights: HeatMap) -> Iterator[Fact]:
    different = {m.key: m for m in diff.metrics if not m.same and not is_aside(m.key)}
    for key in by_interest(different)[:3]:
        metric = different[key]
        value = words.number(metric.b) if metric.b is not None else "–"
        far = tabled.far(metric)
        yield Fact(value, f"{key}{', ' + far if far else ''}", tabled.mark(metric))
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


def _better(diff: Diff) -> str:
    known = [m for m in diff.metrics if m.better is not None]
    if not known:
        return ""
    up = sum(m.better is True for m in known)
    if up in (0, len(known)):
        subject = f"All {len(known)} are" if len(known) > 1 else f"{words.printable(known[0].key)} is"
        return f"{subject} {'better' if up else 'worse'}."
    return f"{up} better, {len(known) - up} worse."


# --- several versions -----------------------------------------------------------------------------


def page_of_many(found: Comparison) -> Page:
    """Metrics first, the settings that vary against the first of them, then part by part what varies."""
    letters = [letter(place) for place in range(len(found))]
    names = zip(letters, found.labels, (each.short for each in found.ids), strict=True)
    versions = Table("", ("", "version", "id"), tuple(names))
    sections = [
        _section("Versions", [versions]),
        _section(_metrics_at(found), [metrics_of_many(found)], notes=_remarks(found)),
    ]
    if not (drawn := parallel(found)).is_empty:
        sections.append(Section.of(drawn))
    for part, table in found.tables.items():
        unknown = tabled.unknown(found.unknown) if part == "environment" else ()
        sections.append(
            _section(_TITLES.get(part, part.capitalize()), _tables(found, part, table), notes=unknown)
        )
    return Page(
        title=words.listed(found.labels, 4),
        kicker=f"Comparison of {words.count(len(found), 'version')}",
        facts=tuple(_best(found)),
        sections=tuple(s for s in sections if s.tables or s.picture is not None or s.notes),
    )


def snippet_of_many(found: Comparison) -> str:
    """The metrics, and the settings that vary."""
    head = snippets.line(words.count(len(found), "version"), ", ".join(found.labels))
    rows = found.config.rows[:8]
    settings = _columns(found, [_shown(row, "config") for row in rows], [_marks(row) for row in rows])
    return snippets.block(head, snippets.tables([metrics_of_many(found, 8), settings]))


def parallel(found: Comparison) -> Parallel:
    """The settings that vary against the metric of most interest, a line for each version."""
    versions = []
    for place, version in enumerate(found.ids):
        named = f"{letter(place)} {found.labels[place]}"
        told = {row.key: row.values[place] for row in found.metrics}
        versions.append(
            Seen(
                id=version.short,
                name=named,
                run=named,
                metrics={key: value for key, value in told.items() if value is not None},
                config={r.key: r.values[place] for r in found.config.rows if place not in r.absent},
            )
        )
    first = next(iter(found.metrics), None)
    ways = {} if first is None else {"metric": first.key, "direction": first.direction}
    return Parallel.make(words.listed(found.labels), versions, **ways)


def metrics_of_many(found: Comparison, most: int = _ROWS) -> Table:
    """Those that differ; the best value of each is marked."""
    rows = [row for row in found.metrics if not row.same]
    lines = [_metric(row) for row in rows[:most]]
    marks = [dict.fromkeys(row.best, "good") for row in rows[:most]]
    same = len(found.metrics) - len(rows)
    left = len(rows) - len(lines)
    parts = [f"and {left:,} more"] * bool(left) + [f"{same:,} equal"] * bool(same)
    if any(row.best for row in rows):
        parts.append("↓ less is better, ↑ more is")
    table = _columns(found, lines, marks)
    return replace(table, numeric=frozenset(range(1, len(table.columns))), more="; ".join(parts))


def _metric(row: MetricRow) -> tuple[str, ...]:
    return row.key + _ARROWS.get(row.direction or "", ""), *(tabled.value_of(value) for value in row.values)


def _tables(found: Comparison, part: Part, table: Varying) -> Iterator[Table]:
    """What varies of a part; of an environment what tells little by itself is folded away."""
    folded = [row for row in table.rows if part == "environment" and is_folded(_item(row))]
    shown = table.rows if len(folded) < 2 else [row for row in table.rows if row not in folded]
    alike = [f"{table.same:,} equal"] * bool(table.same)
    for rows, title, more in ((shown, "", alike), (folded, f"{len(folded):,} others", [])):
        if not rows or (title and len(folded) < 2):
            continue
        listed = rows[:_ROWS]
        left = [f"and {len(rows) - len(listed):,} more"] * (len(rows) > len(listed))
        told = _columns(found, [_shown(row, part) for row in listed], [_marks(row) for row in listed])
        yield replace(told, title=title, more="; ".join([*left, *more]), folded=bool(title))


def _item(row: Row) -> Item:
    return Item(*row.key.split(":", 1))


def _columns(found: Comparison, lines: Sequence[tuple[str, ...]], marks: Sequence[dict[int, str]]) -> Table:
    """A column for each version, called by its letter; of many a line for each where that takes less."""
    letters = tuple(letter(place) for place in range(len(found)))
    if len(found) > _WIDE and 0 < len(lines) <= _WIDE:
        cells = {(place, 1 + k): mark for k, row in enumerate(marks) for place, mark in row.items()}
        turned = tuple(zip(letters, *(line[1:] for line in lines), strict=True))
        return Table("", ("", *(line[0] for line in lines)), turned, marks=cells)
    cells = {(k, 1 + place): mark for k, row in enumerate(marks) for place, mark in row.items()}
    return Table("", ("", *letters), tuple(lines), marks=cells)


def _shown(row: Row, part: Part) -> tuple[str, ...]:
    key = row.key.partition(":")[2] if part == "environment" else row.key
    called = lora.FACTS.get(key, key.replace("_", " ")) if part == "lora" else key
    return called, *(
        tabled.ABSENT if place in row.absent else _value(value, part, row.key)
        for place, value in enumerate(row.values)
    )


def _value(value: Value, part: Part, key: str) -> str:
    if part == "weights" and key == "bytes" and isinstance(value, int):
        return words.size(value)
    if part == "environment" and isinstance(value, list):
        return ", ".join(counted(value))
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return tabled.setting(value)


def _marks(row: Row) -> dict[int, str]:
    """What is as in the first version stands back."""
    first = row.values[0], 0 in row.absent
    alike = (
        p for p, v in enumerate(row.values) if p and (p in row.absent) == first[1] and equal(v, first[0])
    )
    return dict.fromkeys(alike, "muted")


def _best(found: Comparison) -> Iterator[Fact]:
    for row in [row for row in found.metrics if row.best and not is_aside(row.key)][:4]:
        place, *ties = row.best
        called = words.listed([letter(each) for each in (place, *ties)])
        yield Fact(tabled.value_of(row.values[place]), f"best {row.key}: {called}", "good")
    yield Fact(
        f"{len(found.config.rows):,}", "settings vary" if len(found.config.rows) != 1 else "setting varies"
    )
