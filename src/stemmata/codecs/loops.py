"""Loops: the inner loops that coders need, on any memory. Compiled and without numpy where `payloads` is,
else those of `kernels`, on arrays.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from stemmata.codecs import native, payloads
from stemmata.codecs.addresses import at, target
from stemmata.codecs.dtypes import DType
from stemmata.codecs.native import require_alike
from stemmata.codecs.streams import Memory, as_array, view
from stemmata.deferred import deferred

if TYPE_CHECKING:
    from stemmata.codecs import kernels
else:
    kernels = deferred("stemmata.codecs.kernels")  # numpy comes with them


def split(data: Memory, dtype: DType) -> list[memoryview]:
    """The planes of some elements; good until this thread splits again."""
    if payloads.are_here():
        return native.split(data, dtype)
    return [plane.data for plane in kernels.split(as_array(data), dtype)]


def narrow(wide: Memory, dtype: DType) -> memoryview | None:
    """float32 rounded to `dtype`, None where one is no number; good until this thread narrows again."""
    if payloads.are_here():
        return native.narrow(wide, dtype)
    rounded = kernels.narrow(as_array(wide), dtype)
    return None if rounded is None else rounded.data


def same(a: Memory, b: Memory) -> bool:
    """Whether two of one length hold the same bytes."""
    if payloads.are_here():
        return native.same(a, b)
    return bool(kernels.same(as_array(a), as_array(b)))


def delta_tokens(data: Memory, base: Memory, dtype: DType) -> int:
    """How many elements a delta codes one by one: those of blocks that changed."""
    if payloads.are_here():
        return native.delta_tokens(data, base, dtype)
    return len(kernels.delta_split(as_array(data), as_array(base), dtype).tokens)


def moments(data: Memory, dtype: DType, other: Memory | None, other_dtype: DType) -> list[float]:
    """As `numpy_moments.moments`. Raises ValueError for others than equally many elements."""
    if payloads.are_here():
        return native.moments(data, dtype, other, other_dtype)
    return kernels.moments(as_array(data), dtype, None if other is None else as_array(other), other_dtype)


def copy(what: Memory, into: memoryview) -> None:
    """Copy bytes; others may run meanwhile, while the system finds the memory."""
    require_alike(len(what), len(into))
    if payloads.are_here():
        ctypes.memmove(target(into), at(what), len(into))
    else:
        as_array(into)[:] = view(what)
