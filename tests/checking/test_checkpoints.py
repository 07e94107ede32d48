"""Checkpoints are held against the log's fold, told of, collected and made anew."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaigns import cases
from checkpointed import forged, sealed
from faults import Damage, FaultyStorage, contents, damage, damaged, memory_of, replace
from stemmata.catalog import checkpointing, checkpoints
from stemmata.catalog.checkpoints import CheckpointName, find_checkpoints, image_of
from stemmata.catalog.schema import VERSION
from stemmata.checking import Report, check
from stemmata.log.entries import log_key
from stemmata.repository import Repository
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage
from stored import Stored, read_or_refuse


@pytest.fixture
def storage(stored: Stored) -> MemoryStorage:
    """Twelve entries, and a checkpoint of them."""
    storage = memory_of(stored.kept)
    with Repository(storage) as repo:
        checkpointing.write(storage, repo.session.identity)
    return storage


def only(storage: Storage) -> CheckpointName:
    (name,) = find_checkpoints(storage)
    return name


def check_structure(storage: Storage) -> Report:
    return check(storage, level="structure")


def test_a_sound_one_is_counted_and_no_stranger(storage: MemoryStorage) -> None:
    report = check(storage)
    assert report.sound
    assert report.notes == []
    assert report.counts.checkpoints == 1
    assert report.counts.bytes == sum(len(v) for k, v in contents(storage).items() if k != "stemmata.json")


def test_one_that_the_disk_does_not_hand_out_is_told_and_done_without(
    storage: MemoryStorage, stored: Stored
) -> None:
    faulty = FaultyStorage(storage)
    faulty.unread = {only(storage).key}
    assert [(p.kind, p.where) for p in check(faulty).problems] == [("checkpoint", only(storage).key)]
    with Repository(faulty) as repo:
        assert read_or_refuse(repo, stored) == 0


def test_one_that_the_log_has_outgrown_is_sound(storage: MemoryStorage) -> None:
    with Repository(storage) as repo:
        repo.alias("toy", "other", repo["toy@staging"])
        repo.delete(repo["base@one"])
    assert check_structure(storage).problems == []


@given(how=st.sampled_from([how for how in Damage if how is not Damage.GONE]), at=st.integers(0, 1 << 24))
@settings(
    max_examples=cases(15, 200),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_i4_any_damage_of_one_is_found_and_hides_nothing(
    storage: MemoryStorage, stored: Stored, how: Damage, at: int
) -> None:
    name = only(storage)
    bad = damaged(storage.get(name.key), how, at)
    assert bad is not None
    kept = {**contents(storage), name.key: bad}
    assert not check_structure(memory_of(kept)).sound
    with tempfile.TemporaryDirectory() as folder:
        root = Stored(kept, stored.files, stored.names).lay_out(Path(folder) / "repo")
        with Repository(LocalStorage(root)) as repo:
            assert read_or_refuse(repo, stored) == 0


LIES = (
    "UPDATE versions SET message = 'a lie' WHERE seq = 1",
    "UPDATE pointers SET target = (SELECT id FROM versions WHERE seq = 1) WHERE name = 'staging'",
    "DELETE FROM annotations",
    "UPDATE packs SET state = 'retired'",
    "INSERT INTO voids VALUES (3, 'a lie')",
    "INSERT INTO meta VALUES ('format', '1')",
    "UPDATE records SET data = x'00'",
    "UPDATE shared SET text = x'7b226c72223a317d'",
    "UPDATE meta SET value = replace(value, '20', '21') WHERE key = 'position'",
    "UPDATE versions SET metrics = 'no json'",
)


@pytest.mark.parametrize("lie", LIES)
def test_i8_a_sealed_lie_is_found_and_made_anew(storage: MemoryStorage, tmp_path: Path, lie: str) -> None:
    changed: list[int] = []

    def tell(connection: sqlite3.Connection) -> None:
        changed.append(connection.execute(lie).rowcount)

    name = forged(storage, tmp_path, tell)
    assert changed[0] > 0
    require_found_and_renewed(storage, name)


def pages_gone(image: bytes) -> bytes:
    return image[: 4096 * 8] + b"\xff" * 4096 * 4 + image[4096 * 12 :]


@pytest.mark.parametrize("spoil", [
    lambda storage, key: damage(storage, key, Damage.FLIP, 3000),
    lambda storage, key: damage(storage, key, Damage.CUT, 3000),
    lambda storage, key: damage(storage, key, Damage.FLIP, 5),
    lambda storage, key: damage(storage, key, Damage.FLIP, 40),
    lambda storage, key: damage(storage, key, Damage.EMPTY, 0),
])  # fmt: skip
def test_a_damaged_one_is_found_and_made_anew(
    storage: MemoryStorage, spoil: Callable[[Storage, str], None]
) -> None:
    name = only(storage)
    spoil(storage, name.key)
    require_found_and_renewed(storage, name)


def test_a_sealed_one_with_broken_pages_is_found(storage: MemoryStorage, tmp_path: Path) -> None:
    name = only(storage)
    (tmp_path / "image").write_bytes(pages_gone(b"".join(image_of(storage, name))))
    storage.delete(name.key)
    require_found_and_renewed(storage, sealed(storage, tmp_path / "image", name.n))


def require_found_and_renewed(storage: Storage, name: CheckpointName) -> None:
    report = check_structure(storage)
    assert [(p.kind, p.where) for p in report.problems] == [("checkpoint", name.key)]
    assert report.affected == []
    with Repository(storage) as repo:
        told = repo.repair(dry_run=True, level="structure")
        assert (told.checkpoints, told.sound) == ([name.key], False)
        assert name in find_checkpoints(storage)
        done = repo.repair(level="structure")
        assert (done.checkpoints, done.sound, done.packs_added) == ([name.key], True, 0)
    assert only(storage).n == name.n
    assert only(storage) != name
    assert check_structure(storage).notes == check_structure(storage).problems == []


def test_one_of_another_history_is_noted_and_collected(storage: MemoryStorage) -> None:
    name = only(storage)
    for n in (name.n, name.n - 1):
        storage.delete(log_key(n))
    report = check_structure(storage)
    assert report.sound
    assert [(note.kind, note.where) for note in report.notes] == [("checkpoint", name.key)]
    size = storage.size(name.key)
    with Repository(storage) as repo:
        assert repo.gc(dry_run=True).deleted == size
        assert repo.gc().deleted == size
    assert check_structure(storage).notes == []


def test_keys_that_are_none_are_unknown_files(storage: MemoryStorage) -> None:
    key = f"checkpoints/{VERSION}/12.checkpoint"
    storage.put_new(key, b"x")
    newer = CheckpointName(VERSION + 1, 12, "0" * 16).key
    storage.put_new(newer, b"what a newer release wrote")
    assert [(note.kind, note.where) for note in check_structure(storage).notes] == [("unknown", key)]
    with Repository(storage) as repo:
        repo.gc()
    assert newer in contents(storage)


def test_one_that_is_due_is_noted_and_written_by_gc(
    storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 4)
    storage.delete(only(storage).key)
    assert [note.kind for note in check_structure(storage).notes] == ["checkpoint"]
    with Repository(storage) as repo:
        assert repo.gc(dry_run=True).checkpoint == 0
        assert find_checkpoints(storage) == []
        done = repo.gc()
    assert done.checkpoint == storage.size(only(storage).key)
    assert check_structure(storage).notes == []


def test_i4_a_damaged_log_is_the_logs_matter_alone(storage: MemoryStorage) -> None:
    replace(storage, log_key(3), storage.get(log_key(3))[:-5])
    assert {p.kind for p in check_structure(storage).problems} == {"log"}
