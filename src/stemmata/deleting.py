"""Deleting: versions that are hidden, and shown again. Owns who may delete what.

A deleted version keeps its names and its bytes until its model's undo window is over and it is collected.
Every plan is computed at the log's end: an alias that was set a moment ago counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stemmata import resuming
from stemmata.arguments import instant_of, text_of
from stemmata.capture import mask
from stemmata.catalog import deletions, queries, selecting
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.deletions import DELETED, FORGOTTEN, VISIBLE
from stemmata.catalog.lines import DELETABLE, is_mark
from stemmata.catalog.queries import VersionRow
from stemmata.errors import (
    AlreadyDeleted,
    DamagedLog,
    InvalidArgument,
    NotDeleted,
    UndoOver,
    VersionInUse,
    VersionNotFound,
)
from stemmata.ids import VersionId
from stemmata.log.entries import Entry, Position, link_of, read_entry
from stemmata.log.ops import Op, VersionDelete, VersionRestore
from stemmata.log.reader import fetch
from stemmata.names import name_key
from stemmata.resolve import best_of, resolve
from stemmata.session import Session
from stemmata.undo import undo_window

_MANY = 8


@dataclass(frozen=True, slots=True)
class Going:
    """A version that is, or would be, deleted."""

    version: VersionId
    model: str
    name: str
    bytes: int
    """Of its files; what deleting frees is for the collector to say."""
    names: tuple[str, ...]
    """Its other version names."""
    children: tuple[str, ...]
    """Visible versions that name it as a parent, and go on doing so: `model@name`."""
    loaded_on: tuple[str, ...]
    """Visible versions that are loaded on it, and stay: `model@name`. They are why it may be refused."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """A version that can be restored."""

    version: VersionId
    name: str

    row: VersionRow = field(repr=False)
    model: str
    n: int
    """The entry of the log that deleted it."""
    at: str
    by: str
    why: str
    until: str
    """It can be restored at least until then, a stored time."""


def delete(
    session: Session,
    versions: Sequence[VersionId],
    *,
    why: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> tuple[list[Going], int | None]:
    """Delete all of `versions`, or none; and the entry of the log that says so, None if none does.

    Raises VersionInUse for those that an alias or tag points at, and unless `force` for those that others
    are loaded on; VersionNotFound, AlreadyDeleted.
    """
    found: list[Going] = []

    def plan(catalog: Catalog) -> list[Op]:
        rows = [_visible(catalog.connection, session, v) for v in dict.fromkeys(versions)]
        found[:] = _going(catalog.connection, rows)
        _refuse_used(catalog.connection, rows, found, force)
        return delete_ops((row.id for row in rows), why)

    return found, _carried_out(session, plan, dry_run)


def delete_ops(versions: Iterable[VersionId], why: str) -> list[Op]:
    said = mask(text_of(why))
    return [VersionDelete(version=version.hex, why=said) for version in versions]


def _carried_out(session: Session, plan: Callable[[Catalog], list[Op]], dry_run: bool) -> int | None:
    """Commit a plan and tell its entry, or only make it."""
    if dry_run:
        session.refresh()
        plan(session.catalog)
        return None
    done = session.commit(plan)
    return done.position.n if done.txn is not None else None


def marked(connection: sqlite3.Connection, model: str) -> list[VersionId]:
    """The versions of a model, and its states, that the policy of their run marked as deletable and that
    nothing needs now: no alias or tag, no version that is loaded on them; nor the newest, nor the best."""
    found: list[VersionId] = []
    for key in (name_key(model), name_key(model + resuming.SUFFIX)):
        rows = selecting.versions(connection, key, expressions=[f"label.{DELETABLE} is not none"])
        held = {row.id for row in queries.newest_of(connection, key, 1)}
        with suppress(VersionNotFound):  # nothing tells its versions apart
            held.add(best_of(connection, key).row.id)
        needed = {need.base for need in deletions.needs(connection)} if rows else set()
        for row in rows:
            labels = [
                a.labels[DELETABLE]
                for a in queries.annotations_of(connection, row.seq)
                if DELETABLE in a.labels
            ]
            if is_mark(labels[-1]) and row.id not in held | needed and not _pointers(connection, row.id):
                found.append(row.id)
    return found


def restore(session: Session, versions: Sequence[VersionId]) -> None:
    """Show deleted versions again, all or none. Raises NotDeleted, UndoOver, VersionNotFound."""

    def plan(catalog: Catalog) -> list[Op]:
        return [restore_op(catalog.connection, version) for version in dict.fromkeys(versions)]

    session.commit(plan)


def restore_op(connection: sqlite3.Connection, version: VersionId) -> Op:
    row = queries.version_by_id(connection, version)
    if row is None:
        raise _unknown(version)
    if row.state == FORGOTTEN:
        raise UndoOver(version=shown(connection, row), at=_day(deletions.state_since(connection, row.seq)))
    if row.state != DELETED:
        raise NotDeleted(version=shown(connection, row))
    return VersionRestore(version=version.hex)


def meant(session: Session, reference: str) -> VersionId:
    """The version that `reference` names, also one that is deleted already. Raises as `resolve` does."""
    return resolve(session.catalog.connection, reference, hidden=True).row.id


def restorable(session: Session, reference: str) -> VersionId:
    """The version that `reference` names among the deleted ones: by id, by a name of its own, as an
    ancestor. Raises as `resolve` does, NotDeleted and UndoOver."""
    connection = session.catalog.connection
    row = resolve(connection, reference, prefer=DELETED, hidden=True).row
    restore_op(connection, row.id)
    return row.id


def deleted(session: Session, model: str | None = None, *, n: int | None = None) -> list[Deleted]:
    """What can be restored, the last deleted first; of one model (by key), of one entry of the log."""
    connection = session.catalog.connection
    entries: dict[int, tuple[str, dict[str, str]]] = {}
    found = []
    for row in deletions.deleted_versions(connection, model, n=n):
        if row.state_n not in entries:
            entries[row.state_n] = _said(session, row.state_n)
        by, reasons = entries[row.state_n]
        at = deletions.state_since(connection, row.seq)
        until = _after(at, undo_window(queries.settings(connection, row.model)))
        name = queries.model_name(connection, row.model)
        found.append(
            Deleted(row.id, row.name, row, name, row.state_n, at, by, reasons.get(row.id.hex, ""), until)
        )
    return found


def _said(session: Session, n: int) -> tuple[str, dict[str, str]]:
    """Who wrote a `version.delete`, and why it says so of each version: the log alone has it."""
    data = fetch(session.storage, n)
    before = None if data is None else link_of(data)
    try:
        entry = None if data is None or before is None else read_entry(n, data, Position(n - 1, before, ""))
    except DamagedLog:
        entry = None
    if not isinstance(entry, Entry):
        return "?", {}  # `check` says what is wrong with it
    return entry.by, {op.version: op.why for op in entry.ops if isinstance(op, VersionDelete)}


# --- what one version is to others ------------------------------------------------------------------


def shown(connection: sqlite3.Connection, row: VersionRow) -> str:
    """`model@name (3f9a12bc4d5e)`: how errors name a version."""
    return f"{_label(connection, row)} ({row.id.short})"


def _label(connection: sqlite3.Connection, row: VersionRow) -> str:
    return f"{queries.model_name(connection, row.model)}@{row.name}"


def _going(connection: sqlite3.Connection, rows: Sequence[VersionRow]) -> list[Going]:
    """Visible versions that go together, as a plan shows them."""
    together = {row.id for row in rows}
    needing: dict[VersionId, list[str]] = {}
    for need in deletions.needs(connection):
        if need.version not in together:
            name = f"{queries.model_name(connection, need.model)}@{need.name}"
            needing.setdefault(need.base, []).append(name)
    found = []
    for row in rows:
        names = [ref.name for ref in queries.names_of(connection, row.id) if ref.kind == "name"]
        children = [child for child in queries.children(connection, row.id) if child.id not in together]
        found.append(
            Going(
                version=row.id,
                model=queries.model_name(connection, row.model),
                name=row.name,
                bytes=row.bytes,
                names=tuple(name for name in names if name != row.name),
                children=tuple(_label(connection, child) for child in children),
                loaded_on=tuple(needing.get(row.id, ())),
            )
        )
    return found


def _pointers(connection: sqlite3.Connection, version: VersionId) -> list[queries.RefRow]:
    return [ref for ref in queries.names_of(connection, version) if ref.kind != "name"]


def _refuse_used(
    connection: sqlite3.Connection, rows: Sequence[VersionRow], found: Sequence[Going], force: bool
) -> None:
    pointed = {row.id: _pointers(connection, row.id) for row in rows}
    named = [row for row in rows if pointed[row.id]]
    if named:
        refs = [ref for row in named for ref in pointed[row.id]]
        holders = _few(
            f"the {ref.kind} {ref.name} points at {shown(connection, row)}"
            for row in named
            for ref in pointed[row.id]
        )
        if any(ref.kind == "alias" for ref in refs):
            hint = "move the alias first: stemmata alias set MODEL NAME REF"
        else:
            hint = "a tag is for ever: what it points at stays"
        raise VersionInUse(version=_all_of(connection, named), holders=holders, hint=hint)
    needed = [(row, each) for row, each in zip(rows, found, strict=True) if each.loaded_on]
    if needed and not force:
        holders = _few(
            f"{name} is loaded on {each.model}@{each.name}" for _, each in needed for name in each.loaded_on
        )
        hint = "delete those with it, or say --force (force=True) if their base is kept elsewhere"
        raise VersionInUse(
            version=_all_of(connection, [row for row, _ in needed]), holders=holders, hint=hint
        )


def _all_of(connection: sqlite3.Connection, rows: Sequence[VersionRow]) -> str:
    return shown(connection, rows[0]) if len(rows) == 1 else f"{len(rows)} of the versions"


def _few(words: Iterable[str]) -> str:
    said = list(words)
    return "; ".join(said[:_MANY]) + (f"; and {len(said) - _MANY} more" if len(said) > _MANY else "")


def _visible(connection: sqlite3.Connection, session: Session, version: VersionId) -> VersionRow:
    row = queries.version_by_id(connection, version)
    if row is None:
        raise _unknown(version)
    if row.state == VISIBLE:
        return row
    at = _day(deletions.state_since(connection, row.seq))
    if row.state == FORGOTTEN:
        how = f"it was given up on {at}"
    else:
        by, reasons = _said(session, row.state_n)
        why = reasons.get(version.hex, "")
        how = f"on {at} by {by}" + (f" ({why})" if why else "")
    raise AlreadyDeleted(version=shown(connection, row), how=how)


def _unknown(version: VersionId) -> VersionNotFound:
    return VersionNotFound(
        reference=version.short,
        reason="it is not in this repository",
        hint="stemmata log lists what is there",
    )


def _day(stamp: str) -> str:
    return f"{stamp[:16].replace('T', ' ')} UTC"


def _after(stamp: str, seconds: int) -> str:
    try:
        return instant_of("undo_window", datetime.fromisoformat(stamp) + timedelta(seconds=seconds))
    except (OverflowError, InvalidArgument):
        return "9999-12-31T23:59:59.999999Z"
