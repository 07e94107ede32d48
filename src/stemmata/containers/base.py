"""Cutting: how a file becomes segments. Owns the plan of a cut; reads headers only."""

from __future__ import annotations

from typing import Protocol

import msgspec

ZIP_MAGIC = b"PK\x03\x04"
GGUF_MAGIC = b"GGUF"
NPY_MAGIC = b"\x93NUMPY"
"""How the files begin whose container is told by that."""
MAX_ELEMENTS = 16 << 20
"""Elements of a tensor per object."""
MAX_CHUNK = 64 << 20
"""Bytes per object where they are no tensor."""


class NotThisContainer(Exception):
    """The bytes are not what they began like; the text says why. Never leaves `cut.plan`."""


class RandomReader(Protocol):
    """Bytes of one opened file, by position."""

    def read_at(self, offset: int, length: int) -> bytes: ...


class Piece(msgspec.Struct, frozen=True):
    """One object to be: `length` bytes at `offset` of the file."""

    offset: int
    length: int


class PlannedSegment(msgspec.Struct, frozen=True):
    """A segment before its objects are known.

    `dtype` is safetensors' word, '' where the bytes are no numbers; with a `name`, too, the segment is one
    whole tensor. Without a name the numbers are of no tensor that could be told.
    """

    offset: int
    length: int
    pieces: tuple[Piece, ...]
    name: str | None = None
    dtype: str = ""
    shape: tuple[int, ...] | None = None


class CutPlan(msgspec.Struct, frozen=True):
    """Segments that tile the file exactly, in order. `container` as in the tree ('' for chunks)."""

    container: str
    segments: tuple[PlannedSegment, ...]
