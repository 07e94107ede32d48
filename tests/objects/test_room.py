"""Reading ahead: little objects of one pack are fetched together, and what is fetched is what lies there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemmata.codecs.hashing import digest_of
from stemmata.errors import DamagedObject, StemmataError
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectReader
from stemmata.objects.room import Room
from stemmata.packs import PackReader, PackWriter
from stemmata.storage.local import LocalStorage


class Counting(LocalStorage):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.reads += 1
        return super().get(key, start, length)

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        self.reads += 1
        return super().get_into(key, start, into)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Counting, PackName, list[bytes]]:
    """A pack of 60 little blobs with a large one among them: not encoded objects, `Room` looks at none."""
    storage = Counting(tmp_path_factory.mktemp("store"))
    writer, chance = PackWriter(storage), random.Random(5)
    contents = [chance.randbytes(chance.randrange(40, 9000)) for _ in range(60)]
    contents[30] = chance.randbytes(300_000)
    for content in contents:
        writer.add(digest_of(content), [content], len(content))
    return storage, writer.commit().name, contents


def _take(room: Room, pack: PackReader, content: bytes) -> bytes:
    digest = digest_of(content)
    row = pack.index.find(digest)
    assert row is not None
    into = memoryview(bytearray(row.stored))
    room.read_into(pack, digest, row, into)
    return bytes(into)


def test_in_their_order_few_reads_are_made(packed: tuple[Counting, PackName, list[bytes]]) -> None:
    storage, name, contents = packed
    room, pack = Room(), PackReader(storage, name)
    assert len(pack.index) == len(contents)
    before = storage.reads
    assert [_take(room, pack, content) for content in contents] == contents
    assert storage.reads - before < 8


@settings(max_examples=60, deadline=None)
@given(order=st.lists(st.integers(0, 59), min_size=1, max_size=40))
def test_in_any_order_it_is_what_lies_there(
    packed: tuple[Counting, PackName, list[bytes]], order: list[int]
) -> None:
    storage, name, contents = packed
    room, pack = Room(), PackReader(storage, name)
    for place in order:
        assert _take(room, pack, contents[place]) == contents[place]


def test_one_alone_is_read_alone(packed: tuple[Counting, PackName, list[bytes]]) -> None:
    """Whoever wants one tensor does not fetch 256 KiB."""
    storage, name, contents = packed
    pack, taken = PackReader(storage, name), []
    pack.read_ahead = lambda row, length: taken.append(row) or b""  # type: ignore[method-assign,func-returns-value]
    assert _take(Room(), pack, contents[3]) == contents[3]
    assert taken == []


def test_a_pack_that_was_cut_off_since_is_damage(tmp_path: Path) -> None:
    storage = Counting(tmp_path)
    writer, chance = PackWriter(storage), random.Random(6)
    contents = [chance.randbytes(2000) for _ in range(6)]
    for content in contents:
        writer.add(digest_of(content), [content], len(content))
    name = writer.commit().name
    room, pack = Room(), PackReader(storage, name)
    assert _take(room, pack, contents[0]) == contents[0]
    path = tmp_path / name.key
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:5000])
    assert _take(room, pack, contents[1]) == contents[1]
    with pytest.raises(DamagedObject, match="cut off"):
        _take(room, pack, contents[3])


def test_what_is_read_ahead_passes_the_same_gate(tmp_path: Path) -> None:
    """A byte that was damaged under an index that is sound is told by the digest, read ahead or not."""
    from stemmata.objects import ObjectWriter

    storage = Counting(tmp_path)
    reader = ObjectReader(storage)
    writer = ObjectWriter(storage, lambda _: [], reader)
    contents = [random.Random(k).randbytes(3000) for k in range(5)]
    digests: list[Digest] = [writer.put(content) for content in contents]
    (pack,) = writer.finish()
    path = tmp_path / pack.name.key
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    row = pack.index.find(digests[3])
    assert row is not None
    data[row.offset + row.stored - 5] ^= 1
    path.write_bytes(data)
    room = Room()
    for place, digest in enumerate(digests):
        into = memoryview(bytearray(3000))
        if place == 3:
            with pytest.raises(StemmataError):
                reader.fill(digest, [pack.name], into, room)
        else:
            reader.fill(digest, [pack.name], into, room)
            assert bytes(into) == contents[place]
