"""Planes that are joined without numpy are what numpy makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.codecs import planes
from stemmata.codecs.dtypes import DTYPES, DType
from stemmata.codecs.faults import Fault

numbers = [dtype for dtype in DTYPES if dtype.has_planes]


@given(st.data(), st.sampled_from(numbers))
def test_what_was_split_comes_back_without_numpy(data: st.DataObject, dtype: DType) -> None:
    count = data.draw(st.integers(1, 60))
    content = data.draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    parts = planes.encode(np.frombuffer(content, np.uint8), dtype, (True,) * dtype.itemsize)
    payload = memoryview(b"".join(bytes(part) for part in parts))
    plainly, usually = bytearray(len(content)), np.empty(len(content), np.uint8)
    planes.decode_plainly(payload, dtype, memoryview(plainly))
    planes.decode(payload, dtype, usually)
    assert bytes(plainly) == usually.tobytes() == content


@given(st.binary(max_size=80), st.sampled_from(numbers), st.integers(0, 9))
def test_what_is_no_payload_is_refused_alike(payload: bytes, dtype: DType, count: int) -> None:
    def refusal(way: str) -> str:
        into = bytearray(count * dtype.itemsize)
        try:
            if way == "plain":
                planes.decode_plainly(memoryview(payload), dtype, memoryview(into))
            else:
                planes.decode(memoryview(payload), dtype, np.frombuffer(into, np.uint8))
        except Fault as fault:
            return str(fault)
        return into.hex()

    assert refusal("plain") == refusal("numpy")


@pytest.mark.parametrize("dtype", numbers, ids=lambda d: d.word)
def test_extremes_come_back(dtype: DType) -> None:
    content = b"\xff" * dtype.itemsize + bytes(dtype.itemsize) + b"\x80" + bytes(dtype.itemsize - 1)
    parts = planes.encode(np.frombuffer(content, np.uint8), dtype, (False,) * dtype.itemsize)
    into = bytearray(len(content))
    planes.decode_plainly(memoryview(b"".join(bytes(part) for part in parts)), dtype, memoryview(into))
    assert bytes(into) == content
