"""Objects are read out of any pack that has them, verified, and from many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from crafted_objects import check, frame, header, pack, raw_object, row, sound_pack
from stemmata.codecs import decoding
from stemmata.errors import (
    DamagedObject,
    DamagedPack,
    HostileData,
    MissingObject,
    MissingPack,
    NewerFormat,
    StorageFailed,
)
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectReader, reading
from stemmata.storage.memory import MemoryStorage


class Counting(MemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = 0

    def size(self, key: str) -> int:
        self.sizes += 1
        return super().size(key)


def stored(storage: MemoryStorage, contents: list[bytes], damage: bytes | None = None) -> PackName:
    """A pack put there by hand; the content `damage` has its last byte flipped."""
    name, data = PackName.fresh(), bytearray(sound_pack(contents))
    if damage is not None:
        data[data.index(damage) + len(damage) - 1] ^= 1
    storage.put_new(name.key, data)
    return name


def test_an_object_is_read_from_the_pack_that_has_it() -> None:
    storage = MemoryStorage()
    packs = [stored(storage, [b"a", b"b"]), stored(storage, [b"c"])]
    reader = ObjectReader(storage)
    for content, its in ((b"a", packs[0]), (b"b", packs[0]), (b"c", packs[1])):
        assert reader.read(Digest.of(content), packs) == content
        name, found = reader.locate(Digest.of(content), packs)
        assert (name, found.raw) == (its, 1)
        assert reader.find(Digest.of(content), packs) == (name, found)


def test_an_object_in_no_pack_is_missing() -> None:
    storage = MemoryStorage()
    packs = [stored(storage, [b"a"])]
    reader = ObjectReader(storage)
    for given in (packs, []):
        with pytest.raises(MissingObject):
            reader.read(Digest.of(b"z"), given)
        with pytest.raises(MissingObject):
            reader.locate(Digest.of(b"z"), given)
        assert reader.find(Digest.of(b"z"), given) is None


def test_packs_that_a_version_does_not_name_are_not_read() -> None:
    storage = MemoryStorage()
    stored(storage, [b"a"])
    with pytest.raises(MissingObject):
        ObjectReader(storage).read(Digest.of(b"a"), [])


def test_i4_what_one_pack_has_lost_is_read_from_another() -> None:
    storage = MemoryStorage()
    broken = stored(storage, [b"content"], damage=b"content")
    packs = [PackName.fresh(), broken, stored(storage, [b"content"])]
    assert ObjectReader(storage).read(Digest.of(b"content"), packs) == b"content"


class Failing(MemoryStorage):
    """The disk cannot read one of its packs."""

    bad = ""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key == self.bad:
            raise StorageFailed(where=key, reason="Input/output error")
        return super().get(key, start, length)

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        if key == self.bad:
            raise StorageFailed(where=key, reason="Input/output error")
        return super().get_into(key, start, into)


def test_i4_what_the_disk_cannot_read_of_one_pack_is_read_from_another() -> None:
    storage = Failing()
    packs = [stored(storage, [b"a", b"b"]), stored(storage, [b"a"])]
    storage.bad = packs[0].key
    reader = ObjectReader(storage)
    assert reader.read(Digest.of(b"a"), packs) == b"a"
    found = reader.find(Digest.of(b"a"), packs)
    assert found is not None
    assert found[0] == packs[1]
    assert reader.find(Digest.of(b"b"), packs) is None, "to look for a duplicate stops no save"
    with pytest.raises(StorageFailed, match="Input/output"):
        reader.read(Digest.of(b"b"), packs)


def test_i4_the_first_failure_is_told_if_no_pack_has_it() -> None:
    storage = MemoryStorage()
    broken = stored(storage, [b"content"], damage=b"content")
    absent = PackName.fresh()
    reader = ObjectReader(storage)
    with pytest.raises(DamagedObject):
        reader.read(Digest.of(b"content"), [broken, absent])
    with pytest.raises(MissingPack, match=absent.hex):
        reader.read(Digest.of(b"content"), [absent, broken])


def test_i4_an_index_that_names_wrong_content_hands_out_nothing() -> None:
    storage = MemoryStorage()
    name = PackName.fresh()
    lying = bytearray(sound_pack([b"a"]))
    other = Digest.of(b"b")
    lying[-128:-96] = other.raw
    lying[-48:-16] = Digest.of(lying[-128:-64]).raw
    storage.put_new(name.key, lying)
    with pytest.raises(DamagedObject, match="not what its digest says"):
        ObjectReader(storage).read(other, [name])


def test_i9_a_newer_object_is_not_taken_for_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    name = stored(storage, [b"a"])

    def newer(*_: object, **__: object) -> bytearray:
        raise NewerFormat(where="object", reason="codec 5")

    monkeypatch.setattr(decoding.ObjectDecoder, "content", newer)
    with pytest.raises(NewerFormat):
        ObjectReader(storage).read(Digest.of(b"a"), [name])


def test_a_damaged_index_is_told_and_passed_over_when_only_looking() -> None:
    storage = MemoryStorage()
    name = PackName.fresh()
    storage.put_new(name.key, raw_object(b"a") * 10)
    reader = ObjectReader(storage)
    with pytest.raises(DamagedPack):
        reader.locate(Digest.of(b"a"), [name])
    good = stored(storage, [b"a"])
    found = reader.find(Digest.of(b"a"), [name, PackName.fresh(), good])
    assert found is not None
    assert found[0] == good


def test_an_index_is_read_once() -> None:
    storage = Counting()
    packs = [stored(storage, [b"a", b"b"])]
    reader = ObjectReader(storage)
    for content in (b"a", b"b", b"a"):
        reader.read(Digest.of(content), packs)
    assert storage.sizes == 1


def test_old_indexes_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_INDEX_BYTES", 2 * 64)
    storage = Counting()
    names = [stored(storage, [b"%d" % i]) for i in range(3)]
    reader = ObjectReader(storage)

    def read(i: int) -> int:
        before = storage.sizes
        reader.read(Digest.of(b"%d" % i), [names[i]])
        return storage.sizes - before

    assert [read(i) for i in (0, 1, 0, 2, 0, 1)] == [1, 1, 0, 1, 0, 1]


def test_one_index_beyond_the_room_is_kept_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_INDEX_BYTES", 1)
    storage = Counting()
    packs = [stored(storage, [b"a"])]
    reader = ObjectReader(storage)
    for _ in range(3):
        assert reader.read(Digest.of(b"a"), packs) == b"a"
    assert storage.sizes == 1


def test_a_dropped_pack_is_forgotten_when_it_is_missed() -> None:
    storage = MemoryStorage()
    name = stored(storage, [b"a"])
    reader = ObjectReader(storage)
    reader.read(Digest.of(b"a"), [name])
    storage.delete(name.key)
    with pytest.raises(MissingPack):
        reader.read(Digest.of(b"a"), [name])
    assert reader.find(Digest.of(b"a"), [name]) is None


def test_many_threads_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_INDEX_BYTES", 5 * 64)  # so that indexes come and go meanwhile
    storage = MemoryStorage()
    contents = [b"content %d" % i for i in range(12)]
    packs = [stored(storage, [content]) for content in contents]
    reader = ObjectReader(storage)
    start = threading.Barrier(4)

    def read(seed: int) -> bool:
        start.wait()
        order = [(i * 5 + seed) % 12 for i in range(60)]
        return all(reader.read(Digest.of(contents[i]), packs) == contents[i] for i in order)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(4)))


class Greedy(MemoryStorage):
    """Notes how much is read of an object at once."""

    most = 0

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        self.most = max(self.most, len(into))
        return super().get_into(key, start, into)


def test_a_base_far_longer_than_what_leans_on_it_is_refused_before_it_is_read() -> None:
    """A chain of hostile objects, each within its own bounds, would take 16 times the largest one."""
    storage = Greedy()
    content = bytes(8 << 20)
    body = header(frames=8, raw=len(content)) + frame(content[: 1 << 20]) * 8
    under, digest = PackName.fresh(), Digest.of(b"base")
    storage.put_new(under.key, pack(body, [row(digest.raw, 8, len(body), len(content), check(body))]))
    top = header(frames=1, raw=1200, dtype=12, bases=[(under.raw, digest.raw)])
    top += frame(b"\0", raw=1200, codec=3, dtype=12)
    name, leaning = PackName.fresh(), Digest.of(b"leaning")
    storage.put_new(name.key, pack(top, [row(leaning.raw, 8, len(top), 1200, check(top))]))
    with pytest.raises(HostileData, match="8388608 bytes are the base of 1200"):
        ObjectReader(storage).read(leaning, [name])
    assert 0 < storage.most < 1 << 20
