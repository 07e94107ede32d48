"""Copies: each object in each pack, decoded and remembered. Owns what a check remembers of them: a byte each.

Never hands out bytes that are not what their digest says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from stemmata.checking.report import FAULTS
from stemmata.codecs.frames import Reference
from stemmata.codecs.workers import frame_pool
from stemmata.errors import DamagedObject, MissingObject, StemmataError
from stemmata.ids import Digest, PackName
from stemmata.packs import PackReader
from stemmata.storage.base import Storage

if TYPE_CHECKING:
    from stemmata.codecs.decoding import Stored

_OPEN_PACKS = 256
_INDEX_BYTES = 64 << 20


class Copies:
    """Reads copies of objects. `advance` is told the stored bytes of each that is decoded first."""

    def __init__(self, storage: Storage, advance: Callable[[int], None] | None) -> None:
        self._storage, self._advance = storage, advance
        self._readers: OrderedDict[PackName, PackReader] = OrderedDict()
        self._kept = 0
        self._seen: dict[PackName, bytearray] = {}
        """A byte for each object of a pack: was this copy met?"""
        self.faults: dict[tuple[PackName, Digest], StemmataError] = {}
        """What is wrong with the copies that are not sound."""
        self.count = 0
        """Copies met."""

    def reader(self, pack: PackName) -> PackReader:
        """The pack with its index read. Raises MissingPack, DamagedPack, HostileData."""
        found = self._readers.get(pack)
        if found is not None:
            self._readers.move_to_end(pack)
            return found
        found = PackReader(self._storage, pack)
        self._kept += found.index.size
        self._readers[pack] = found
        while len(self._readers) > 1 and (self._kept > _INDEX_BYTES or len(self._readers) > _OPEN_PACKS):
            self._kept -= self._readers.popitem(last=False)[1].index.size
        return found

    def was_met(self, pack: PackName, digest: Digest) -> bool:
        place = self.reader(pack).index.place(digest)
        return place is not None and pack in self._seen and bool(self._seen[pack][place])

    def find(self, digest: Digest, packs: Iterable[PackName]) -> list[PackName]:
        """Those of `packs` that hold the object. Raises the first pack's fault if none does."""
        found: list[PackName] = []
        failure: StemmataError | None = None
        for pack in packs:
            try:
                if self.reader(pack).index.place(digest) is not None:
                    found.append(pack)
            except FAULTS as error:
                failure = failure or error
        if not found:
            raise failure or MissingObject(digest=digest)
        return found

    def read(self, digest: Digest, packs: Iterable[PackName]) -> bytes | bytearray:
        """The object's content, from the first sound copy among `packs`."""
        failure: StemmataError | None = None
        for pack in self.find(digest, packs):
            try:
                return self.decode(pack, digest)
            except FAULTS as error:
                failure = failure or error
        raise failure or MissingObject(digest=digest)

    def decode(self, pack: PackName, digest: Digest) -> bytes | bytearray:
        """One copy, decoded and verified; what became of it is remembered."""
        known = self.faults.get((pack, digest))
        if known is not None:
            raise known
        from stemmata.codecs.decoding import decode_object

        reader = self.reader(pack)
        row = reader.index.find(digest)
        if row is None:
            raise MissingObject(digest=digest)
        try:
            content = decode_object(
                reader.read_row(digest, row),
                raw_length=row.raw,
                digest=digest,
                where=pack.hex,
                threads=frame_pool(),
                fetch=self._fetch,
            )
        except FAULTS as error:
            self._meet(pack, digest)
            self.faults[pack, digest] = error
            raise
        if self._meet(pack, digest) and self._advance is not None:
            self._advance(row.stored)
        return content

    def look(self, pack: PackName, digest: Digest, bases: frozenset[PackName]) -> None:
        """One copy by its header alone: what it leans on is there. What is wrong is remembered.

        `bases`: the packs that the pack's own entry names as bases.
        """
        self._meet(pack, digest)
        try:
            reader = self.reader(pack)
            row = reader.index.find(digest)
            if row is None:
                raise MissingObject(digest=digest)
            for base in reader.references(digest, row):
                if base.pack != pack and base.pack not in bases:
                    reason = f"it leans on pack {base.pack}, which its own pack does not name"
                    raise DamagedObject(digest=digest, pack=pack, reason=reason)
                if self.reader(base.pack).index.place(base.digest) is None:
                    raise MissingObject(digest=base.digest)
        except FAULTS as error:
            self.faults[pack, digest] = error

    def _meet(self, pack: PackName, digest: Digest) -> bool:
        """Note that a copy was met; True the first time."""
        index = self.reader(pack).index
        place = index.place(digest)
        seen = self._seen.setdefault(pack, bytearray(len(index)))
        if place is None or place >= len(seen) or seen[place]:
            return False
        seen[place] = 1
        self.count += 1
        return True

    def _fetch(self, base: Reference) -> Stored:
        """An object that another leans on."""
        from stemmata.codecs.decoding import Stored

        reader = self.reader(base.pack)
        row = reader.index.find(base.digest)
        if row is None:
            raise MissingObject(digest=base.digest)
        return Stored(reader.read_row(base.digest, row), row.raw, base.digest, base.pack.hex)
