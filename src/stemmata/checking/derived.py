"""Derived: what is made from the log, catalogs and checkpoints, held against the log's own fold (I8)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import zip_longest

from stemmata.catalog import asking, filling, restoring
from stemmata.catalog.catalog import Catalog, catalog_files
from stemmata.catalog.checkpoints import CheckpointName, find_checkpoints, image_of
from stemmata.catalog.connection import is_place, throw_away
from stemmata.checking.report import FAULTS, Note, Problem, Report, reason_of
from stemmata.errors import DamagedLog, KeyMissing, StemmataError, StorageFailed
from stemmata.log.identity import Identity
from stemmata.storage.base import Storage

_FORMAT = "SELECT value FROM meta WHERE key = 'format'"
_COMPARED = {
    "packs": "name, state, size, digest, n",  # what is known of packs' contents is a hint
    "pack_bases": "*",
    "models": "*",
    "settings": "*",
    "versions": "*",
    "version_packs": "*",
    "parents": "*",
    "version_states": "*",
    "keys": "id, space, key, model",
    "facts": "*",
    "fact_moves": "key, version, num, text, removed, n, at",
    "shared": "*",
    "shared_facts": "*",
    "annotations": "*",
    "redactions": "*",
    "refs": "*",
    "ref_moves": "model, key, kind, name, n, at, by, target, why, evidence, txn",
    "voids": "*",
}
"""What the log alone decides, and in whatever order it was taken in. `records` are held against their ids."""


def check_derived(storage: Storage, identity: Identity, fresh: Catalog, report: Report) -> None:
    """`fresh` is the fold of the log."""
    _check_catalogs(storage, identity, fresh, report)
    for name in find_checkpoints(storage):
        _check_checkpoint(storage, identity, name, fresh, report)


def _check_catalogs(storage: Storage, identity: Identity, fresh: Catalog, report: Report) -> None:
    """Hold every cached catalog against the log's own fold; throw away the one that differs (I8)."""
    for file in catalog_files(storage, identity):
        if not file.is_file():
            continue
        cached = Catalog(storage, identity, [file])
        try:
            cached.refresh()
            if cached.file is None or cached.position != fresh.position:
                continue  # out of reach, or the log has grown since
            wrong = _difference(cached, fresh)
        except (DamagedLog, StorageFailed):
            # The log is at fault; what a catalog keeps of its end may be all that is left of it.
            continue
        except (sqlite3.Error, StemmataError, ValueError) as error:
            wrong = str(error)
        finally:
            cached.close()
        if wrong:
            report.notes.append(
                Note("catalog", str(file), f"{wrong}; thrown away, the next command builds it anew")
            )
            throw_away(file)


def _check_checkpoint(
    storage: Storage, identity: Identity, name: CheckpointName, fresh: Catalog, report: Report
) -> None:
    wrong = ""
    try:
        report.counts.bytes += storage.size(name.key)
        report.counts.checkpoints += 1
        if restoring.belongs(storage, name):
            wrong = _wrong_checkpoint(storage, identity, name, fresh)
        else:
            for _ in image_of(storage, name):
                pass  # its head may be what is damaged
            reason = "it is of another history than this log's: it is not read, and gc deletes it"
            report.notes.append(Note("checkpoint", name.key, reason))
    except (KeyMissing, DamagedLog):
        return  # retired since it was listed; or the log itself is at fault
    except FAULTS as error:
        wrong = reason_of(error)
    except (sqlite3.Error, ValueError) as error:
        if not isinstance(error, sqlite3.Error) or not is_place(error):
            wrong = str(error)
        else:
            report.notes.append(_unseen(name, str(error)))
    except OSError as error:
        report.notes.append(_unseen(name, str(error.strerror)))
    if wrong:
        report.problems.append(Problem("checkpoint", name.key, wrong))


def _wrong_checkpoint(storage: Storage, identity: Identity, name: CheckpointName, fresh: Catalog) -> str:
    """Go on from it to the log's end, as whoever opens the repository without a catalog does."""
    with restoring.workshop(None) as folder:
        file = restoring.unpacked(storage, identity, name, folder)
        with closing(Catalog(storage, identity, [file])) as restored:
            try:
                here = restored.refresh()
            except StorageFailed:
                return ""  # what comes behind it is at fault
            if here.n != fresh.position.n:
                return ""  # the log has grown since, or cannot be read so far
            wrong = _difference(restored, fresh) if here == fresh.position else "it tells another time"
            if restored.replaced is not None:
                # It met what makes no sense and folded the log instead, as every reader does.
                raise restored.replaced
            return wrong


def _unseen(name: CheckpointName, reason: str) -> Note:
    return Note("checkpoint", name.key, f"there is no place to look at it: {reason}")


def _is_damaged(connection: sqlite3.Connection) -> bool:
    faults = [row[0] for row in connection.execute("PRAGMA integrity_check").fetchall()]
    # SQLite 3.40 sees NULLs in sound tables without rowid; the comparison of rows sees real ones.
    return any(fault != "ok" and not fault.startswith("NULL value in ") for fault in faults)


def _difference(cached: Catalog, fresh: Catalog) -> str:
    """What a cached catalog says otherwise than the log; empty if nothing."""
    if _is_damaged(cached.connection):
        return "SQLite finds it damaged"
    formats = [each.connection.execute(_FORMAT).fetchall() for each in (cached, fresh)]
    if formats[0] != formats[1]:
        return "its format is not what the log says"
    # Which facts stand depends on what was asked; what they say does not.
    for one, other in ((cached, fresh), (fresh, cached)):
        stand = one.connection.execute("SELECT space, key, model FROM keys WHERE filled").fetchall()
        filling.fill(other.connection, stand)
    for table, columns in _COMPARED.items():
        count = len(fresh.connection.execute(f"SELECT {columns} FROM {table} LIMIT 0").description)  # noqa: S608 - as below
        order = ", ".join(str(i + 1) for i in range(count))
        sql = f"SELECT {columns} FROM {table} ORDER BY {order}"  # noqa: S608 - names of our own schema
        ours = fresh.connection.cursor(sqlite3.Cursor).execute(sql)
        theirs = cached.connection.cursor(sqlite3.Cursor).execute(sql)
        if any(a != b for a, b in zip_longest(ours, theirs)):
            return f"its {table.replace('_', ' ')} are not what the log says"
    records = zip_longest(*(asking.every_record(each.connection) for each in (cached, fresh)))
    if any(a != b for a, b in records):
        return "its records are not what the log says"
    return ""
