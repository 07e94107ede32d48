"""Questions to the catalog: models, single versions, names. Writes nothing and resolves no reference.

`selecting` has the questions about many versions. Every function takes the catalog's connection. `model` is
always a model's key (`names.name_key`), times are stored times (RFC 3339 in UTC, compared as text). With
`at`, the answer is as the log stood then: entries whose effective time is later do not count.
"""

# ruff: noqa: S608 - statements are put together from fixed parts; every value is a parameter

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from stemmata.catalog.asking import made, rows, versions_where
from stemmata.catalog.conditions import Parameter
from stemmata.catalog.rows import (
    AnnotationRow,
    ModelRow,
    RefMove,
    RefRow,
    SettingMove,
    VersionRow,
)
from stemmata.ids import PackName, VersionId

__all__ = [
    "AnnotationRow",
    "ModelRow",
    "RefMove",
    "RefRow",
    "SettingMove",
    "VersionRow",
    "annotations_of",
    "children",
    "first_names",
    "ids_by_prefix",
    "model_name",
    "models",
    "names_near",
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
    "setting_moves",
    "settings",
    "state_at",
    "version_by_id",
    "version_with_content",
]

Connection = sqlite3.Connection

_AT_ONCE = 500
_REF = "model, key, kind, name, target, n"
_MOVE = "model, key, kind, name, n, at, by, target, why, evidence, txn"


# --- models ---------------------------------------------------------------------------------------


def models(connection: Connection) -> list[ModelRow]:
    """All models, by name."""
    return [ModelRow(*row) for row in rows(connection, "SELECT key, name, n FROM models ORDER BY key")]


def model_name(connection: Connection, model: str) -> str:
    """The model's spelling; the key itself for a model that is not there."""
    found = rows(connection, "SELECT name FROM models WHERE key = ?", model)
    return str(found[0][0]) if found else model


def settings(connection: Connection, model: str, *, at: str | None = None) -> dict[str, Any]:
    """What `model.configure` set."""
    found = rows(connection, "SELECT key, value FROM settings WHERE model = ?", model)
    if at is not None:
        sql = "SELECT key, value FROM setting_moves WHERE model = ? AND at <= ? ORDER BY n, rowid"
        last = dict(rows(connection, sql, model, at))
        found = [(key, value) for key, value in last.items() if value is not None]
    return {key: msgspec.json.decode(value) for key, value in found}


def setting_moves(connection: Connection, model: str, key: str) -> list[SettingMove]:
    """Every change of a setting, oldest first."""
    sql = "SELECT n, at, by, value FROM setting_moves WHERE model = ? AND key = ? ORDER BY n, rowid"
    return made(connection, SettingMove.of, sql, model, key)


def runs(connection: Connection, model: str) -> list[str]:
    """Names of the model's runs, also of those whose versions are all deleted."""
    sql = "SELECT DISTINCT run FROM versions WHERE model = ? AND run IS NOT NULL ORDER BY run"
    return [row[0] for row in rows(connection, sql, model)]


# --- versions -------------------------------------------------------------------------------------


def version_by_id(connection: Connection, version: VersionId) -> VersionRow | None:
    """The version in whatever state, or None."""
    found = versions_where(connection, "WHERE v.id = ?", version.raw)
    return found[0] if found else None


def first_names(connection: Connection, versions: Iterable[VersionId]) -> Iterator[tuple[VersionId, str]]:
    """Each version that is there, with its first name: without its record, for there may be very many."""
    ahead = iter(versions)
    while some := [version.raw for version in islice(ahead, _AT_ONCE)]:
        marks = ", ".join("?" * len(some))
        sql = f"SELECT id, name FROM versions WHERE id IN ({marks}) ORDER BY seq"
        yield from ((VersionId(raw), name) for raw, name in rows(connection, sql, *some))


def ids_by_prefix(
    connection: Connection, prefix: str, *, model: str | None = None, limit: int = 20
) -> list[VersionRow]:
    """Versions in whatever state whose id begins with these lower-case hex digits, oldest first."""
    low = bytes.fromhex(prefix.ljust(64, "0"))
    high = bytes.fromhex(prefix.ljust(64, "f"))
    extra, values = ("", ()) if model is None else ("AND v.model = ?", (model,))
    rest = f"WHERE v.id BETWEEN ? AND ? {extra} ORDER BY +v.seq LIMIT ?"  # by the ids, not along all numbers
    return versions_where(connection, rest, low, high, *values, limit)


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
    found = versions_where(connection, f"{rest} ORDER BY {order} LIMIT 1", *values)
    return found[0] if found else None


def newest_of(connection: Connection, model: str, count: int) -> list[VersionRow]:
    """The newest visible versions of a model."""
    where = "WHERE v.state = 'visible' AND v.model = ? ORDER BY v.seq DESC LIMIT ?"
    return versions_where(connection, where, model, count)


def newest_of_others(connection: Connection, model: str, count: int) -> list[VersionRow]:
    """The newest visible version of each model but this one, newest first, of `count` models at most."""
    newest = (
        "SELECT (SELECT n.seq FROM versions n WHERE n.model = m.key AND n.state = 'visible'"
        " ORDER BY n.seq DESC LIMIT 1) FROM models m WHERE m.key != ?"
    )
    return versions_where(connection, f"WHERE v.seq IN ({newest}) ORDER BY v.seq DESC LIMIT ?", model, count)


def state_at(connection: Connection, seq: int, at: str) -> str | None:
    """visible, deleted or forgotten, as it was then; None before it was added."""
    sql = (
        "SELECT COALESCE((SELECT state FROM version_states WHERE version = ? AND at <= ?"
        " ORDER BY n DESC, rowid DESC LIMIT 1), 'visible') FROM versions WHERE seq = ? AND at <= ?"
    )
    found = rows(connection, sql, seq, at, seq, at)
    return str(found[0][0]) if found else None


def parents(connection: Connection, seq: int) -> list[VersionId]:
    """Parents as the record names them, first parent first; they need not be in this repository."""
    sql = "SELECT parent FROM parents WHERE version = ? ORDER BY position"
    return [VersionId(row[0]) for row in rows(connection, sql, seq)]


def children(connection: Connection, version: VersionId, *, gone: bool = False) -> list[VersionRow]:
    """Visible versions that name this one as a parent, oldest first; with `gone` deleted ones too."""
    rest = "WHERE v.seq IN (SELECT version FROM parents WHERE parent = ?)"
    rest += "" if gone else " AND v.state = 'visible'"
    return versions_where(connection, f"{rest} ORDER BY v.seq", version.raw)


def packs_of(connection: Connection, seq: int) -> list[PackName]:
    """The packs that the version's tree, files and provenance lie in; empty once it is forgotten."""
    found = rows(connection, "SELECT pack FROM version_packs WHERE version = ? ORDER BY pack", seq)
    return [PackName(row[0]) for row in found]


def annotations_of(connection: Connection, seq: int, *, at: str | None = None) -> list[AnnotationRow]:
    """What was added after the save, oldest first."""
    then, values = ("", ()) if at is None else ("AND at <= ?", (at,))
    sql = (
        "SELECT n, at, by, metrics, labels, notes, event, why, details, objects FROM annotations"
        f" WHERE version = ? {then} ORDER BY n, rowid"
    )
    return made(connection, AnnotationRow.of, sql, seq, *values)


def redacted_items(connection: Connection, seq: int) -> set[str]:
    """Provenance kinds that count as erased."""
    return {row[0] for row in rows(connection, "SELECT item FROM redactions WHERE version = ?", seq)}


# --- names ----------------------------------------------------------------------------------------


def _refs(connection: Connection, rest: str, *values: Parameter | bytes) -> list[RefRow]:
    found = rows(connection, f"SELECT {_REF} FROM refs {rest}", *values)
    return [RefRow.of(row) for row in found]


def _refs_at(connection: Connection, model: str, at: str) -> list[RefRow]:
    """As they stood then: the last move of each by that time, where it was no deletion."""
    sql = (
        f"SELECT {_REF} FROM ("
        "SELECT model, key, 'name' AS kind, name, id AS target, n FROM versions WHERE model = ? AND at <= ?"
        " UNION ALL SELECT m.model, m.key, m.kind, m.name, m.target, m.n FROM moves m"
        " WHERE m.model = ? AND m.target IS NOT NULL AND m.at <= ?"
        " AND NOT EXISTS (SELECT 1 FROM moves l WHERE l.model = m.model AND l.key = m.key AND l.at <= ?"
        " AND (l.n > m.n OR l.n = m.n AND l.id > m.id))) ORDER BY key"
    )
    return [RefRow.of(row) for row in rows(connection, sql, model, at, model, at, at)]


def ref(connection: Connection, model: str, key: str) -> RefRow | None:
    """The alias, tag or version name with this key, or None."""
    found = _refs(connection, "WHERE model = ? AND key = ?", model, key)
    return found[0] if found else None


def refs(
    connection: Connection, model: str, *, kind: str | None = None, at: str | None = None
) -> list[RefRow]:
    """Names of the model, by key, as they stand now or stood then; `kind`: alias, tag or name."""
    if at is not None:
        return [ref for ref in _refs_at(connection, model, at) if kind in (None, ref.kind)]
    if kind is None:
        return _refs(connection, "WHERE model = ? ORDER BY key", model)
    return _refs(connection, "WHERE model = ? AND kind = ? ORDER BY key", model, kind)


def names_near(connection: Connection, model: str, key: str, count: int) -> list[str]:
    """Names of the model next to `key` in the order of keys, `count` at most: what may have been meant."""
    found: list[tuple[str, str]] = []
    for side, way, last in ((">=", "ASC", False), ("<", "DESC", True)):
        # Not the view: it would put all names of the model in order first.
        near = [
            row
            for table in ("versions", "pointers")
            for row in rows(
                connection,
                f"SELECT key, name FROM {table} WHERE model = ? AND key {side} ? ORDER BY key {way} LIMIT ?",
                *(model, key, count // 2),
            )
        ]
        found += sorted(near, reverse=last)[: count // 2]
    return [name for _, name in found]


def names_of(connection: Connection, version: VersionId) -> list[RefRow]:
    """Everything that points at a version, the oldest first."""
    return _refs(connection, "WHERE target = ? ORDER BY n, key", version.raw)


def ref_moves(connection: Connection, model: str, key: str, *, at: str | None = None) -> list[RefMove]:
    """Every change of a name, oldest first."""
    then, values = ("", ()) if at is None else ("AND at <= ?", (at,))
    sql = f"SELECT {_MOVE} FROM ref_moves WHERE model = ? AND key = ? {then} ORDER BY n, id"
    return made(connection, RefMove.of, sql, model, key, *values)


def ref_at(connection: Connection, model: str, key: str, at: str) -> RefMove | None:
    """The last change of a name by then; None before its first. Its `target` is None after a deletion."""
    # A version's own name never moves. The others by their index: the view would put all moves in order.
    for table, which in (("ref_moves", "id = 0"), ("moves", "id > 0")):
        sql = (
            f"SELECT {_MOVE} FROM {table} WHERE {which} AND model = ? AND key = ? AND at <= ?"
            " ORDER BY n DESC, id DESC LIMIT 1"
        )
        found = rows(connection, sql, model, key, at)
        if found:
            return RefMove.of(found[0])
    return None
