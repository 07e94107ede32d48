"""Native kernels: compiled inner loops on arrays: the functions of `numpy_kernels`, several times faster."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from stemmata.codecs import native
from stemmata.codecs.addresses import at, target
from stemmata.codecs.dtypes import BLOCK, DType
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.native import KEYS, SLACK, call, scratch
from stemmata.codecs.numpy_kernels import DRIFTED, SCATTERED, Bytes, DeltaParts, Groups
from stemmata.codecs.streams import as_array

same, moments = native.same, native.moments


def delta_split(data: Bytes, base: Bytes, dtype: DType) -> DeltaParts:
    """As `numpy_kernels.delta_split`; the parts are good until this thread splits again."""
    own, count = scratch, len(data) // dtype.itemsize
    counts = own.groups[: native.delta_split(data, base, dtype)]
    raw, drifted = own.sizes
    return DeltaParts(
        as_array(own.classes[: -(-count // BLOCK)]),
        counts,
        as_array(own.tokens[: sum(counts)]),
        as_array(own.raw[:raw]),
        as_array(own.low[:drifted]),
        as_array(own.high[:drifted]),
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
    raw, ordered = own.raw, own.sorted  # held by themselves: see `native.delta_split`
    raw[:size] = parts.raw.data
    own.groups[: len(counts)] = list(counts)
    bad = call("stm_delta_join", dtype)(
        *(at(base), ctypes.c_int64(len(base) // dtype.itemsize), dtype.mantissa, at(parts.classes)),
        *(at(groups.of_key), own.groups, len(counts)),
        *(at(parts.tokens), at(raw), ctypes.c_int64(size), at(parts.low), at(parts.high)),
        *(target(ordered), target(into)),
    )
    if bad:
        raise DamagedFault("a token is none of this width, or the raw bits are not as many as the tokens say")


def split(data: Bytes, dtype: DType) -> list[Bytes]:
    """As `numpy_kernels.split`; the planes are good until this thread splits again."""
    return [as_array(plane) for plane in native.split(data, dtype)]


def join(planes: Sequence[Bytes], dtype: DType, into: Bytes) -> None:
    """As `numpy_kernels.join`."""
    addresses = (ctypes.c_void_p * dtype.itemsize)(*(p.ctypes.data for p in planes))
    call("stm_join", dtype)(addresses, ctypes.c_int64(len(planes[0])), int(dtype.rotate), target(into))


def narrow(wide: Bytes, dtype: DType) -> Bytes | None:
    """As `numpy_kernels.narrow`; good until this thread narrows again."""
    found = native.narrow(wide, dtype)
    return None if found is None else as_array(found)
