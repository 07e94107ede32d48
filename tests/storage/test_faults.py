"""The faulty storage itself: a fault that does not strike would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import (
    Crash,
    Damage,
    Fault,
    FaultyStorage,
    contents,
    damage,
    damaged,
    every_fault,
    is_there,
    memory_of,
    run_into,
)
from stemmata.errors import KeyMissing, OutcomeUnknown, StorageFailed, StorageFull
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage
from storage_contract import StorageContract

RAISED = {
    Fault.BEFORE: StorageFailed,
    Fault.AFTER: StorageFailed,
    Fault.TORN: StorageFailed,
    Fault.REPLY_LOST: OutcomeUnknown,
    Fault.UNKNOWN: OutcomeUnknown,
    Fault.ENOSPC: StorageFull,
    Fault.EIO: StorageFailed,
    Fault.CRASH_BEFORE: Crash,
    Fault.CRASH_TORN: Crash,
    Fault.CRASH_AFTER: Crash,
}


class TestFaultless(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return FaultyStorage(MemoryStorage())


@pytest.fixture(params=["memory", "local"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return MemoryStorage() if request.param == "memory" else LocalStorage(tmp_path)


def _write_both(storage: Storage) -> None:
    storage.put_new("a", b"0123456789")
    new = storage.start_new("b")
    try:
        new.write(b"01234")
        new.write(b"56789")
        new.commit()
    finally:
        new.abort()


def test_every_write_is_counted() -> None:
    run = FaultyStorage(MemoryStorage())
    _write_both(run)
    run.delete("a")
    assert run.log == ["put_new a", "start_new b", "write b", "write b", "commit b", "delete a"]
    assert len(list(every_fault(run.writes))) == 60


@pytest.mark.parametrize(("at", "fault"), list(every_fault(5)))
def test_each_fault_strikes_once_and_leaves_whole_keys_or_none(inner: Storage, at: int, fault: Fault) -> None:
    faulty = FaultyStorage(inner, at, fault)
    error = run_into(fault, lambda: _write_both(faulty))
    assert isinstance(error, RAISED[fault])
    assert faulty.fired == 1
    kept = contents(inner)
    assert set(kept.values()) <= {b"0123456789"}
    assert ("a" in kept) == (at > 0 or fault.writes)
    assert ("b" in kept) == (at == 4 and fault.writes)


def test_a_lasting_fault_goes_on() -> None:
    faulty = FaultyStorage(MemoryStorage(), 1, Fault.ENOSPC, lasting=True)
    faulty.put_new("a", b"")
    for key in ("b", "c"):
        with pytest.raises(StorageFull):
            faulty.put_new(key, b"")
    assert faulty.fired == 2


def test_a_dead_process_does_nothing_more() -> None:
    faulty = FaultyStorage(MemoryStorage(), 1, Fault.CRASH_AFTER)
    faulty.put_new("a", b"")
    with pytest.raises(Crash):
        faulty.put_new("b", b"")
    for use in (faulty.get, faulty.size, faulty.list, faulty.delete, faulty.start_new):
        with pytest.raises(Crash):
            use("a")
    with pytest.raises(Crash):
        faulty.require_writable()
    assert sorted(contents(faulty.inner)) == ["a", "b"]


def test_others_may_act_before_a_write() -> None:
    faulty = FaultyStorage(MemoryStorage())
    seen: list[tuple[str, bool]] = []
    faulty.before_write = lambda name: seen.append((name, is_there(faulty.inner, "a")))
    faulty.put_new("a", b"")
    faulty.delete("a")
    assert seen == [("put_new a", False), ("delete a", True)]


@pytest.mark.parametrize("how", list(Damage))
@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0", b"abc", b"\xff" * 9])
@pytest.mark.parametrize("at", [0, 1, 8])
def test_damage_always_changes_the_bytes(how: Damage, data: bytes, at: int) -> None:
    assert damaged(data, how, at) != data


def test_damage_is_laid_into_a_storage(inner: Storage) -> None:
    inner.put_new("a", b"abc")
    damage(inner, "a", Damage.CUT, 2)
    assert inner.get("a") == b"ab"
    damage(inner, "a", Damage.GONE, 0)
    with pytest.raises(KeyMissing):
        inner.get("a")


def test_a_copy_is_independent() -> None:
    first = MemoryStorage()
    first.put_new("a", b"1")
    second = memory_of(contents(first))
    second.put_new("b", b"2")
    assert contents(first) == {"a": b"1"}
