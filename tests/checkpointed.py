"""Logs with checkpoints: what a fold says, what one says that began with a checkpoint, and forged ones."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ledger import Ledger, add_pack, add_version, every_row
from stemmata.catalog import checkpointing, filling
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.checkpoints import CheckpointName, find_checkpoints, image_of, write_checkpoint
from stemmata.log.entries import Position, log_key
from stemmata.log.identity import Identity
from stemmata.log.reader import fetch
from stemmata.storage.base import Storage
from stemmata.storage.memory import MemoryStorage

Rows = dict[str, list[tuple]]  # type: ignore[type-arg]


class Counting(MemoryStorage):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Counter[str] = Counter()

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.read[key] += 1
        return super().get(key, start, length)


def grown(ledger: Ledger, count: int) -> Ledger:
    """With so many more entries, each with a version."""
    for n in range(ledger.here.n + 1, ledger.here.n + 1 + count):
        ledger.append(add_pack(n), add_version(n, packs=[n], metrics={"loss": float(n)}, config={"lr": n}))
    return ledger


def said(catalog: Catalog) -> Rows:
    """All rows that the log decides, with all facts made; no order but that of versions counts."""
    with closing(catalog):
        connection = catalog.connection
        keys = connection.execute("SELECT space, key, model FROM keys ORDER BY id").fetchall()
        filling.fill(connection, keys)
        rows = every_row(connection)
        rows["fact_moves"] = [row[1:] for row in rows["fact_moves"]]
        rows["meta"] = [row for row in rows["meta"] if row[0] not in ("inode", "restored")]
        return {table: sorted(found, key=repr) for table, found in rows.items()}


def folded(storage: Storage, identity: Identity) -> Rows:
    """By the log alone."""
    catalog = Catalog(storage, identity, [])
    catalog.refresh()
    return said(catalog)


def opened(storage: Storage, identity: Identity, file: Path) -> Catalog:
    """As a repository is opened whose catalog, in that file, is gone."""
    file.unlink(missing_ok=True)
    catalog = Catalog(storage, identity, [file], checkpoints=True)
    catalog.refresh()
    return catalog


def restored(storage: Counting, identity: Identity, file: Path) -> Rows | None:
    """What is said by who opens it from a checkpoint; None if the log was folded from its begin."""
    storage.read.clear()
    catalog = opened(storage, identity, file)
    if storage.read[log_key(1)] and catalog.position.n > 1:
        catalog.close()
        return None
    return said(catalog)


def forged(
    storage: Storage, folder: Path, change: Callable[[sqlite3.Connection], object], *, n: int | None = None
) -> CheckpointName:
    """Replace the newest checkpoint by one that is sealed as well, with a catalog that was changed."""
    (name, *_) = find_checkpoints(storage)
    image = folder / "forged.sqlite"
    image.unlink(missing_ok=True)
    image.write_bytes(b"".join(image_of(storage, name)))
    with closing(sqlite3.connect(image, isolation_level=None)) as connection:
        change(connection)
    storage.delete(name.key)
    return sealed(storage, image, n or name.n)


def sealed(storage: Storage, image: Path, n: int) -> CheckpointName:
    """Any file as the checkpoint of entry `n`, with the hash that this has."""
    from stemmata.ids import Digest

    return write_checkpoint(storage, Position(n, Digest.of(fetch(storage, n) or b""), ""), image)


def written(ledger: Ledger) -> CheckpointName:
    name = checkpointing.write(ledger.storage, ledger.identity)
    assert name is not None
    return name
