"""Native: the compiled inner loops of the codecs, and the memory that they work in. Those here take any
memory; `native_kernels` has those that make arrays, `payloads` what does all of a frame.

`library` is None where nothing was compiled at installation, on big-endian machines, and with
STEMMATA_NATIVE=0. The code is kernels.c; calls let other threads run.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import Any

from stemmata.codecs.addresses import at, target
from stemmata.codecs.dtypes import BLOCK, MAX_FRAME_BYTES, MOMENTS, DType
from stemmata.codecs.pages import small
from stemmata.codecs.streams import Memory

VARIABLE = "STEMMATA_NATIVE"
FILE = Path(__file__).with_name("_kernels.so")
_ABI = 6
"""Of what was compiled: rises with every change of what a function takes. A stale library would crash."""
_GROUPS, KEYS = 33, 2048
PLANE = 128 << 10
"""Elements of a frame at most, and bytes from one plane to the next."""
_ELF_HEADER, _ELF_SECTIONS = 64, ((40, 48), (58, 60), (60, 62))
"""Of 64 bits: its length; where it has the place of the table of sections, the size of one, their number."""
SLACK = 8
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


class _Scratch(threading.local):
    """One frame's parts per thread: fresh memory for each frame costs more than the work."""

    def __init__(self) -> None:
        self.words = small(MAX_FRAME_BYTES)
        self.sorted = small(2 * MAX_FRAME_BYTES)
        self.narrowed = small(2 * PLANE)
        self.planes = small(8 * PLANE)
        self.classes = small(PLANE // BLOCK)
        self.tokens = small(PLANE)
        self.raw = small(MAX_FRAME_BYTES + SLACK)
        self.low = small(PLANE)
        self.high = small(PLANE)
        self.of_key = small(KEYS)
        self.groups = (ctypes.c_uint32 * _GROUPS)()
        self.sizes = (ctypes.c_int64 * 2)()


scratch = _Scratch()


def call(name: str, dtype: DType) -> Any:
    """The function for elements of a width, of those that run."""
    return getattr(library, f"{name}_{8 * dtype.itemsize}{suffix}")


def split(data: Memory, dtype: DType) -> list[memoryview]:
    """As `numpy_kernels.split`; the planes are good until this thread splits again."""
    planes, count = scratch.planes, len(data) // dtype.itemsize
    call("stm_split", dtype)(
        *(at(data), ctypes.c_int64(count), int(dtype.rotate), target(planes), ctypes.c_int64(PLANE))
    )
    return [planes[k * PLANE : k * PLANE + count] for k in range(dtype.itemsize)]


def narrow(wide: Memory, dtype: DType) -> memoryview | None:
    """As `numpy_kernels.narrow`; good until this thread narrows again."""
    count = len(wide) // 4
    rounded = scratch.narrowed[: 2 * count]
    round_to = library.stm_narrow_bf16 if dtype.word == "BF16" else library.stm_narrow_f16
    return None if round_to(at(wide), ctypes.c_int64(count), target(rounded)) else rounded


def same(a: Memory, b: Memory) -> bool:
    """As `numpy_kernels.same`."""
    require_alike(len(a), len(b))
    return bool(library.stm_same(at(a), at(b), ctypes.c_int64(len(a))))


def moments(data: Memory, dtype: DType, other: Memory | None, other_dtype: DType) -> list[float]:
    """As `numpy_moments.moments`."""
    out = (ctypes.c_double * MOMENTS)()
    count = ctypes.c_int64(len(data) // dtype.itemsize)
    if other is not None:
        require_alike(count.value, len(other) // other_dtype.itemsize)
    getattr(library, f"stm_moments{suffix or '_any'}")(
        *(at(data), dtype.code, dtype.itemsize),
        *(None if other is None else at(other), other_dtype.code, other_dtype.itemsize),
        *(count, out),
    )
    return list(out)


def require_alike(count: int, others: int) -> None:
    """Two that are read side by side. Raises ValueError for others than equally many elements."""
    if count != others:
        raise ValueError(f"{count} elements are held against {others}")


def delta_tokens(data: Memory, base: Memory, dtype: DType) -> int:
    """How many tokens `numpy_kernels.delta_split` makes."""
    groups = delta_split(data, base, dtype)
    return sum(scratch.groups[:groups])


def delta_split(data: Memory, base: Memory, dtype: DType) -> int:
    """The parts of a delta into this thread's memory; the number of its groups."""
    own = scratch
    # Held here: where the interpreter ends, what a daemon thread has of its own goes during the call.
    parts = (own.words, own.sorted, own.classes, own.tokens, own.raw, own.low, own.high)
    places = [target(part) for part in parts]
    found = call("stm_delta_split", dtype)(
        *(at(data), at(base), ctypes.c_int64(len(data) // dtype.itemsize), dtype.mantissa),
        *(*places[:4], own.groups, *places[4:], own.sizes),
    )
    return int(found)
