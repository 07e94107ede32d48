"""Tensors: from "numbers of this type lie here" to segments. Owns how a tensor is cut, in every container.

The same tensor becomes the same objects whichever file it lies in: it is cut at its own start, every
16 Mi elements, and nothing around it matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from stemmata.codecs.dtypes import BYTES, dtype_of
from stemmata.containers.base import MAX_ELEMENTS, NotThisContainer, PlannedSegment
from stemmata.containers.chunks import byte_segments, pieces

MAX_DIMENSIONS = 64
MAX_NAME = 1024
"""Bytes of a tensor's name; one that is longer is left out."""


class Run(msgspec.Struct, frozen=True):
    """Bytes of a file that belong together. As PlannedSegment: a `word` makes them numbers."""

    offset: int
    length: int
    word: str = ""
    shape: Sequence[int] = ()
    name: str | None = None

    @property
    def end(self) -> int:
        return self.offset + self.length


def tile(size: int, runs: Iterable[Run]) -> tuple[PlannedSegment, ...]:
    """Segments over a whole file: the runs, by offset, and as bytes what lies between them.

    Raises NotThisContainer where two runs overlap or one ends beyond the file.
    """
    segments: list[PlannedSegment] = []
    at = 0
    # By name last: empty tensors may share an offset, and equal files shall be cut alike.
    for run in sorted(runs, key=lambda run: (run.offset, run.length, run.name or "")):
        if run.offset < at or run.length < 0 or run.end > size:
            raise NotThisContainer("two of its parts overlap, or one ends beyond the file")
        segments += byte_segments(at, run.offset - at)
        segments += tensor_segments(run.offset, run.length, run.word, run.shape, run.name)
        at = run.end
    segments += byte_segments(at, size - at)
    return tuple(segments)


def tensor_segments(
    offset: int, length: int, word: str, shape: Sequence[int], name: str | None
) -> tuple[PlannedSegment, ...]:
    """One segment of numbers; bytes if the type is unknown or the shape does not fill the length."""
    dtype = dtype_of(word)
    if dtype is BYTES or not fills(shape, dtype.itemsize, length) or (length == 0 and name is None):
        return byte_segments(offset, length)
    cut = pieces(offset, length, MAX_ELEMENTS * dtype.itemsize)
    return (PlannedSegment(offset, length, cut, name, dtype.word, tuple(shape)),)


def usable_name(text: str) -> str | None:
    """`text` if a tree can hold it as a tensor's name, else None."""
    try:
        return text if 0 < len(text.encode()) <= MAX_NAME else None
    except UnicodeEncodeError:
        return None


def fills(shape: Sequence[int], itemsize: int, length: int) -> bool:
    """Whether a tensor of this shape takes exactly `length` bytes; stops before numbers grow huge."""
    if len(shape) > MAX_DIMENSIONS or any(n < 0 for n in shape):
        return False
    if 0 in shape:
        return length == 0
    total = itemsize
    for n in shape:
        total *= n
        if total > length:
            return False
    return total == length
