"""Objects are stored once, in packs that roll over, durable when they are named."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import ERRORS, Fault, FaultyStorage
from stemmata.codecs.dtypes import DTYPES, dtype_of
from stemmata.errors import StemmataError, StorageFull
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectReader, ObjectWriter
from stemmata.packs import PackReader, PackWriter
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage


def writer_to(storage: Storage, live: Iterable[PackName] = (), **limits: int) -> ObjectWriter:
    return ObjectWriter(storage, lambda _: list(live), ObjectReader(storage), **limits)


def numbers(count: int, seed: int = 0) -> bytes:
    return (np.random.default_rng(seed).standard_normal(count) * 0.02).astype("<f4").tobytes()


@given(st.lists(st.tuples(st.binary(max_size=100), st.sampled_from(DTYPES)), max_size=12))
def test_i3_what_is_put_is_read_back(items: list[tuple[bytes, object]]) -> None:
    storage = MemoryStorage()
    writer = writer_to(storage)
    digests = [writer.put(data, dtype) for data, dtype in items]  # type: ignore[arg-type]
    packs = [summary.name for summary in writer.finish()]
    assert digests == [Digest.of(data) for data, _ in items]
    assert writer.packs_used == set(packs)
    assert len(packs) == (1 if items else 0)
    reader = ObjectReader(storage)
    for data, _ in items:
        assert reader.read(Digest.of(data), packs) == data


def test_i3_large_tensors_come_back_from_a_folder(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    writer = writer_to(storage)
    content = numbers(1_000_000)
    digest = writer.put(memoryview(content), "F32")
    (summary,) = writer.finish()
    PackReader(storage, summary.name).verify_all(summary.size, summary.digest)
    assert ObjectReader(storage).read(digest, [summary.name]) == content
    assert summary.size < 0.85 * len(content)


def test_words_and_dtypes_are_taken_alike() -> None:
    sizes = []
    for dtype in ("F32", dtype_of("F32"), "", "C64"):
        writer = writer_to(MemoryStorage())
        writer.put(numbers(50_000), dtype)
        sizes.append(writer.stats.bytes_stored)
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3]


def test_i6_a_content_is_stored_once() -> None:
    storage = MemoryStorage()
    writer = writer_to(storage)
    for _ in range(3):
        writer.put(b"the same")
    writer.put(b"another")
    (summary,) = writer.finish()
    assert len(summary.index) == 2
    assert (writer.stats.objects, writer.stats.objects_new) == (4, 2)
    assert (writer.stats.bytes_in, writer.stats.bytes_new) == (31, 15)
    assert writer.stats.bytes_stored == summary.size - 8 - 2 * 64 - 64


def test_what_a_live_pack_holds_is_not_stored_again() -> None:
    storage = MemoryStorage()
    first = writer_to(storage)
    first.put(b"old")
    (old,) = first.finish()
    writer = writer_to(storage, [PackName.fresh(), old.name])
    writer.put(b"old")
    writer.put(b"new")
    (new,) = writer.finish()
    assert list(new.index.digests()) == [Digest.of(b"new")]
    assert writer.packs_used == {old.name, new.name}


def test_nothing_new_makes_no_pack() -> None:
    storage = MemoryStorage()
    first = writer_to(storage)
    first.put(b"old")
    (old,) = first.finish()
    writer = writer_to(storage, [old.name])
    writer.put(b"old")
    assert writer.finish() == []
    assert writer.packs_used == {old.name}
    assert len(list(storage.list("packs/"))) == 1
    assert writer_to(storage).finish() == []


def test_a_named_pack_is_asked_itself() -> None:
    """What `lookup` says is a hint: a pack that has gone, is damaged or lacks the object is passed over."""
    storage = MemoryStorage()
    first = writer_to(storage)
    first.put(b"old")
    (old,) = first.finish()
    broken = PackName.fresh()
    storage.put_new(broken.key, b"no pack")
    writer = writer_to(storage, [broken, PackName.fresh(), old.name])
    digest = writer.put(b"not there")
    (new,) = writer.finish()
    assert writer.packs_used == {new.name}
    assert ObjectReader(storage).read(digest, [new.name]) == b"not there"


def test_an_index_that_says_another_length_is_not_relied_on() -> None:
    storage = MemoryStorage()
    lying = PackWriter(storage)
    lying.add(Digest.of(b"abc"), [bytes(40)], 4)
    name = lying.commit().name
    writer = writer_to(storage, [name])
    writer.put(b"abc")
    (new,) = writer.finish()
    assert writer.packs_used == {new.name}


def test_packs_roll_over_by_size() -> None:
    storage = MemoryStorage()
    writer = writer_to(storage, pack_bytes=100_000)
    contents = [np.random.default_rng(i).bytes(30_000) for i in range(10)]
    for content in contents:
        writer.put(content)
    summaries = writer.finish()
    assert [len(s.index) for s in summaries] == [4, 4, 2]
    assert writer.packs_used == {s.name for s in summaries}
    reader = ObjectReader(storage)
    for content in contents:
        assert reader.read(Digest.of(content), [s.name for s in summaries]) == content


def test_packs_roll_over_by_count_and_remember_across() -> None:
    storage = MemoryStorage()
    writer = writer_to(storage, pack_objects=3)
    for i in [*range(7), *range(7)]:
        writer.put(b"%d" % i)
    assert [len(s.index) for s in writer.finish()] == [3, 3, 1]


def test_i5_nothing_is_visible_before_finish_and_after_abort() -> None:
    storage = MemoryStorage()
    writer = writer_to(storage)
    writer.put(b"a")
    assert list(storage.list("")) == []
    writer.abort()
    writer.abort()
    assert list(storage.list("")) == []


def test_a_local_abort_leaves_no_file(tmp_path: Path) -> None:
    writer = writer_to(LocalStorage(tmp_path))
    writer.put(b"a")
    writer.abort()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("fault", ERRORS)
def test_i1_packs_named_by_finish_are_whole_whatever_fails(fault: Fault) -> None:
    def save(storage: Storage) -> ObjectWriter:
        writer = writer_to(storage, pack_objects=2)
        try:
            for i in range(5):
                writer.put(b"content %d" % i)
            writer.finish()
        except StemmataError:
            writer.abort()
            raise
        return writer

    count = FaultyStorage(MemoryStorage())
    save(count)
    for at in range(count.writes):
        inner = MemoryStorage()
        try:
            writer = save(FaultyStorage(inner, at, fault))
        except StemmataError:
            pass
        else:
            for summary in writer.finish():
                PackReader(inner, summary.name).verify_all(summary.size, summary.digest)
        for stored in inner.list("packs/"):  # orphans too: no half pack is ever visible
            assert len(PackReader(inner, PackName.parse(stored.key[9:41])).index) > 0


def test_a_full_disk_is_told_as_such() -> None:
    writer = writer_to(FaultyStorage(MemoryStorage(), 1, Fault.ENOSPC, lasting=True))
    with pytest.raises(StorageFull):
        writer.put(np.random.default_rng(0).bytes(9 << 20))
    writer.abort()


def test_more_than_an_object_may_hold_is_refused() -> None:
    writer = writer_to(MemoryStorage())
    with pytest.raises(ValueError, match="at most"):
        writer.put(np.zeros((64 << 20) + 1, np.uint8).data)
    assert writer.finish() == []


def test_arrays_are_put_as_their_bytes() -> None:
    storage = MemoryStorage()
    array = np.arange(1000, dtype="<f4").reshape(10, 100)
    writer = writer_to(storage)
    digest = writer.put(array.data, "F32")
    (summary,) = writer.finish()
    assert ObjectReader(storage).read(digest, [summary.name]) == array.tobytes()
    assert writer.stats.bytes_in == array.nbytes


def test_where_no_thread_can_be_had_it_fails_and_hangs_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name.startswith("stemmata-write"):
            raise RuntimeError("can't start new thread")
        real(self)

    writer = writer_to(LocalStorage(tmp_path))
    writer.put(b"something")
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        writer.put(numbers(1_000_000), "F32")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        writer.finish()
    writer.abort()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_many_threads_may_put() -> None:
    storage = MemoryStorage()
    writer = writer_to(storage, pack_objects=10)
    contents = [b"content %d" % (i % 40) for i in range(200)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(writer.put, contents))
    summaries = writer.finish()
    assert sum(len(s.index) for s in summaries) == 40
    assert writer.stats.objects == 200
