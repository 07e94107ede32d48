"""Planes: the bytes of many numbers, sorted by significance. Owns codec 2 of FORMAT.md, section 5.

Elements are rotated so that a float's sign is its lowest bit; the exponent then fills the top byte,
which Huffman coding shrinks to a third, while the mantissa's bytes are noise and are stored as they
are. The values are only moved as integers: every bit pattern comes back.
"""

from __future__ import annotations

import struct
import threading
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stemmata.codecs import zstd
from stemmata.codecs.dtypes import MAX_FRAME_BYTES, DType
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.hashing import Buffer

_PLANE = struct.Struct("<BI")
_RAW, _ZSTD = 0, 1
_LITTLE = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_NATIVE = {1: "=u1", 2: "=u2", 4: "=u4", 8: "=u8"}

_Words = npt.NDArray[Any]
Bytes: TypeAlias = npt.NDArray[np.uint8]


class _Scratch(threading.local):
    """Two frames' worth of words per thread: fresh memory for each frame costs more than the work."""

    def __init__(self) -> None:
        self._buffers = np.empty((2, MAX_FRAME_BYTES), np.uint8)

    def pair(self, count: int, itemsize: int) -> tuple[_Words, _Words]:
        first, second = self._buffers[:, : count * itemsize]
        return first.view(_NATIVE[itemsize]), second.view(_NATIVE[itemsize])


_scratch = _Scratch()


def split(data: Buffer, dtype: DType) -> list[Bytes]:
    """The byte planes of one frame's little-endian elements, lowest first."""
    words: _Words = np.frombuffer(data, _LITTLE[dtype.itemsize])
    rotated, shifted = _scratch.pair(len(words), dtype.itemsize)
    if dtype.rotate:
        np.left_shift(words, 1, out=rotated)
        np.right_shift(words, 8 * dtype.itemsize - 1, out=shifted)
        words = np.bitwise_or(rotated, shifted, out=rotated)
    return [np.right_shift(words, 8 * k, out=shifted).astype(np.uint8) for k in range(dtype.itemsize)]


def join(planes: list[Bytes], dtype: DType, into: Bytes) -> None:
    """Write the elements to `into` again, as little-endian bytes."""
    words, shifted = _scratch.pair(len(planes[0]), dtype.itemsize)
    words[...] = planes[-1]
    for plane in reversed(planes[:-1]):
        np.left_shift(words, 8, out=words)
        np.bitwise_or(words, plane, out=words)
    target: _Words = into.view(_LITTLE[dtype.itemsize])
    if dtype.rotate:
        np.right_shift(words, 1, out=shifted)
        np.left_shift(words, 8 * dtype.itemsize - 1, out=words)
        np.bitwise_or(shifted, words, out=target)
    else:
        target[...] = words


def encode(data: Buffer, dtype: DType, try_repeats: tuple[bool, ...]) -> list[Buffer]:
    """The payload, in parts. `try_repeats` says for which planes matches are looked for as well.

    Huffman coding is tried on every plane: zstd gives up on noise at once, so that a sample
    would save nothing and could be wrong about the next frame.
    """
    parts: list[Buffer] = []
    for plane, repeats in zip(split(data, dtype), try_repeats, strict=True):
        raw = plane.data
        best: Buffer = raw
        candidate = zstd.compress_entropy(raw)
        if len(candidate) < len(best):
            best = candidate
        if repeats and len(candidate := zstd.compress_general(raw)) < len(best):
            best = candidate
        parts += [_PLANE.pack(_RAW if best is raw else _ZSTD, len(best)), best]
    return parts


def repeats_pay(data: Buffer, dtype: DType) -> tuple[bool, ...]:
    """For each plane of a sample, whether looking for matches beats Huffman coding alone."""
    found = []
    for plane in split(data, dtype):
        without = min(len(plane), len(zstd.compress_entropy(plane.data)))
        found.append(len(zstd.compress_general(plane.data)) < without)
    return tuple(found)


def decode(payload: memoryview, dtype: DType, into: Bytes) -> None:
    """Fill `into`, whose length is bounded and a whole number of elements, with their bytes.

    Raises DamagedFault and HostileFault.
    """
    count = len(into) // dtype.itemsize
    planes: list[Bytes] = []
    at = 0
    for _ in range(dtype.itemsize):
        if len(payload) - at < _PLANE.size:
            raise DamagedFault("a plane is cut off")
        mode, stored = _PLANE.unpack_from(payload, at)
        at += _PLANE.size
        if stored > len(payload) - at:
            raise DamagedFault("a plane is longer than its frame")
        planes.append(np.frombuffer(_plane(payload[at : at + stored], mode, count), np.uint8))
        at += stored
    if at != len(payload):
        raise DamagedFault("bytes follow the last plane")
    join(planes, dtype, into)


def _plane(stored: memoryview, mode: int, count: int) -> Buffer:
    if mode == _ZSTD:
        return zstd.decompress(stored, count)
    if mode != _RAW:
        raise DamagedFault(f"a plane has the unknown mode {mode}")
    if len(stored) != count:
        raise DamagedFault(f"a raw plane of {count} bytes holds {len(stored)}")
    return stored
