"""Native: the compiled inner loops of the codecs, and the memory that they work in. `native_kernels` and
`payloads` call them; numpy is not needed here.

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

from stemmata.codecs.dtypes import BLOCK, MAX_FRAME_BYTES, DType
from stemmata.codecs.pages import small

VARIABLE = "STEMMATA_NATIVE"
FILE = Path(__file__).with_name("_kernels.so")
_ABI = 6
"""Of what was compiled: rises with every change of what a function takes. A stale library would crash."""
GROUPS, KEYS = 33, 2048
_FRAME_ELEMENTS = 128 << 10
PLANE = _FRAME_ELEMENTS
"""Bytes from one plane to the next."""
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
        self.narrowed = small(2 * _FRAME_ELEMENTS)
        self.planes = small(8 * _FRAME_ELEMENTS)
        self.classes = small(_FRAME_ELEMENTS // BLOCK)
        self.tokens = small(_FRAME_ELEMENTS)
        self.raw = small(MAX_FRAME_BYTES + SLACK)
        self.low = small(_FRAME_ELEMENTS)
        self.high = small(_FRAME_ELEMENTS)
        self.of_key = small(KEYS)
        self.groups = (ctypes.c_uint32 * GROUPS)()
        self.sizes = (ctypes.c_int64 * 2)()


scratch = _Scratch()


def call(name: str, dtype: DType) -> Any:
    """The function for elements of a width, of those that run."""
    return getattr(library, f"{name}_{8 * dtype.itemsize}{suffix}")
