"""Recent: the last entries of the log, byte for byte, in the catalog. Owns what is kept of them there.

Older entries lie in bundles too (FORMAT.md, 3.3); of the newest ones `log/` has the only copy in the
repository. What is kept here is no evidence (I8): whoever puts a damaged entry right with it holds it against
the hash that the log itself demands.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from stemmata.ids import Digest
from stemmata.log.entries import Position

MOST = 512
"""Entries that are kept: those that no bundle has yet, and as many again, should one be missing."""
_LARGEST = 256 << 10
"""Bytes of one that is kept; few are a hundredth of it."""


class Recent:
    """What is to be kept of entries that are being folded."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, bytes]] = deque(maxlen=MOST)

    def add(self, n: int, data: bytes) -> None:
        if len(data) <= _LARGEST:
            self._entries.append((n, data))

    def write(self, cursor: sqlite3.Cursor, last: int) -> None:
        """Into the table, inside the caller's transaction; `last` is where the log ends."""
        rows = [(n, data) for n, data in self._entries if n > last - MOST]
        cursor.executemany("INSERT OR REPLACE INTO recent VALUES (?, ?)", rows)
        cursor.execute("DELETE FROM recent WHERE n <= ?", (last - MOST,))


def parse_position(row: tuple[object, ...] | None) -> Position | None:
    """The position that a row of `meta` states; None if it states none."""
    try:
        n, digest, effective = str(row[0] if row is not None else "").split(" ")
        return Position(int(n), Digest.parse(digest), effective)
    except ValueError:
        return None


class Kept(msgspec.Struct, frozen=True):
    """What a catalog's file says of the log it was folded from."""

    repository: str = ""
    format: int = 0
    created: str = ""
    position: Position | None = None
    entries: dict[int, bytes] = msgspec.field(default_factory=dict)


def kept_in(file: Path) -> Kept | None:
    """Read a catalog as it lies there, changing nothing; None if it says nothing that can be read."""
    if not file.is_file():
        return None
    for how in ("mode=ro", "immutable=1"):
        # The second reads where nothing may be written beside the file, as the first may want to.
        with suppress(sqlite3.Error, ValueError, UnicodeError):
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True)) as connection:
                meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
                rows = connection.execute("SELECT n, entry FROM recent").fetchall()
            number, _, created = str(meta.get("identity", "")).partition(" ")
            return Kept(
                str(meta.get("repository", "")),
                int(number) if number.isascii() and number.isdigit() else 0,
                created,
                parse_position((meta.get("position", ""),)),
                {int(n): bytes(entry) for n, entry in rows},
            )
    return None
