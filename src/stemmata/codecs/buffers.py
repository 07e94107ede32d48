"""Buffers: memory that is used again. Touching new memory costs as much as what is done with it."""

from __future__ import annotations

import mmap
import threading

_ROUND = 1 << 20
_INLINE = 64 << 10
"""Bytes below which the allocator's own memory does as well."""


class Buffers:
    """Lends memory. What was given back is lent again; all of it goes with this object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[mmap.mmap] = []
        self._lent: dict[int, mmap.mmap] = {}

    def lend(self, size: int) -> memoryview:
        """Memory of `size` bytes that nobody else has, holding anything."""
        if size < _INLINE:
            return memoryview(bytearray(size))
        with self._lock:
            fitting = [held for held in self._free if len(held) >= size]
            if fitting:
                found = min(fitting, key=len)
                self._free.remove(found)
            elif self._free:
                # One that is too small makes room: together they would grow beyond what is in use.
                self._free.remove(min(self._free, key=len))
                found = _fresh(size)
            else:
                found = _fresh(size)
            view = memoryview(found)[:size]
            self._lent[id(view)] = found
            return view

    def give_back(self, view: memoryview) -> None:
        """The memory may be lent to others: nothing may look at it any more."""
        with self._lock:
            held = self._lent.pop(id(view), None)
            if held is not None:
                self._free.append(held)


def _fresh(size: int) -> mmap.mmap:
    made = mmap.mmap(-1, -(-size // _ROUND) * _ROUND)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            made.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            return made  # a kernel without huge pages: as good, a little slower
    return made
