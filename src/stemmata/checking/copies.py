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
from stemmata.errors import DamagedPack, MissingObject, StemmataError
from stemmata.ids import Digest, PackName
from stemmata.packindex import PackIndex
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
        self._met: dict[PackName, bytearray] = {}
        """A byte for each object of a pack: was this copy met?"""
        self._faults: dict[PackName, dict[Digest, StemmataError]] = {}

    @property
    def count(self) -> int:
        """Copies that were decoded or looked at."""
        return sum(map(sum, self._met.values()))

    def faults(self, pack: PackName) -> dict[Digest, StemmataError]:
        """What is wrong with the pack's copies that are not sound, by their digests."""
        return dict(sorted(self._faults.get(pack, {}).items()))

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
        return place is not None and pack in self._met and bool(self._met[pack][place])

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
        known = self._faults.get(pack, {}).get(digest)
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
            self._meet(pack, reader.index, digest)
            self._blame(pack, digest, error)
            raise
        if self._meet(pack, reader.index, digest) and self._advance is not None:
            self._advance(row.stored)
        return content

    def look(self, pack: PackName, bases: frozenset[PackName]) -> None:
        """All copies of a pack by their headers alone: what they lean on is there. Remembers what is not.

        `bases`: the packs that the pack's own entry names as bases. Raises as `reader`.
        """
        reader = self.reader(pack)
        for digest, found in reader.references():
            error = found if isinstance(found, StemmataError) else self._missing_base(pack, found, bases)
            if error is not None:
                self._blame(pack, digest, error)
        self._met[pack] = bytearray(b"\1" * len(reader.index))

    def _missing_base(
        self, pack: PackName, references: Iterable[Reference], bases: frozenset[PackName]
    ) -> StemmataError | None:
        try:
            for base in references:
                if base.pack != pack and base.pack not in bases:
                    reason = f"an object leans on pack {base.pack}, which its entry in the log does not name"
                    return DamagedPack(pack=pack, reason=reason)
                if self.reader(base.pack).index.place(base.digest) is None:
                    return MissingObject(digest=base.digest)
        except FAULTS as error:
            return error
        return None

    def _blame(self, pack: PackName, digest: Digest, error: StemmataError) -> None:
        self._faults.setdefault(pack, {}).setdefault(digest, error)

    def _meet(self, pack: PackName, index: PackIndex, digest: Digest) -> bool:
        """Note that a copy was met; True the first time."""
        place = index.place(digest)
        met = self._met.setdefault(pack, bytearray(len(index)))
        if place is None or place >= len(met) or met[place]:
            return False
        met[place] = 1
        return True

    def _fetch(self, base: Reference) -> Stored:
        """An object that another leans on."""
        from stemmata.codecs.decoding import Stored

        reader = self.reader(base.pack)
        row = reader.index.find(base.digest)
        if row is None:
            raise MissingObject(digest=base.digest)
        return Stored(reader.read_row(base.digest, row), row.raw, base.digest, base.pack.hex)
