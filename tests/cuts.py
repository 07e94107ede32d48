"""Cuts: files in memory to be cut, and what every cut must be."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stemmata.codecs.dtypes import dtype_of
from stemmata.containers.base import MAX_CHUNK, MAX_ELEMENTS, CutPlan, PlannedSegment
from stemmata.containers.cut import plan


@dataclass
class Memory:
    """A file whose bytes beyond `head` are zeros that nobody keeps; remembers what was read."""

    head: bytes
    reads: list[tuple[int, int]] = field(default_factory=list)

    def read_at(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.head[offset : offset + length]


def cut(data: bytes, path: str = "file", **options: bool) -> CutPlan:
    found = plan(Memory(data), len(data), path, **options)
    check_tiles(found, len(data))
    return found


def check_tiles(found: CutPlan, size: int) -> None:
    at = 0
    for segment in found.segments:
        assert segment.offset == at
        inner = at
        for piece in segment.pieces:
            assert piece.offset == inner
            assert piece.length > 0
            inner += piece.length
        assert inner == at + segment.length
        check_pieces(segment)
        at = inner
    assert at == size


def check_pieces(segment: PlannedSegment) -> None:
    if segment.name is None:
        assert segment.length > 0
    if not segment.dtype:
        assert (segment.name, segment.shape) == (None, None)
        assert all(p.length <= MAX_CHUNK for p in segment.pieces)
        return
    itemsize = dtype_of(segment.dtype).itemsize
    assert segment.shape is not None
    assert int(np.prod(segment.shape, dtype=object)) * itemsize == segment.length
    assert all(p.length == MAX_ELEMENTS * itemsize for p in segment.pieces[:-1])
    assert all(p.length <= MAX_ELEMENTS * itemsize for p in segment.pieces)


def names(found: CutPlan) -> list[str | None]:
    return [s.name for s in found.segments]


def by_name(found: CutPlan, data: bytes) -> dict[str, tuple[str, tuple[int, ...] | None, bytes]]:
    """Type, shape and bytes of each tensor that has a name."""
    return {
        s.name: (s.dtype, s.shape, data[s.offset : s.offset + s.length])
        for s in found.segments
        if s.name is not None
    }
