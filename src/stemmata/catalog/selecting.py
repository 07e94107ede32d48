"""Selecting: versions by filter, order and page. Owns the SQL that goes over many of them.

As in `queries`, `model` is a model's key, and with `at` the answer is as the log stood then.
"""

# ruff: noqa: S608 - statements are put together from fixed parts; every value is a parameter

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from stemmata.catalog.asking import (
    Connection,
    is_of_run,
    is_visible,
    rows,
    versions_numbered,
)
from stemmata.catalog.conditions import SHARED, SPACES, Clause, Name, but_nan, facts_then
from stemmata.catalog.expression import Parameter, Scope, SortKey, compile_filter, compile_sort
from stemmata.catalog.filling import need
from stemmata.catalog.rows import BestRow, VersionRow
from stemmata.ids import VersionId


def check_expression(expression: str) -> tuple[str, ...]:
    """The names that a filter speaks of. Raises InvalidExpression."""
    return compile_filter(expression).names_used


def check_sort(name: str) -> None:
    """Raise InvalidExpression unless `name` is one name to sort by."""
    compile_sort(name)


class _Where(msgspec.Struct, frozen=True):
    sql: str
    parameters: tuple[Parameter, ...]


def _where(
    connection: Connection,
    model: str | None,
    run: str | Collection[str] | None,
    expressions: Sequence[str],
    at: str | None,
) -> _Where:
    visible, values = is_visible(at)
    of_run, run_values = is_of_run(run)
    # Without the plus SQLite may walk all versions of the model for those of one run.
    parts = [visible if run is None else visible.replace("v.state =", "+v.state ="), of_run]
    found: list[Parameter] = [*values, *run_values]
    if model is not None:
        parts.insert(0, "v.model = ?")
        found.insert(0, model)
    for expression in expressions:
        made = compile_filter(expression, Scope(model, at))
        need(connection, made.names, model)
        parts.append(made.sql)
        found += made.parameters
    return _Where(" AND ".join(parts), tuple(found))


def numbers(
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
    after: int | None = None,
    at: str | None = None,
) -> list[int]:
    """As `versions`, only the `seq` of each: eight bytes a version instead of some kilobytes."""
    where = _where(connection, model, run, expressions, at)
    if before is not None:
        where = _Where(f"{where.sql} AND v.seq < ?", (*where.parameters, before))
    if after is not None:
        where = _Where(f"{where.sql} AND v.n > ?", (*where.parameters, after))
    page: tuple[Parameter, ...] = (-1 if limit is None else limit, offset)
    if sort is None:
        sql = f"SELECT v.seq FROM versions v WHERE {where.sql} ORDER BY v.seq DESC LIMIT ? OFFSET ?"
        return [row[0] for row in rows(connection, sql, *where.parameters, *page)]
    key = compile_sort(sort, Scope(model, at))
    need(connection, [key.name], model)
    way = "DESC" if descending else "ASC"
    spaces = _spaces_of(connection, key.name, model) if at is None else None
    if spaces is not None and len(spaces) == 1:
        space, keys = next(iter(spaces.items()))
        if limit is not None and space not in SHARED:
            found = _by_number(connection, keys, where, way, limit, offset)
            if len(found) == limit:
                return found
        return _by_fact(connection, space, keys, where, way, *page)
    return _by_value(connection, key, where, way, *page)


def _spaces_of(connection: Connection, name: Name, model: str | None) -> dict[str, list[int]] | None:
    """The spaces that have such a key, and its numbers there; None for a field."""
    if name.is_field:
        return None
    wanted = [name.space] if name.space else list(SPACES)
    sql = f"SELECT space, id, model FROM keys WHERE key = ? AND space IN ({', '.join('?' * len(wanted))})"
    found: dict[str, list[int]] = {}
    for space, number, of_model in rows(connection, sql, name.key, *wanted):
        if model is None or of_model in ("", model):
            found.setdefault(space, []).append(number)
    return found


def _by_number(
    connection: Connection, keys: list[int], where: _Where, way: str, limit: int, offset: int
) -> list[int]:
    """The page of those that have a number, along the index of numbers: a key's part of it at a time."""
    sql = (
        "SELECT f.num, v.seq FROM facts f CROSS JOIN versions v ON v.seq = f.version WHERE f.key = ?"
        f" AND f.num IS NOT NULL AND {where.sql} ORDER BY f.num {way}, v.seq DESC LIMIT ?"
    )
    found = [row for key in keys for row in rows(connection, sql, key, *where.parameters, limit + offset)]
    sign = 1 if way == "ASC" else -1
    found.sort(key=lambda row: (sign * row[0], -row[1]))
    return [seq for _, seq in found[offset : offset + limit]]


def _by_fact(
    connection: Connection, space: str, keys: list[int], where: _Where, way: str, *page: Parameter
) -> list[int]:
    """The page by a key that one space alone has."""
    table, column, holder = "facts", "version", "v.seq"
    if space in SHARED:
        table, column, holder = "shared_facts", "shared", f"v.{space}"
    sql = (
        f"SELECT v.seq FROM versions v LEFT JOIN {table} f"
        f" ON f.key IN ({_list(keys)}) AND f.{column} = {holder}"
        f" WHERE {where.sql} ORDER BY {_order('f.num', 'f.text', way)} LIMIT ? OFFSET ?"
    )
    return [row[0] for row in rows(connection, sql, *where.parameters, *page)]


def _by_value(connection: Connection, key: SortKey, where: _Where, way: str, *page: Parameter) -> list[int]:
    """The page by a field, by a key of several spaces, or as of a time: each version's value is looked up."""
    sql = (
        f"SELECT seq FROM (SELECT v.seq AS seq, {key.number.sql} AS number, {key.text.sql} AS words"
        f" FROM versions v WHERE {where.sql}) v ORDER BY {_order('number', 'words', way)} LIMIT ? OFFSET ?"
    )
    values = (*key.number.parameters, *key.text.parameters, *where.parameters, *page)
    return [row[0] for row in rows(connection, sql, *values)]


def _order(number: str, text: str, way: str) -> str:
    words = but_nan(text)
    return f"{number} IS NULL, {number} {way}, {words} IS NULL, {words} {way}, v.seq DESC"


def _list(keys: list[int]) -> str:
    return ", ".join(map(str, keys))  # whole numbers that the catalog gave itself


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
    after: int | None = None,
    at: str | None = None,
) -> list[VersionRow]:
    """Visible versions for which all expressions hold, newest first unless `sort` names a metric,
    config key or field; those without a value, or with NaN, come last in either direction, equal
    ones newest first.

    `before` is the `seq` that the page starts below (for pages without `sort`; costs the same on every page);
    `after` the entry of the log that all came after.
    Raises InvalidExpression.
    """
    found = numbers(
        connection,
        model,
        expressions=expressions,
        run=run,
        sort=sort,
        descending=descending,
        limit=limit,
        offset=offset,
        before=before,
        after=after,
        at=at,
    )
    return list(versions_numbered(connection, found))


def count_versions(
    connection: Connection,
    model: str | None = None,
    *,
    expressions: Sequence[str] = (),
    run: str | Collection[str] | None = None,
    at: str | None = None,
) -> int:
    """How many `versions` would give without a limit."""
    where = _where(connection, model, run, expressions, at)
    found = rows(connection, f"SELECT COUNT(*) FROM versions v WHERE {where.sql}", *where.parameters)
    return int(found[0][0])


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
    need(connection, [Name(metric, "metric")], model)
    visible, values = is_visible(at)
    of_run, run_values = is_of_run(run)
    source = "facts f CROSS JOIN versions v ON v.seq = f.version"
    if run is not None:
        source = "versions v CROSS JOIN facts f ON f.version = v.seq"
        visible = visible.replace("v.state =", "+v.state =")
    key = Clause("SELECT id FROM keys WHERE space = 'metric' AND key = ? AND model = ?", (metric, model))
    given, where = key.parameters, f"f.key = ({key.sql})"
    if at is not None:
        # The facts as they stood then, in place of the table.
        facts = facts_then("f.version, f.num", key, None, at)
        source = source.replace("facts f", f"({facts.sql}) f")
        given, where = facts.parameters, "1"
    condition = f"{where} AND f.num IS NOT NULL AND v.model = ? AND {visible} AND {of_run}"
    parameters = (*given, model, *values, *run_values)
    extreme = f"SELECT f.num FROM {source} WHERE {condition} ORDER BY f.num {way} LIMIT 1"
    found = rows(connection, extreme, *parameters)
    if not found:
        return None
    value = float(found[0][0])
    equal = f"SELECT v.seq, v.id FROM {source} WHERE {condition} AND f.num = ? ORDER BY v.seq"
    (first, _), *ties = rows(connection, equal, *parameters, value)
    (best_row,) = versions_numbered(connection, [first])
    return BestRow(best_row, value, tuple(VersionId(raw) for _, raw in ties))


def metric_names(connection: Connection, model: str, *, at: str | None = None) -> list[str]:
    """Metrics that at least one visible version of the model has."""
    visible, values = is_visible(at)
    then, when = ("1", ()) if at is None else ("(f.at IS NULL OR f.at <= ?)", (at,))
    tables = ["facts"] if at is None else ["facts", "fact_moves"]
    there = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} f JOIN versions v ON v.seq = f.version"
        f" WHERE f.key = k.id AND {then} AND {visible})"
        for table in tables
    )
    known = "SELECT k.key FROM keys k WHERE k.space = 'metric' AND k.model = ?"
    newest = f"SELECT v.metrics FROM versions v WHERE v.model = ? AND {visible} ORDER BY v.seq DESC LIMIT 1"
    found = {key for (text,) in rows(connection, newest, model, *values) for key in msgspec.json.decode(text)}
    # The newest version mostly has them all: facts need not be made to say so.
    others = [row[0] for row in rows(connection, known, model) if row[0] not in found]
    need(connection, [Name(key, "metric") for key in others], model)
    for key in others:
        if rows(
            connection, f"{known} AND k.key = ? AND ({there})", model, key, *[*when, *values] * len(tables)
        ):
            found.add(key)
    return sorted(found)
