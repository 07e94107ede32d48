"""Held: a base that still lies somewhere as plain bytes, so that it need not be decoded. Owns that what was
found there counts only if it is what the base's digest says, and if the base itself is sound as it is stored.
"""

from __future__ import annotations

from typing import Protocol

from blake3 import blake3

from stemmata.codecs.decoding import ObjectDecoder, Scratch
from stemmata.codecs.frames import Reference


class Read(Protocol):
    """Reads one object's bytes where they lie."""

    def __call__(self, offset: int, into: memoryview, /) -> bool:
        """Fill memory with the object's bytes from a place on; False if they are not there any more."""
        ...

    def refuse(self) -> None:
        """What was read is not the object: whatever else lies there is not to be believed either."""
        ...


_scratch = Scratch()


class Elsewhere(Exception):
    """What lay there is not the base, or not any more: it has to be decoded."""


class HeldBase:
    """A stored base that is read where it lies. Meets `objectcode.Under`."""

    def __init__(self, reference: Reference, decoder: ObjectDecoder, read: Read) -> None:
        self.reference = reference
        self.dtype = decoder.header.dtype
        self.length = decoder.header.raw_length
        self._decoder = decoder
        self._read = read
        self._hasher = blake3()

    def frame(self, element: int, count: int) -> memoryview:
        """Raises Elsewhere; also where the stored base's frames are cut otherwise."""
        found = self._decoder.frame_at(element)
        if found is None or found.raw_length != count * self.dtype.itemsize:
            raise Elsewhere
        into = _scratch.at(0, found.raw_length)
        if not self._read(element * self.dtype.itemsize, into):
            raise Elsewhere
        return into

    def seen(self, frame: memoryview) -> None:
        self._hasher.update(frame)

    def require_whole(self) -> None:
        """Raises Elsewhere, and Damage if the base as it is stored would not come back."""
        if self._hasher.digest() != self._decoder.digest.raw:
            self._read.refuse()
            raise Elsewhere
        # What leans on it is read through what is stored: nothing is built on damage.
        self._decoder.require_sound()
