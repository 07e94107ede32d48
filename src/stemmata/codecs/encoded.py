"""Encoded: the bytes of one encoded object, all at hand or read where they are needed. Owns the memory that a
payload is read into: one per thread, for none is looked at any more when its thread asks for the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

from stemmata.codecs.dtypes import MAX_FRAME_BYTES
from stemmata.codecs.hashing import Buffer

ReadAt: TypeAlias = "Callable[[int, memoryview], None]"
"""Fills memory with what lies from an offset of the encoded object on. Raises as reading any object does, and
if there is less."""
_BEGINNING = 256
"""Bytes that hold the longest header, and the head of the first frame."""


class Encoded(Protocol):
    """An encoded object of `size` bytes. What is asked for lies within it, but for the end of a `part`."""

    @property
    def size(self) -> int: ...

    def part(self, at: int, length: int) -> memoryview:
        """A few bytes, to keep; fewer only where it ends."""

    def payload(self, at: int, length: int) -> memoryview:
        """A frame's payload, good until this thread asks for another."""

    def fill(self, at: int, into: memoryview) -> None:
        """What lies from `at` on, into memory that is given."""


class Whole:
    """One that is in memory."""

    def __init__(self, encoded: Buffer) -> None:
        self._view = memoryview(encoded).cast("B")
        self.size = len(self._view)

    def part(self, at: int, length: int) -> memoryview:
        return self._view[at : at + length]

    payload = part

    def fill(self, at: int, into: memoryview) -> None:
        into[:] = self._view[at : at + len(into)]


class Pieces:
    """One that is read where it is needed: its beginning now, the rest each time that it is asked for.

    Safe to use from many threads, as `read` is. What lies there may change meanwhile: whoever decodes a
    payload goes by the heads that were read first, and holds the outcome against a digest.
    """

    def __init__(self, size: int, read: ReadAt) -> None:
        self.size = size
        self._read = read
        self._beginning = self._fresh(0, _BEGINNING)

    def part(self, at: int, length: int) -> memoryview:
        if at + length <= len(self._beginning):
            return self._beginning[at : at + length]
        return self._fresh(at, length)

    def payload(self, at: int, length: int) -> memoryview:
        # No longer one is written; whoever wrote it nevertheless, it is no longer than its object.
        into = _scratch.payload[:length] if length <= MAX_FRAME_BYTES else memoryview(bytearray(length))
        self._read(at, into)
        return into

    def fill(self, at: int, into: memoryview) -> None:
        self._read(at, into)

    def _fresh(self, at: int, length: int) -> memoryview:
        found = memoryview(bytearray(max(0, min(length, self.size - at))))
        self._read(at, found)
        return found


class _Scratch(threading.local):
    """One payload's memory per thread: it stays in the processor's cache."""

    def __init__(self) -> None:
        # Touched as far as it is used: the allocator has so much from the system, which zeroes it.
        self.payload = memoryview(bytearray(MAX_FRAME_BYTES))


_scratch = _Scratch()
