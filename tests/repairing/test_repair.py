"""What is damaged in packs is mended from wherever it still is, and nothing else changes (I3, I4, I7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from faults import Damage, contents, damage, memory_of
from shop import Epochs, require_sound
from stemmata.catalog import queries
from stemmata.codecs.frames import read_header
from stemmata.errors import RepairSourceMissing, StorageReadOnly
from stemmata.ids import Digest, PackName
from stemmata.packs import IndexRow, PackReader
from stemmata.repository import Repository
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage

COUNT = 3
Stores = Callable[[], MemoryStorage]


def packs_in_order(repo: Repository) -> list[PackName]:
    """One for each save."""
    rows = repo.session.catalog.connection.execute("SELECT name FROM packs ORDER BY n").fetchall()
    return [PackName(row[0]) for row in rows]


def pack_of(storage: Storage, k: int) -> PackName:
    with Repository(storage) as repo:
        return packs_in_order(repo)[k]


def tensors(storage: Storage, pack: PackName) -> list[tuple[Digest, IndexRow]]:
    """Of a pack, where they lie; by place."""
    reader = PackReader(storage, pack)
    rows = [
        (digest, row)
        for digest, row in reader.index.rows()
        if read_header(memoryview(reader.read_row(digest, row))).dtype.has_planes
    ]
    return sorted(rows, key=lambda each: each[1].offset)


def require_all(epochs: Epochs, storage: Storage, count: int = COUNT) -> None:
    """Everything reads as it was saved, and a full check finds nothing."""
    with Repository(storage) as repo:
        for k in range(count):
            epochs.require(repo, k)
    require_sound(storage)


def flipped(storage: Storage, k: int, *, head: bool = False, which: int = 0) -> Digest:
    """Damage a tensor of save `k`; its digest."""
    pack = pack_of(storage, k)
    digest, row = tensors(storage, pack)[which]
    damage(storage, pack.key, Damage.FLIP, row.offset + (4 if head else row.stored // 2))
    return digest


# --- where it comes from ----------------------------------------------------------------------------


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("k", range(COUNT))
def test_a_damaged_tensor_comes_from_the_folder_that_was_saved(
    epochs: Epochs, store: Stores, k: int, head: bool
) -> None:
    storage = store()
    flipped(storage, k, head=head)
    with Repository(storage) as repo:
        found = repo.repair(epochs.folder(k))
        assert found.sound, found
        assert [(r.source, r.objects) for r in found.restored] == [(str(epochs.folder(k)), 1)]
        assert len(found.whole) == (COUNT if k == 0 else 1)  # each later one leans on the first
        assert not found.lost
        again = repo.repair(epochs.folder(k))
    assert again.sound
    assert not (again.damaged or again.packs_added or again.packs_retired)
    require_all(epochs, storage)
