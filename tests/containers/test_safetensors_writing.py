"""The header that we write is, byte for byte, the one that the real safetensors writes."""

from __future__ import annotations

import ctypes
import math

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from stemmata.containers.cut import plan
from stemmata.containers.safetensors_writing import TensorEntry, header_of

DTYPES = {
    "bool": ("BOOL", 1),
    "uint8": ("U8", 1),
    "int8": ("I8", 1),
    "float8_e5m2": ("F8_E5M2", 1),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e8m0fnu": ("F8_E8M0", 1),
    "float8_e4m3fnuz": ("F8_E4M3FNUZ", 1),
    "float8_e5m2fnuz": ("F8_E5M2FNUZ", 1),
    "int16": ("I16", 2),
    "uint16": ("U16", 2),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "int32": ("I32", 4),
    "uint32": ("U32", 4),
    "float32": ("F32", 4),
    "complex64": ("C64", 8),
    "float64": ("F64", 8),
    "int64": ("I64", 8),
    "uint64": ("U64", 8),
    "float4_e2m1fn_x2": ("F4", 1),
}
"""What its Python side calls each of its types, what its files call it, bytes per element of the shape."""

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda n: n != "__metadata__")
shapes = st.lists(st.integers(0, 5), max_size=4)
sets = st.dictionaries(names, st.tuples(st.sampled_from(sorted(DTYPES)), shapes), min_size=1, max_size=12)


def theirs_and_ours(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None
) -> tuple[bytes, bytes]:
    """The whole file by the real safetensors, and by us: of every tensor, the bytes are its own."""
    specs, entries, kept = {}, {}, {}
    for number, (name, (dtype, shape)) in enumerate(tensors.items()):
        word, itemsize = DTYPES[dtype]
        data = bytes([number + 1]) * (math.prod(shape) * itemsize)
        kept[name] = ctypes.create_string_buffer(data, max(1, len(data)))
        specs[name] = safetensors.TensorSpec(
            dtype=dtype, shape=shape, data_ptr=ctypes.addressof(kept[name]), data_len=len(data)
        )
        # Two of these lie in each byte, and the file counts them singly.
        told = (*shape[:-1], 2 * shape[-1]) if word == "F4" and shape else tuple(shape)
        entries[name] = TensorEntry(word, told, len(data))
    header, order = header_of(entries, metadata)
    ours = header + b"".join(kept[name].raw[: entries[name].nbytes] for name in order)
    return bytes(safetensors.serialize(specs, metadata)), ours


def some(tensors: dict[str, tuple[str, list[int]]]) -> dict[str, tuple[str, list[int]]]:
    """Without scalars of half a byte, which safetensors refuses."""
    return {n: (d, s) for n, (d, s) in tensors.items() if s or d != "float4_e2m1fn_x2"} or {"a": ("bool", [])}


@given(sets, st.none() | st.dictionaries(names, names, max_size=1))
def test_any_set_of_tensors(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None
) -> None:
    theirs, ours = theirs_and_ours(some(tensors), metadata)
    assert ours == theirs


@pytest.mark.parametrize("other", sorted(DTYPES))
def test_every_type_stands_where_the_real_one_puts_it(other: str) -> None:
    tensors = {f"{i}": (dtype, [2, 2]) for i, dtype in enumerate(sorted(DTYPES))}
    theirs, ours = theirs_and_ours({"z": (other, [2]), **tensors, "": (other, [2])}, {"format": "pt"})
    assert ours == theirs


def test_the_order_of_several_metadata_is_the_names() -> None:
    """The real one leaves it to chance: the same model would be another file each time."""
    entries = {"a": TensorEntry("F32", (1,), 4)}
    first, _ = header_of(entries, {"b": "1", "a": "2", "c": "3"})
    second, _ = header_of(entries, {"c": "3", "a": "2", "b": "1"})
    assert first == second
    assert b'{"__metadata__":{"a":"2","b":"1","c":"3"},"a":' in first


def test_no_tensors_at_all() -> None:
    """With metadata, the real one writes a header here that it cannot read itself."""
    assert header_of({})[0] == bytes(safetensors.serialize({}))
    header, order = header_of({}, {"format": "pt"})
    assert safetensors.deserialize(header) == []
    assert order == []


def test_what_is_written_is_cut_at_its_tensors() -> None:
    header, _ = header_of({"w": TensorEntry("F32", (2, 3), 24), "b": TensorEntry("BF16", (2,), 4)})

    class File:
        def read_at(self, offset: int, length: int) -> bytes:
            return header[offset : offset + length]

    found = plan(File(), len(header) + 28, "model.safetensors")
    assert [(s.name, s.shape) for s in found.segments] == [(None, None), ("w", (2, 3)), ("b", (2,))]


@pytest.mark.parametrize(
    "bad", [{"__metadata__": TensorEntry("F32", (1,), 4)}, {"a": TensorEntry("F128", (1,), 16)}]
)
def test_what_no_file_can_hold_is_refused(bad: dict[str, TensorEntry]) -> None:
    with pytest.raises(ValueError, match="safetensors"):
        header_of(bad)
