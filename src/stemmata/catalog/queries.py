"""Questions to the catalog. Owns the SQL that reads; writes nothing and resolves no reference.

Every function takes the catalog's connection. `model` is always a model's key (`names.name_key`),
times are stored times (RFC 3339 in UTC, compared as text). With `at`, the answer is as the log stood
then: entries whose effective time is later do not count.
"""

# ruff: noqa: S608 - statements are put together from fixed parts; every value is a parameter

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec

from stemmata.catalog.connection import Connection as CatalogConnection
from stemmata.catalog.expression import Parameter, compile_filter, compile_sort
from stemmata.catalog.rows import (
    VERSION_COLUMNS,
    AnnotationRow,
    BestRow,
    ModelRow,
    RefMove,
    RefRow,
    VersionRow,
)
from stemmata.ids import PackName, VersionId

__all__ = [
    "AnnotationRow",
    "BestRow",
    "ModelRow",
    "RefMove",
    "RefRow",
    "VersionRow",
    "annotations_of",
    "best",
    "check_expression",
    "check_sort",
    "children",
    "count_versions",
    "ids_by_prefix",
    "latest",
    "metric_names",
    "model_name",
    "models",
    "names_of",
    "newest_of",
    "newest_of_others",
    "packs_of",
    "parents",
    "redacted_items",
    "ref",
    "ref_at",
    "ref_moves",
    "refs",
    "runs",
    "settings",
    "state_at",
    "version_by_id",
    "version_with_content",
    "versions",
    "versions_where",
]

Connection = sqlite3.Connection
_Made = TypeVar("_Made")

_REF = "model, key, kind, name, target, n"
_MOVE = "model, key, kind, name, n, at, by, target, why, evidence, txn"
_VISIBLE_THEN = (
    "v.at <= ? AND (SELECT s.state FROM version_states s WHERE s.version = v.seq AND s.at <= ?"
    " ORDER BY s.n DESC, s.rowid DESC LIMIT 1) = 'visible'"
)


def _rows(connection: Connection, sql: str, *values: Parameter | bytes | None) -> list[tuple[Any, ...]]:
    return connection.execute(sql, values).fetchall()


def _made(
    connection: Connection,
    make: Callable[[tuple[Any, ...]], _Made],
    sql: str,
    *values: Parameter | bytes | None,
) -> list[_Made]:
    try:
        return [make(row) for row in _rows(connection, sql, *values)]
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        if not isinstance(connection, CatalogConnection):
            raise
        # A sound file with damaged rows: the log has what they should say (I8).
        connection.distrust(str(error))
    return [make(row) for row in _rows(connection, sql, *values)]


def _versions(connection: Connection, rest: str, *values: Parameter | bytes) -> list[VersionRow]:
    return _made(connection, VersionRow.of, f"SELECT {VERSION_COLUMNS} FROM versions v {rest}", *values)


versions_where = _versions
"""For the other modules of questions: they share how damaged rows are met."""


def _visible(at: str | None) -> tuple[str, tuple[str, ...]]:
    return ("v.state = 'visible'", ()) if at is None else (_VISIBLE_THEN, (at, at))


def _of_run(run: str | Collection[str] | None) -> tuple[str, tuple[str, ...]]:
    if run is None:
        return "1", ()
    wanted = (run,) if isinstance(run, str) else tuple(run)
    return f"v.run IN ({', '.join('?' * len(wanted))})", wanted


# --- models ---------------------------------------------------------------------------------------


def models(connection: Connection) -> list[ModelRow]:
    """All models, by name."""
    return [ModelRow(*row) for row in _rows(connection, "SELECT key, name, n FROM models ORDER BY key")]


def model_name(connection: Connection, model: str) -> str:
    """The model's spelling; the key itself for a model that is not there."""
    found = _rows(connection, "SELECT name FROM models WHERE key = ?", model)
    return str(found[0][0]) if found else model


def settings(connection: Connection, model: str) -> dict[str, Any]:
    """What `model.configure` set."""
    found = _rows(connection, "SELECT key, value FROM settings WHERE model = ?", model)
    return {key: msgspec.json.decode(value) for key, value in found}


def runs(connection: Connection, model: str) -> list[str]:
    """Names of the model's runs, also of those whose versions are all deleted."""
    sql = "SELECT DISTINCT run FROM versions WHERE model = ? AND run IS NOT NULL ORDER BY run"
    return [row[0] for row in _rows(connection, sql, model)]


def metric_names(connection: Connection, model: str, *, at: str | None = None) -> list[str]:
    """Metrics that at least one visible version of the model has."""
    visible, values = _visible(at)
    table, when = ("facts", ()) if at is None else ("fact_moves", (at,))
    then = "" if at is None else "AND f.at <= ?"
    sql = (
        f"SELECT DISTINCT f.key FROM versions v JOIN {table} f ON f.version = v.seq"
        f" WHERE v.model = ? AND {visible} AND f.space = 'metric' {then} ORDER BY f.key"
    )
    return [row[0] for row in _rows(connection, sql, model, *values, *when)]


# --- versions -------------------------------------------------------------------------------------


def check_expression(expression: str) -> tuple[str, ...]:
    """The names that a filter speaks of. Raises InvalidExpression."""
    return compile_filter(expression).names_used


def check_sort(name: str) -> None:
    """Raise InvalidExpression unless `name` is one name to sort by."""
    compile_sort(name)


def _conditions(
    model: str | None, run: str | Collection[str] | None, expressions: Sequence[str], at: str | None
) -> tuple[str, list[Parameter]]:
    visible, values = _visible(at)
    of_run, run_values = _of_run(run)
    parts, parameters = [visible, of_run], [*values, *run_values]
    found: list[Parameter] = [*parameters]
    if model is not None:
        parts.insert(0, "v.model = ?")
        found.insert(0, model)
    for expression in expressions:
        made = compile_filter(expression, at=at)
        parts.append(made.sql)
        found += made.parameters
    return " AND ".join(parts), found


def versions(
    connection: Connection,
    model: str | None = None,
    *,
    expressions: Sequence[str] = (),
    run: str | Collection[str] | None = None,
    sort: str | None = None,
    descending: bool = False,
    limit: int | None = None,
    offset: int = 0,
    before: int | None = None,
    at: str | None = None,
) -> list[VersionRow]:
    """Visible versions for which all expressions hold, newest first unless `sort` names a metric,
    config key or field; those without a value, or with NaN, come last in either direction, equal
    ones newest first.

    `before` is the `seq` that the page starts below (for pages without `sort`; costs the same on every page).
    Raises InvalidExpression.
    """
    where, parameters = _conditions(model, run, expressions, at)
    if before is not None:
        where += " AND v.seq < ?"
        parameters.append(before)
    order = "v.seq DESC"
    if sort is not None:
        key, way = compile_sort(sort, at=at), "DESC" if descending else "ASC"
        number, text = key.number.sql, f"NULLIF({key.text.sql}, 'nan')"
        order = f"({number}) IS NULL, ({number}) {way}, {text} IS NULL, {text} {way}, v.seq DESC"
        parameters += [*key.number.parameters * 2, *key.text.parameters * 2]
    cut = "LIMIT ? OFFSET ?"
    return _versions(
        connection,
        f"WHERE {where} ORDER BY {order} {cut}",
        *parameters,
        -1 if limit is None else limit,
        offset,
    )


def count_versions(
    connection: Connection,
    model: str | None = None,
    *,
    expressions: Sequence[str] = (),
    run: str | Collection[str] | None = None,
    at: str | None = None,
) -> int:
    """How many `versions` would give without a limit."""
    where, parameters = _conditions(model, run, expressions, at)
    found = _rows(connection, f"SELECT COUNT(*) FROM versions v WHERE {where}", *parameters)
    return int(found[0][0])


def version_by_id(connection: Connection, version: VersionId) -> VersionRow | None:
    """The version in whatever state, or None."""
    found = _versions(connection, "WHERE v.id = ?", version.raw)
    return found[0] if found else None


def ids_by_prefix(
    connection: Connection, prefix: str, *, model: str | None = None, limit: int = 20
) -> list[VersionRow]:
    """Versions in whatever state whose id begins with these lower-case hex digits, oldest first."""
    low = bytes.fromhex(prefix.ljust(64, "0"))
    high = bytes.fromhex(prefix.ljust(64, "f"))
    extra, values = ("", ()) if model is None else ("AND v.model = ?", (model,))
    rest = f"WHERE v.id BETWEEN ? AND ? {extra} ORDER BY v.seq LIMIT ?"
    return _versions(connection, rest, low, high, *values, limit)


def version_with_content(
    connection: Connection, model: str, content: str, *, run_id: str | None = None, step: int | None = None
) -> VersionRow | None:
    """The newest visible version of the model with this content digest: of the run alone, if one is
    given (a repeated run has the bytes of the first, not its record), and rather of `step`."""
    rest = "WHERE v.content = ? AND v.model = ? AND v.state = 'visible'"
    values: list[str | int] = [content, model]
    if run_id is not None:
        rest += " AND v.run_id = ?"
        values.append(run_id)
    order = "v.seq DESC"
    if step is not None:
        order = f"v.step IS NOT ?, {order}"
        values.append(step)
    found = _versions(connection, f"{rest} ORDER BY {order} LIMIT 1", *values)
    return found[0] if found else None


def newest_of(connection: Connection, model: str, count: int) -> list[VersionRow]:
    """The newest visible versions of a model."""
    where = "WHERE v.state = 'visible' AND v.model = ? ORDER BY v.seq DESC LIMIT ?"
    return _versions(connection, where, model, count)


def newest_of_others(connection: Connection, model: str, count: int) -> list[VersionRow]:
    """The newest visible version of each model but this one, newest first, of `count` models at most."""
    newest = "SELECT max(seq) FROM versions WHERE state = 'visible' AND model != ? GROUP BY model"
    return _versions(connection, f"WHERE v.seq IN ({newest}) ORDER BY v.seq DESC LIMIT ?", model, count)


def latest(
    connection: Connection, model: str, *, run: str | Collection[str] | None = None, at: str | None = None
) -> VersionRow | None:
    """The visible version that was committed last."""
    found = versions(connection, model, run=run, at=at, limit=1)
    return found[0] if found else None


def best(
    connection: Connection,
    model: str,
    metric: str,
    direction: str,
    *,
    run: str | Collection[str] | None = None,
    at: str | None = None,
) -> BestRow | None:
    """The visible version with the least ("min") or greatest ("max") value; of equal ones the earliest.

    NaN never wins. None if no version has a number there.
    """
    way = {"min": "ASC", "max": "DESC"}[direction]
    visible, values = _visible(at)
    of_run, run_values = _of_run(run)
    if at is None:
        facts = "SELECT version, num FROM facts WHERE space = 'metric' AND key = ?"
        fact_values: tuple[str, ...] = (metric,)
    else:
        # SQLite gives the other columns of the row that MAX() found: the last value set by then.
        facts = (
            "SELECT version, num, MAX(rowid) FROM fact_moves"
            " WHERE space = 'metric' AND key = ? AND at <= ? GROUP BY version"
        )
        fact_values = (metric, at)
    sql = (
        f"SELECT f.num, v.seq FROM ({facts}) f JOIN versions v ON v.seq = f.version"
        f" WHERE v.model = ? AND {visible} AND {of_run} AND f.num IS NOT NULL ORDER BY f.num {way}, v.seq"
    )
    cursor = connection.execute(sql, (*fact_values, model, *values, *run_values))
    found = cursor.fetchall()
    if not found:
        return None
    value = found[0][0]
    equal: list[int] = []
    for number, seq in found:
        if number != value:
            break
        equal.append(seq)
    rows = [_versions(connection, "WHERE v.seq = ?", seq)[0] for seq in equal[:100]]
    return BestRow(rows[0], float(value), tuple(rows[1:]))


def state_at(connection: Connection, seq: int, at: str) -> str | None:
    """visible, deleted or forgotten, as it was then; None before it was added."""
    sql = "SELECT state FROM version_states WHERE version = ? AND at <= ? ORDER BY n DESC, rowid DESC LIMIT 1"
    found = _rows(connection, sql, seq, at)
    return str(found[0][0]) if found else None


def parents(connection: Connection, seq: int) -> list[VersionId]:
    """Parents as the record names them, first parent first; they need not be in this repository."""
    sql = "SELECT parent FROM parents WHERE version = ? ORDER BY position"
    return [VersionId(row[0]) for row in _rows(connection, sql, seq)]


def children(connection: Connection, version: VersionId) -> list[VersionRow]:
    """Visible versions that name this one as a parent, oldest first."""
    rest = (
        "WHERE v.seq IN (SELECT version FROM parents WHERE parent = ?) AND v.state = 'visible' ORDER BY v.seq"
    )
    return _versions(connection, rest, version.raw)


def packs_of(connection: Connection, seq: int) -> list[PackName]:
    """The packs that the version's tree, files and provenance lie in; empty once it is forgotten."""
    found = _rows(connection, "SELECT pack FROM version_packs WHERE version = ? ORDER BY pack", seq)
    return [PackName(row[0]) for row in found]


def annotations_of(connection: Connection, seq: int, *, at: str | None = None) -> list[AnnotationRow]:
    """What was added after the save, oldest first."""
    then, values = ("", ()) if at is None else ("AND at <= ?", (at,))
    sql = (
        "SELECT n, at, by, metrics, labels, notes, event, why, details, objects FROM annotations"
        f" WHERE version = ? {then} ORDER BY n, rowid"
    )
    return _made(connection, AnnotationRow.of, sql, seq, *values)


def redacted_items(connection: Connection, seq: int) -> set[str]:
    """Provenance kinds that count as erased."""
    return {row[0] for row in _rows(connection, "SELECT item FROM redactions WHERE version = ?", seq)}


# --- names ----------------------------------------------------------------------------------------


def _refs(connection: Connection, rest: str, *values: Parameter | bytes) -> list[RefRow]:
    found = _rows(connection, f"SELECT {_REF} FROM refs {rest}", *values)
    return [RefRow.of(row) for row in found]


def ref(connection: Connection, model: str, key: str) -> RefRow | None:
    """The alias, tag or version name with this key, or None."""
    found = _refs(connection, "WHERE model = ? AND key = ?", model, key)
    return found[0] if found else None


def refs(connection: Connection, model: str, *, kind: str | None = None) -> list[RefRow]:
    """Names of the model, by key; `kind`: alias, tag or name."""
    if kind is None:
        return _refs(connection, "WHERE model = ? ORDER BY key", model)
    return _refs(connection, "WHERE model = ? AND kind = ? ORDER BY key", model, kind)


def names_of(connection: Connection, version: VersionId) -> list[RefRow]:
    """Everything that points at a version, the oldest first."""
    return _refs(connection, "WHERE target = ? ORDER BY n, key", version.raw)


def ref_moves(connection: Connection, model: str, key: str, *, at: str | None = None) -> list[RefMove]:
    """Every change of a name, oldest first."""
    then, values = ("", ()) if at is None else ("AND at <= ?", (at,))
    sql = f"SELECT {_MOVE} FROM ref_moves WHERE model = ? AND key = ? {then} ORDER BY n, rowid"
    return _made(connection, RefMove.of, sql, model, key, *values)


def ref_at(connection: Connection, model: str, key: str, at: str) -> RefMove | None:
    """The last change of a name by then; None before its first. Its `target` is None after a deletion."""
    sql = (
        f"SELECT {_MOVE} FROM ref_moves WHERE model = ? AND key = ? AND at <= ?"
        " ORDER BY n DESC, rowid DESC LIMIT 1"
    )
    found = _rows(connection, sql, model, key, at)
    return RefMove.of(found[0]) if found else None
