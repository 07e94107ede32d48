"""Checkpointing: making checkpoints of the log, and letting old ones go. Owns when one is made, and of what.

Of the log and of an earlier checkpoint alone, never of the catalog that is in use: a cache is no evidence
(I8), and what is wrong in one would be handed to everybody.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from stemmata.catalog.catalog import Catalog, catalog_files, is_usable
from stemmata.catalog.checkpoints import (
    CheckpointName,
    due_after,
    find_checkpoints,
    head_of,
    image_of,
    write_checkpoint,
)
from stemmata.catalog.restoring import NOT_OF_THE_LOG, belongs, workshop
from stemmata.catalog.schema import VERSION
from stemmata.errors import Damage, KeyMissing, StemmataError, StorageFailed
from stemmata.log.identity import Identity
from stemmata.log.reader import exists
from stemmata.storage.base import Storage, StoredKey

_MOST_SPANS = 3
"""Of the log that a save folds for a checkpoint at most; a log that has gone on for longer waits for `gc`."""
_MOST_RAW = 256 << 20
"""Bytes of a catalog of which a save makes another at most, those of some 200,000 versions: no single save is
to wait for longer."""


def write_due(storage: Storage, identity: Identity, n: int) -> None:
    """Write the checkpoint, if it is due behind entry `n`, a multiple of `EVERY`. Never fails."""
    # Best effort, as bundles are: the log itself is complete without it.
    with suppress(StemmataError, sqlite3.Error, OSError):
        newest = _newest(storage)
        before = newest.n if newest is not None else 0
        span = due_after(before) - before
        is_small = newest is None or head_of(storage, newest).raw <= _MOST_RAW
        if span <= n - before <= _MOST_SPANS * span and is_small:
            write(storage, identity)


def renew(storage: Storage, identity: Identity) -> int:
    """Write one if it is due, however much of the log that folds; bytes of it, or 0. Never fails."""
    with suppress(StemmataError, sqlite3.Error, OSError):
        if wants_one(storage):
            name = write(storage, identity)
            return storage.size(name.key) if name is not None else 0
    return 0


def write(storage: Storage, identity: Identity) -> CheckpointName | None:
    """Write one of the whole log as it is now, and delete those before it; None of an empty log, and where
    there is no room to make it.

    Raises DamagedLog, NewerFormat, the storage's errors, OSError, sqlite3.Error.
    """
    folders = (file.parent for file in catalog_files(storage, identity))
    with workshop(next(filter(is_usable, folders), None)) as folder:
        fold, image = folder / "fold.sqlite", folder / "image.sqlite"
        with closing(Catalog(storage, identity, [fold], checkpoints=True)) as catalog:
            here = catalog.refresh()
            if here.n == 0 or catalog.file is None:
                return None
        _copy(fold, image)
        name = write_checkpoint(storage, here, image)
    for _ in image_of(storage, name):
        pass  # read back: only then may the others go
    with suppress(StemmataError):
        retire(storage)
    return name


def retired(storage: Storage) -> list[StoredKey]:
    """Checkpoints that nobody will want: all but the newest of this log, and those of older releases once
    there is one of this. Raises the storage's errors."""
    kept = _newest(storage)
    gone = {
        name.key
        for name in find_checkpoints(storage, None)
        if (name.schema == VERSION and name != kept) or (kept is not None and name.schema < VERSION)
    }
    return [key for key in storage.list("checkpoints/") if key.key in gone]


def retire(storage: Storage) -> int:
    """Delete them; how many bytes those were. A reader that is at one takes another, or folds the log."""
    going = retired(storage)
    for key in going:
        storage.delete(key.key)
    return sum(key.size for key in going)


def wants_one(storage: Storage) -> bool:
    """Has the log reached an entry at which one is due? Raises the storage's errors."""
    newest = _newest(storage)
    return exists(storage, due_after(newest.n if newest is not None else 0))


def _newest(storage: Storage) -> CheckpointName | None:
    """The newest of this release and this log, as far as its head tells."""
    for name in find_checkpoints(storage):
        with suppress(Damage, KeyMissing, StorageFailed):
            if belongs(storage, name):
                return name
    return None


def _copy(fold: Path, image: Path) -> None:
    """A catalog's file without what no log says, each table in one piece."""
    with closing(sqlite3.connect(fold, isolation_level=None)) as connection:
        for table in NOT_OF_THE_LOG:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own schema
        connection.execute("UPDATE keys SET filled = 0")
        connection.execute("DELETE FROM meta WHERE key IN ('inode', 'hole', 'restored')")
        connection.execute("VACUUM INTO ?", (str(image),))
