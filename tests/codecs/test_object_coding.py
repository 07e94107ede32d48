"""Objects come back bit for bit (I3), are small where they can be, and read the same everywhere."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st

from crafted_objects import frame, header, plane
from stemmata.codecs import planes, zstd
from stemmata.codecs.decoding import decode_object, verify_stored
from stemmata.codecs.dtypes import BYTES, DTYPES, DType, dtype_of
from stemmata.codecs.hashing import Buffer
from stemmata.codecs.objectcode import encode_object
from stemmata.codecs.streams import Memory
from stemmata.ids import Digest

FLOAT_BITS = {
    "F16": ("<u2", [0, 0x8000, 1, 0x8001, 0x3FF, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF]),
    "BF16": ("<u2", [0, 0x8000, 1, 0x807F, 0x7F80, 0xFF80, 0x7F81, 0x7FC0, 0xFFFF]),
    "F32": ("<u4", [0, 1 << 31, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC12345, 0xFFFFFFFF]),
    "F64": (
        "<u8",
        [0, 1 << 63, 1, 0x800FFFFFFFFFFFFF, 0x7FF0 << 48, 0xFFF0 << 48, (0x7FF0 << 48) | 1, (1 << 64) - 1],
    ),
}


def encoded(data: bytes | memoryview, dtype: DType, threads: ThreadPoolExecutor | None = None) -> bytes:
    return bytes(encode_object(data, dtype, threads))


def decoded(data: bytes, content: bytes | memoryview) -> bytearray:
    return decode_object(data, raw_length=len(content), digest=Digest.of(content), where="test")


def codecs_of(data: bytes) -> list[int]:
    """The codec of every frame, read by hand."""
    found, at = [], 24
    while at < len(data):
        codec, _, _, _, stored, _ = struct.unpack_from("<BBHIII", data, at)
        found.append(codec)
        at += 24 + stored
    return found


def normal(count: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(count) * 0.02).astype("<f4")


dtypes = st.sampled_from(DTYPES)


@given(dtypes, st.binary(max_size=300))
@example(DTYPES[12], b"")
@example(DTYPES[15], b"1234567")
def test_i3_any_bytes_come_back_as_any_dtype(dtype: DType, data: bytes) -> None:
    out = encoded(data, dtype)
    verify_stored(out, "test")
    assert decoded(out, data) == data


@given(dtypes, st.binary(min_size=1, max_size=64), st.integers(0, 3), st.integers(-9, 9), st.data())
def test_i3_bytes_that_compress_come_back_across_frames(
    dtype: DType, pattern: bytes, frames: int, ragged: int, data: st.DataObject
) -> None:
    length = max(0, frames * min(dtype.max_frame_bytes, 1 << 18) + ragged)
    content = bytearray((pattern * (length // len(pattern) + 1))[:length])
    for _ in range(data.draw(st.integers(0, 4)) if length else 0):
        content[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    assert decoded(encoded(bytes(content), dtype), content) == content


@pytest.mark.parametrize("word", FLOAT_BITS)
def test_i3_every_kind_of_float_comes_back_bit_for_bit(word: str) -> None:
    form, special = FLOAT_BITS[word]
    rng = np.random.default_rng(1)
    bits = rng.choice(np.array(special, form), 150_000)
    content = bits.tobytes()
    out = encoded(content, dtype_of(word))
    assert decoded(out, content) == content
    assert len(out) < len(content) / 2


@pytest.mark.parametrize("word", ["F16", "BF16", "I16", "U16"])
def test_i3_all_16_bit_patterns_come_back(word: str) -> None:
    content = np.arange(1 << 16).astype("<u2").view(np.uint8)
    payload = planes.encode(content, dtype_of(word), (True, True))
    found = np.zeros(len(content), np.uint8)
    planes.decode(memoryview(b"".join(payload)), dtype_of(word), found)
    assert np.array_equal(found, content)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.word)
def test_i3_noise_comes_back_and_costs_next_to_nothing(dtype: DType) -> None:
    content = np.random.default_rng(2).bytes(2 * dtype.max_frame_bytes + 8 * 5)
    out = encoded(content, dtype)
    assert decoded(out, content) == content
    assert len(out) <= len(content) + 24 + 24 * 3


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.itemsize > 1], ids=lambda d: d.word)
def test_a_ragged_length_is_coded_as_bytes(dtype: DType) -> None:
    content = bytes(dtype.itemsize * 1000 + 1)
    out = encoded(content, dtype)
    assert out[2] == BYTES.code
    assert decoded(out, content) == content


def test_an_empty_object_is_a_header_alone() -> None:
    assert encoded(b"", dtype_of("F32")) == header(frames=0, raw=0, dtype=12)
    assert decoded(header(frames=0, raw=0), b"") == b""


def test_the_exponent_of_fp32_is_all_that_shrinks() -> None:
    content = normal(300_000).tobytes()
    out = encoded(content, dtype_of("F32"))
    assert codecs_of(out) == [2, 2, 2]
    assert 0.82 < len(out) / len(content) < 0.84


def test_bf16_is_at_the_order_0_floor() -> None:
    content = normal(300_000).view("<u2")[1::2].tobytes()
    assert len(encoded(content, dtype_of("BF16"))) / len(content) < 0.67


def test_repeats_are_found_where_planes_hide_them() -> None:
    row = np.random.default_rng(3).bytes(4096)
    out = encoded(row * 64, dtype_of("F32"))
    assert codecs_of(out) == [1]
    assert len(out) < 5000


def test_repeats_within_a_plane_are_found() -> None:
    content = np.arange(120_000).astype("<i8").tobytes()
    assert len(encoded(content, dtype_of("I64"))) < len(content) / 100


def test_frames_unlike_the_sample_are_stored_no_larger_than_raw() -> None:
    frame_bytes = dtype_of("F32").max_frame_bytes
    noise = np.random.default_rng(4).bytes(frame_bytes)
    content = noise + bytes(frame_bytes) + noise
    out = encoded(content, dtype_of("F32"))
    assert codecs_of(out)[0] == codecs_of(out)[2] == 0
    assert len(out) < 2 * frame_bytes + 500
    assert decoded(out, content) == content


def test_text_is_coded_by_zstd() -> None:
    content = b"".join(b'{"token": %d}' % i for i in range(100_000))
    out = encoded(content, BYTES)
    assert set(codecs_of(out)) == {1}
    assert len(out) < len(content) / 5
    assert decoded(out, content) == content


def test_threads_change_neither_bytes_nor_content() -> None:
    content = normal(600_000).tobytes()
    with ThreadPoolExecutor(3) as threads:
        out = encoded(content, dtype_of("F32"), threads)
        assert out == encoded(content, dtype_of("F32"))
        found = decode_object(
            out, raw_length=len(content), digest=Digest.of(content), where="test", threads=threads
        )
    assert found == content


def test_planes_are_as_the_format_says() -> None:
    """An fp32 frame put together by hand: sign rotated to bit 0, lowest bytes of all elements first."""
    values = [0x80000001, 0x3F800000, 0x7FC12345]
    content = struct.pack("<3I", *values)
    rotated = [((v << 1) | (v >> 31)) & 0xFFFFFFFF for v in values]
    payload = b"".join(plane(bytes((r >> 8 * k) & 0xFF for r in rotated)) for k in range(4))
    out = header(frames=1, raw=12, dtype=12) + frame(payload, raw=12, codec=2, dtype=12)
    assert decoded(out, content) == content
    unrotated = b"".join(plane(bytes((v >> 8 * k) & 0xFF for v in values)) for k in range(4))
    out = header(frames=1, raw=12, dtype=11) + frame(unrotated, raw=12, codec=2, dtype=11)
    assert decoded(out, content) == content


def test_a_raw_object_is_written_as_the_format_says() -> None:
    content = np.random.default_rng(5).bytes(1000)
    assert encoded(content, BYTES) == header(frames=1, raw=1000) + frame(content)


def test_references_are_stepped_over_by_codecs_that_need_none() -> None:
    out = header(frames=1, raw=3, references=4) + frame(b"abc")
    assert decoded(out, b"abc") == b"abc"


def test_a_frame_that_does_not_come_back_is_stored_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    content = normal(200_000).tobytes()
    honest = planes.encode

    def lying(data: Memory, dtype: DType, try_repeats: tuple[bool, ...]) -> list[Buffer]:
        other = np.frombuffer(data, np.uint8).copy()
        other[7] ^= 1
        return honest(other, dtype, try_repeats)

    monkeypatch.setattr(planes, "encode", lying)
    out = encoded(content, dtype_of("F32"))
    assert codecs_of(out) == [0, 0]
    assert decoded(out, content) == content


def test_a_frame_that_cannot_be_decoded_is_stored_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(5000)
    monkeypatch.setattr(zstd, "compress_general", lambda data: b"no zstd frame")
    out = encoded(content, BYTES)
    assert codecs_of(out) == [0]
    assert decoded(out, content) == content


@pytest.mark.parametrize("word", ["", "U8", "F32"])
def test_more_than_an_object_may_hold_is_refused(word: str) -> None:
    dtype = dtype_of(word)
    too_much = np.zeros(dtype.max_object_bytes + dtype.itemsize, np.uint8)
    with pytest.raises(ValueError, match="at most"):
        encode_object(too_much.data, dtype)


def test_dtypes_are_those_of_the_format() -> None:
    table = (
        "bytes BOOL U8 I8 F8_E4M3 F8_E5M2 I16 U16 F16 BF16 I32 U32 F32 I64 U64 F64",
        [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8],
    )
    assert " ".join(d.word for d in DTYPES) == table[0]
    assert [d.itemsize for d in DTYPES] == table[1]
    assert [d.code for d in DTYPES] == list(range(16))
    assert [d.word for d in DTYPES if d.rotate] == ["F16", "BF16", "F32", "F64"]
    assert dtype_of("F32") is DTYPES[12]
    assert dtype_of("C64") is dtype_of("") is BYTES


def test_the_checksum_is_the_beginning_of_blake3() -> None:
    out = encoded(b"abc", BYTES)
    assert out[16:24] == blake3(out[:16]).digest()[:8]
