"""Room: what one keeps who reads many objects. Owns reading ahead: little objects that lie one behind the
other in a pack are mostly asked for one after the other, and a read for each costs more than its bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import msgspec

from stemmata.codecs.buffers import Buffers
from stemmata.ids import Digest, PackName
from stemmata.packindex import IndexRow
from stemmata.packs import PackReader

_LITTLE = 32 << 10
"""Stored bytes of an object that is not read by itself."""
_AHEAD = 256 << 10
_PACKS = 8


class _Seen(msgspec.Struct, frozen=True):
    """Bytes of a pack from `begin` on; none where only that place was read up to."""

    begin: int
    data: bytes = b""

    @property
    def end(self) -> int:
        return self.begin + len(self.data)


class Room(Buffers):
    """Lent memory, and up to 2 MiB of packs that were read ahead. All of it goes with this object, which
    lives as long as one save or one checkout: what changes in a pack afterwards is seen by the next."""

    def __init__(self) -> None:
        super().__init__()
        self._near = threading.Lock()
        self._seen: OrderedDict[PackName, _Seen] = OrderedDict()

    def read_into(self, pack: PackReader, digest: Digest, row: IndexRow, into: memoryview) -> None:
        """As the pack's own: unchecked. Raises as that does."""
        if row.stored > _LITTLE:
            pack.read_into(digest, row, into)
            return
        with self._near:
            seen = self._seen.get(pack.name)
        end = row.offset + row.stored
        if seen is not None and not (seen.begin <= row.offset and end <= seen.end):
            follows = 0 <= row.offset - seen.end <= _LITTLE
            seen = _Seen(row.offset, pack.read_ahead(row, _AHEAD)) if follows else None
        if seen is None or end > seen.end:
            pack.read_into(digest, row, into)
            seen = _Seen(end)
        else:
            into[:] = seen.data[row.offset - seen.begin : end - seen.begin]
        with self._near:
            self._seen[pack.name] = seen
            self._seen.move_to_end(pack.name)
            if len(self._seen) > _PACKS:
                self._seen.popitem(last=False)
