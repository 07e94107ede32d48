"""A collection that is cut off anywhere leaves all as before or as after; the next one ends it (I5, I7)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from campaigns import LONG
from faults import Fault, FaultyStorage, contents, memory_of, run_into
from shop import Epochs, delete, packs_bytes, planted, require_sound, stored_text
from small_disks import fill, small_disk
from stemmata.errors import StorageFull, StorageProblem, StorageReadOnly
from stemmata.repository import Repository
from stemmata.repository import open as open_repository

# Dead after one write is dead before the next. Every other way to fail takes minutes: scripts/test-slow.
FAULTS = tuple(Fault) if LONG else (Fault.CRASH_AFTER,)


@pytest.fixture(scope="module")
def kept(small_epochs: Epochs) -> dict[str, bytes]:
    """Three versions, the first deleted."""
    repo = Repository.in_memory()
    delete(repo, small_epochs.history(repo, 3)[0])
    return contents(repo.session.storage)


def collect(storage: object) -> None:
    with Repository(storage) as repo:  # type: ignore[arg-type]
        repo.gc(undo_window=0, grace=0)


def test_killed_or_failing_at_every_write(small_epochs: Epochs, kept: dict[str, bytes]) -> None:
    whole = FaultyStorage(memory_of(kept))
    collect(whole)
    assert any(name.startswith("delete packs/") for name in whole.log)
    least = packs_bytes(whole)
    for at in range(whole.writes):
        for fault in FAULTS:
            inner = memory_of(kept)
            faulty = FaultyStorage(inner, at, fault)
            run_into(fault, lambda f=faulty: collect(f))  # type: ignore[misc]
            assert faulty.fired, whole.log[at]
            with Repository(inner) as repo:
                for k in (1, 2):
                    small_epochs.require(repo, k)
            collect(inner)
            require_all_done(small_epochs, inner, least, f"{fault.name} at {whole.log[at]}")


def require_all_done(epochs: Epochs, storage: object, least: int, where: str) -> None:
    with Repository(storage) as repo:  # type: ignore[arg-type]
        for k in (1, 2):
            epochs.require(repo, k)
    require_sound(storage)  # type: ignore[arg-type]
    stored = stored_text(storage)  # type: ignore[arg-type]
    assert planted("provenance", 0).encode() not in stored, where
    assert planted("file", 0).encode() not in stored, where
    assert packs_bytes(storage) <= least + 64, where  # type: ignore[arg-type]


def test_a_full_disk_loses_nothing_and_a_later_run_succeeds(tmp_path: Path, epochs: Epochs) -> None:
    epochs.folder(7)
    with (
        small_disk(tmp_path / "disk", 3 << 20) as disk,
        open_repository(disk / "models", create=True) as repo,
    ):
        delete(repo, *epochs.history(repo, 8)[:6])
        ballast = fill(disk)
        with pytest.raises(StorageFull):
            repo.gc(undo_window=0, grace=0)
        for k in (6, 7):
            epochs.require(repo, k)
        ballast.unlink()
        assert repo.gc(undo_window=0, grace=0).deleted
        for k in (6, 7):
            epochs.require(repo, k)
        require_sound(repo.session.storage)


def test_a_read_only_store_is_said_to_be_one(epochs: Epochs, kept: dict[str, bytes]) -> None:
    inner = memory_of(kept)
    faulty = FaultyStorage(inner)

    def refuse() -> None:
        raise StorageReadOnly(where="memory", reason="a planted fault")

    faulty.require_writable = refuse  # type: ignore[method-assign]
    before = contents(inner)
    with Repository(faulty) as repo:
        with pytest.raises(StorageReadOnly):
            repo.gc(undo_window=0, grace=0)
        assert repo.gc(dry_run=True, undo_window=0, grace=0).forgotten
    assert contents(inner) == before


def test_damage_in_what_is_needed_stops_a_collection_before_it_begins(kept: dict[str, bytes]) -> None:
    """What a damaged version needs cannot be told: nothing is retired on a guess."""
    from stemmata.errors import Damage

    for key in [key for key in kept if key.startswith("packs/")]:
        inner = memory_of({k: v for k, v in kept.items() if k != key})
        before = contents(inner)
        with Repository(inner) as repo:
            needed = repo.session.catalog
            repo.refresh()
            sql = "SELECT 1 FROM version_packs p JOIN versions v ON v.seq = p.version"
            sql += " WHERE v.state = 'visible' AND lower(hex(p.pack)) = ?"
            if not needed.connection.execute(sql, (key[-37:-5],)).fetchall():
                continue
            with pytest.raises((Damage, StorageProblem)):
                repo.gc(undo_window=0, grace=0)
        assert contents(inner) == before


def test_leftovers_of_dead_writers_and_checkouts_of_what_is_gone(tmp_path: Path, epochs: Epochs) -> None:
    with open_repository(tmp_path / "models", create=True) as repo:
        versions = epochs.history(repo, 2)
        path = versions[0].path()
        old, new = (tmp_path / "models" / "tmp" / name for name in ("old", "new"))
        for file in (old, new):
            file.write_bytes(b"unfinished")
        now = new.stat().st_mtime
        os.utime(old, (now - 2 * 86400, now - 2 * 86400))
        delete(repo, versions[0])
        assert path.exists()
        found = repo.gc(undo_window=0, grace=0)
        assert (found.cached, found.leftovers) == (1, 1)
        assert not path.exists()
        assert new.exists()
        assert not old.exists()
