"""zstd's own functions by address, for loops in C that code a frame's many streams in one call. Owns where
they come from: what zstandard's other backend is built upon, of the same release as `zstd` uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from stemmata.codecs.zstd import ENTROPY, GENERAL_LEVEL

FUNCTIONS = ("ZSTD_compress2", "ZSTD_decompressDCtx", "ZSTD_findFrameCompressedSize")
"""Of zstd.h: those that loops in C call."""


def _load() -> tuple[Any, Any, str]:
    """cffi's two halves of the library, and why there are none."""
    try:
        found = import_module("zstandard._cffi")
        for name in FUNCTIONS:
            found.ffi.addressof(found.lib, name)
    except (ImportError, AttributeError) as error:  # zstandard or cffi built without it, or without one
        return None, None, f"zstandard's functions are out of reach: {error}"
    return found.ffi, found.lib, ""


ffi, lib, why_not = _load()


def addresses() -> list[int]:
    """Of FUNCTIONS."""
    return [int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in FUNCTIONS]


class Contexts:
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
        if lib.ZSTD_isError(lib.ZSTD_CCtx_setParameter(context, parameter, value)):
            raise RuntimeError(f"zstd's parameter {parameter} cannot be {value}")
    return context


def _kept(context: Any, free: Any) -> Any:
    if context == ffi.NULL:
        raise MemoryError
    return ffi.gc(context, free)


def _refusal() -> str:
    """Why the parameters cannot be set: with others, the bytes would be others than those of `zstd`."""
    try:
        Contexts()
    except (RuntimeError, AttributeError) as error:
        return f"zstandard's functions are out of reach: {error}"
    return ""


why_not = why_not or _refusal()
