"""Addresses: where the bytes of any memory lie, for calls into C. cffi tells them, which zstd's functions
need anyway; without it numpy does.
"""

from __future__ import annotations

import ctypes
from typing import Any

from stemmata.codecs.streams import Memory
from stemmata.codecs.zstd_library import ffi


def at(memory: Memory) -> ctypes.c_void_p:
    """Where its bytes lie, as long as it is there."""
    return ctypes.c_void_p(address(memory))


def target(memory: Memory) -> ctypes.c_void_p:
    """The same, of memory that is written to. Raises BufferError or ValueError where it may not be."""
    return ctypes.c_void_p(address(memory, written=True))


def address(memory: Any, *, written: bool = False) -> int:
    """As `at` and, if `written`, `target`; also of ctypes' own."""
    if ffi is None:
        import numpy as np

        found = np.frombuffer(memory, np.uint8)
        if written and not found.flags.writeable:
            raise BufferError("memory that is to be written to is read-only")
        return int(found.ctypes.data)
    return int(ffi.cast("uintptr_t", ffi.from_buffer(memory, require_writable=written)))
