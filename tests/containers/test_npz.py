"""numpy's files: arrays become tensors, and whatever numpy can write comes apart at the right bytes."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from cuts import by_name, cut, names

ARRAYS: dict[str, Any] = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "scalar": np.array(2.5),
    "none": np.zeros((0, 3), np.int16),
    "flags": np.array([True, False]),
    "deep": np.ones((1, 2, 1, 3), np.float16),
}
WORDS = {
    np.int8: "I8",
    np.uint8: "U8",
    np.int16: "I16",
    np.uint16: "U16",
    np.int32: "I32",
    np.uint32: "U32",
    np.int64: "I64",
    np.uint64: "U64",
    np.float16: "F16",
    np.float32: "F32",
    np.float64: "F64",
    np.bool_: "BOOL",
}


def npz(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array: Any, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version)
    return file.getvalue()


def with_header(text: bytes, rest: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + rest


def test_a_real_file_is_cut_at_its_arrays() -> None:
    data = npz(ARRAYS)
    found = cut(data, "vectors.npz")
    assert found.container == "npz"
    assert by_name(found, data) == {
        name: (WORDS[array.dtype.type], array.shape, array.tobytes()) for name, array in ARRAYS.items()
    }


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_one_array_in_a_file(kind: Any, version: tuple[int, int]) -> None:
    array = np.arange(6).reshape(2, 3).astype(kind)
    data = npy(array, version)
    found = cut(data, "x.npy")
    header, numbers = found.segments
    assert (found.container, header.dtype) == ("npy", "")
    assert (numbers.name, numbers.dtype, numbers.shape) == (None, WORDS[kind], (2, 3))
    assert data[numbers.offset :] == array.tobytes()


def test_columns_first_are_the_same_numbers_but_no_tensor() -> None:
    data = npz({"f": np.asfortranarray(ARRAYS["matrix"]), "c": np.asfortranarray(np.ones(3, np.float32))})
    found = cut(data)
    assert names(found) == [None, None, None, "c", None]
    assert (found.segments[1].dtype, found.segments[1].shape) == ("F32", (12,))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3, dtype=">f4"),
        np.ones(3, np.complex64),
        np.array(["a", "bc"]),
        np.array([{}, None], object),
        np.zeros(2, [("a", "<i4"), ("b", "<f4")]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, "V2"),
        np.zeros(2, np.longdouble),
    ],
    ids=lambda array: array.dtype.str,
)
def test_what_is_no_plain_number_is_bytes(array: Any) -> None:
    found = cut(npz({"odd": array, "even": ARRAYS["matrix"]}))
    assert found.container == "npz"
    assert set(names(found)) == {None, "even"}
    assert {s.dtype for s in found.segments} == {"", "F32"}


def test_a_compressed_file_is_cut_into_chunks() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, **ARRAYS)
    assert cut(file.getvalue(), "x.npz").container == ""


def test_a_member_that_is_no_array_makes_it_another_zip() -> None:
    for name, body in (("a.txt", b"x"), ("a.npy", b"x" * 50), ("a.npy", b"\x93NUMPY"), ("a.npy", b"")):
        file = io.BytesIO(npz({"b": ARRAYS["matrix"]}))
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(name, body)
        assert cut(file.getvalue()).container == ""


HEADERS = {
    "code": b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (2,), }\n",
    "deep": b"(" * 3000 + b"\n",
    "nothing": b"",
    "negative": b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }\n",
    "absurd": b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }\n",
    "absurd in sum": b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 999999999999), }\n",
    "two numbers": b"{'descr': '<f4', 'fortran_order': False, 'shape': (1 2,), }\n",
    "a comma": b"{'descr': '<f4', 'fortran_order': False, 'shape': (,), }\n",
    "another order": b"{'shape': (2,), 'descr': '<f4', 'fortran_order': False}\n",
    "no such type": b"{'descr': '<f3', 'fortran_order': False, 'shape': (2,), }\n",
    "too long a shape": b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n",
    "not ended": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }",
    "very long": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }" + b" " * 5000 + b"\n",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_is_not_understood_leaves_bytes(header: str) -> None:
    found = cut(with_header(HEADERS[header], bytes(8)))
    assert found.container == "npy"
    assert {s.dtype for s in found.segments} == {""}


def test_a_header_beyond_the_file_is_none() -> None:
    assert cut(with_header(HEADERS["negative"])[:40]).container == ""
    assert cut(b"\x93NUMPY\x09\x00" + bytes(40)).container == ""
    assert cut(b"\x93NUMPY").container == ""
