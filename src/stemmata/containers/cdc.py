"""Content-defined chunks: cutting where the content says so, so that an insertion moves no other cut.

Owns the rule of FORMAT.md, section 6.1: a function of the bytes alone, the same on every machine and for
every numpy. The 32 bytes before a position decide whether a chunk may end there. All positions are asked
at once, eight bytes each; only those few that pass are asked about all 32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from blake3 import blake3

from stemmata.containers.base import CutPlan, Piece, PlannedSegment, RandomReader
from stemmata.containers.chunks import plan_chunks

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.uint64]

MIN_CHUNK = 64 << 10
MAX_CHUNK = 1 << 20
MOST = 64 << 30
"""Bytes of a file from which fixed chunks do: the list of its chunks must stay short."""
WINDOW = 32
FIRST_BITS = 8
SECOND_BITS = 9
_BLOCK = 256 << 10
_KEYS = tuple(
    int.from_bytes(blake3(b"stemmata chunks 1\n").digest()[i : i + 8], "little") | 1 for i in range(0, 32, 8)
)
"""Odd multipliers, one for each eight bytes of the window."""


def plan_content(reader: RandomReader, size: int) -> CutPlan:
    """One segment over the whole file, in chunks of 64 KiB to 1 MiB; a file below that stays whole.

    Reads the whole file once, a quarter of a MiB in memory.
    """
    if size <= MIN_CHUNK or size > MOST:
        return plan_chunks(size)
    pieces: list[Piece] = []
    start = 0
    for end in _ends(reader, size):
        while end - start > MAX_CHUNK:
            pieces.append(Piece(start, MAX_CHUNK))
            start += MAX_CHUNK
        # The end of the file may be one by its content too: it comes twice then.
        if end - start >= MIN_CHUNK or (end == size and end > start):
            pieces.append(Piece(start, end - start))
            start = end
    return CutPlan("", (PlannedSegment(0, size, tuple(pieces)),))


def _ends(reader: RandomReader, size: int) -> Iterator[int]:
    """Where a chunk may end, in order; the last is the end of the file."""
    before = b""
    for at in range(0, size, _BLOCK):
        block = reader.read_at(at, min(_BLOCK, size - at))
        data = before + block
        yield from (at - len(before) + end for end in ends_in(data))
        before = data[-(WINDOW - 1) :]
    yield size


def ends_in(data: bytes) -> list[int]:
    """The positions in `data`, from WINDOW on, that the WINDOW bytes before them make an end."""
    import numpy as np

    keys = np.array(_KEYS, np.uint64)
    least = np.uint64((1 << 64) - (1 << (64 - FIRST_BITS)))
    found: list[npt.NDArray[np.intp]] = []
    for shift in range(8):
        count = (len(data) - shift) // 8
        if count < WINDOW // 8:
            break
        words = np.frombuffer(data, "<u8", count, shift)
        # Products near the top, not near zero: a run of zeros is no end, and a hole is one long chunk.
        first = np.flatnonzero(words[3:] * keys[3] >= least)
        if len(first) == 0:
            continue
        total = sum((words[first + i] * keys[i] for i in range(4)), start=np.uint64(0))
        total = (total ^ (total >> np.uint64(32))) * keys[0]
        second = first[total >> np.uint64(64 - SECOND_BITS) == 0]
        found.append((second + 4) * 8 + shift)
    return sorted(np.concatenate(found).tolist()) if found else []
