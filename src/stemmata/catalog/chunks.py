"""Chunks: the catalog's copy of records, some of them compressed together. Owns their bytes.

Records are most of what a log says, and those of one run are nearly alike: so few together that one is had in
microseconds, and enough that all of them take an eighth of their room.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from struct import Struct

from stemmata.records import MAX_RECORD_BYTES

_TOGETHER = 16
_BYTES = 64 << 10
"""A chunk takes no further record once it has as many bytes."""
_LEVEL = 1
_LENGTH = Struct("<I")
_MOST = _BYTES + MAX_RECORD_BYTES + _TOGETHER * _LENGTH.size
_KEPT = 4
"""Chunks that are kept unpacked: whoever lists versions asks for one after the other."""

OF_VERSION = "r.first = (SELECT first FROM records WHERE first <= v.seq ORDER BY first DESC LIMIT 1)"
"""The row `r` of `records` that has the record of `v`."""


def together(records: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Rows for records of consecutive versions, each given with its `seq`."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    pending: list[bytes] = []
    size = 0
    for seq, record in records:
        pending += (_LENGTH.pack(len(record)), record)
        size += len(record)
        if size >= _BYTES or len(pending) == 2 * _TOGETHER:
            yield seq - len(pending) // 2 + 1, compressor.compress(b"".join(pending))
            pending, size = [], 0
    if pending:
        yield records[-1][0] - len(pending) // 2 + 1, compressor.compress(b"".join(pending))


def record_in(first: int, data: bytes, seq: int) -> bytes:
    """The record of version `seq` in the chunk that begins at `first`. ValueError for what nobody wrote."""
    found = records_in(data)
    if not 0 <= seq - first < len(found):
        raise ValueError("a version without a record")
    return found[seq - first]


def record_of(cursor: sqlite3.Cursor, seq: int) -> bytes:
    """As `record_in`, looked up."""
    sql = "SELECT first, data FROM records WHERE first <= ? ORDER BY first DESC LIMIT 1"
    row = cursor.execute(sql, (seq,)).fetchone()
    if row is None:
        raise ValueError("a version without a record")
    return record_in(row[0], row[1], seq)


@lru_cache(maxsize=_KEPT)
def records_in(data: bytes) -> tuple[bytes, ...]:
    """The records of a chunk. ValueError for what nobody wrote."""
    import zstandard

    try:
        if not 0 <= zstandard.get_frame_parameters(data).content_size <= _MOST:
            raise ValueError("a chunk of records of no sound size")
        raw = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(f"a chunk of records that cannot be read: {error}") from None
    found: list[bytes] = []
    offset = 0
    while offset < len(raw):
        begin = offset + _LENGTH.size
        length = int.from_bytes(raw[offset:begin], "little")
        offset = begin + length
        found.append(raw[begin:offset])
    return tuple(found)
