"""Packs are written as the format says, made durable once, and read by their own index."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crafted_objects import raw_object, sound_pack
from faults import ERRORS, Fault, FaultyStorage
from stemmata import packs
from stemmata.errors import KeyExists, MissingObject, MissingPack, StemmataError, StorageFailed
from stemmata.ids import Digest, PackName
from stemmata.packs import PackReader, PackSummary, PackWriter
from stemmata.storage.base import Storage
from stemmata.storage.memory import MemoryStorage

NAME = PackName(bytes(range(16)))


def write(storage: Storage, contents: list[bytes], name: PackName = NAME) -> PackSummary:
    writer = PackWriter(storage, name)
    for content in contents:
        encoded = raw_object(content)
        writer.add(Digest.of(content), [encoded[:24], encoded[24:]], len(content))
    return writer.commit()


def contents(count: int) -> list[bytes]:
    return [b"object %d" % i for i in range(count)]


@given(st.lists(st.binary(min_size=1, max_size=40), unique=True, max_size=20))
def test_a_pack_is_as_the_format_says(objects: list[bytes]) -> None:
    storage = MemoryStorage()
    summary = write(storage, objects)
    data = storage.get(NAME.key)
    assert data == sound_pack(objects)
    assert (summary.name, summary.size, summary.digest) == (NAME, len(data), Digest.of(data))


@pytest.mark.parametrize("count", [1, 7, 5000])
def test_every_object_is_found_by_its_digest(count: int) -> None:
    storage = MemoryStorage()
    summary = write(storage, contents(count))
    reader = PackReader(storage, NAME)
    assert len(reader.index) == len(summary.index) == count
    assert list(reader.index.digests()) == sorted(map(Digest.of, contents(count)))
    for content in contents(count):
        row = reader.index.find(Digest.of(content))
        assert row is not None
        assert row == summary.index.find(Digest.of(content))
        assert row.raw == len(content)
        assert reader.read(Digest.of(content)) == raw_object(content)
    reader.verify_all(summary.size, summary.digest)
    assert list(reader.damaged_objects()) == []


def test_what_is_not_in_a_pack_is_missing() -> None:
    storage = MemoryStorage()
    write(storage, contents(3))
    reader = PackReader(storage, NAME)
    for other in (Digest(bytes(32)), Digest(b"\xff" * 32), Digest.of(b"other")):
        assert reader.index.find(other) is None
        with pytest.raises(MissingObject, match=other.hex):
            reader.read(other)


def test_an_empty_pack_holds_nothing() -> None:
    storage = MemoryStorage()
    summary = write(storage, [])
    reader = PackReader(storage, NAME)
    reader.verify_all(summary.size, summary.digest)
    assert len(reader.index) == 0
    assert reader.index.find(Digest.of(b"")) is None


def test_a_missing_pack_is_named() -> None:
    reader = PackReader(MemoryStorage(), NAME)
    with pytest.raises(MissingPack, match=NAME.hex):
        _ = reader.index
    with pytest.raises(MissingPack, match=NAME.hex):
        reader.verify_all(200, Digest.of(b""))


def test_a_pack_that_goes_while_it_is_read_is_missing() -> None:
    storage = MemoryStorage()
    write(storage, contents(3))
    reader = PackReader(storage, NAME)
    assert len(reader.index) == 3
    storage.delete(NAME.key)
    with pytest.raises(MissingPack):
        reader.read(Digest.of(contents(3)[0]))


def test_a_digest_is_added_once() -> None:
    writer = PackWriter(MemoryStorage())
    writer.add(Digest.of(b"a"), [raw_object(b"a")], 1)
    assert writer.contains(Digest.of(b"a"))
    assert not writer.contains(Digest.of(b"b"))
    with pytest.raises(ValueError, match="already"):
        writer.add(Digest.of(b"a"), [raw_object(b"a")], 1)


def test_no_pack_is_written_that_would_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MAX_OBJECTS", 3)
    storage = MemoryStorage()
    with pytest.raises(ValueError, match="at most 3 objects"):
        write(storage, contents(4))
    assert not list(storage.list(""))
    assert len(PackReader(storage, write(storage, contents(3)).name).index) == 3


def test_i5_nothing_is_visible_before_the_commit() -> None:
    storage = MemoryStorage()
    writer = PackWriter(storage, NAME)
    writer.add(Digest.of(b"a"), [raw_object(b"a")], 1)
    assert list(storage.list("")) == []
    writer.abort()
    writer.abort()
    assert list(storage.list("")) == []


def test_names_are_fresh_and_fan_out() -> None:
    storage = MemoryStorage()
    names = {PackWriter(storage).commit().name for _ in range(20)}
    assert len(names) == 20
    assert [s.key for s in storage.list("packs/")] == sorted(f"packs/{n.hex[:2]}/{n.hex}.pack" for n in names)


def test_large_objects_pass_through_in_few_writes() -> None:
    storage = FaultyStorage(MemoryStorage())
    writer = PackWriter(storage, NAME)
    for i in range(300):
        data = bytes(1 << 14) + i.to_bytes(2, "little")
        writer.add(Digest.of(data), [memoryview(data)], len(data))
    for i in range(3):
        data = bytes(1 << 20) + bytes([i])
        writer.add(Digest.of(data), [memoryview(data)], len(data))
    writer.commit()
    # Small ones are gathered, large ones handed on as they are.
    assert 5 <= sum(entry.startswith("write") for entry in storage.log) <= 7


@pytest.mark.parametrize("fault", ERRORS)
def test_i5_a_failing_write_leaves_a_whole_pack_or_none(fault: Fault) -> None:
    """At each write of a pack in turn: what is reported as committed is there, whole."""
    count = FaultyStorage(MemoryStorage())
    write(count, contents(3))
    assert count.writes >= 3
    for at in range(count.writes):
        inner = MemoryStorage()
        try:
            summary = write(FaultyStorage(inner, at, fault), contents(3))
        except StemmataError:
            if list(inner.list("")):
                assert inner.get(NAME.key) == sound_pack(contents(3))
        else:
            PackReader(inner, NAME).verify_all(summary.size, summary.digest)
            assert inner.get(NAME.key) == sound_pack(contents(3))


def last_write_fails(fault: Fault, inner: MemoryStorage) -> PackSummary:
    count = FaultyStorage(MemoryStorage())
    write(count, contents(3))
    return write(FaultyStorage(inner, count.writes - 1, fault), contents(3))


def test_i1_a_lost_reply_is_settled_by_reading_the_pack() -> None:
    inner = MemoryStorage()
    summary = last_write_fails(Fault.REPLY_LOST, inner)
    assert Digest.of(inner.get(NAME.key)) == summary.digest


def test_i1_a_pack_that_can_be_read_back_and_not_made_durable_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: FaultyStorage, key: str) -> None:
        raise StorageFailed(where="there", reason=f"too many open files for {key}")

    monkeypatch.setattr(FaultyStorage, "make_durable", refuse)
    inner = MemoryStorage()
    with pytest.raises(StorageFailed, match=NAME.key):
        last_write_fails(Fault.REPLY_LOST, inner)


def test_i1_an_unknown_outcome_without_a_pack_is_a_failure() -> None:
    inner = MemoryStorage()
    with pytest.raises(StorageFailed):
        last_write_fails(Fault.UNKNOWN, inner)
    assert list(inner.list("")) == []


def test_i2_a_taken_name_is_not_overwritten() -> None:
    storage = MemoryStorage()
    storage.put_new(NAME.key, b"something else")
    with pytest.raises(KeyExists):
        write(storage, contents(3))
    assert storage.get(NAME.key) == b"something else"


def test_i2_a_taken_name_with_these_very_bytes_is_the_pack_itself() -> None:
    """As when a storage repeats a write whose answer it lost."""
    storage = MemoryStorage()
    storage.put_new(NAME.key, sound_pack(contents(3)))
    assert write(storage, contents(3)).digest == Digest.of(sound_pack(contents(3)))


def test_the_index_of_a_small_pack_is_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    write(storage, contents(100))
    reads: list[int] = []
    get = storage.get

    def counting(key: str, start: int = 0, length: int | None = None) -> bytes:
        reads.append(start)
        return get(key, start, length)

    monkeypatch.setattr(storage, "get", counting)
    assert len(PackReader(storage, NAME).index) == 100
    assert len(reads) == 1


def test_verifying_all_reads_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "_CHUNK", 1000)
    storage = MemoryStorage()
    summary = write(storage, contents(100))
    lengths: list[int] = []
    get = storage.get

    def counting(key: str, start: int = 0, length: int | None = None) -> bytes:
        found = get(key, start, length)
        lengths.append(len(found))
        return found

    reader = PackReader(storage, NAME)
    monkeypatch.setattr(storage, "get", counting)
    reader.verify_all(summary.size, summary.digest)
    chunks = -(-summary.size // 1000)
    assert max(lengths[:chunks]) <= 1000
    assert sum(lengths[:chunks]) == summary.size


def test_checksums_are_the_first_bytes_of_blake3_in_file_order() -> None:
    storage = MemoryStorage()
    write(storage, [b"abc"])
    data = storage.get(NAME.key)
    encoded = raw_object(b"abc")
    assert struct.unpack("<Q", data[-72:-64]) == struct.unpack("<Q", Digest.of(encoded).raw[:8])
