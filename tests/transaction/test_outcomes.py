"""Every answer to the put of an entry but success is settled by reading (FORMAT.md, section 3.2)."""

from __future__ import annotations

import pytest

from commits import Summary, World, configure, increment
from faults import CRASHES, ERRORS, Fault, FaultyStorage, contents, run_into
from stemmata.errors import (
    CommitUnknown,
    KeyExists,
    OutcomeUnknown,
    StemmataError,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)
from stemmata.log.entries import log_key
from stemmata.storage.base import Buffer
from stemmata.storage.memory import MemoryStorage
from stemmata.transaction import commit


@pytest.mark.parametrize("fault", [Fault.AFTER, Fault.REPLY_LOST])
def test_i6_an_entry_that_was_written_all_the_same_is_committed_once(world: World, fault: Fault) -> None:
    done = commit(world.catalog, FaultyStorage(world.storage, 0, fault), increment, by="tester")
    assert [e["txn"] for e in world.entries()] == [done.txn]
    assert world.value() == 1


def test_an_unknown_outcome_is_tried_again_with_the_same_bytes(world: World) -> None:
    storage = FaultyStorage(world.storage, 0, Fault.UNKNOWN)
    done = world.commit(configure(1), storage=storage)
    assert storage.log == [f"put_new {log_key(1)}"] * 2
    assert [e["txn"] for e in world.entries()] == [done.txn]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.BEFORE, StorageFailed),
        (Fault.ENOSPC, StorageFull),
        (Fault.EIO, StorageFailed),
        (Fault.TORN, StorageFailed),
    ],
)
def test_i5_what_was_not_written_is_raised(world: World, fault: Fault, error: type[StemmataError]) -> None:
    storage = FaultyStorage(world.storage, 0, fault)
    with pytest.raises(error):
        world.commit(configure(1), storage=storage)
    assert storage.writes == 1
    assert world.entries() == []
    world.commit(configure(2))
    assert world.value() == 2


def test_a_read_only_storage_is_said_to_be(world: World) -> None:
    class ReadOnly(MemoryStorage):
        def put_new(self, key: str, data: Buffer) -> None:
            raise StorageReadOnly(where="there", reason="no")

    storage = ReadOnly()
    storage._kept = world.storage._kept  # type: ignore[attr-defined]
    with pytest.raises(StorageReadOnly):
        world.commit(configure(1), storage=storage)


def test_an_outcome_that_stays_unknown_is_said_so(world: World) -> None:
    storage = FaultyStorage(world.storage, 0, Fault.UNKNOWN, lasting=True)
    before = contents(world.storage)
    with pytest.raises(CommitUnknown, match="entry 1"):
        world.commit(configure(1), new_packs=[Summary()], storage=storage)
    assert storage.writes == 4
    assert contents(world.storage) == before


class Mute(FaultyStorage):
    """The answer to the put is lost, and the next reads of that entry fail."""

    silent = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if self.fired and self.silent > 0 and key == log_key(1):
            self.silent -= 1
            raise StorageFailed(where=self.where, reason="no answer")
        return super().get(key, start, length)


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.AFTER])
def test_settling_is_tried_again(world: World, fault: Fault) -> None:
    storage = Mute(world.storage, 0, fault)
    storage.silent = 2
    done = world.commit(configure(1), storage=storage)
    assert [e["txn"] for e in world.entries()] == [done.txn]


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.AFTER, Fault.BEFORE])
def test_what_cannot_be_settled_is_unknown(world: World, fault: Fault) -> None:
    storage = Mute(world.storage, 0, fault)
    storage.silent = 100
    with pytest.raises(CommitUnknown):
        world.commit(configure(1), storage=storage)


class Unsynced(FaultyStorage):
    """What is written can be read, and so often it cannot be made durable."""

    failures = 0

    def make_durable(self, key: str) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise StorageFailed(where=self.where, reason="too many open files")
        super().make_durable(key)


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.AFTER])
def test_i1_an_entry_that_is_read_back_is_committed_once_it_is_durable(world: World, fault: Fault) -> None:
    storage = Unsynced(world.storage, 0, fault)
    storage.failures = 2
    done = world.commit(configure(1), storage=storage)
    assert storage.failures == 0
    assert [e["txn"] for e in world.entries()] == [done.txn]


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.AFTER])
def test_i1_an_entry_that_can_only_be_read_back_is_unknown(world: World, fault: Fault) -> None:
    storage = Unsynced(world.storage, 0, fault)
    storage.failures = 100
    with pytest.raises(CommitUnknown):
        world.commit(configure(1), storage=storage)
    assert storage.writes == 1


class Script(MemoryStorage):
    """Answers puts of entries as scripted: (is it written?, what is raised)."""

    def __init__(self, *script: tuple[bool, StemmataError | None]) -> None:
        super().__init__()
        self.script = list(script)

    def put_new(self, key: str, data: Buffer) -> None:
        if not key.startswith("log/") or not self.script:
            super().put_new(key, data)
            return
        writes, error = self.script.pop(0)
        if writes:
            super().put_new(key, data)
        if error is not None:
            raise error


LOST_REPLY = OutcomeUnknown(key="k", reason="r")
FULL = StorageFull(where="w")


@pytest.mark.parametrize(
    "script",
    [
        [(False, LOST_REPLY), (True, None)],
        [(False, LOST_REPLY), (True, LOST_REPLY)],
        [(False, LOST_REPLY), (True, FULL)],
        [(False, LOST_REPLY), (False, FULL), (True, None)],
        [(True, LOST_REPLY)],
        [(True, FULL)],
        [(True, KeyExists(key="k"))],
        [(False, KeyExists(key="k")), (True, None)],
    ],
)
def test_i6_every_answer_is_settled_by_reading(script: list[tuple[bool, StemmataError | None]]) -> None:
    storage = Script(*script)
    world = World(storage)
    done = commit(world.catalog, storage, increment, by="tester")
    assert storage.script == []
    assert [e["txn"] for e in world.entries()] == [done.txn]
    assert world.value() == 1
    world.catalog.close()


def test_a_full_disk_after_a_lost_reply_is_unknown() -> None:
    storage = Script((False, LOST_REPLY), (False, FULL), (False, FULL), (False, FULL))
    world = World(storage)
    with pytest.raises(CommitUnknown):
        world.commit(configure(1))
    world.catalog.close()


@pytest.mark.parametrize("fault", [*ERRORS, *CRASHES])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_i5_a_fault_at_any_write_leaves_before_or_after(world: World, at: int, fault: Fault) -> None:
    """Four commits through a storage that fails once: each is there once or not at all."""
    storage = FaultyStorage(world.storage, at, fault)
    kept = 0
    for _ in range(4):
        error = run_into(fault, lambda: commit(world.catalog, storage, increment, by="tester"))
        kept += error is None
        if storage.dead:
            break
    value = world.value()
    assert value == len(world.entries())
    if fault.is_crash:
        assert value in (kept, kept + 1)
    else:
        assert value == kept
    commit(world.catalog, world.storage, increment, by="after")
    assert world.value() == value + 1
