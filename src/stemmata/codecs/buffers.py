"""Buffers: memory that is used again. Touching new memory costs as much as what is done with it."""

from __future__ import annotations

import mmap
import threading

from stemmata.codecs.pages import fresh

_LEAST = 1 << 20
_SLACK = 32
_INLINE = 64 << 10
"""Bytes below which the allocator's own memory does as well."""

_KEPT = 96 << 20
"""Bytes that may wait for being lent again when more has to be had."""


class Buffers:
    """Lends memory. What was given back is lent again; all of it goes with this object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[mmap.mmap] = []
        # By identity, which is the view's own as long as it is kept here.
        self._lent: dict[int, tuple[memoryview, mmap.mmap]] = {}

    def lend(self, size: int) -> memoryview:
        """Memory of `size` bytes that nobody else has, holding anything."""
        if size < _INLINE:
            return memoryview(bytearray(size))
        with self._lock:
            fitting = [held for held in self._free if len(held) >= size]
            if fitting:
                found = min(fitting, key=len)
                self._free.remove(found)
            else:
                found = _fresh(size)
                while sum(map(len, self._free)) > _KEPT:
                    self._free.remove(min(self._free, key=len))
            view = memoryview(found)[:size]
            self._lent[id(view)] = view, found
            return view

    def instead(self, view: memoryview, part: memoryview) -> None:
        """From now on `part` of what was lent as `view` is what is to be given back."""
        with self._lock:
            held = self._lent.pop(id(view), None)
            if held is not None:
                self._lent[id(part)] = part, held[1]

    def give_back(self, view: memoryview) -> None:
        """The memory may be lent to others: nothing may look at it any more."""
        with self._lock:
            held = self._lent.pop(id(view), None)
            if held is not None:
                self._free.append(held[1])


def _fresh(size: int) -> mmap.mmap:
    # Few sizes, so that one fits the next as well: powers of two, and a little more, for an object that is
    # stored as it is takes that. What is not touched takes no memory.
    power = 1 << (-(-size * _SLACK // (_SLACK + 1)) - 1).bit_length()
    return fresh(max(_LEAST, power + power // _SLACK))
