"""Contents: what packs and versions were found to hold, kept so that asking again is quick.

Hints, as `objects` is: never evidence, and gone with the catalog. The values are their writer's (`usage`).
"""

# ruff: noqa: S608 - statements are put together from fixed parts; every value is a parameter

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stemmata.catalog.catalog import Catalog
from stemmata.ids import PackName


@dataclass(frozen=True, slots=True)
class Holder:
    """A visible or restorable version, as much of it as tells how much it holds."""

    seq: int
    id: bytes
    model: str
    run: str
    name: str
    at: str
    state: str
    bytes: int
    """Of all its files."""


def holders(connection: sqlite3.Connection) -> list[Holder]:
    """All versions that need bytes, in the order in which they were committed."""
    sql = (
        "SELECT seq, id, model, COALESCE(run, ''), name, at, state, bytes FROM versions"
        " WHERE state IN ('visible', 'deleted') ORDER BY seq"
    )
    return [Holder(*row) for row in connection.execute(sql).fetchall()]


def attached(connection: sqlite3.Connection) -> Iterator[tuple[int, str]]:
    """Objects that annotations attached: the version's `seq`, and a JSON object of kind and digest."""
    yield from connection.execute("SELECT version, objects FROM annotations WHERE objects != '{}'").fetchall()


def live_packs(connection: sqlite3.Connection) -> list[tuple[PackName, bytes | None]]:
    """Each live pack, and what is kept of its objects; None if nothing is."""
    sql = (
        "SELECT p.name, c.objects FROM packs p LEFT JOIN pack_contents c ON c.pack = p.name"
        " WHERE p.state = 'live' ORDER BY p.n, p.name"
    )
    return [(PackName(row[0]), row[1]) for row in connection.execute(sql).fetchall()]


def version_contents(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, tuple[bytes, bytes]]:
    """What is kept of these versions' files, and of the objects beside them."""
    marks = ", ".join("?" * len(seqs))
    sql = (
        "SELECT c.version, c.files, c.beside FROM version_contents c JOIN versions v ON v.seq = c.version"
        f" AND v.tree = c.tree WHERE c.version IN ({marks})"
    )
    return {row[0]: (row[1], row[2]) for row in connection.execute(sql, tuple(seqs)).fetchall()}


def keep_packs(catalog: Catalog, found: Sequence[tuple[PackName, bytes]]) -> None:
    rows = [(pack.raw, objects) for pack, objects in found]
    catalog.keep_hints(("INSERT OR REPLACE INTO pack_contents VALUES (?, ?)", rows))


def keep_versions(catalog: Catalog, found: Sequence[tuple[int, bytes, bytes]]) -> None:
    """`found`: `seq`, files, beside."""
    sql = "INSERT OR REPLACE INTO version_contents SELECT seq, tree, ?, ? FROM versions WHERE seq = ?"
    catalog.keep_hints((sql, [(files, beside, seq) for seq, files, beside in found]))
