"""Restoring: a catalog's file out of a checkpoint. Owns what is asked of one before it is used.

It is as it was sealed; the entry that it goes up to is in `log/` and has the hash it had then; its tables are
this release's, to the letter, and hold nothing but what a log says. A checkpoint of which any of this is not
true is passed over: the next one is taken, or the log is folded (I8).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from stemmata.catalog.checkpoints import CheckpointName, find_checkpoints, head_of, image_of, refusal
from stemmata.catalog.connection import SIDES
from stemmata.catalog.recent import parse_position
from stemmata.catalog.schema import INDEXES, SCHEMA, VERSION, statements
from stemmata.errors import Damage, KeyMissing, StemmataError, StorageFailed
from stemmata.ids import Digest
from stemmata.log.identity import Identity
from stemmata.log.reader import fetch
from stemmata.storage import publish
from stemmata.storage.base import Storage
from stemmata.storage.descriptors import sync_file

NOT_OF_THE_LOG = ("objects", "pack_contents", "version_contents", "facts", "fact_moves", "shared_facts")
"""Tables of hints, and of what is made when a question asks for it."""
_PREFIX = "checkpoint-"
_ABANDONED = 24 * 3600.0
_LOOKS = 3


def restore(storage: Storage, identity: Identity, file: Path) -> None:
    """Put a catalog there out of the newest checkpoint that will do; nothing, where none does and where
    something lies there. Never fails."""
    # Beside a journal that is left of another file SQLite would take this one for that.
    if any(file.with_name(file.name + side).exists() for side in SIDES):
        return
    with suppress(StemmataError, OSError, sqlite3.Error, publish.NoMeans):
        if find_checkpoints(storage):
            file.parent.mkdir(parents=True, exist_ok=True)
            with workshop(file.parent) as folder:
                made = _newest_that_will_do(storage, identity, folder)
                if made is not None:
                    _publish(made, file)


def _newest_that_will_do(storage: Storage, identity: Identity, folder: Path) -> Path | None:
    for _ in range(_LOOKS):
        is_gone = False
        for name in find_checkpoints(storage):
            try:
                if belongs(storage, name):
                    return unpacked(storage, identity, name, folder)
            except (Damage, StorageFailed):
                continue
            except KeyMissing:
                is_gone = True
        if not is_gone:
            break  # else a newer one has come in its place
    return None


def belongs(storage: Storage, name: CheckpointName) -> bool:
    """Is it of this very log? Raises DamagedCheckpoint, KeyMissing, and the storage's errors."""
    wanted = head_of(storage, name).hash
    data = fetch(storage, name.n)
    return data is not None and Digest.of(data) == wanted


def unpacked(storage: Storage, identity: Identity, name: CheckpointName, folder: Path) -> Path:
    """The catalog in it, as a file that has been looked at. Raises as `belongs`, and OSError."""
    file = folder / f"{name.nonce}.sqlite"
    wanted = head_of(storage, name).hash
    with file.open("wb") as image:
        for piece in image_of(storage, name):
            image.write(piece)
    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            reason = _fault(connection, identity, name, wanted)
            if reason:
                raise refusal(name)(reason)
            # Which file this is, and that nobody has looked yet whether the log goes on behind a hole.
            signs = [("inode", str(file.stat().st_ino)), ("restored", "")]
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", signs)
    except (sqlite3.Error, ValueError) as error:
        raise refusal(name)(f"SQLite cannot read it: {error}") from None
    return file


@contextmanager
def workshop(parent: Path | None) -> Iterator[Path]:
    """A folder for files that are being made; those that dead processes left there go."""
    from tempfile import TemporaryDirectory  # which no command needs that finds a catalog

    with TemporaryDirectory(prefix=_PREFIX, dir=parent) as made:
        folder = Path(made)
        if parent is not None:
            now = folder.stat().st_mtime
            for old in parent.glob(f"{_PREFIX}*"):
                with suppress(OSError):
                    if old.stat().st_mtime < now - _ABANDONED:
                        shutil.rmtree(old, ignore_errors=True)
        yield folder


def _fault(connection: sqlite3.Connection, identity: Identity, name: CheckpointName, wanted: Digest) -> str:
    """Why a catalog cannot be used; empty if it can. Asked of files from strangers: looked at by name before
    anything in them is used."""
    connection.execute("PRAGMA trusted_schema = OFF")
    shape = _shape()
    # Not only tables: a view or a trigger would be a stranger's program.
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    if set(found.fetchmany(len(shape) + 1)) != shape:
        return "its tables are not those of this release"
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchmany(100))
    here = parse_position((meta.get("position"),))
    if meta.get("schema") != str(VERSION) or meta.get("repository") != identity.repository:
        return "it is of another repository"
    if here is None or (here.n, here.hash) != (name.n, wanted):
        return "it does not go up to the entry that it is named by"
    for table in NOT_OF_THE_LOG:
        if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608 - names of our own
            return "it holds what no log says"
    if connection.execute("SELECT 1 FROM packs WHERE remembered LIMIT 1").fetchone():
        return "it holds what no log says"
    if connection.execute("SELECT 1 FROM keys WHERE filled LIMIT 1").fetchone():
        return "it promises facts that it does not hold"
    return ""


def _shape() -> set[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements(SCHEMA + INDEXES):
            connection.execute(statement)
        return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall())


def _publish(made: Path, file: Path) -> None:
    """Give it its name, all at once and only if nothing has it: another process may have been faster."""
    fd = os.open(made, os.O_RDWR)
    try:
        sync_file(fd)
    finally:
        os.close(fd)
    publish.call_of(publish.probe(file.parent))(made, file)
