"""Portraits: versions, lists of them and repositories as pictures, pages and snippets for notebooks.

Owns what of them is drawn and told; how that looks is in `pictures`. Nothing here writes to a repository.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from stemmata.catalog import queries, selecting
from stemmata.catalog.declared import Primary
from stemmata.compare.adapterfiles import factor
from stemmata.compare.pictured import values_of, way_of
from stemmata.compare.tabled import notes_of
from stemmata.compare.tensors import tensors_of
from stemmata.histories import logs
from stemmata.logrows import Logged
from stemmata.metricnames import by_interest, is_aside
from stemmata.names import name_key
from stemmata.pictures import colours, snippets, words
from stemmata.pictures.curves import Axis, Curves
from stemmata.pictures.heatmap import HeatMap
from stemmata.pictures.page import Fact, Page, Section
from stemmata.pictures.parallel import Parallel
from stemmata.pictures.picture import Picture, Table, frame
from stemmata.pictures.seen import NO_RUN, Runs, Seen, runs_of
from stemmata.pictures.spectra import Spectra
from stemmata.session import Session

if TYPE_CHECKING:
    from stemmata.measurements import Measurement
    from stemmata.version import Version
    from stemmata.versions import VersionList

_MOST = 5000
"""Versions of a list that are drawn, the first ones."""
_LOGS = 500
"""Versions whose logged rows are read for curves."""
_LISTED = 200
_SNIPPET = 12
_COLUMNS = 4
_SETTINGS = 24
THIS = "this version"


# --- a list of versions ---------------------------------------------------------------------------


def curves(versions: VersionList, metrics: Sequence[str] = (), axis: Axis | None = None) -> Curves:
    """Metrics of the runs."""
    taken = list(itertools.islice(versions, _MOST))
    seen, about, primary, direction = _look(versions.session, taken)
    left = len(versions) - len(seen)
    remarks = [f"{words.count(left, 'older version')} not drawn."] if left > 0 else []
    logged, missed = _logged(versions.session, taken)
    if missed:
        remarks.append(f"Of {words.count(missed, 'older run')} only what the versions have is drawn.")
    return Curves.make(
        about,
        seen,
        metrics=metrics,
        axis=axis,
        primary=primary,
        direction=direction,
        remarks=tuple(remarks),
        logged=logged,
    )


def _logged(session: Session, versions: Sequence[Version]) -> tuple[dict[str, list[Logged]], int]:
    """What runs logged between their versions, the newest runs first, as long as not too many objects are
    read for it; and of how many runs that is not looked at."""
    newest: dict[str, Version] = {}
    for version in sorted(versions, key=lambda v: v.created_at, reverse=True):
        if version.run is not None:
            newest.setdefault(version.run.id, version)
    found: dict[str, list[Logged]] = {}
    room = _LOGS
    for number, (run, last) in enumerate(newest.items()):
        row = queries.version_by_id(session.catalog.connection, last.id)
        line = logs.line_of(session, row) if row is not None else []
        room -= len(line)
        if room < 0:
            return found, len(newest) - number
        if row is not None:
            found[run] = list(logs.of_line(session, row, line, files=False, at=last.at).values())
    return found, 0


def parallel(versions: VersionList, metric: str | None = None) -> Parallel:
    """Settings that vary between the runs, against a metric."""
    taken = list(itertools.islice(versions, _MOST))
    seen, about, primary, direction = _look(versions.session, taken)
    way = direction if metric in (None, primary) else None
    return Parallel.make(about, seen, metric=metric or primary, direction=way)


def page_of_list(versions: VersionList) -> Page:
    """Curves, settings, lineage and a table of the versions."""
    drawn = curves(versions)
    pictures: list[Picture] = [drawn, parallel(versions)]
    if versions.model is not None:
        from stemmata.histories import lineage, pictured

        found = lineage.of_model(versions.session, versions.model, at=versions.at)
        pictures.append(pictured.graph(found, drawn.runs.colours))
    sections = [Section.of(picture) for picture in pictures if not picture.is_empty]
    listed = _table(list(itertools.islice(versions, _LISTED)), drawn.runs)
    more = len(versions) - len(listed.rows)
    notes = (f"and {words.count(more, 'version')} more",) if more > 0 else ()
    if listed.rows:
        sections.append(Section("Versions", tables=(listed,), notes=notes))
    facts = [Fact(f"{len(versions):,}", "versions" if len(versions) != 1 else "version")]
    if runs := len([r for r in drawn.runs.runs if r != NO_RUN]):
        facts.append(Fact(f"{runs:,}", "runs" if runs > 1 else "run"))
    if drawn.panels and (best := drawn.panels[0].best) is not None:
        value, name = words.number(best[1].value), best[1].seen.name
        facts.insert(0, Fact(value, f"best {drawn.panels[0].metric}: {name}"))
    for alias, name in _aliases(versions.session, versions.model, versions.at)[:4]:
        facts.append(Fact(alias, name))
    return Page(drawn.about, "Model", "", tuple(facts), tuple(sections))


def snippet_of_list(versions: VersionList) -> str:
    """The first ones as a table, the metric of most interest as small curves."""
    shown = list(itertools.islice(versions, _SNIPPET))
    seen, about, primary, direction = _look(versions.session, list(itertools.islice(versions, 400)))
    runs = runs_of(seen, colours.RUNS, metric=primary, direction=direction)
    head = snippets.line(about, words.count(len(versions), "version"))
    spark = ""
    if runs.metric is not None:
        lines = [
            (colours.DAY.runs[runs.colours[run]], [v.metrics.get(runs.metric, math.nan) for v in found])
            for run, found in runs.runs.items()
            if runs.colours[run] >= 0
        ]
        if drawn := snippets.sparkline(lines[::-1]):
            spark = f"<div>{drawn} {snippets.text(runs.metric)}</div>"
    left = len(versions) - len(shown)
    more = f"<div>and {left:,} more</div>" if left > 0 else ""
    return snippets.block(head, spark, snippets.table(_table(shown, runs)), more)


def _look(session: Session, taken: Sequence[Version]) -> tuple[list[Seen], str, str | None, str | None]:
    """What pictures need of them, what they are of, and the metric that was declared with its direction."""
    models = list(dict.fromkeys(v.model for v in taken))
    several = len(models) > 1
    at = taken[0].at if taken else None
    primary, direction = (None, None) if len(models) != 1 else _declared(session, models[0], at)
    about = words.listed(models) or "no versions"
    return [_seen(version, several=several) for version in taken], about, primary, direction


def _seen(version: Version, *, several: bool = False, this: bool = False) -> Seen:
    run = version.run
    named = f"{version.model}@" if several else ""
    return Seen(
        id=version.short,
        name=f"{named}{version.name}",
        run=f"{named}{run.name}" if run is not None else None,
        run_id=run.id if run is not None else None,
        epoch=version.epoch,
        step=version.step,
        at=version.created_at,
        metrics=version.metrics,
        config=version.config,
        aliases=(*([THIS] if this else []), *version.aliases),
        tags=tuple(version.tags),
    )


def _declared(session: Session, model: str, at: str | None) -> tuple[str | None, str | None]:
    primary = Primary(session.catalog.connection, model, at=at)
    return primary.metric, primary.declared


def _aliases(session: Session, model: str | None, at: str | None = None) -> list[tuple[str, str]]:
    if model is None:
        return []
    connection = session.catalog.connection
    found = []
    for ref in queries.refs(connection, model, kind="alias", at=at):
        row = queries.version_by_id(connection, ref.target)
        if row is not None:
            found.append((ref.name, row.name))
    return found


def _table(versions: Sequence[Version], runs: Runs) -> Table:
    """One row a version."""
    counts: dict[str, int] = {}
    for version in versions:
        for key in version.metrics:
            counts[key] = counts.get(key, 0) + 1
    wanted = [key for key in by_interest(counts, runs.metric) if not is_aside(key)]
    metrics = sorted(wanted[:1]) + sorted(wanted[1:], key=lambda k: (not k.startswith("eval"), -counts[k]))
    metrics = metrics[:_COLUMNS]
    several = len({v.model for v in versions}) > 1
    best = {m: runs.best_of([_seen(v) for v in versions], m) for m in metrics}
    rows, marks = [], {}
    for place, version in enumerate(versions):
        called = ", ".join((*version.aliases, *(f"#{tag}" for tag in version.tags)))
        name = f"{version.model}@{version.name}" if several else version.name
        where = "" if version.epoch is None else f"{version.epoch:g}"
        step = "" if version.step is None else f"{version.step:,}"
        values = []
        for at, metric in enumerate(metrics):
            value = version.metrics.get(metric)
            values.append("" if value is None else words.number(value))
            won = best[metric]
            if won is not None and won.id == version.short and runs.way(metric) and len(versions) > 1:
                marks[place, 5 + at] = "good"
        when = version.created_at[:16].replace("T", " ")
        rows.append((version.short, name, called, where, step, *values, words.size(version.size), when))
    columns = ("id", "version", "called", "epoch", "step", *metrics, "size", "made (UTC)")
    numeric = frozenset({3, 4, *range(5, 6 + len(metrics))})
    return _without_blanks(Table("", columns, tuple(rows), numeric, marks=marks))


def _without_blanks(table: Table) -> Table:
    """Columns in which nothing stands left out."""
    kept = [at for at in range(len(table.columns)) if any(row[at] for row in table.rows)]
    places = {old: new for new, old in enumerate(kept)}
    return Table(
        table.title,
        tuple(table.columns[at] for at in kept),
        tuple(tuple(row[at] for at in kept) for row in table.rows),
        frozenset(places[at] for at in table.numeric if at in places),
        table.more,
        {(place, places[at]): mark for (place, at), mark in table.marks.items() if at in places},
    )


# --- one version ----------------------------------------------------------------------------------


def heatmap(version: Version) -> HeatMap:
    """How far each module moved from the first parent's, as was learnt when it was saved."""
    known = version.statistics()
    entries = []
    for tensor in tensors_of(version.tree()):
        row = known.get(tensor.name) or known.get(f"{tensor.path}:{tensor.name}")
        moved = row.movement if row is not None else None
        if moved is None:
            continue
        size = prod(tensor.shape)
        entries.append(way_of(tensor.name, moved, size))
    remarks: tuple[str, ...] = ()
    if any(factor(entry.name) for entry in entries):
        remarks = ("These are the factors of a LoRA; a diff tells how far delta-W moved.",)
    about = f"{_label(version)} since its parent"
    return HeatMap.make(about, entries, remarks=remarks)


def spectra(version: Version) -> Spectra | None:
    """What directions a LoRA's delta-W has; None if there is none that can be read."""
    table = version.lora_spectra()
    if table is None:
        return None
    label = _label(version)
    return Spectra.make(label, [label], values_of(table), notes_of(table))


def to_pandas(version: Version) -> Any:
    """A DataFrame, a row for each tensor. Raises MissingExtra."""
    known = version.statistics()
    rows = []
    for tensor in tensors_of(version.tree()):
        row = known.get(tensor.name) or known.get(f"{tensor.path}:{tensor.name}")
        size = prod(tensor.shape)
        rows.append(
            {
                "tensor": tensor.name,
                "dtype": tensor.dtype,
                "shape": tensor.shape,
                "elements": size,
                "bytes": tensor.length,
                "file": tensor.path,
                **(row.to_dict(size) if row is not None else {}),
            }
        )
    return frame(rows, "Version.to_pandas()")


def _label(version: Version) -> str:
    return f"{version.model}@{version.name}"


def page_of_version(version: Version) -> Page:
    """Its metrics among those of its run, how far it moved from its parent, its spectrum, its settings."""
    of_run = _curves_of_run(version)
    moved, spectrum = heatmap(version), spectra(version)
    sections = []
    if of_run is not None and not of_run.is_empty:
        sections.append(Section.of(of_run, "In its run"))
    if not moved.is_empty:
        sections.append(Section.of(moved, "Moved since its parent"))
    if spectrum is not None and not spectrum.is_empty:
        sections.append(Section.of(spectrum))
    sections.append(Section("Settings", tables=tuple(_settings(version))))
    facts = [Fact(words.number(v), k) for k, v in _interesting(version)[:4]]
    facts += [Fact(words.size(version.size), version.kind)]
    facts += [Fact(alias, "points here") for alias in version.aliases[:3]]
    told = [version.created_at[:16].replace("T", " ") + " UTC", version.author, version.message]
    return Page(
        _label(version),
        f"Version {version.short}",
        " · ".join(words.clipped(part, 200) for part in told if part),
        tuple(facts),
        tuple(s for s in sections if s.picture is not None or s.tables),
        notes=tuple(map(str, version.surprises())),
    )


def _curves_of_run(version: Version) -> Curves | None:
    """All versions of its run, this one marked."""
    run = version.run
    if run is None:
        return None
    primary, direction = _declared(version.source, version.model, version.at)
    rows = selecting.versions(
        version.source.catalog.connection,
        name_key(version.model),
        run=run.name,
        limit=_MOST,
        at=version.at,
    )
    others = [type(version)(version.source, row, at=version.at) for row in rows if row.run_id == run.id]
    seen = [_seen(each, this=each == version) for each in others]
    logged, _ = _logged(version.source, others)
    about = f"{version.model}@{run.name}"
    return Curves.make(about, seen, primary=primary, direction=direction, logged=logged)


def _interesting(version: Version) -> list[tuple[str, float]]:
    primary, _ = _declared(version.source, version.model, version.at)
    found = by_interest((m for m in version.metrics if not is_aside(m)), primary)
    return [(key, version.metrics[key]) for key in found]


def _settings(version: Version) -> Iterator[Table]:
    told = version.measurements
    later = any(each.later for each in told.values())
    whole = [(key, words.number(value), _added(told[key])) for key, value in sorted(version.metrics.items())]
    metrics = tuple(row if later else row[:2] for row in whole)
    marks = {(place, 2): "muted" for place in range(len(whole))}
    yield Table("Metrics", ("", "", "") if later else ("", ""), metrics, frozenset({1}), marks=marks)
    for title, values in (("Config", version.config), ("Data", version.data), ("Labels", version.labels)):
        rows = tuple((key, words.clipped(_shown(value), 200)) for key, value in sorted(values.items()))
        if rows:
            folded = len(rows) > _SETTINGS
            name = f"{title}: {words.count(len(rows), 'setting')}" if folded else title
            yield Table(name, ("", ""), rows, folded=folded)
    files = tuple((file.path, words.size(file.size)) for file in version.files)
    yield Table("Files", ("", ""), files, frozenset({1}))


def _added(measured: Measurement) -> str:
    """When a metric that the save did not bring was added, by whom, on what."""
    return f"added {measured.at[:16].replace('T', ' ')} {measured.told}" if measured.later else ""


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def snippet_of_version(version: Version) -> str:
    """What it is called, where it stands, what it scored."""
    soft = " · ".join(
        part
        for part in (
            version.short,
            ", ".join((*version.aliases, *(f"#{tag}" for tag in version.tags))),
            "" if version.epoch is None else f"epoch {version.epoch:g}",
            "" if version.step is None else f"step {version.step:,}",
            words.size(version.size),
            version.created_at[:16].replace("T", " ") + " UTC",
        )
        if part
    )
    found = _interesting(version)
    more = f"and {len(found) - 8} more" if len(found) > 8 else ""
    metrics = Table(
        "Metrics", ("", ""), tuple((k, words.number(v)) for k, v in found[:8]), frozenset({1}), more
    )
    settings = [(k, words.clipped(_shown(v), 48)) for k, v in sorted(version.config.items())]
    told = [s for s in settings if s[0].startswith(("lora.", "model."))] or settings
    config = Table("Config", ("", ""), tuple(told[:8]), more=f"of {len(settings)}" if settings else "")
    message = f"<div>{snippets.text(words.clipped(version.message, 300))}</div>" if version.message else ""
    return snippets.block(snippets.line(_label(version), soft), message, snippets.tables([metrics, config]))


# --- a repository ---------------------------------------------------------------------------------


def snippet_of_repository(session: Session, where: str) -> str:
    """Its models, how many versions each has, and what its aliases point at."""
    session.refresh()
    connection = session.catalog.connection
    models = queries.models(connection)
    rows = []
    for model in models[:_SNIPPET]:
        count = selecting.count_versions(connection, model.key)
        newest = next(iter(queries.newest_of(connection, model.key, 1)), None)
        told = ", ".join(f"{alias} → {name}" for alias, name in _aliases(session, model.key)[:4])
        when = newest.created_at[:16].replace("T", " ") if newest is not None else ""
        rows.append((model.name, f"{count:,}", newest.name if newest is not None else "", when, told))
    left = len(models) - len(rows)
    more = f"and {words.count(left, 'model')} more" if left > 0 else ""
    columns = ("model", "versions", "newest", "made (UTC)", "aliases")
    table = _without_blanks(Table("", columns, tuple(rows), frozenset({1}), more))
    soft = words.count(len(models), "model")
    return snippets.block(snippets.line(where, soft), snippets.table(table) if rows else "")
