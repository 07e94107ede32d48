"""Packs that are damaged or hostile: each fault refused by itself; no wrong byte handed out (I4)."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crafted_objects import check, pack, raw_object, row, sound_pack
from stemmata.codecs.decoding import decode_object
from stemmata.codecs.frames import MAX_OVERHEAD
from stemmata.errors import Damage, DamagedObject, DamagedPack, HostileData, NewerFormat
from stemmata.ids import Digest, PackName
from stemmata.packs import MAX_OBJECTS, PackReader
from stemmata.storage.memory import MemoryStorage

NAME = PackName(bytes(16))
CONTENTS = [b"first", b"second", b"the third"]
SOUND = sound_pack(CONTENTS)
BODY = b"".join(map(raw_object, CONTENTS))
A, B = raw_object(b"a"), raw_object(b"b")


def reader_of(data: bytes) -> PackReader:
    storage = MemoryStorage()
    storage.put_new(NAME.key, data)
    return PackReader(storage, NAME)


def rows(*changes: tuple[int, int, int]) -> list[bytes]:
    """Rows of two objects, sorted, with the (offset, stored, raw) given."""
    digests = sorted([Digest.of(b"a").raw, Digest.of(b"b").raw])
    return [row(d, *fields, bytes(8)) for d, fields in zip(digests, changes, strict=True)]


SIZE = len(A)
TILED = rows((8, SIZE, 1), (8 + SIZE, SIZE, 1))

DAMAGED = {
    "only 0 bytes": b"",
    "only 71 bytes": SOUND[-71:],
    "does not end as": pack(A + B, TILED, end=b"STMPKEN2"),
    "reserved": pack(A + B, TILED, reserved=1),
    "footer does not fit": pack(A + B, TILED, count=3),
    "footer does not fit ": pack(A + B, TILED, offset=7),
    "footer does not fit  ": pack(A + B, TILED, offset=1 << 63),
    "footer does not fit   ": pack(A + B, TILED, count=(1 << 64) - 1),
    "index is not what": pack(A + B, TILED, digest=bytes(32)),
    "not sorted": pack(A + B, TILED[::-1]),
    "not sorted ": pack(A + A, [TILED[0], row(TILED[0][:32], 8 + SIZE, SIZE, 1, bytes(8))]),
    "do not tile": pack(A + b"gap" + B, rows((8, SIZE, 1), (11 + SIZE, SIZE, 1))),
    "do not tile ": pack(A + B, rows((8, SIZE, 1), (8, SIZE, 1))),
    "do not tile  ": pack(A + B, rows((8, SIZE, 1), (8 + SIZE, SIZE - 1, 1))),
    "do not tile   ": pack(A + B, rows((8, SIZE, 1), (8 + SIZE, SIZE + 1, 1))),
    "do not tile    ": pack(A + B, rows((0, SIZE, 1), (SIZE, SIZE, 1))),
    "do not tile     ": pack(A + B, []),
    "do not tile      ": pack(A + B, rows((8, SIZE, 1), ((1 << 64) - 8, SIZE, 1))),
    "shorter than its header": pack(A, rows((8, SIZE, 1), (8 + SIZE, 0, 1))),
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_i4_a_damaged_pack_is_refused(reason: str) -> None:
    with pytest.raises(DamagedPack, match=reason.strip()) as caught:
        _ = reader_of(DAMAGED[reason]).index
    assert caught.value.data["pack"] == NAME


def test_the_tiled_pair_itself_is_sound() -> None:
    assert len(reader_of(pack(A + B, TILED)).index) == 2
    swapped = rows((8 + SIZE, SIZE, 1), (8, SIZE, 1))
    assert len(reader_of(pack(A + B, swapped)).index) == 2


@pytest.mark.parametrize(
    "fields",
    [
        (8, (128 << 20) + (1 << 18), 1),
        (8, (1 << 64) - 1, 1),
        (8, SIZE, (128 << 20) + 1),
        (8, SIZE, (1 << 64) - 1),
    ],
)
def test_an_object_that_is_too_large_is_hostile(fields: tuple[int, int, int]) -> None:
    with pytest.raises(HostileData, match="too large"):
        _ = reader_of(pack(A + B, rows((8, SIZE, 1), fields))).index


def test_an_object_that_is_stored_longer_than_it_can_be_is_hostile() -> None:
    """A frame of a byte is stored in 24 more, and there are 4096 at most."""
    most = MAX_OVERHEAD + 1
    for stored in (most, most + 1):
        body = bytes(stored)
        reader = reader_of(pack(body, [row(bytes(32), 8, stored, 1, check(body))]))
        if stored == most:
            assert len(reader.index) == 1
        else:
            with pytest.raises(HostileData, match="stored longer than it is"):
                _ = reader.index


class _Sparse(MemoryStorage):
    """A pack of a size that no test could hold: its last bytes alone are there."""

    def __init__(self, size: int, tail: bytes) -> None:
        super().__init__()
        self._size, self._tail = size, tail

    def size(self, key: str) -> int:
        return self._size

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        assert length is not None
        assert length <= 1 << 20, "took more memory than the footer allows"
        return (bytes(length) + self._tail)[-length:]


def test_an_index_that_is_too_long_is_refused_before_it_is_read() -> None:
    count = MAX_OBJECTS + 1
    tail = pack(b"", [], offset=8, count=count)[-64:]
    reader = PackReader(_Sparse(8 + 64 * count + 64, tail), NAME)
    tracemalloc.start()
    try:
        with pytest.raises(HostileData, match=f"{count} objects"):
            _ = reader.index
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_verify_all_looks_at_the_beginning_too() -> None:
    data = pack(A + B, TILED, start=b"STMPACK2")
    with pytest.raises(DamagedPack, match="does not begin as"):
        reader_of(data).verify_all(len(data), Digest.of(data))


def test_verify_all_looks_at_the_index_even_if_the_digest_is_right() -> None:
    data = pack(A + B, TILED[::-1])
    with pytest.raises(DamagedPack, match="not sorted"):
        reader_of(data).verify_all(len(data), Digest.of(data))


def test_verify_all_holds_size_and_digest_against_the_log() -> None:
    with pytest.raises(DamagedPack, match=f"{len(SOUND)} bytes long instead of 5"):
        reader_of(SOUND).verify_all(5, Digest.of(SOUND))
    with pytest.raises(DamagedPack, match="not what the log says"):
        reader_of(SOUND).verify_all(len(SOUND), Digest.of(b""))


def test_verify_all_does_not_rely_on_what_was_read_before() -> None:
    storage = MemoryStorage()
    storage.put_new(NAME.key, SOUND)
    reader = PackReader(storage, NAME)
    assert len(reader.index) == 3
    storage.delete(NAME.key)
    storage.put_new(NAME.key, SOUND[:40] + b"?" + SOUND[41:])
    with pytest.raises(DamagedPack):
        reader.verify_all(len(SOUND), Digest.of(SOUND))


def test_a_damaged_object_is_told_from_its_sound_neighbours() -> None:
    at = SOUND.index(b"second")
    reader = reader_of(SOUND[:at] + b"S" + SOUND[at + 1 :])
    with pytest.raises(DamagedObject, match="fails its checksum"):
        reader.read(Digest.of(b"second"))
    assert reader.read(Digest.of(b"first")) == raw_object(b"first")
    assert list(reader.damaged_objects()) == [Digest.of(b"second")]


def test_a_pack_cut_after_its_index_was_read_is_noticed() -> None:
    storage = MemoryStorage()
    storage.put_new(NAME.key, SOUND)
    reader = PackReader(storage, NAME)
    assert len(reader.index) == 3
    storage.delete(NAME.key)
    storage.put_new(NAME.key, SOUND[:20])
    with pytest.raises(DamagedObject, match="cut off"):
        reader.read(Digest.of(b"first"))


def test_checksums_of_the_index_are_those_of_the_objects() -> None:
    wrong = [row(Digest.of(b"a").raw, 8, SIZE, 1, check(B))]
    with pytest.raises(DamagedObject, match="fails its checksum"):
        reader_of(pack(A, wrong)).read(Digest.of(b"a"))


def hold(changed: bytes) -> None:
    """The pack is found damaged by `verify_all`, and what it hands out is right or nothing."""
    reader = reader_of(changed)
    with pytest.raises(Damage):
        reader.verify_all(len(SOUND), Digest.of(SOUND))
    for content in CONTENTS:
        digest = Digest.of(content)
        try:
            found = decode_object(reader.read(digest), raw_length=len(content), digest=digest, where="x")
        except (Damage, NewerFormat):
            continue
        assert found == content


@pytest.mark.parametrize("at", range(len(SOUND)))
def test_i4_each_flipped_byte_is_found(at: int) -> None:
    for bit in (1, 0x80, 0xFF):
        hold(SOUND[:at] + bytes([SOUND[at] ^ bit]) + SOUND[at + 1 :])


@given(st.integers(0, len(SOUND) - 1), st.integers(1, len(SOUND)), st.booleans())
def test_i4_cut_zeroed_and_lengthened_packs_are_found(start: int, length: int, zeroed: bool) -> None:
    cut = SOUND[start : start + length]
    changed = SOUND[:start] + (bytes(len(cut)) if zeroed else b"") + SOUND[start + length :]
    if changed != SOUND:
        hold(changed)
    hold(SOUND + bytes(length))


@pytest.mark.parametrize("at", [0, 7, 8, 15, 16, 24, 31])
def test_order_is_that_of_bytes_wherever_digests_differ(at: int) -> None:
    low = b"\x80" * at + b"\x01" + b"\xff" * (31 - at)
    high = b"\x80" * at + b"\xfe" + b"\x00" * (31 - at)
    first, second = (8, SIZE, 1, bytes(8)), (8 + SIZE, SIZE, 1, bytes(8))
    index = reader_of(pack(A + B, [row(low, *first), row(high, *second)])).index
    assert list(index.digests()) == [Digest(low), Digest(high)]
    assert index.find(Digest(high)) is not None
    with pytest.raises(DamagedPack, match="not sorted"):
        _ = reader_of(pack(A + B, [row(high, *first), row(low, *second)])).index
