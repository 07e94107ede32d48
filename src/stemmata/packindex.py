"""The index of a pack: which objects it holds, and where. Owns what is believed of its rows.

Few rows are checked without numpy: importing it takes longer, and a diff of two versions needs no more of it.
"""

from __future__ import annotations

import bisect
import struct
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from stemmata.codecs.dtypes import MAX_RAW_LENGTH
from stemmata.codecs.frames import MAX_OVERHEAD, MAX_STORED, MIN_STORED
from stemmata.ids import Digest

if TYPE_CHECKING:
    import numpy.typing as npt

ROW = struct.Struct("<32sQQQ8s")
_TABLE = [("digest", ">u8", (4,)), ("where", "<u8", (3,)), ("check", "<u8")]
"""An index as numpy checks it."""
_FIELDS = [("digest", "S32"), ("offset", "<u8"), ("stored", "<u8"), ("raw", "<u8"), ("check", "V8")]
"""And as it is worked with. Of S32 numpy leaves zero bytes at the end off: all have one length."""
FEW = 8192
"""Rows that are checked in less time than numpy takes to be there."""


class NoIndex(Exception):
    """The rows contradict each other, or the pack; the text says how."""


class TooLarge(Exception):
    """An object is larger than any may be; the text says how."""


class IndexRow(msgspec.Struct, frozen=True):
    """Where an object lies in its pack: `stored` bytes at `offset`, `raw` bytes once decoded."""

    offset: int
    stored: int
    raw: int
    check: bytes


class PackIndex:
    """What a pack holds. Made of verified rows only; 64 bytes of memory per object."""

    def __init__(self, rows: bytes) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows) // ROW.size

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return len(self._rows)

    def find(self, digest: Digest) -> IndexRow | None:
        at = self.place(digest)
        return None if at is None else IndexRow(*ROW.unpack_from(self._rows, at * ROW.size)[1:])

    def place(self, digest: Digest) -> int | None:
        """Which of the sorted objects this one is."""
        at = bisect.bisect_left(range(len(self)), digest.raw, key=self._digest_at)
        return None if at == len(self) or self._digest_at(at) != digest.raw else at

    def digests(self) -> Iterator[Digest]:
        """All of them, sorted."""
        return (Digest(row[0]) for row in ROW.iter_unpack(self._rows))

    def rows(self) -> Iterator[tuple[Digest, IndexRow]]:
        """All of them, sorted by digest."""
        return ((Digest(row[0]), IndexRow(*row[1:])) for row in ROW.iter_unpack(self._rows))

    def table(self) -> npt.NDArray[Any]:
        """All rows as numpy sees them, sorted by digest: digest, offset, stored, raw, check."""
        import numpy as np

        return np.frombuffer(self._rows, np.dtype(_FIELDS))

    def _digest_at(self, at: int) -> bytes:
        return self._rows[at * ROW.size : at * ROW.size + Digest.SIZE]


def check_rows(rows: bytes, end: int, start: int) -> None:
    """Digests ascend, objects tile what is between `start` and the index, no length is beyond its limit.
    Raises NoIndex, TooLarge."""
    if len(rows) <= FEW * ROW.size and "numpy" not in sys.modules:
        _check_few(rows, end, start)
    else:
        _check_many(rows, end, start)


def _check_few(rows: bytes, end: int, start: int) -> None:
    found = list(ROW.iter_unpack(rows))
    if any(before[0] >= after[0] for before, after in pairwise(found)):
        raise NoIndex("its index is not sorted")
    _refuse_lengths(
        too_large=any(stored > MAX_STORED or raw > MAX_RAW_LENGTH for _, _, stored, raw, _ in found),
        longer=any(stored > raw + MAX_OVERHEAD for _, _, stored, raw, _ in found),
        shorter=any(stored < MIN_STORED for _, _, stored, _, _ in found),
    )
    at = start
    for offset, stored in sorted((row[1], row[2]) for row in found):
        if offset != at:
            raise NoIndex("its objects do not tile it")
        at += stored
    if at != end:
        raise NoIndex("its objects do not tile it")


def _check_many(rows: bytes, end: int, start: int) -> None:
    import numpy as np

    table: npt.NDArray[Any] = np.frombuffer(rows, np.dtype(_TABLE))
    if not _ascend(table["digest"]):
        raise NoIndex("its index is not sorted")
    starts, stored, raw = table["where"].T
    _refuse_lengths(
        too_large=bool((stored > MAX_STORED).any()) or bool((raw > MAX_RAW_LENGTH).any()),
        longer=bool((stored > raw + np.uint64(MAX_OVERHEAD)).any()),
        shorter=bool((stored < MIN_STORED).any()),
    )
    order = np.argsort(starts)
    # No sum overflows: a count and a length that were bounded above.
    ends = start + np.cumsum(stored[order], dtype=np.uint64)
    expected = np.concatenate([np.array([start], np.uint64), ends])
    if expected[-1] != end or not np.array_equal(starts[order], expected[:-1]):
        raise NoIndex("its objects do not tile it")


def _refuse_lengths(*, too_large: bool, longer: bool, shorter: bool) -> None:
    if too_large:
        raise TooLarge("an object is too large")
    if longer:
        # Whoever reads an object lends memory for what is stored of it, on the word of this index.
        raise TooLarge("an object is stored longer than it is")
    if shorter:
        raise NoIndex("an object is shorter than its header")


def _ascend(digests: npt.NDArray[Any]) -> bool:
    """Whether rows of four big-endian words strictly ascend."""
    import numpy as np

    words = digests.astype(np.uint64)
    before, after = words[:-1], words[1:]
    less = np.zeros(len(before), bool)
    for column in reversed(range(words.shape[1])):
        a, b = before[:, column], after[:, column]
        less = (a < b) | ((a == b) & less)
    return bool(less.all())
