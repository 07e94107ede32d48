"""Checkpoints are written where they are due, beside other writers, and harm nothing wherever that ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpointed import folded, forged, grown, opened, said, sealed, written
from commits import World
from faults import Fault, FaultyStorage, contents, every_fault, memory_of, run_into
from ledger import Ledger, add_pack
from stemmata import transaction
from stemmata.catalog import checkpointing, checkpoints
from stemmata.catalog.catalog import FILE, Catalog
from stemmata.catalog.checkpoints import CheckpointName, find_checkpoints, image_of
from stemmata.catalog.schema import VERSION
from stemmata.ids import Digest
from stemmata.log.identity import read_identity
from stemmata.log.reader import fetch
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage
from stemmata.storage.readonly import ReadOnlyStorage


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> int:
    """Checkpoints every eight entries."""
    monkeypatch.setattr(checkpoints, "EVERY", 8)
    monkeypatch.setattr(transaction, "EVERY", 8)
    return 8


def writer(storage: Storage) -> World:
    """Somebody who commits into a repository that is there."""
    made = World.__new__(World)
    made.storage, made.catalog = storage, Catalog(storage, read_identity(storage), [])
    return made


def ends(storage: Storage) -> list[int]:
    """Where the checkpoints end."""
    return [name.n for name in find_checkpoints(storage)]


def require_whole(storage: Storage) -> None:
    """Every checkpoint is as it was written, and of this log."""
    for name in find_checkpoints(storage):
        for _ in image_of(storage, name):
            pass
        assert checkpoints.head_of(storage, name).hash == Digest.of(fetch(storage, name.n) or b"")


def require_sound(storage: Storage, folder: Path) -> None:
    """Whoever opens it reads what the log says, too."""
    require_whole(storage)
    identity = read_identity(storage)
    assert said(opened(storage, identity, folder / FILE)) == folded(storage, identity)


def test_commits_leave_one_where_it_is_due(often: int, tmp_path: Path) -> None:
    world = World()
    seen: list[list[int]] = []
    for n in range(1, 26):
        world.commit(add_pack(n))
        seen.append(ends(world.storage))
    assert seen == [[]] * 7 + [[8]] * 8 + [[16]] * 8 + [[24]] * 2
    require_sound(world.storage, tmp_path)


def test_a_longer_log_waits_longer(often: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SHARE", 2)
    world = World()
    seen: set[int] = set()
    for n in range(1, 100):
        world.commit(add_pack(n))
        seen |= set(ends(world.storage))
    # Each is half as much again as the one before, rounded up: a commit's share of them never grows.
    assert sorted(seen) == [8, 16, 24, 40, 64, 96]


def test_a_commit_folds_no_log_that_had_none_for_long(often: int) -> None:
    world = World()
    world.ledger = grown(world.ledger, 31)
    world.commit(add_pack(99))
    assert ends(world.storage) == []
    checkpointing.renew(world.storage, world.ledger.identity)
    assert ends(world.storage) == [32]
    for n in range(8):
        world.commit(add_pack(200 + n))
    assert ends(world.storage) == [40]


def test_a_commit_makes_none_of_a_very_large_catalog(often: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "_MOST_RAW", 1000)
    world = World()
    for n in range(16):
        world.commit(add_pack(n + 1))
    # The first one is small by its log; how large it became is known for the second.
    assert ends(world.storage) == [8]
    assert checkpointing.renew(world.storage, world.ledger.identity) > 0
    assert ends(world.storage) == [16]


def test_two_writers_take_turns(often: int, tmp_path: Path) -> None:
    one = World()
    two = writer(one.storage)
    for n in range(1, 18):
        (one if n % 2 else two).commit(add_pack(n))
    assert ends(one.storage) == [16]
    require_sound(one.storage, tmp_path)


def test_i6_a_writer_who_is_slow_leaves_the_newer_one(often: int, tmp_path: Path) -> None:
    ledger = grown(Ledger(MemoryStorage()), 8)
    inner = ledger.storage
    faulty = FaultyStorage(inner)

    def others(write: str) -> None:
        if write.startswith("commit checkpoints/"):
            faulty.before_write = None
            written(grown(ledger, 8))

    faulty.before_write = others
    name = checkpointing.write(faulty, ledger.identity)
    assert name is not None
    assert name.n == 8
    # Its own went again, for a newer one was there.
    assert ends(inner) == [16]
    require_sound(inner, tmp_path)


def test_a_reader_whose_checkpoint_goes_takes_the_one_that_came(often: int, tmp_path: Path) -> None:
    class Moving(MemoryStorage):
        """Deletes a checkpoint under the first reader that has seen its head."""

        reads = 0
        armed = False

        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            if self.armed and key.startswith("checkpoints/"):
                self.reads += 1
                if self.reads == 2:
                    self.armed = False
                    written(ledger)
            return super().get(key, start, length)

    ledger = grown(Ledger(storage := Moving()), 8)
    (old,) = [written(ledger)]
    grown(ledger, 3)
    storage.armed = True
    catalog = opened(storage, ledger.identity, tmp_path / FILE)
    assert not storage.armed
    assert old.n not in ends(storage)
    assert catalog.connection.execute("SELECT COUNT(*) FROM facts").fetchone() == (0,)
    assert said(catalog) == folded(storage, ledger.identity)


def test_i5_a_fault_at_any_write_of_it_leaves_sound_checkpoints(often: int, tmp_path: Path) -> None:
    ledger = grown(Ledger(), 8)
    written(ledger)
    grown(ledger, 8)
    start, identity = contents(ledger.storage), ledger.identity
    expected = folded(ledger.storage, identity)
    counting = FaultyStorage(memory_of(start))
    checkpointing.write_due(counting, identity, 16)
    writes = ["start_new", "write", "write", "write", "commit", "delete"]
    assert [write.split()[0] for write in counting.log] == writes
    for at, fault in every_fault(counting.writes):
        inner = memory_of(start)
        faulty = FaultyStorage(inner, at, fault)
        error = run_into(fault, lambda s=faulty: checkpointing.write_due(s, identity, 16))
        # No trouble of a checkpoint is told to who has committed.
        assert (error is not None) == fault.is_crash
        assert ends(inner) in ([8], [16], [16, 8]), (counting.log[at], fault)
        require_whole(inner)
        assert said(opened(inner, identity, tmp_path / FILE)) == expected
        # The next one tidies up.
        checkpointing.retire(inner)
        assert len(ends(inner)) == 1


def test_a_full_disk_fails_no_commit(often: int) -> None:
    ledger = grown(Ledger(), 7)
    faulty = FaultyStorage(ledger.storage)
    world = writer(faulty)
    faulty.at, faulty.fault, faulty.lasting = 1, Fault.ENOSPC, True
    assert world.commit(add_pack(50)).position.n == 8
    assert ends(ledger.storage) == []


def test_a_repository_that_may_not_be_written_gets_none(often: int) -> None:
    ledger = grown(Ledger(), 9)
    assert checkpointing.renew(ReadOnlyStorage(ledger.storage, "it is read only"), ledger.identity) == 0
    assert ends(ledger.storage) == []


def test_none_of_an_empty_log() -> None:
    ledger = Ledger()
    assert checkpointing.write(ledger.storage, ledger.identity) is None
    assert contents(ledger.storage, "checkpoints/") == {}


def test_the_catalog_in_use_does_not_go_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))
    ledger = grown(Ledger(storage := LocalStorage(tmp_path / "repo")), 5)
    file = storage.root / "cache" / FILE
    catalog = opened(storage, ledger.identity, file)
    catalog.connection.execute("UPDATE versions SET message = 'what nobody said'")
    catalog.connection.execute("INSERT INTO objects VALUES (x'00', x'00')")
    catalog.close()
    written(ledger)
    assert said(opened(storage, ledger.identity, file)) == folded(storage, ledger.identity)


def test_without_any_cache_folder_it_is_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))
    ledger = grown(Ledger(storage := LocalStorage(tmp_path / "repo")), 5)
    for place in (storage.root / "cache", tmp_path / "user"):
        place.write_text("in the way")
    assert written(ledger).n == 5
    require_sound(storage, tmp_path)


def test_what_nobody_will_want_is_retired(tmp_path: Path) -> None:
    ledger = grown(Ledger(), 8)
    storage = ledger.storage
    old = written(ledger)
    kept = storage.get(old.key)
    grown(ledger, 2)
    new = written(ledger)
    strangers = {
        "damaged": CheckpointName.fresh(9).key,
        "beyond the end": CheckpointName.fresh(99).key,
        "older release": CheckpointName(VERSION - 1, 10, "0" * 16).key,
        "newer release": CheckpointName(VERSION + 1, 10, "0" * 16).key,
    }
    for key in (old.key, *strangers.values()):
        storage.put_new(key, kept)
    assert {key.key for key in checkpointing.retired(storage)} == {old.key, *strangers.values()} - {
        strangers["newer release"]
    }
    freed = checkpointing.retire(storage)
    assert freed == 4 * len(kept)
    assert set(contents(storage, "checkpoints/")) == {new.key, strangers["newer release"]}


def test_those_of_an_older_release_serve_it_until_there_is_one_of_this() -> None:
    ledger = grown(Ledger(), 8)
    older = CheckpointName(VERSION - 1, 8, "0" * 16).key
    ledger.storage.put_new(older, b"what that release wrote")
    assert checkpointing.retired(ledger.storage) == []
    written(ledger)
    assert older not in contents(ledger.storage, "checkpoints/")


def test_a_lie_is_taken_over_by_the_next_one_and_found_by_the_fold(tmp_path: Path) -> None:
    """Who may write may lie, in checkpoints as in the log: `check` holds them against the log."""
    ledger = grown(Ledger(), 8)
    written(ledger)
    lie = "UPDATE versions SET message = 'a lie' WHERE seq = 1"
    forged(ledger.storage, tmp_path, lambda connection: connection.execute(lie))
    grown(ledger, 1)
    written(ledger)
    catalog = opened(ledger.storage, ledger.identity, tmp_path / FILE)
    assert catalog.connection.execute("SELECT message FROM versions WHERE seq = 1").fetchone() == ("a lie",)
    assert said(catalog) != folded(ledger.storage, ledger.identity)


def test_one_sealed_over_a_position_that_was_never_is_refused(tmp_path: Path) -> None:
    ledger = grown(Ledger(), 8)
    (tmp_path / "image").write_bytes(b"".join(image_of(ledger.storage, written(ledger))))
    ledger.storage.delete(find_checkpoints(ledger.storage)[0].key)
    sealed(ledger.storage, tmp_path / "image", 7)
    assert said(opened(ledger.storage, ledger.identity, tmp_path / FILE)) == folded(
        ledger.storage, ledger.identity
    )
