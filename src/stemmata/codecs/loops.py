"""Loops: the inner loops that coders need, on any memory. Compiled and without numpy where `payloads` is,
else those of `kernels`, on arrays.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from stemmata.codecs import native, payloads
from stemmata.codecs.dtypes import DType
from stemmata.codecs.native import at
from stemmata.codecs.streams import Bytes, Memory, view
from stemmata.deferred import deferred

if TYPE_CHECKING:
    from stemmata.codecs import kernels
else:
    kernels = deferred("stemmata.codecs.kernels")  # numpy comes with them


def array(memory: Memory) -> Bytes:
    """The bytes where they lie, as numpy has them."""
    import numpy as np

    return np.frombuffer(memory, np.uint8)


def split(data: Memory, dtype: DType) -> list[memoryview]:
    """The planes of some elements; good until this thread splits again."""
    if payloads.are_here():
        return native.split(data, dtype)
    return [plane.data for plane in kernels.split(array(data), dtype)]


def narrow(wide: Memory, dtype: DType) -> memoryview | None:
    """float32 rounded to `dtype`, None where one is no number; good until this thread narrows again."""
    if payloads.are_here():
        return native.narrow(wide, dtype)
    rounded = kernels.narrow(array(wide), dtype)
    return None if rounded is None else rounded.data


def same(a: Memory, b: Memory) -> bool:
    """Whether two of one length hold the same bytes."""
    if payloads.are_here():
        return native.same(a, b)
    return bool(kernels.same(array(a), array(b)))


def delta_tokens(data: Memory, base: Memory, dtype: DType) -> int:
    """How many elements a delta codes one by one: those of blocks that changed."""
    if payloads.are_here():
        return native.delta_tokens(data, base, dtype)
    return len(kernels.delta_split(array(data), array(base), dtype).tokens)


def moments(data: Memory, dtype: DType, other: Memory | None, other_dtype: DType) -> list[float]:
    """As `numpy_moments.moments`."""
    if payloads.are_here():
        return native.moments(data, dtype, other, other_dtype)
    return kernels.moments(array(data), dtype, None if other is None else array(other), other_dtype)


def copy(what: Memory, into: memoryview) -> None:
    """Copy bytes; others may run meanwhile, while the system finds the memory."""
    if payloads.are_here():
        if len(what) != len(into):
            raise ValueError("what is copied is not as long as where it goes")
        ctypes.memmove(at(into), at(what), len(into))
    else:
        array(into)[:] = view(what)
