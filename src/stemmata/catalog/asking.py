"""Asking: how rows come out of the catalog. Owns what happens when one of them is damaged."""

# ruff: noqa: S608 - statements are put together from fixed parts; every value is a parameter

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import msgspec

from stemmata.catalog.chunks import OF_VERSION, records_in
from stemmata.catalog.conditions import Parameter
from stemmata.catalog.connection import Connection as CatalogConnection
from stemmata.catalog.rows import VERSION_COLUMNS, VersionRow

Connection = sqlite3.Connection
_Made = TypeVar("_Made")
_AT_ONCE = 500
"""Rows that are asked for by their numbers in one statement."""

_VISIBLE_THEN = (
    "v.at <= ? AND COALESCE((SELECT s.state FROM version_states s WHERE s.version = v.seq AND s.at <= ?"
    " ORDER BY s.n DESC, s.rowid DESC LIMIT 1), 'visible') = 'visible'"
)


def rows(connection: Connection, sql: str, *values: Parameter | bytes | None) -> list[tuple[Any, ...]]:
    return connection.execute(sql, values).fetchall()


def made(
    connection: Connection,
    make: Callable[[tuple[Any, ...]], _Made],
    sql: str,
    *values: Parameter | bytes | None,
) -> list[_Made]:
    """What `make` makes of each row."""
    try:
        return [make(row) for row in rows(connection, sql, *values)]
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        if not isinstance(connection, CatalogConnection):
            raise
        # A sound file with damaged rows: the log has what they should say (I8).
        connection.distrust(str(error))
    return [make(row) for row in rows(connection, sql, *values)]


def versions_where(connection: Connection, rest: str, *values: Parameter | bytes) -> list[VersionRow]:
    """The versions `v` that the rest of the statement is true of."""
    columns = f"SELECT {VERSION_COLUMNS} FROM versions v LEFT JOIN records r ON {OF_VERSION}"
    return made(connection, VersionRow.of, f"{columns} {rest}", *values)


def versions_numbered(connection: Connection, numbers: Iterable[int]) -> Iterator[VersionRow]:
    """The versions of these `seq`, in the order given."""
    ahead = iter(numbers)
    while some := tuple(islice(ahead, _AT_ONCE)):
        marks = ", ".join("?" * len(some))
        found = versions_where(connection, f"WHERE v.seq IN ({marks})", *some)
        by_number = {row.seq: row for row in found}
        yield from (by_number[number] for number in some)


def is_visible(at: str | None) -> tuple[str, tuple[str, ...]]:
    """The condition that `v` is visible, or was at `at`."""
    return ("v.state = 'visible'", ()) if at is None else (_VISIBLE_THEN, (at, at))


def is_of_run(run: str | Collection[str] | None) -> tuple[str, tuple[str, ...]]:
    if run is None:
        return "1", ()
    wanted = (run,) if isinstance(run, str) else tuple(run)
    return f"v.run IN ({', '.join('?' * len(wanted))})", wanted


def every_record(connection: Connection) -> Iterator[tuple[int, bytes]]:
    """The record of each version, by `seq`. Raises ValueError if they are damaged."""
    for first, data in rows(connection, "SELECT first, data FROM records ORDER BY first"):
        yield from enumerate(records_in(data), first)
