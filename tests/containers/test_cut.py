"""Cutting: whatever the bytes are, the segments tile the file, or the file is refused by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import cuts
from cuts import Memory, check_tiles, names
from stemmata.codecs.dtypes import DTYPES, dtype_of
from stemmata.containers.base import MAX_ELEMENTS, CutPlan
from stemmata.containers.cut import plan
from stemmata.errors import BrokenContainer


def with_header(header: object, rest: bytes = b"", pad: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    return len(text).to_bytes(8, "little") + text + rest


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def cut(data: bytes, path: str = "model.safetensors", **options: bool) -> CutPlan:
    return cuts.cut(data, path, **options)


# --- chunks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 64 << 10])
def test_small_files_are_whole_and_only_looked_at(size: int) -> None:
    reader = Memory(bytes(size))
    found = plan(reader, size, "merges.txt")
    check_tiles(found, size)
    assert (found.container, [len(s.pieces) for s in found.segments]) == ("", [1])
    assert sum(length for _, length in reader.reads) < 16


def test_an_empty_file_has_no_segments() -> None:
    assert cut(b"", "empty.txt") == CutPlan("", ())


# --- safetensors --------------------------------------------------------------------------------


def test_a_real_file_is_cut_at_its_tensors() -> None:
    arrays = {
        "b.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "a.weight": np.arange(5, dtype=np.int64),
        "scalar": np.array(1.5, dtype=np.float16),
        "nothing": np.zeros((0, 7), dtype=np.float32),
    }
    data = safetensors.numpy.save(arrays, metadata={"format": "pt"})
    found = cut(data)
    assert found.container == "safetensors"
    by_name = {s.name: s for s in found.segments}
    assert set(by_name) == {None, *arrays}
    for name, array in arrays.items():
        segment = by_name[name]
        assert segment.shape == array.shape
        assert data[segment.offset : segment.offset + segment.length] == array.tobytes()
    assert by_name["scalar"].dtype == "F16"
    assert (by_name["nothing"].length, by_name["nothing"].pieces) == (0, ())


def test_only_the_header_is_read() -> None:
    data = with_header({"a": tensor("U8", [4], 0, 4)}, b"1234")
    reader = Memory(data)
    plan(reader, len(data), "x.safetensors")
    assert reader.reads == [(0, 8), (8, len(data) - 12)]


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.code], ids=lambda d: d.word)
def test_every_known_type_is_a_tensor(dtype: Any) -> None:
    size = 6 * dtype.itemsize
    found = cut(with_header({"a": tensor(dtype.word, [2, 3], 0, size)}, bytes(size)))
    assert names(found) == [None, "a"]
    assert found.segments[1].dtype == dtype.word


@pytest.mark.parametrize("word", ["F32", "F64", "U8"])
def test_long_tensors_are_cut_every_16_mi_elements(word: str) -> None:
    elements = 2 * MAX_ELEMENTS + 5
    size = elements * dtype_of(word).itemsize
    head = with_header({"a": tensor(word, [elements], 0, size)})
    found = plan(Memory(head), len(head) + size, "x.safetensors")
    check_tiles(found, len(head) + size)
    assert len(found.segments[1].pieces) == 3


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("F4", [8], 4),
        ("F8_E8M0", [4], 4),
        ("C64", [1], 8),
        ("bytes", [4], 4),
        ("", [4], 4),
        ("F32", [2], 4),
        ("F32", [1], 7),
        ("F32", [-1, -1], 4),
        ("F32", [0], 4),
        ("U8", [1] * 100, 1),
        ("U8", [10**300, 10**300], 4),
    ],
)
def test_types_and_sizes_that_nobody_knows_are_bytes(dtype: str, shape: list[int], size: int) -> None:
    header = {"odd": tensor(dtype, shape, 0, size), "even": tensor("U8", [2], size, size + 2)}
    found = cut(with_header(header, bytes(size + 2)))
    assert names(found) == [None, None, "even"]


def test_gaps_and_the_rest_are_bytes() -> None:
    header = {"b": tensor("U8", [2], 7, 9), "a": tensor("U8", [3], 1, 4)}
    found = cut(with_header(header, bytes(20)))
    assert names(found) == [None, None, "a", None, "b", None]
    assert [s.length for s in found.segments[1:]] == [1, 3, 3, 2, 11]


def test_a_header_may_be_padded_and_may_hold_nothing() -> None:
    assert names(cut(with_header({}, pad=5))) == [None]
    assert names(cut(with_header({"__metadata__": {"a": "b"}}))) == [None]
    assert names(cut(with_header({"__metadata__": {}}, b"rest"))) == [None, None]
    assert names(cut(with_header({"__metadata__": None}))) == [None], "as the library takes it"


def test_the_name_of_the_file_is_read_in_any_case() -> None:
    data = with_header({"a": tensor("U8", [1], 0, 1)}, b"1")
    assert cut(data, "deep/er/MODEL.SafeTensors").container == "safetensors"
    assert cut(data, "model.safetensors.index.json").container == ""


def test_empty_tensors_may_share_an_offset_with_others() -> None:
    header = {
        "z": tensor("F32", [0], 0, 0),
        "a": tensor("U8", [2], 0, 2),
        "y": tensor("F32", [0, 4], 2, 2),
        "b": tensor("F32", [0], 2, 2),
        "odd": tensor("C64", [0], 2, 2),
    }
    assert names(cut(with_header(header, b"12"))) == [None, "z", "a", "b", "y"]


BROKEN = {
    "empty": b"",
    "no whole length": b"1234567",
    "length beyond the limit": (100_000_001).to_bytes(8, "little") + bytes(64),
    "length beyond anything": b"\xff" * 8 + b"{}",
    "header cut off": with_header({"a": tensor("U8", [1], 0, 1)})[:-1],
    "no header": bytes(8),
    "a page of a server": b"<!DOCTYPE html><html></html>",
    "not an object": with_header(b"[]"),
    "blanks before it": with_header(b" {}"),
    "not JSON": with_header(b'{"a":'),
    "something behind it": with_header(b"{}x"),
    "not UTF-8": with_header(b'{"\xff":1}'),
    "half a surrogate": with_header(b'{"\\ud800":{}}'),
    "deep": with_header(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "deep metadata": with_header(b'{"__metadata__":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "a tensor that is none": with_header({"a": 1}),
    "no type": with_header({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"1"),
    "no shape": with_header({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"1"),
    "no offsets": with_header({"a": {"dtype": "U8", "shape": [1]}}, b"1"),
    "three offsets": with_header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, b"12"),
    "offsets of another type": with_header({"a": {"dtype": "U8", "shape": [1], "data_offsets": "01"}}),
    "shape of another type": with_header({"a": {"dtype": "U8", "shape": [1.5], "data_offsets": [0, 1]}}),
    "negative offset": with_header({"a": tensor("U8", [1], -1, 0)}, b"1"),
    "backward": with_header({"a": tensor("U8", [1], 2, 1)}, b"12"),
    "beyond the file": with_header({"a": tensor("U8", [2], 0, 2)}, b"1"),
    "far beyond the file": with_header({"a": tensor("U8", [2], 2**70, 2**70 + 2)}, b"1"),
    "overlap": with_header({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, b"123"),
    "twice the same bytes": with_header({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 0, 2)}, b"12"),
    "an empty tensor inside another": with_header(
        {"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [0], 1, 1)}, b"12"
    ),
    "metadata that is none": with_header({"__metadata__": {"a": 1}}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_is_refused_by_name(fault: str) -> None:
    with pytest.raises(BrokenContainer) as failure:
        cut(BROKEN[fault], "folder/model.safetensors")
    assert failure.value.data["path"] == "folder/model.safetensors"
    assert failure.value.data["container"] == "safetensors"
    assert failure.value.data["reason"]


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_is_stored_as_it_is_where_that_is_wanted(fault: str) -> None:
    found = cut(BROKEN[fault], allow_broken=True)
    assert found.container == ""
    assert set(names(found)) <= {None}


def test_a_file_that_shrinks_under_the_reader_is_broken() -> None:
    data = with_header({"a": tensor("U8", [1], 0, 1)}, b"1")
    with pytest.raises(BrokenContainer):
        plan(Memory(data[:20]), len(data), "x.safetensors")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Files that are mostly right: any order, gaps, overlaps, empty and odd tensors, a rest."""
    header: dict[str, Any] = {}
    at = 0
    for i in range(draw(st.integers(0, 6))):
        at = max(0, at + draw(st.sampled_from([0, 0, 0, 0, 1, 5, -1])))
        word = draw(st.sampled_from(["F32", "BF16", "U8", "I64", "F4", "BOOL"]))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        size = int(np.prod(shape)) * dtype_of(word).itemsize + draw(st.sampled_from([0, 0, 0, 1]))
        header[f"t{i}"] = tensor(word, shape, at, at + size)
        at += size
    keys = draw(st.permutations(list(header)))
    rest = bytes(max(0, at + draw(st.sampled_from([0, 0, 0, 3, -1]))))
    return with_header({key: header[key] for key in keys}, rest, draw(st.integers(0, 8)))


@given(files())
def test_segments_always_tile_the_file(data: bytes) -> None:
    try:
        found = cut(data)
    except BrokenContainer:
        found = cut(data, allow_broken=True)
    check_tiles(found, len(data))


@given(st.binary(max_size=200) | st.binary(max_size=100).map(with_header))
def test_any_bytes_are_cut_or_refused(data: bytes) -> None:
    try:
        cut(data)
    except BrokenContainer:
        cut(data, allow_broken=True)


@given(files(), st.data())
def test_any_changed_byte_of_a_header_is_cut_or_refused(data: bytes, choice: st.DataObject) -> None:
    at = choice.draw(st.integers(0, len(data) - 1))
    changed = data[:at] + choice.draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
    try:
        cut(changed)
    except BrokenContainer:
        cut(changed, allow_broken=True)
