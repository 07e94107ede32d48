"""safetensors: cutting a file at its header, its tensors and the gaps between them.

Owns what is believed of a header: nothing before it was held against the size of the file.
The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import msgspec

from stemmata.containers.base import CutPlan, RandomReader
from stemmata.containers.chunks import byte_segments
from stemmata.containers.tensors import tensor_segments

MAX_HEADER = 100_000_000
"""Bytes; the limit of the reference implementation too."""
_METADATA = "__metadata__"


class NotSafetensors(Exception):
    """The bytes are not what the name promises; the text says why."""


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_names = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensor = msgspec.json.Decoder(_Tensor)
_metadata = msgspec.json.Decoder(dict[str, str] | None)


class Extent(msgspec.Struct, frozen=True):
    """Where one tensor lies in its file: bytes from `begin` to before `end`. `dtype` is safetensors' word."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def extents(reader: RandomReader, size: int) -> list[Extent]:
    """The tensors of a file, in the order of their bytes. Raises NotSafetensors, also where two overlap."""
    length, tensors = _read_header(reader, size)
    found: list[Extent] = []
    for begin, end, name, tensor in _in_file_order(tensors, 8 + length, size):
        if found and begin < found[-1].end:
            raise NotSafetensors(f"tensor {name!r} overlaps the one before it")
        found.append(Extent(name, tensor.dtype, tuple(tensor.shape), begin, end))
    return found


def plan_safetensors(reader: RandomReader, size: int) -> CutPlan:
    """Segments: header, then by offset the tensors and the bytes that belong to none.

    A tensor of an unknown element type, or whose shape does not fill its extent, is cut as bytes.
    An empty tensor is a segment of length 0. Raises NotSafetensors.
    """
    length, tensors = _read_header(reader, size)
    start = 8 + length
    segments = [*byte_segments(0, start)]
    at = start
    for begin, end, name, tensor in _in_file_order(tensors, start, size):
        if begin < at:
            raise NotSafetensors(f"tensor {name!r} overlaps the one before it")
        segments += byte_segments(at, begin - at)
        segments += tensor_segments(begin, end - begin, tensor.dtype, tensor.shape, name)
        at = end
    segments += byte_segments(at, size - at)
    return CutPlan("safetensors", tuple(segments))


def _read_header(reader: RandomReader, size: int) -> tuple[int, dict[str, _Tensor]]:
    if size < 8:
        raise NotSafetensors(f"it has only {size} bytes")
    length = int.from_bytes(reader.read_at(0, 8), "little")
    if length > MAX_HEADER:
        raise NotSafetensors("it does not begin with the length of a header")
    if length > size - 8:
        raise NotSafetensors(f"its header has {length} bytes, the file only {size}")
    header = reader.read_at(8, length)
    if len(header) != length or not header.startswith(b"{"):
        raise NotSafetensors("its header is no JSON object")
    try:
        rows = _names.decode(header)
        if _METADATA in rows:
            _metadata.decode(rows.pop(_METADATA))
        return length, {name: _tensor.decode(raw) for name, raw in rows.items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise NotSafetensors(f"its header cannot be read: {error}") from None


def _in_file_order(tensors: dict[str, _Tensor], start: int, size: int) -> list[tuple[int, int, str, _Tensor]]:
    """(begin, end, name, tensor) with offsets in the file, each within it."""
    rows = []
    for name, tensor in tensors.items():
        begin, end = tensor.data_offsets
        if not 0 <= begin <= end:
            raise NotSafetensors(f"tensor {name!r} has the offsets {begin} to {end}")
        if end > size - start:
            raise NotSafetensors(f"tensor {name!r} ends beyond the file, which may have been cut off")
        rows.append((start + begin, start + end, name, tensor))
    # By name last: empty tensors may share an offset, and equal files shall be cut alike.
    return sorted(rows, key=lambda row: row[:3])
