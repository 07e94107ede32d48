"""zstd's own functions by address, for loops in C that code a frame's many streams in one call. Owns where
they come from: what zstandard's other backend is built upon, of the same release as `zstd` uses.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from stemmata.codecs.zstd import ENTROPY, GENERAL_LEVEL

ffi: Any = None
lib: Any = None
why_not = ""
try:
    _found = import_module("zstandard._cffi")
    ffi, lib = _found.ffi, _found.lib
except ImportError as error:  # a build of zstandard without it, or no cffi
    why_not = f"zstandard's functions are out of reach: {error}"


def address(name: str) -> int:
    """Of a function of zstd.h. Raises AttributeError."""
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))


class Contexts(threading.local):
    """What `zstd` uses of one thread: the same parameters make the same bytes."""

    def __init__(self) -> None:
        self._entropy = _compressor({_constant(name): value for name, value in ENTROPY.items()})
        self._general = _compressor({_constant("compression_level"): GENERAL_LEVEL})
        self._reader = _kept(lib.ZSTD_createDCtx(), lib.ZSTD_freeDCtx)

    def addresses(self) -> tuple[int, int, int]:
        """Of the compressors for frequencies and for repeats, and of the decompressor."""
        entropy, general, reader = (
            int(ffi.cast("uintptr_t", context)) for context in (self._entropy, self._general, self._reader)
        )
        return entropy, general, reader


def _constant(name: str) -> int:
    first, *others = name.split("_")
    return int(getattr(lib, "ZSTD_c_" + first + "".join(map(str.capitalize, others))))


def _compressor(parameters: dict[int, int]) -> Any:
    context = _kept(lib.ZSTD_createCCtx(), lib.ZSTD_freeCCtx)
    for parameter, value in parameters.items():
        lib.ZSTD_CCtx_setParameter(context, parameter, value)
    return context


def _kept(context: Any, free: Any) -> Any:
    if context == ffi.NULL:
        raise MemoryError
    return ffi.gc(context, free)
