"""Damaged, hostile and too new objects: refused one by one, before memory is taken (I4, I9)."""

from __future__ import annotations

import tracemalloc
from functools import cache

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crafted_objects import frame, header, plane, raw_object
from stemmata.codecs.decoding import decode_object, verify_stored
from stemmata.codecs.dtypes import BYTES, dtype_of
from stemmata.codecs.objectcode import encode_object
from stemmata.errors import DamagedObject, HostileData, NewerFormat
from stemmata.ids import Digest

ZSTD = zstandard.ZstdCompressor()
MIB = 1 << 20


def decode(data: bytes, content: bytes = b"abc", raw: int | None = None) -> bytearray:
    return decode_object(
        data, raw_length=len(content) if raw is None else raw, digest=Digest.of(content), where="p" * 32
    )


def one(payload: bytes, **fields: int) -> bytes:
    """An object of one frame."""
    raw = fields.get("raw", len(payload))
    return header(frames=1, raw=raw, dtype=fields.get("dtype", 0)) + frame(payload, **fields)


def window(bits: int, content: bytes = b"abc") -> bytes:
    """A zstd frame with a window of 2**bits that states its size, its one block stored."""
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return (
        b"\x28\xb5\x2f\xfd"
        + bytes([0x80, (bits - 10) << 3])
        + len(content).to_bytes(4, "little")
        + block
        + content
    )


SOUND = raw_object(b"abc")

DAMAGED = {
    "shorter than a header": b"",
    "shorter than a header ": SOUND[:23],
    "does not begin as": header(frames=1, raw=3, magic=0xB6) + frame(b"abc"),
    "header is cut off": header(frames=1, raw=3, references=1)[:40],
    "header fails its checksum": SOUND[:8] + b"\x04" + SOUND[9:],
    "where its pack says": header(frames=1, raw=4) + frame(b"abcd"),
    "frame's header is cut off": header(frames=2, raw=3) + frame(b"abc"),
    "frame is cut off": header(frames=1, raw=3) + frame(b"abc")[:-1],
    "fails its checksum": SOUND[:-1] + b"d",
    "hold more than": header(frames=2, raw=3) + frame(b"abc") + frame(b"d"),
    "hold less than": header(frames=1, raw=3) + frame(b"ab"),
    "bytes follow its last": SOUND + b"x",
    "content is not what": raw_object(b"abd"),
    "raw frame is not as long": one(b"ab", raw=3),
    "frame of 0 bytes": header(frames=2, raw=3) + frame(b"") + frame(b"abc"),
    "frame of 3 bytes of F32": one(b"abc", dtype=12),
    "planes of bytes": one(plane(b"abc"), raw=3, codec=2),
    "planes of BOOL": one(plane(b"abc"), raw=3, codec=2, dtype=1),
    "stream is cut off": one(plane(b"abc")[:4], raw=3, codec=2, dtype=2),
    "stream is longer": one(plane(b"abc", stored=4), raw=3, codec=2, dtype=2),
    "bytes follow the last stream": one(plane(b"abc") + b"x", raw=3, codec=2, dtype=2),
    "unknown mode": one(plane(b"abc", mode=2), raw=3, codec=2, dtype=2),
    "a stream of 3 bytes holds 2": one(plane(b"ab"), raw=3, codec=2, dtype=2),
    "no sound header": one(b"no zstd", raw=3, codec=1),
    "no sound header ": one(plane(b"abc", mode=1), raw=3, codec=2, dtype=2),
    "does not state its size": one(
        zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"), raw=3, codec=1
    ),
    "of 3 bytes states 2": one(ZSTD.compress(b"ab"), raw=3, codec=1),
    "unused data": one(ZSTD.compress(b"abc") + b"x", raw=3, codec=1),
    "unused data ": one(ZSTD.compress(b"abc") * 2, raw=3, codec=1),
    "zstd: ": one(ZSTD.compress(b"abc")[:-1], raw=3, codec=1),
    "zstd:  ": one(b"\x50\x2a\x4d\x18\x03\0\0\0abc", raw=3, codec=1),
    "wants a dictionary": one(b"\x28\xb5\x2f\xfd\x21\x07\x03\x19\0\0abc", raw=3, codec=1),
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_i4_damage_is_refused(reason: str) -> None:
    with pytest.raises(DamagedObject, match=reason.strip()) as caught:
        decode(DAMAGED[reason])
    assert caught.value.data["pack"] == "p" * 32
    assert caught.value.data["digest"] == Digest.of(b"abc").hex


@pytest.mark.parametrize("field", [0, 1])
def test_i4_reserved_fields_must_be_zero(field: int) -> None:
    reserved = (1, 0) if field == 0 else (0, 1)
    with pytest.raises(DamagedObject, match="reserved"):
        decode(header(frames=1, raw=3) + frame(b"abc", reserved=reserved))


HOSTILE = {
    "references": header(frames=1, raw=3, references=5) + frame(b"abc"),
    "67108865 bytes of bytes": header(frames=65, raw=64 * MIB + 1),
    "67108868 bytes of F32": header(frames=128, raw=64 * MIB + 4, dtype=12),
    "16777217 bytes of U8": header(frames=128, raw=16 * MIB + 1, dtype=2),
    "134217736 bytes of F64": header(frames=128, raw=128 * MIB + 8, dtype=15),
    "18446744073709551615 bytes": header(frames=128, raw=(1 << 64) - 1, dtype=15),
    "4097 frames": header(frames=4097, raw=5000),
    "4294967295 frames": header(frames=(1 << 32) - 1, raw=5000),
    "a frame of 1048577 bytes of bytes": header(frames=1, raw=2 * MIB) + frame(b"", raw=MIB + 1),
    "a frame of 524292 bytes of F32": header(frames=1, raw=MIB, dtype=12)
    + frame(b"", raw=(512 << 10) + 4, dtype=12, codec=2),
    "of 3 bytes states 1000000000": one(
        b"\x28\xb5\x2f\xfd\xa0" + (10**9).to_bytes(4, "little") + b"\x01\0\0", raw=3, codec=1
    ),
    "a window of 16777216": one(window(24), raw=3, codec=1),
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_what_asks_for_too_much_is_refused_before_memory_is_taken(reason: str) -> None:
    data = HOSTILE[reason]
    raw = int.from_bytes(data[8:16], "little")
    tracemalloc.start()
    try:
        with pytest.raises(HostileData, match=reason):
            decode(data, raw=raw)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_a_window_of_8_mib_is_read() -> None:
    assert decode(one(window(23), raw=3, codec=1)) == b"abc"


def test_a_bomb_in_a_plane_takes_no_memory() -> None:
    bomb = ZSTD.compress(bytes(256 * MIB))
    data = one(plane(bomb, mode=1), raw=1000, codec=2, dtype=2)
    tracemalloc.start()
    try:
        with pytest.raises(HostileData, match="of 1000 bytes states"):
            decode(data, raw=1000)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_a_bomb_that_lies_about_its_size_is_cut_short() -> None:
    """States 1000 bytes in its header, but its blocks would run to 32 MiB."""
    block = (131072 << 3 | 2).to_bytes(3, "little") + b"\0"
    last = (131072 << 3 | 3).to_bytes(3, "little") + b"\0"
    head = b"\x28\xb5\x2f\xfd\xa0" + (1000).to_bytes(4, "little")
    data = one(head + block * 255 + last, raw=1000, codec=1)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedObject, match="zstd"):
            decode(data, raw=1000)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


NEWER = {
    "layout 2": header(frames=1, raw=3, layout=2) + frame(b"abc"),
    "dtype 16": header(frames=1, raw=3, dtype=16) + frame(b"abc"),
    "dtype 17": header(frames=1, raw=3) + frame(b"abc", dtype=17),
    "codec 5": one(b"abc", codec=5),
}


@pytest.mark.parametrize("reason", NEWER)
def test_i9_what_a_newer_release_wrote_is_refused_as_such(reason: str) -> None:
    with pytest.raises(NewerFormat, match=reason):
        decode(NEWER[reason])
    with pytest.raises(NewerFormat, match=reason):
        verify_stored(NEWER[reason], "p" * 32)


def test_stored_bytes_are_verified_without_decoding() -> None:
    verify_stored(one(b"no zstd", raw=3, codec=1), "p" * 32)
    with pytest.raises(DamagedObject, match="frame at byte 0 fails its checksum"):
        verify_stored(SOUND[:-1] + b"d", "p" * 32)
    with pytest.raises(DamagedObject, match=Digest.of(b"abc").hex):
        verify_stored(SOUND[:-1], "p" * 32, Digest.of(b"abc"))


@cache
def sample(word: str) -> tuple[bytes, bytes]:
    numbers = (np.random.default_rng(6).standard_normal(700) * 0.02).astype("<f4")
    content = b'{"key": "value"}' * 50 if word == "" else numbers.tobytes()
    return content, bytes(encode_object(content, dtype_of(word) if word else BYTES))


@given(st.sampled_from(["", "F32", "BF16", "U8"]), st.data())
def test_i4_one_changed_byte_is_always_found(word: str, data: st.DataObject) -> None:
    content, out = sample(word)
    at = data.draw(st.integers(0, len(out) - 1))
    changed = bytearray(out)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((DamagedObject, HostileData, NewerFormat)):
        decode(bytes(changed), content)
    with pytest.raises((DamagedObject, HostileData, NewerFormat)):
        verify_stored(changed, "p" * 32)


@given(st.sampled_from(["", "F32", "BF16", "U8"]), st.data())
def test_i4_cut_zeroed_and_lengthened_objects_are_found(word: str, data: st.DataObject) -> None:
    content, out = sample(word)
    start = data.draw(st.integers(0, len(out) - 1))
    end = data.draw(st.integers(start + 1, len(out)))
    for changed in (
        out[:start],
        out[:start] + out[end:],
        out[:start] + bytes(end - start) + out[end:],
        out + out,
    ):
        if changed != out:
            with pytest.raises((DamagedObject, HostileData, NewerFormat)):
                decode(changed, content)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_i4_any_bytes_at_all_are_refused(data: bytes, raw: int) -> None:
    with pytest.raises((DamagedObject, HostileData, NewerFormat)):
        decode(data, raw=raw)


@given(st.binary(max_size=60), st.integers(1, 60), st.sampled_from([1, 2]), st.integers(0, 15))
def test_i4_any_payload_with_right_checksums_is_refused_or_right(
    payload: bytes, raw: int, codec: int, dtype: int
) -> None:
    with pytest.raises((DamagedObject, HostileData)):
        decode(one(payload, raw=raw, codec=codec, dtype=dtype), b"never this", raw=raw)
