"""Little objects, encoded without numpy: the same object as ever, proved before it is handed out."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.codecs import littlecode, zstd
from stemmata.codecs.decoding import decode_object
from stemmata.codecs.dtypes import BYTES, DTYPES, LITTLE, SAMPLE, DType, dtype_of
from stemmata.codecs.encoded import Whole
from stemmata.codecs.frames import RAW, ZSTD, header_of, most_stored, read_frames
from stemmata.codecs.hashing import digest_of
from stemmata.codecs.objectcode import encode_object


def codecs_of(stored: bytes) -> list[int]:
    whole = Whole(stored)
    return [frame.codec for frame in read_frames(whole, header_of(whole))]


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=30).map(lambda part: part * 99)))
def test_what_is_encoded_comes_back_and_is_what_every_object_is(data: bytes) -> None:
    stored = littlecode.encode(data)
    assert decode_object(stored, raw_length=len(data), digest=digest_of(data), where="here") == data
    assert bytes(encode_object(data, BYTES)) == stored
    assert len(stored) <= most_stored(len(data), BYTES)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.has_planes], ids=lambda d: d.word)
@given(st.data())
def test_few_numbers_are_what_every_object_of_them_is(dtype: DType, data: st.DataObject) -> None:
    size = dtype.itemsize
    parts = st.one_of(st.binary(min_size=size, max_size=size), st.just(bytes(size)), st.just(b"\xff" * size))
    numbers = b"".join(data.draw(st.lists(parts, max_size=60))) * data.draw(st.integers(1, 9))
    stored = littlecode.encode(numbers, dtype)
    assert bytes(encode_object(numbers, dtype)) == stored
    assert decode_object(stored, raw_length=len(numbers), digest=digest_of(numbers), where="here") == numbers


@pytest.mark.parametrize("word", ["F64", "F32", "BF16", "I64", "F8_E4M3"])
def test_a_table_of_numbers_up_to_the_largest_that_is_little(word: str) -> None:
    dtype = dtype_of(word)
    walk = np.random.default_rng(1).normal(1, 0.1, LITTLE // 8)
    numbers = walk.tobytes()[: min(LITTLE, SAMPLE * dtype.itemsize)]
    stored = littlecode.encode(numbers, dtype)
    assert bytes(encode_object(numbers, dtype)) == stored
    assert len(stored) < len(numbers)


def test_it_suits_few_numbers_only_where_nothing_faster_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert littlecode.suits(littlecode.MOST, BYTES)
    assert not littlecode.suits(littlecode.MOST + 1, BYTES)
    assert not littlecode.suits(80, dtype_of("F64")), "what is compiled is quicker"
    monkeypatch.delitem(sys.modules, "stemmata.codecs.payloads", raising=False)
    assert not littlecode.suits(80, dtype_of("F64")), "numpy is quicker"
    monkeypatch.delitem(sys.modules, "numpy")
    assert littlecode.suits(LITTLE, dtype_of("F64"))
    assert not littlecode.suits(LITTLE + 8, dtype_of("F64"))
    assert not littlecode.suits(81, dtype_of("F64"))


@pytest.mark.parametrize("size", [0, 1, littlecode.MOST - 1, littlecode.MOST])
def test_up_to_a_whole_frame(size: int) -> None:
    data = bytes(size)
    stored = littlecode.encode(memoryview(data))
    assert decode_object(stored, raw_length=size, digest=digest_of(data), where="here") == data
    assert codecs_of(stored) == ([] if not size else [ZSTD] if size > 1 else [RAW])


@pytest.mark.parametrize("wrong", [b"", b"rubbish", zstd.compress_general(b"other bytes" * 30)])
def test_what_would_not_come_back_is_stored_as_it_is(monkeypatch: pytest.MonkeyPatch, wrong: bytes) -> None:
    data = b"some text " * 100
    assert codecs_of(littlecode.encode(data)) == [ZSTD]
    monkeypatch.setattr(zstd, "compress_general", lambda _: wrong)
    assert codecs_of(littlecode.encode(data)) == [RAW]
