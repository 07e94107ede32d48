"""Deletions: what the catalog knows of versions that go, and of who needs those that stay.

`model` is a model's key. Why a version was deleted, and by whom, stands in the log entry alone.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import msgspec

from stemmata.catalog import contents
from stemmata.catalog.asking import made, versions_numbered, versions_where
from stemmata.catalog.chunks import records_in
from stemmata.catalog.rows import VersionRow
from stemmata.ids import VersionId

DELETED, FORGOTTEN, VISIBLE = "deleted", "forgotten", "visible"


class _Held(msgspec.Struct):
    """As much of a record as says which erasable objects it has."""

    provenance: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Redaction:
    """An object that counts as erased."""

    item: str
    at: str
    by: str
    why: str


def deleted_versions(
    connection: sqlite3.Connection, model: str | None = None, *, n: int | None = None
) -> list[VersionRow]:
    """Versions that can be restored, the last deleted first; `n`: deleted by that entry of the log."""
    where, values = ["v.state = 'deleted'"], list[str | int]()
    if model is not None:
        where.append("v.model = ?")
        values.append(model)
    if n is not None and not 0 <= n < 2**63:
        return []  # no entry has such a number, nor has SQLite
    if n is not None:
        where.append("v.state_n = ?")
        values.append(n)
    rest = f"WHERE {' AND '.join(where)} ORDER BY v.state_n DESC, v.seq DESC"
    return versions_where(connection, rest, *values)


def state_since(connection: sqlite3.Connection, seq: int) -> str:
    """Effective time of the entry that made a version what it is now."""
    sql = (
        "SELECT COALESCE((SELECT s.at FROM version_states s WHERE s.version = v.seq"
        " ORDER BY s.n DESC, s.rowid DESC LIMIT 1), v.at) FROM versions v WHERE v.seq = ?"
    )
    return str(connection.execute(sql, (seq,)).fetchone()[0])


@dataclass(frozen=True, slots=True)
class Need:
    """A visible version, of the model with this key, that is loaded on another: its base."""

    version: VersionId
    model: str
    name: str
    base: VersionId


def needs(connection: sqlite3.Connection) -> list[Need]:
    """Every visible version whose record names a version as its base, oldest first."""
    sql = (
        "SELECT id, model, name, base FROM versions WHERE base IS NOT NULL AND state = 'visible' ORDER BY seq"
    )
    return [
        Need(VersionId(version), str(model), str(name), VersionId(base))
        for version, model, name, base in connection.execute(sql).fetchall()
    ]


def holders_of(connection: sqlite3.Connection, digest: str) -> list[tuple[VersionRow, str]]:
    """Versions, visible or deleted, that have this object as provenance, of their record or attached since:
    each with its kind."""

    def mentioning(row: tuple[int, bytes]) -> list[int]:
        first, data = row
        return [seq for seq, record in enumerate(records_in(data), first) if digest.encode() in record]

    chunks = made(connection, mentioning, "SELECT first, data FROM records ORDER BY first")
    attached: dict[int, dict[str, str]] = {}
    for seq, objects in contents.attached(connection):
        if digest in objects:
            attached.setdefault(seq, {}).update(msgspec.json.decode(objects, type=dict[str, str]))
    found: list[tuple[VersionRow, str]] = []
    for row in versions_numbered(
        connection, sorted({*attached, *(seq for chunk in chunks for seq in chunk)})
    ):
        if row.state != FORGOTTEN:
            of_record = msgspec.json.decode(row.record, type=_Held).provenance
            held = {**attached.get(row.seq, {}), **of_record}
            found += [(row, kind) for kind, other in sorted(held.items()) if other == digest]
    return found


def redactions(connection: sqlite3.Connection, seq: int) -> list[Redaction]:
    """What was redacted of a version, by kind."""
    sql = "SELECT item, at, by, why FROM redactions WHERE version = ? ORDER BY item"
    return [Redaction(*row) for row in connection.execute(sql, (seq,)).fetchall()]
