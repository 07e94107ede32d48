"""stemmata.json: made once, sealed, and refused when it is not sound."""

from __future__ import annotations

import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import Damage, Fault, FaultyStorage, damage, replace
from stemmata.errors import DamagedRepository, NewerFormat, RepositoryNotFound, StorageFailed, StorageProblem
from stemmata.log.entries import seal, unseal
from stemmata.log.identity import KEY, MAX_BYTES, create_identity, read_identity
from stemmata.storage.memory import MemoryStorage

BODY = {"magic": "stemmata", "format": 1, "repository": "0f" * 16, "created": "2026-11-20T11:42:00.123456Z"}


def storage_with(data: bytes) -> MemoryStorage:
    storage = MemoryStorage()
    storage.put_new(KEY, data)
    return storage


def written(**changed: object) -> MemoryStorage:
    return storage_with(seal(msgspec.json.encode({**BODY, **changed})))


def test_a_new_repository_has_an_id_of_its_own() -> None:
    one, other = MemoryStorage(), MemoryStorage()
    assert create_identity(one)
    assert create_identity(other)
    assert read_identity(one).repository != read_identity(other).repository
    assert list(msgspec.json.decode(unseal(one.get(KEY)))) == ["magic", "format", "repository", "created"]


def test_i2_an_existing_repository_is_left_alone() -> None:
    storage = MemoryStorage()
    create_identity(storage)
    before = storage.get(KEY)
    assert not create_identity(storage)
    assert storage.get(KEY) == before


def test_i6_one_of_many_makers_makes_it() -> None:
    storage = MemoryStorage()
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(create_identity(storage))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]


def test_nothing_there_is_said_so() -> None:
    with pytest.raises(RepositoryNotFound):
        read_identity(MemoryStorage())


def test_its_fields_are_read() -> None:
    found = read_identity(written(later=[1]))
    assert (found.repository, found.format, found.created) == ("0f" * 16, 1, BODY["created"])
    assert found.genesis.n == 0


@given(st.sampled_from([d for d in Damage if d is not Damage.GONE]), st.integers(0, 400))
def test_i4_one_byte_of_damage_anywhere_is_found(how: Damage, at: int) -> None:
    storage = MemoryStorage()
    create_identity(storage)
    damage(storage, KEY, how, at)
    with pytest.raises(DamagedRepository):
        read_identity(storage)


@pytest.mark.parametrize(
    "wrong",
    [
        {"magic": "other"},
        {"format": 0},
        {"format": "1"},
        {"repository": "0F" * 16},
        {"repository": "0f" * 15},
        {"created": "yesterday"},
    ],
)
def test_wrong_fields_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DamagedRepository):
        read_identity(written(**wrong))


@pytest.mark.parametrize("body", [b"", b"{}", b"[" * 60_000, b"\xff", b'{"magic":"stemmata"}'])
def test_a_sealed_text_that_is_no_identity_is_refused(body: bytes) -> None:
    with pytest.raises(DamagedRepository):
        read_identity(storage_with(seal(body)))


def test_too_long_is_refused() -> None:
    with pytest.raises(DamagedRepository, match="64 KiB"):
        read_identity(storage_with(b"x" * (MAX_BYTES + 1)))


def test_i9_a_newer_format_is_refused() -> None:
    with pytest.raises(NewerFormat):
        read_identity(written(format=2))


@pytest.mark.parametrize("fault", [Fault.AFTER, Fault.REPLY_LOST, Fault.UNKNOWN, Fault.BEFORE])
def test_a_single_fault_is_settled_by_reading(fault: Fault) -> None:
    storage = FaultyStorage(MemoryStorage(), 0, fault)
    assert create_identity(storage)
    assert read_identity(storage).format == 1


def test_i1_an_identity_that_cannot_be_made_durable_is_no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: FaultyStorage, key: str) -> None:
        raise StorageFailed(where="there", reason=f"too many open files for {key}")

    monkeypatch.setattr(FaultyStorage, "make_durable", refuse)
    with pytest.raises(StorageFailed):
        create_identity(FaultyStorage(MemoryStorage(), 0, Fault.REPLY_LOST))


@pytest.mark.parametrize("fault", [Fault.ENOSPC, Fault.EIO])
def test_a_lasting_fault_is_raised(fault: Fault) -> None:
    storage = FaultyStorage(MemoryStorage(), 0, fault, lasting=True)
    with pytest.raises(StorageProblem):
        create_identity(storage)
    with pytest.raises(RepositoryNotFound):
        read_identity(storage)


def test_a_replaced_identity_breaks_the_chain() -> None:
    storage = MemoryStorage()
    create_identity(storage)
    before = read_identity(storage)
    replace(storage, KEY, None)
    create_identity(storage)
    assert read_identity(storage).genesis.hash != before.genesis.hash
