"""Payloads in one call: what `delta` and `planes` write and read, with all of a frame's streams, in C.

A frame has dozens of streams. Coded one by one from Python, threads wait for the interpreter between them
for longer than coding takes. Where nothing was compiled, zstd's functions are out of reach, or a payload is
not plainly sound, these functions say so, and whoever called does the same in Python: that is the reference,
and what tells a reader what is wrong. They take the bytes of any memory, and need no numpy.
"""

from __future__ import annotations

import ctypes
import threading

from stemmata.codecs import native, zstd_library
from stemmata.codecs.addresses import address, at, target
from stemmata.codecs.dtypes import MAX_FRAME_BYTES, DType
from stemmata.codecs.native import PLANE, call
from stemmata.codecs.pages import small
from stemmata.codecs.streams import Memory

why_not = native.why_not or zstd_library.why_not
"""Why all is done in Python here; empty where it is not."""
_ROOM = 4 * MAX_FRAME_BYTES
"""For a payload of as many streams as there may be, each as long as zstd might make it."""
_HALF_A_PAGE = 2048
"""Bytes between where a payload's memory begins and where that of other large things does, within a page."""
_POINTERS = (
    "words",
    "sorted",
    "classes",
    "tokens",
    "raw",
    "low",
    "high",
    "of_key",
    "planes",
    "spare",
    "groups",
    "sizes",
)


class _Space(ctypes.Structure):
    """`Space` of kernels_streams.h, which holds on to what its addresses lead to: where the interpreter ends,
    the memory of a daemon thread goes while that still codes, all but what a call was given."""

    held: tuple[object, ...]

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("compress", "decompress", "frame_size")),
        *((name, ctypes.c_void_p) for name in ("entropy", "general", "reader")),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("plane", ctypes.c_int64),
    ]


class _Own(threading.local):
    """One thread's memory, and what zstd keeps of it."""

    def __init__(self) -> None:
        parts = native.scratch
        self.spare = small(_ROOM // 2)
        # Half a page away from where other large memory begins: see `pages.small`.
        self.payload = small(_ROOM + _HALF_A_PAGE)[_HALF_A_PAGE:]
        self.contexts = zstd_library.Contexts()
        pointers = [getattr(self if name == "spare" else parts, name) for name in _POINTERS]
        self.space = _Space(
            *zstd_library.addresses(), *self.contexts.addresses(), *map(address, pointers), PLANE
        )
        self.space.held = (*pointers, self.payload, self.contexts)


_own = _Own() if not why_not else None


def are_here() -> bool:
    """Whether these functions do anything."""
    return _own is not None


def delta_write(data: Memory, base: Memory, dtype: DType, repeats: bool) -> memoryview | None:
    """As `delta.encode`; good until this thread writes another."""
    if _own is None:
        return None
    write, count = call("stm_delta_write", dtype), ctypes.c_int64(len(data) // dtype.itemsize)
    write.restype = ctypes.c_int64
    size = write(
        *(ctypes.byref(_own.space), at(data), at(base), count),
        *(dtype.mantissa, int(repeats), target(_own.payload)),
    )
    return _own.payload[:size]


def delta_read(payload: memoryview, base: Memory, dtype: DType, into: Memory) -> bool:
    """As `delta.decode`; False where that has to look."""
    if _own is None:
        return False
    count = ctypes.c_int64(len(into) // dtype.itemsize)
    return not call("stm_delta_read", dtype)(
        *(ctypes.byref(_own.space), at(payload), ctypes.c_int64(len(payload))),
        *(at(base), count, dtype.mantissa, target(into)),
    )


def planes_write(data: Memory, dtype: DType, repeats: tuple[bool, ...]) -> memoryview | None:
    """As `planes.encode`; good until this thread writes another."""
    if _own is None:
        return None
    write, count = call("stm_planes_write", dtype), ctypes.c_int64(len(data) // dtype.itemsize)
    write.restype = ctypes.c_int64
    wanted = sum(pays << k for k, pays in enumerate(repeats))
    size = write(
        *(ctypes.byref(_own.space), at(data), count, int(dtype.rotate), wanted, target(_own.payload)),
    )
    return _own.payload[:size]


def planes_read(payload: memoryview, dtype: DType, into: Memory) -> bool:
    """As `planes.decode`; False where that has to look."""
    if _own is None:
        return False
    count = ctypes.c_int64(len(into) // dtype.itemsize)
    return not call("stm_planes_read", dtype)(
        *(ctypes.byref(_own.space), at(payload), ctypes.c_int64(len(payload))),
        *(count, int(dtype.rotate), target(into)),
    )


def zstd_read(payload: memoryview, into: Memory) -> bool:
    """As `zstd.decompress`, without memory of its own; False where that has to look."""
    if _own is None:
        return False
    size, expected = ctypes.c_int64(len(payload)), ctypes.c_int64(len(into))
    found = at(payload)
    return not native.library.stm_zstd_read(ctypes.byref(_own.space), found, size, expected, target(into))
