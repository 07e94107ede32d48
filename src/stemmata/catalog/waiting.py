"""Waiting: rows that go into the tables together, and what is known of the tables meanwhile.

A statement costs more than its row. So what an entry adds waits in memory, and what a rule asks - is there
such a version, such a name - is answered from there too. What an entry changed is undone if it is void.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, TypeAlias

from stemmata.catalog import chunks
from stemmata.catalog.schema import INDEXES, statements

_ROWS = 20_000
"""Rows that wait at most, about."""
_KNOWN = 300_000
"""Answers that are kept at most, about."""
_INSERTS = {
    "versions": f"INSERT INTO versions VALUES ({', '.join('?' * 31)})",  # noqa: S608 - nothing but marks
    "models": "INSERT OR IGNORE INTO models VALUES (?, ?, ?)",
    "packs": "INSERT INTO packs (name, state, size, digest, n) VALUES (?, ?, ?, ?, ?)",
    "pack_bases": "INSERT OR IGNORE INTO pack_bases VALUES (?, ?)",
    "more_packs": (
        "INSERT OR IGNORE INTO more_packs SELECT ?1, ?2"
        " WHERE NOT EXISTS (SELECT 1 FROM versions WHERE seq = ?1 AND pack = ?2)"
    ),
    "more_parents": "INSERT INTO more_parents VALUES (?, ?, ?)",
    "base_names": "INSERT INTO base_names VALUES (?, ?)",
    "keys": "INSERT INTO keys VALUES (?, ?, ?, ?, ?)",
    "shared": "INSERT INTO shared VALUES (?, ?, ?, ?)",
    "shared_facts": "INSERT INTO shared_facts VALUES (?, ?, ?, ?)",
    "annotations": "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "pointers": "INSERT OR REPLACE INTO pointers VALUES (?, ?, ?, ?, ?, ?)",
    "moves": (
        "INSERT INTO moves (model, key, kind, name, n, at, by, target, why, evidence, txn)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ),
}
_SORTED = frozenset({"shared_facts"})
"""Put in in the order of their keys, so that each page is looked for once."""
_RECORDS, _FACTS = "records", "facts"
_KINDS = (*_INSERTS, _RECORDS, _FACTS)

FactRow: TypeAlias = tuple[int, int, float | int | None, str | bytes | None, bool, int, str | None]
"""key, version, num, text, removed, n, at: as in the schema."""


class Waiting:
    """What has been folded and is not in the tables yet. Runs inside the caller's transaction."""

    def __init__(self, cursor: sqlite3.Cursor, *, long: bool, bare: bool) -> None:
        self._cursor = cursor
        self._long, self._bare = long, bare
        self.rows: dict[str, list[Any]] = {table: [] for table in _KINDS}
        self._lists = tuple(self.rows.values())
        self._known: dict[object, Any] = {}
        self._next: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._marks: tuple[int, ...] = ()
        self._undo: list[tuple[object, Any]] = []
        self._is_opened = False
        newest = cursor.execute("SELECT 1 FROM versions UNION ALL SELECT 1 FROM packs LIMIT 1").fetchone()
        self.is_all = newest is None
        """There is nothing in the tables that is not known."""

    # --- what is known --------------------------------------------------------------------------

    def known(self, place: object) -> Any:
        """What was noted under `place`; None if nothing was."""
        return self._known.get(place)

    def note(self, place: object, value: Any) -> None:
        """Something that the tables say, or will."""
        self._undo.append((place, self._known.get(place)))
        self._known[place] = value

    def number(self, table: str) -> int:
        """The next number of a table whose numbers grow by one."""
        if table not in self._next:
            column = "seq" if table == "versions" else "id"
            sql = f"SELECT COALESCE(MAX({column}), 0) + 1 FROM {table}"  # noqa: S608 - names of our own schema
            self._next[table] = int(self._cursor.execute(sql).fetchone()[0])
        self._next[table] += 1
        return self._next[table] - 1

    # --- one entry ------------------------------------------------------------------------------

    def __enter__(self) -> None:
        """What is added inside is undone if the block is left by an exception."""
        self._marks = tuple(map(len, self._lists))
        self._numbers = dict(self._next)
        self._undo.clear()
        self._is_opened = False

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._take_back()
            return
        if self._is_opened:
            self._cursor.execute("RELEASE entry")
        if not self._long or sum(self._marks) > _ROWS:
            self.write()

    def settle(self) -> None:
        """Before tables are read or changed directly: bring them up to date, so that it can be undone."""
        if not self._is_opened:
            for (table, rows), mark in zip(self.rows.items(), self._marks, strict=True):
                self._write_some(table, rows[:mark])
                del rows[:mark]
            self._cursor.execute("SAVEPOINT entry")
            self._is_opened = True
        self._write_all()

    def write(self) -> None:
        """Between two entries: write the rows that wait."""
        self._write_all()
        if len(self._known) > _KNOWN:
            self.index()
            self._known.clear()
            self.is_all = False

    def index(self) -> None:
        """Make the indexes that the tables were left without."""
        if self._bare:
            for statement in statements(INDEXES):
                self._cursor.execute(statement)
        self._bare = False

    def _take_back(self) -> None:
        for place, before in reversed(self._undo):
            self._known[place] = before
        self._next = self._numbers
        for rows, mark in zip(self._lists, self._marks, strict=True):
            # What was there before the entry has been written if the savepoint was opened.
            del rows[0 if self._is_opened else mark :]
        if self._is_opened:
            try:
                self._cursor.execute("ROLLBACK TO entry")
                self._cursor.execute("RELEASE entry")
            except sqlite3.Error:
                pass  # SQLite has rolled the whole transaction back itself; the first error says why

    # --- into the tables ------------------------------------------------------------------------

    def _write_all(self) -> None:
        for table, rows in self.rows.items():
            self._write_some(table, rows)
            rows.clear()

    def _write_some(self, table: str, rows: list[Any]) -> None:
        if not rows:
            return
        if table == _FACTS:
            write_facts(self._cursor, rows)
        elif table == _RECORDS:
            self._cursor.executemany("INSERT INTO records VALUES (?, ?)", chunks.together(rows))
        else:
            self._cursor.executemany(_INSERTS[table], sorted(rows) if table in _SORTED else rows)


def write_facts(cursor: sqlite3.Cursor, rows: Iterable[FactRow], *, is_new: bool = False) -> None:
    """The last value of each key stands; those before it, of these rows and of the table, have moved.

    `is_new`: the table has none of these keys.
    """
    last: dict[tuple[int, int], FactRow] = {}
    moved: list[FactRow] = []
    for row in rows:
        place = row[:2]
        before = last.get(place)
        if before is None and row[6] is not None and not is_new:
            before = _standing_fact(cursor, *place)
        if before is not None and not before[4]:
            moved.append(before)
        if row[4]:
            moved.append(row)
        last[place] = row
    cursor.executemany(
        "INSERT INTO fact_moves (key, version, num, text, removed, n, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        moved,
    )
    ordered = sorted(last.items())
    gone = [place for place, row in ordered if row[4]]
    cursor.executemany("DELETE FROM facts WHERE key = ? AND version = ?", gone)
    cursor.executemany(
        "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)",
        [(*row[:4], *row[5:]) for _, row in ordered if not row[4]],
    )


def _standing_fact(cursor: sqlite3.Cursor, key: int, version: int) -> FactRow | None:
    sql = "SELECT key, version, num, text, 0, n, at FROM facts WHERE key = ? AND version = ?"
    row = cursor.execute(sql, (key, version)).fetchone()
    return None if row is None else (row[0], row[1], row[2], row[3], False, row[5], row[6])
