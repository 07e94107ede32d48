"""Native kernels: the compiled inner loops one by one, the same functions as `numpy_kernels`, several times
faster. Owns how an array's memory is told to them.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence

import numpy as np

from stemmata.codecs import native
from stemmata.codecs.dtypes import BLOCK, DType
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.native import KEYS, PLANE, SLACK, call
from stemmata.codecs.numpy_kernels import DRIFTED, SCATTERED, Bytes, DeltaParts, Groups
from stemmata.codecs.numpy_moments import MOMENTS


def at(array: Bytes) -> ctypes.c_void_p:
    """Where its bytes lie."""
    return ctypes.c_void_p(array.ctypes.data)


class _Scratch(threading.local):
    """The memory of `native.scratch` as arrays: nothing that a thread writes here outlives its next call."""

    def __init__(self) -> None:
        of = native.scratch
        self.words, self.sorted, self.narrowed = map(_array, (of.words, of.sorted, of.narrowed))
        self.planes = _array(of.planes).reshape(8, PLANE)
        self.classes, self.tokens, self.raw = map(_array, (of.classes, of.tokens, of.raw))
        self.low, self.high = map(_array, (of.low, of.high))
        self.groups, self.sizes = of.groups, of.sizes
        # Asking numpy for an address takes longer than anything else before a call.
        self.planes_at = at(self.planes)
        parts = (self.words, self.sorted, self.classes, self.tokens)
        self.split_at = [
            *map(at, parts),
            self.groups,
            *map(at, (self.raw, self.low, self.high)),
            self.sizes,
        ]


def _array(memory: memoryview) -> Bytes:
    return np.frombuffer(memory, np.uint8)


scratch = _Scratch()


def delta_split(data: Bytes, base: Bytes, dtype: DType) -> DeltaParts:
    """As `numpy_kernels.delta_split`; the parts are good until this thread splits again."""
    own, count = scratch, len(data) // dtype.itemsize
    groups = call("stm_delta_split", dtype)(
        at(data), at(base), ctypes.c_int64(count), dtype.mantissa, *own.split_at
    )
    counts = own.groups[:groups]
    raw, drifted = own.sizes
    return DeltaParts(
        own.classes[: -(-count // BLOCK)],
        counts,
        own.tokens[: sum(counts)],
        own.raw[:raw],
        own.low[:drifted],
        own.high[:drifted],
    )


def delta_groups(base: Bytes, classes: Bytes, dtype: DType) -> Groups:
    """As `numpy_kernels.delta_groups`."""
    if classes.max() > (DRIFTED if dtype.mantissa > 6 else SCATTERED):
        raise DamagedFault("a block is of an unknown class")
    own, count, of_key = scratch, len(base) // dtype.itemsize, np.empty(KEYS, np.uint8)
    groups = call("stm_delta_groups", dtype)(
        *(at(base), ctypes.c_int64(count), dtype.mantissa, at(classes), at(of_key), own.groups, own.sizes)
    )
    return Groups(own.groups[:groups], of_key, own.sizes[0])


def delta_join(base: Bytes, groups: Groups, parts: DeltaParts, dtype: DType, into: Bytes) -> None:
    """As `numpy_kernels.delta_join`."""
    own, size, counts = scratch, len(parts.raw), groups.counts
    if size > len(own.raw) - SLACK:
        raise DamagedFault("the raw bits are more than the tokens say")
    own.raw[:size] = parts.raw
    own.groups[: len(counts)] = list(counts)
    bad = call("stm_delta_join", dtype)(
        *(at(base), ctypes.c_int64(len(base) // dtype.itemsize), dtype.mantissa, at(parts.classes)),
        *(at(groups.of_key), own.groups, len(counts)),
        *(at(parts.tokens), at(own.raw), ctypes.c_int64(size), at(parts.low), at(parts.high)),
        *(at(own.sorted), at(into)),
    )
    if bad:
        raise DamagedFault("a token is none of this width, or the raw bits are not as many as the tokens say")


def split(data: Bytes, dtype: DType) -> list[Bytes]:
    """As `numpy_kernels.split`; the planes are good until this thread splits again."""
    planes, count = scratch.planes, len(data) // dtype.itemsize
    call("stm_split", dtype)(
        *(at(data), ctypes.c_int64(count), int(dtype.rotate)),
        *(scratch.planes_at, ctypes.c_int64(planes.shape[1])),
    )
    return [planes[k, :count] for k in range(dtype.itemsize)]


def join(planes: Sequence[Bytes], dtype: DType, into: Bytes) -> None:
    """As `numpy_kernels.join`."""
    addresses = (ctypes.c_void_p * dtype.itemsize)(*(p.ctypes.data for p in planes))
    call("stm_join", dtype)(addresses, ctypes.c_int64(len(planes[0])), int(dtype.rotate), at(into))


def narrow(wide: Bytes, dtype: DType) -> Bytes | None:
    """As `numpy_kernels.narrow`; good until this thread narrows again."""
    count = len(wide) // 4
    into = scratch.narrowed[: 2 * count]
    round_to = native.library.stm_narrow_bf16 if dtype.word == "BF16" else native.library.stm_narrow_f16
    return None if round_to(at(wide), ctypes.c_int64(count), at(into)) else into


def same(a: Bytes, b: Bytes) -> bool:
    """As `numpy_kernels.same`."""
    return bool(native.library.stm_same(at(a), at(b), ctypes.c_int64(len(a))))


def moments(data: Bytes, dtype: DType, other: Bytes | None, other_dtype: DType) -> list[float]:
    """As `numpy_moments.moments`."""
    out = (ctypes.c_double * MOMENTS)()
    count = ctypes.c_int64(len(data) // dtype.itemsize)
    getattr(native.library, f"stm_moments{native.suffix or '_any'}")(
        *(at(data), dtype.code, dtype.itemsize),
        *(None if other is None else at(other), other_dtype.code, other_dtype.itemsize),
        *(count, out),
    )
    return list(out)
