"""Large objects are read frame by frame: sound or damaged, it comes to what reading them whole does."""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from crafted_objects import check, frame, header, pack, row
from stemmata.codecs import decoding
from stemmata.codecs.dtypes import MAX_FRAME_BYTES, dtype_of
from stemmata.codecs.frames import DELTA, FRAME_OVERHEAD
from stemmata.errors import DamagedObject, MissingPack, StemmataError
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectReader, ObjectWriter, reading
from stemmata.objects.choosing import chosen
from stemmata.objects.room import Room
from stemmata.packs import PackReader
from stemmata.storage.memory import MemoryStorage

FRAMES = 4
COUNT = (FRAMES - 1) * (128 << 10) + 1000
F32 = dtype_of("F32")


class Noting(MemoryStorage):
    """Notes what is read of objects, and lets something happen before a certain read."""

    def __init__(self, *, pieces: bool = True) -> None:
        super().__init__()
        self.reads_pieces = pieces
        self.lengths: list[int] = []
        self.at = -1
        self.happens: Callable[[], None] = lambda: None

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        if len(self.lengths) == self.at:
            self.happens()
        self.lengths.append(len(into))
        return super().get_into(key, start, into)

    def copy(self, *, pieces: bool) -> Noting:
        made = Noting(pieces=pieces)
        made._kept = dict(self._kept)
        return made


def epochs() -> list[bytes]:
    """A tensor that is trained in ever smaller steps: each is far nearer to the one before than to others."""
    rng = np.random.default_rng(3)
    found = [(rng.standard_normal(COUNT) * 0.02).astype("<f4")]
    for rate in (1e-4, 1e-6, 1e-8):
        found.append((found[-1] + rng.standard_normal(COUNT) * rate).astype("<f4"))
    return [each.tobytes() for each in found]


def put(storage: MemoryStorage, content: bytes, on: Iterable[tuple[bytes, PackName]] = ()) -> PackName:
    writer = ObjectWriter(storage, lambda _: [], ObjectReader(storage))
    writer.put(content, "F32", [(Digest.of(base), [name]) for base, name in on])
    (summary,) = writer.finish()
    return summary.name


class Chain:
    """Three tensors, each in a pack of its own; each leans on the one before."""

    def __init__(self) -> None:
        self.storage = Noting()
        self.contents = epochs()
        self.packs: list[PackName] = []
        for k, content in enumerate(self.contents[:3]):
            self.packs.append(put(self.storage, content, zip(self.contents[:k], self.packs, strict=False)))
        self.digests = [Digest.of(content) for content in self.contents]
        self.storage.lengths.clear()


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain()
    with ObjectReader(made.storage).opened(made.digests[2], [made.packs[2]], Room()) as (where, decoder):
        line = decoder.lineage(where)
        assert [at.pack for at, _ in line] == made.packs[::-1]
        assert [len(each.frames) for _, each in line] == [FRAMES] * 3
    made.storage.lengths.clear()
    return made


def outcomes(
    storage: MemoryStorage, digest: Digest, packs: list[PackName], spoil: Callable[[], None]
) -> list[object]:
    """What reading an object gives, or how it fails; damage comes after the indexes were read."""
    reader = ObjectReader(storage)
    for name in packs:
        reader.find(digest, [name])
    spoil()
    found: list[object] = []
    into = memoryview(bytearray(COUNT * 4))
    for read in (
        lambda: bytes(reader.read(digest, packs[-1:])),
        lambda: reader.fill(digest, packs[-1:], into) or bytes(into),
        lambda: bytes(reader.lend(digest, packs[-1:], Room())),
    ):
        try:
            found.append(read())
        except StemmataError as error:
            found.append((type(error), str(error)))
    return found


def compare(chain: Chain, name: PackName, change: Callable[[bytearray], object]) -> list[Any]:
    """What reading the last of the chain comes to once a pack was changed, which is the same either way."""
    data = bytearray(chain.storage.get(name.key))
    change(data)
    found = []
    for pieces in (True, False):
        storage = chain.storage.copy(pieces=pieces)
        spoil = partial(storage.replace, name.key, data)
        found.append(outcomes(storage, chain.digests[2], chain.packs, spoil))
    assert found[0] == found[1]
    return found[0]


def places(chain: Chain, k: int) -> dict[str, int]:
    """Where the parts of a stored object lie in its pack."""
    (at,) = PackReader(chain.storage, chain.packs[k]).index.rows()
    with ObjectReader(chain.storage).opened(chain.digests[k], [chain.packs[k]], Room()) as (_, decoder):
        found = {"header": at[1].offset + 5, "reference": at[1].offset + 30}
        for number, each in enumerate(decoder.frames):
            begin = at[1].offset + each.at
            found |= {f"{number}.{what}": begin + by for what, by in PARTS.items()}
            found[f"{number}.payload"] = begin + each.stored // 2
            found[f"{number}.last"] = begin + each.stored - 1
    return found


PARTS = {"codec": -24, "dtype": -23, "reserved": -22, "raw": -19, "stored": -14, "check": -8, "first": 0}


def test_what_is_sound_is_the_same(chain: Chain) -> None:
    assert compare(chain, chain.packs[0], lambda _: None) == [chain.contents[2]] * 3


@pytest.mark.parametrize("k", [0, 1, 2])
def test_i4_a_flipped_byte_is_told_of_the_object_and_the_pack_that_it_lies_in(chain: Chain, k: int) -> None:
    for where, at in places(chain, k).items():

        def flip(data: bytearray, at: int = at) -> None:
            data[at] ^= 0x21

        found = compare(chain, chain.packs[k], flip)
        if where.endswith("check"):
            assert found == [chain.contents[2]] * 3  # the content's digest is proof enough
            continue
        for kind, text in found:
            assert kind is DamagedObject, where
            assert chain.digests[k].hex in text, where
            assert chain.packs[k].hex in text, where


def test_i4_any_flipped_byte_gives_what_it_gives_whole(chain: Chain) -> None:
    chance = random.Random(8)
    for _ in range(20):
        name = chance.choice(chain.packs)
        at = chance.randrange(8, chain.storage.size(name.key) - 128)
        compare(chain, name, lambda data, at=at: data.__setitem__(at, data[at] ^ 1))


@pytest.mark.parametrize("k", [0, 1, 2])
@pytest.mark.parametrize("left", [0, 20, 300, 0.3, 0.6, 0.95])
def test_i4_a_pack_that_is_cut_off_is_told_as_when_read_whole(chain: Chain, k: int, left: float) -> None:
    def cut(data: bytearray) -> None:
        del data[int(left * len(data) if isinstance(left, float) else left) :]

    for kind, text in compare(chain, chain.packs[k], cut):
        assert kind is DamagedObject
        assert f"{chain.digests[k]} in pack {chain.packs[k]} is damaged: its pack is cut off" in text


def test_nothing_of_a_large_object_is_read_but_headers_and_frames(chain: Chain) -> None:
    storage = chain.storage.copy(pieces=True)
    assert ObjectReader(storage).read(chain.digests[2], [chain.packs[2]]) == chain.contents[2]
    small, large = [n for n in storage.lengths if n <= 256], [n for n in storage.lengths if n > 256]
    assert small.count(256) == 3
    assert small.count(FRAME_OVERHEAD + 1) == 3 * (FRAMES - 1)
    assert len(large) == 3 * FRAMES - (len(small) - 3 * FRAMES)
    assert max(large) <= 512 << 10  # a frame of 128 Ki elements


def test_one_frame_is_had_without_the_others(chain: Chain) -> None:
    storage = chain.storage.copy(pieces=True)
    with ObjectReader(storage).opened(chain.digests[2], [chain.packs[2]], Room()) as (_, decoder):
        before = sum(storage.lengths)
        found = decoder.frames[1]
        into = np.empty(found.raw_length, np.uint8)
        decoder.decode_into(found, into)
        begin = found.raw_offset
        assert into.tobytes() == chain.contents[2][begin : begin + found.raw_length]
        assert before < 3 * FRAMES * 256
        assert sum(storage.lengths) - before < 3 * (512 << 10)


def test_what_lies_far_away_is_asked_for_once(chain: Chain) -> None:
    storage = chain.storage.copy(pieces=False)
    assert ObjectReader(storage).read(chain.digests[2], [chain.packs[2]]) == chain.contents[2]
    assert len(storage.lengths) == 3


def test_little_objects_are_read_whole() -> None:
    storage = Noting()
    content = np.random.default_rng(1).standard_normal(40_000).astype("<f4").tobytes()
    name = put(storage, content)
    assert ObjectReader(storage).read(Digest.of(content), [name]) == content
    (length,) = storage.lengths
    assert length < reading._IN_PIECES


def test_a_pack_that_goes_meanwhile_is_missing_and_forgotten(chain: Chain) -> None:
    for k in range(3):
        storage = chain.storage.copy(pieces=True)
        reader = ObjectReader(storage)
        with reader.opened(chain.digests[2], [chain.packs[2]], Room()) as (_, decoder):
            storage.delete(chain.packs[k].key)
            with pytest.raises(MissingPack, match=chain.packs[k].hex):
                decoder.content()
        assert reader.find(chain.digests[k], [chain.packs[k]]) is None


def test_what_goes_meanwhile_is_read_from_another_pack(chain: Chain) -> None:
    """As a collection does it: the new pack is there before the old one goes. Whatever was read by then."""
    storage = chain.storage.copy(pieces=True)
    reader = ObjectReader(storage)
    other = put(storage, chain.contents[2])
    storage.lengths.clear()
    reader.read(chain.digests[2], [chain.packs[2]])
    for at in range(0, len(storage.lengths), 3):
        again = storage.copy(pieces=True)
        again.at, again.happens = at, lambda to=again: to.delete(chain.packs[2].key)  # type: ignore[misc]
        found = ObjectReader(again).read(chain.digests[2], [chain.packs[2], other])
        assert found == chain.contents[2]


def test_many_threads_read_pieces_of_one_object(chain: Chain) -> None:
    with ObjectReader(chain.storage).opened(chain.digests[2], [chain.packs[2]], Room()) as (_, decoder):
        start = threading.Barrier(4)

        def content(_: int) -> bytes:
            start.wait()
            return b"".join(bytes(decoder.content()) for _ in range(5))

        with ThreadPoolExecutor(4) as threads:
            assert set(threads.map(content, range(4))) == {chain.contents[2] * 5}


def test_a_payload_longer_than_a_frame_may_be_is_bounded_by_its_object() -> None:
    """No writer makes one: blocks of zstd that hold nothing are as many as anybody likes."""
    content = bytes(1 << 20)
    empty = b"\0\0\0" * ((MAX_FRAME_BYTES + 1000) // 3)
    blocks = [struct.pack("<I", 1 << 1 | (128 << 10) << 3)[:3] + b"\0"] * 7
    last = struct.pack("<I", 1 | 1 << 1 | (128 << 10) << 3)[:3] + b"\0"  # one byte, so many times
    payload = struct.pack("<IBI", 0xFD2FB528, 0xA0, len(content)) + empty + b"".join(blocks) + last
    body = header(frames=1, raw=len(content)) + frame(payload, raw=len(content), codec=1)
    digest, name = Digest.of(content), PackName.fresh()
    data = pack(body, [row(digest.raw, 8, len(body), len(content), check(body))])
    for pieces in (True, False):
        storage = Noting(pieces=pieces)
        storage.put_new(name.key, data)
        assert ObjectReader(storage).read(digest, [name]) == content


# --- choosing -------------------------------------------------------------------------------------------


def test_what_is_chosen_and_stored_is_the_same(chain: Chain) -> None:
    on = list(zip(chain.contents, chain.packs, strict=False))
    made = []
    for pieces in (True, False):
        storage = chain.storage.copy(pieces=pieces)
        name = put(storage, chain.contents[3], on[::-1])
        made.append(PackReader(storage, name).read(chain.digests[3]))
    assert made[0] == made[1]


def test_of_a_chain_each_frame_is_decoded_once(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, seen = decoding.decode_payload, []

    def counted(codec: int, *given: object) -> None:
        seen.append(codec)
        decode(codec, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "decode_payload", counted)
    reader, data = ObjectReader(chain.storage), memoryview(chain.contents[3])
    with chosen(data, F32, [(chain.digests[2], [chain.packs[2]])], reader, Room()) as found:
        assert found.base is not None
        assert found.base.reference.digest == chain.digests[2]
    assert sorted(seen) == [seen[0], DELTA, DELTA]
