"""Rewriting: what is needed of some packs, written into new ones. Owns how an encoded object moves.

Its frames are copied as they are, checksums held. Where it leans on something that moves as well, its header
is written anew, for that names the pack. What it leans on is written before it, so that no deltas go in
circles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from stemmata.codecs.faults import Fault, translated
from stemmata.codecs.frames import Reference, pointed
from stemmata.codecs.hashing import Buffer
from stemmata.collecting.copies import Copies
from stemmata.collecting.newpacks import NewPacks
from stemmata.errors import Damage, HostileData
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectReader
from stemmata.packs import PackReader, PackSummary
from stemmata.storage.base import Storage


class Moving:
    """Moves objects out of `packs`. Nothing that it writes is named by the log before somebody commits it."""

    def __init__(
        self, copies: Copies, packs: Collection[PackName], storage: Storage, reader: ObjectReader
    ) -> None:
        self._copies, self._packs = copies, set(packs)
        self._storage, self._reader = storage, reader
        self._new = NewPacks(storage, reader)
        self._where: dict[Digest, PackName] = {}
        self._begun: set[Digest] = set()

    @property
    def written(self) -> list[PackSummary]:
        """The packs that are durable."""
        return self._new.written

    def place_of(self, row: int) -> PackName:
        """Where what is copy `row` now will lie; for a pack that goes, after `move`."""
        name = self._copies.name_at(row)
        return self._where[self._copies.digest_at(row)] if name in self._packs else name

    def is_moved(self, digest: Digest) -> bool:
        return digest in self._where

    def take(self, pack: PackSummary) -> None:
        """Somebody else has written these objects anew."""
        self._new.written.append(pack)
        for digest in pack.index.digests():
            self._where[digest] = pack.name

    def move(self, rows: Iterable[int]) -> None:
        """Make sure that these copies are outside of the packs that go. Raises Damage, and as storages do."""
        for row in rows:
            if self._copies.name_at(row) in self._packs:
                self._move(self._copies.digest_at(row))

    def close(self) -> None:
        """Make what was written so far durable (I1)."""
        self._new.close()

    def discard(self) -> None:
        """Delete what was written: no log has ever named it."""
        self._new.discard()

    def prove(self, progress: Callable[[int], None] | None = None) -> None:
        """Read back every object that was written, through what it leans on. Raises Damage."""
        for _, error in self._new.unreadable(progress):
            raise error

    def _move(self, digest: Digest) -> PackName:
        found = self._where.get(digest)
        if found is not None:
            return found
        if digest in self._begun:
            raise HostileData(where=f"object {digest}", reason="it leans on itself")
        self._begun.add(digest)
        row = self._sound(digest)
        name = self._copies.name_at(row)
        self._where[digest] = name if name not in self._packs else self._copy(row, digest)
        return self._where[digest]

    def _sound(self, digest: Digest) -> int:
        """The copy to keep: one that stays if there is one, else the oldest. Where others are let go for it,
        it is read: of two copies a damaged one must not be the one that is left."""
        rows = self._copies.all_of(digest)
        rows.sort(key=lambda row: self._copies.name_at(row) in self._packs)  # stable: the oldest first
        if len(rows) == 1:
            return rows[0]
        failure: Damage | None = None
        for row in rows:
            try:
                self._reader.read(digest, [self._copies.name_at(row)])
                self._copies.leans_on(row)
            except Damage as error:
                failure = failure or error
            else:
                return row
        raise failure or HostileData(where=f"object {digest}", reason="it has no copy")

    def _copy(self, row: int, digest: Digest) -> PackName:
        lies = {
            Reference(name, there): self._move(there) if name in self._packs else name
            for base in self._copies.leans_on(row)
            for there, name in [(self._copies.digest_at(base), self._copies.name_at(base))]
        }
        name = self._copies.name_at(row)
        where = self._reader.locate(digest, [name])[1]
        stored = PackReader(self._storage, name).read_row(digest, where)
        parts, bases = moved(stored, digest, name, lambda base: lies[base])
        return self._new.add(digest, parts, where.raw, bases)


def moved(
    stored: bytes | memoryview, digest: Digest, pack: PackName, where: Callable[[Reference], PackName]
) -> tuple[list[Buffer], list[PackName]]:
    """An encoded object of `pack` as it is to be stored where its bases lie in other packs, and those packs.

    Nothing but the names in its header changes: a base is its content, and that is the same.
    """
    try:
        return pointed(memoryview(stored), where)
    except Fault:
        with translated(digest.hex, pack.hex):
            raise
