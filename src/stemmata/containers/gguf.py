"""GGUF: cutting a file of llama.cpp and its kin at its tensors. Owns what is believed of its header.

Versions 2 and 3, little-endian. Tensors of plain numbers become tensors here; those of quantised blocks
become bytes, one run each. How many bytes a block has is not asked: a run ends where the next tensor begins.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod

from stemmata.codecs.dtypes import dtype_of
from stemmata.containers.base import GGUF_MAGIC, CutPlan, NotThisContainer, RandomReader
from stemmata.containers.tensors import Run, tile, usable_name

MAX_HEADER = 64 << 20
"""Bytes; a vocabulary of 256,000 words with its merges takes 12 MB."""
MAX_ITEMS = 4 << 20
"""Texts and arrays in it: each costs a step."""
_WINDOW = 1 << 20
_MAX_DIMENSIONS = 8
_MAX_DEPTH = 4
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by the number of its type; texts and arrays tell their own."""
_UINT32, _TEXT, _ARRAY = 4, 8, 9
_WORDS = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}


_BLOCKS = {
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
    21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""What the quantised types are called."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where one tensor lies: bytes from `begin` to before `end`, for blocks with what pads them. `dtype` is
    safetensors' word, or what GGUF calls the blocks."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Info:
    """A tensor as the header tells it; `offset` from where the data begins."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class _Cursor:
    """Reads the header forward, through a window."""

    def __init__(self, reader: RandomReader, size: int) -> None:
        self._reader = reader
        self._limit = min(size, MAX_HEADER)
        self._window = b""
        self._from = 0
        self.at = 0
        self.items = 0

    def take(self, length: int) -> bytes:
        start = self.at
        self.skip(length)
        if length > _WINDOW:
            raise NotThisContainer("a name is absurdly long")
        if self.at > self._from + len(self._window):
            self._window = self._reader.read_at(start, min(_WINDOW, self._limit - start))
            self._from = start
        data = self._window[start - self._from : self.at - self._from]
        if len(data) != length:
            raise NotThisContainer("it is shorter than it was")
        return data

    def skip(self, length: int) -> None:
        if length > self._limit - self.at:
            raise NotThisContainer("its header does not end within it")
        self.at += length

    def count_item(self) -> None:
        self.items += 1
        if self.items > MAX_ITEMS:
            raise NotThisContainer("its header holds too much")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")


def plan_gguf(reader: RandomReader, size: int) -> CutPlan:
    """Segments: header, tensors, paddings. Raises NotThisContainer."""
    return CutPlan("gguf", tile(size, (run for _, run in _read(reader, size))))


def extents(reader: RandomReader, size: int) -> list[Extent]:
    """The tensors of a file, those of quantised blocks too. Raises NotThisContainer."""
    found = []
    for info, run in _read(reader, size):
        word = run.word or _BLOCKS.get(info.kind) or f"GGUF type {info.kind}"
        found.append(Extent(info.name, word, info.shape, run.offset, run.end))
    return found


def _read(reader: RandomReader, size: int) -> list[tuple[_Info, Run]]:
    """The tensors in the order of the file. Raises NotThisContainer."""
    cursor = _Cursor(reader, size)
    if cursor.take(4) != GGUF_MAGIC or cursor.u32() not in (2, 3):
        raise NotThisContainer("it is of another version, or big-endian")
    tensors, pairs = cursor.u64(), cursor.u64()
    alignment = _read_pairs(cursor, pairs)
    infos = []
    for _ in range(tensors):
        cursor.count_item()
        infos.append(_read_info(cursor))
    start = cursor.at + -cursor.at % alignment
    # An empty one may share its offset with what comes after it.
    infos.sort(key=lambda info: (info.offset, prod(info.shape) > 0, info.name))
    return list(zip(infos, _runs(infos, start, size, alignment), strict=True))


def _read_pairs(cursor: _Cursor, count: int) -> int:
    """Go over the metadata; the alignment, which is all that is asked of it."""
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(count):
        cursor.count_item()
        key = cursor.take(cursor.u64())
        kind = cursor.u32()
        if key == b"general.alignment":
            if kind != _UINT32:
                raise NotThisContainer("its alignment is no number")
            alignment = cursor.u32()
        else:
            _skip_value(cursor, kind, 0)
    if not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise NotThisContainer("its alignment is absurd")
    return alignment


def _skip_value(cursor: _Cursor, kind: int, depth: int) -> None:
    if kind in _SIZES:
        cursor.skip(_SIZES[kind])
    elif kind == _TEXT:
        cursor.skip(cursor.u64())
    elif kind == _ARRAY and depth < _MAX_DEPTH:
        inner, count = cursor.u32(), cursor.u64()
        if inner in _SIZES:
            cursor.skip(count * _SIZES[inner])
            return
        for _ in range(count):
            cursor.count_item()
            _skip_value(cursor, inner, depth + 1)
    else:
        raise NotThisContainer("its metadata has an unknown type")


def _read_info(cursor: _Cursor) -> _Info:
    try:
        name = cursor.take(cursor.u64()).decode()
    except UnicodeDecodeError:
        raise NotThisContainer("a tensor's name cannot be read") from None
    dimensions = cursor.u32()
    if dimensions > _MAX_DIMENSIONS:
        raise NotThisContainer("a tensor has too many dimensions")
    lengths = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))
    # The fastest comes first there, last everywhere else.
    return _Info(name, lengths[::-1], cursor.u32(), cursor.u64())


def _runs(infos: list[_Info], start: int, size: int, alignment: int) -> list[Run]:
    if len({info.name for info in infos}) != len(infos):
        raise NotThisContainer("two tensors have one name")
    runs = []
    ends = [*(start + info.offset for info in infos[1:]), size]
    for info, end in zip(infos, ends, strict=False):
        begin = start + info.offset
        if info.offset % alignment or begin > end or end > size:
            raise NotThisContainer("a tensor is not where it should be")
        runs.append(_run(info, begin, end, alignment))
    return runs


def _run(info: _Info, begin: int, end: int, alignment: int) -> Run:
    """The tensor's own bytes of those up to the next one."""
    word = _WORDS.get(info.kind)
    if word is None:
        if begin == end:
            raise NotThisContainer("a tensor has no bytes")
        return Run(begin, end - begin)
    length = dtype_of(word).itemsize * prod(info.shape)
    if not 0 <= end - begin - length < alignment:
        raise NotThisContainer("a tensor does not fit its place")
    return Run(begin, length, word, info.shape, usable_name(info.name))
