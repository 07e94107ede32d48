"""The inner loops of the codecs, compiled: the same functions as `numpy_kernels`, several times faster.

`library` is None where nothing was compiled at installation, on big-endian machines, and with
STEMMATA_NATIVE=0. The code is kernels.c; calls let other threads run.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stemmata.codecs.dtypes import BLOCK, MAX_FRAME_BYTES, DType
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.numpy_kernels import DRIFTED, SCATTERED, Bytes, DeltaParts, Groups
from stemmata.codecs.numpy_moments import MOMENTS

VARIABLE = "STEMMATA_NATIVE"
FILE = Path(__file__).with_name("_kernels.so")
_ABI = 6
"""Of what was compiled: rises with every change of what a function takes. A stale library would crash."""
_GROUPS, _KEYS = 33, 2048
_FRAME_ELEMENTS = 128 << 10
_ELF_HEADER, _ELF_SECTIONS = 64, ((40, 48), (58, 60), (60, 62))
"""Of 64 bits: its length; where it has the place of the table of sections, the size of one, their number."""
_SLACK = 8
"""Bytes that may be read after raw bits."""


def _load() -> tuple[Any, str]:
    """The library, and why there is none."""
    if os.environ.get(VARIABLE) == "0":
        return None, f"{VARIABLE}=0 says so"
    if sys.byteorder != "little":
        return None, "this machine is big-endian"
    if not FILE.exists():
        return None, "nothing was compiled when stemmata was installed"
    if _is_cut_off():
        return None, f"{FILE.name} is cut off: install stemmata once more"
    try:
        found = ctypes.CDLL(str(FILE))
        made_for = found.stm_abi()
    except (OSError, AttributeError) as error:
        return None, f"{FILE.name} cannot be loaded: {error}"
    if made_for != _ABI:
        return None, f"{FILE.name} is of another release"
    return found, ""


def _is_cut_off() -> bool:
    """Whether its end is missing, as of an installation on a full disk. To load that would kill the process.

    An ELF file ends with the table of its sections; of other formats nothing is known here.
    """
    with FILE.open("rb") as file:
        head = file.read(_ELF_HEADER)
    if not head.startswith(b"\x7fELF") and head:
        return False
    if len(head) < _ELF_HEADER:
        return True
    table, width, count = (int.from_bytes(head[at:end], "little") for at, end in _ELF_SECTIONS)
    return table + width * count > FILE.stat().st_size


library: Any
library, why_not = _load()
suffixes = ("", "_modern") if library is not None and library.stm_modern() else ("",)
"""Of the functions that this processor can run, which all do the same."""
suffix = suffixes[-1]
"""Of those that run: the fastest."""


def at(array: Bytes) -> ctypes.c_void_p:
    """Where its bytes lie."""
    return ctypes.c_void_p(array.ctypes.data)


class _Scratch(threading.local):
    """One frame's parts per thread: fresh memory for each frame costs more than the work."""

    def __init__(self) -> None:
        self.words = np.empty(MAX_FRAME_BYTES, np.uint8)
        self.sorted = np.empty(2 * MAX_FRAME_BYTES, np.uint8)
        self.narrowed = np.empty(2 * _FRAME_ELEMENTS, np.uint8)
        self.planes = np.empty((8, _FRAME_ELEMENTS), np.uint8)
        self.classes = np.empty(_FRAME_ELEMENTS // BLOCK, np.uint8)
        self.tokens = np.empty(_FRAME_ELEMENTS, np.uint8)
        self.raw = np.empty(MAX_FRAME_BYTES + _SLACK, np.uint8)
        self.low = np.empty(_FRAME_ELEMENTS, np.uint8)
        self.high = np.empty(_FRAME_ELEMENTS, np.uint8)
        self.of_key = np.empty(_KEYS, np.uint8)
        self.groups = (ctypes.c_uint32 * _GROUPS)()
        self.sizes = (ctypes.c_int64 * 2)()
        # Asking numpy for an address takes longer than anything else before a call.
        self.planes_at = at(self.planes)
        parts = (self.words, self.sorted, self.classes, self.tokens)
        self.split_at = [
            *map(at, parts),
            self.groups,
            *map(at, (self.raw, self.low, self.high)),
            self.sizes,
        ]


scratch = _Scratch()


def call(name: str, dtype: DType) -> Any:
    """The function for elements of a width, of those that run."""
    return getattr(library, f"{name}_{8 * dtype.itemsize}{suffix}")


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
    own, count, of_key = scratch, len(base) // dtype.itemsize, np.empty(_KEYS, np.uint8)
    groups = call("stm_delta_groups", dtype)(
        *(at(base), ctypes.c_int64(count), dtype.mantissa, at(classes), at(of_key), own.groups, own.sizes)
    )
    return Groups(own.groups[:groups], of_key, own.sizes[0])


def delta_join(base: Bytes, groups: Groups, parts: DeltaParts, dtype: DType, into: Bytes) -> None:
    """As `numpy_kernels.delta_join`."""
    own, size, counts = scratch, len(parts.raw), groups.counts
    if size > len(own.raw) - _SLACK:
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
    round_to = library.stm_narrow_bf16 if dtype.word == "BF16" else library.stm_narrow_f16
    return None if round_to(at(wide), ctypes.c_int64(count), at(into)) else into


def same(a: Bytes, b: Bytes) -> bool:
    """As `numpy_kernels.same`."""
    return bool(library.stm_same(at(a), at(b), ctypes.c_int64(len(a))))


def moments(data: Bytes, dtype: DType, other: Bytes | None, other_dtype: DType) -> list[float]:
    """As `numpy_moments.moments`."""
    out = (ctypes.c_double * MOMENTS)()
    count = ctypes.c_int64(len(data) // dtype.itemsize)
    getattr(library, f"stm_moments{suffix or '_any'}")(
        *(at(data), dtype.code, dtype.itemsize),
        *(None if other is None else at(other), other_dtype.code, other_dtype.itemsize),
        *(count, out),
    )
    return list(out)
