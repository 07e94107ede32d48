"""Deciding: where each object is to come from. Reads and writes nothing but what it must look at to know.

In this order: it stays where it is read from now; it moves out of a pack that goes, as it is encoded; it is
encoded anew from what a source has; it is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass
from typing import TypeAlias

from stemmata.checking.report import FAULTS
from stemmata.codecs.faults import translated
from stemmata.codecs.frames import MAX_CHAIN, Reference, read_header
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectReader
from stemmata.objects.room import Room
from stemmata.packindex import IndexRow
from stemmata.packs import PackReader
from stemmata.repairing.sources import Sources
from stemmata.repairing.stock import Stock
from stemmata.storage.base import Storage


@dataclass(frozen=True, slots=True)
class Stay:
    """It is read from a pack that stays."""

    pack: PackName
    instead: bool = False
    """In the place of a copy that is damaged."""


@dataclass(frozen=True, slots=True)
class Move:
    """Its encoded bytes are sound; they move, and so does what they lean on where that has to."""

    pack: PackName
    row: IndexRow
    bases: tuple[Reference, ...]
    instead: bool = False


@dataclass(frozen=True, slots=True)
class Anew:
    """A source has its content, which is encoded alone."""

    source: str
    length: int


Decision: TypeAlias = Stay | Move | Anew | None
"""None: it is lost."""


class Shelves:
    """What lies in this repository, and what is known of single copies by now."""

    def __init__(self, storage: Storage, stock: Stock, live: Set[PackName]) -> None:
        self.stock, self.live = stock, live
        self.rotten: set[tuple[PackName, Digest]] = set()
        """Copies whose stored bytes are sound and do not decode to what they should."""
        self._storage = storage
        self._reader = ObjectReader(storage)
        self._packs: dict[PackName, PackReader] = {}
        self._heads: dict[tuple[PackName, Digest], tuple[IndexRow, tuple[Reference, ...]] | None] = {}
        self._reads: dict[tuple[PackName, Digest], bool] = {}

    def head(self, pack: PackName, digest: Digest) -> tuple[IndexRow, tuple[Reference, ...]] | None:
        """Where a copy lies and what it leans on; None if its own stored bytes are damaged."""
        key = pack, digest
        if key in self.rotten:
            return None
        if key not in self._heads:
            self._heads[key] = None
            try:
                stored, row = self.stored(pack, digest)
                with translated(digest.hex, pack.hex):
                    self._heads[key] = row, read_header(memoryview(stored)).references
            except FAULTS:
                pass
        return self._heads[key]

    def stored(self, pack: PackName, digest: Digest) -> tuple[bytes, IndexRow]:
        """A copy as it is encoded, held against its checksum. Raises Damage and StorageFailed."""
        reader = self._packs.setdefault(pack, PackReader(self._storage, pack))
        row = reader.index.find(digest)
        if row is None:
            raise KeyError(digest)
        return reader.read_row(digest, row), row

    def reads(self, pack: PackName, digest: Digest) -> bool:
        """Does a copy decode to what it should, where it lies, of sound bytes, its own and its bases'?

        One that only still decodes is a source for a sound one: a check would name it ever after.
        """
        key = pack, digest
        if key not in self._reads:
            try:
                with self._reader.opened(digest, [pack], Room()) as (_, decoder):
                    decoder.require_sound()
                self._reader.read(digest, [pack])
                self._reads[key] = True
            except FAULTS:
                self._reads[key] = False
        return self._reads[key]


class Deciding:
    """Decides with `going`: packs that are to be retired; `doubtful`: those in which damage was found, or
    which lean on such, `going` among them."""

    def __init__(
        self, shelves: Shelves, sources: Sources, going: Collection[PackName], doubtful: Collection[PackName]
    ) -> None:
        self._shelves, self._sources = shelves, sources
        self.going, self._doubtful = frozenset(going), frozenset(doubtful)
        self._known: dict[Digest, Decision] = {}
        self._steps: dict[Digest, int] = {}
        """Of those that move: how many others are decoded one upon the other to read it."""
        self._begun: set[Digest] = set()
        self._cut: set[Digest] = set()
        """Those of them that were asked for by what they may lean on."""

    def stays_in(self, digest: Digest, packs: Collection[PackName]) -> bool:
        """Is it read from one of these packs now, without a look at anything else?"""
        found = [pack for pack in self._shelves.stock.packs_with(digest) if pack not in self.going]
        here = [pack for pack in found if pack in packs and pack in self._shelves.live]
        if not here:
            return False
        if self._is_plain(digest, here[0]):
            return True
        # Another copy may go for it, or this one be damaged: then it is read.
        return any(self._shelves.reads(pack, digest) for pack in here)

    def of(self, digest: Digest, near: PackName | None = None) -> Decision:
        """What becomes of it. `near`: the pack where what leans on it says that it is."""
        if near in self._shelves.live and near not in self._doubtful:
            assert near is not None
            if near in self._shelves.stock.packs_with(digest):
                return Stay(near)
        if digest not in self._known:
            if digest in self._begun or len(self._begun) > MAX_CHAIN:
                self._cut.add(digest)
                return None  # it would lean on itself, or on more than any reader follows; another may not
            self._begun.add(digest)
            found = self._decide(digest)
            self._begun.discard(digest)
            self._cut.discard(digest)
            if not self._begun:
                self._cut.clear()
            if found is None and self._cut:
                return None  # which is so only under what was being decided
            self._known[digest] = found
        return self._known[digest]

    def _is_plain(self, digest: Digest, pack: PackName) -> bool:
        """The copy is in no doubt, and none is let go for it."""
        others = set(self._shelves.stock.packs_with(digest)) & self.going
        return pack not in self._doubtful and not others

    def _decide(self, digest: Digest) -> Decision:
        copies = self._shelves.stock.packs_with(digest)
        live = [p for p in copies if p in self._shelves.live and p not in self.going]
        for pack in sorted(live, key=lambda p: p in self._doubtful):
            if self._shelves.reads(pack, digest):
                going = self.going.intersection(copies)
                spoilt = all(self._shelves.head(other, digest) is None for other in going)
                return Stay(pack, instead=spoilt)
        heads = [(pack, head) for pack in copies if (head := self._shelves.head(pack, digest)) is not None]
        here = self.going.intersection(copies)
        spoilt = not here or not here <= {pack for pack, _ in heads}
        # One that leans on nothing first: of copies that lean on each other in a circle none could be taken.
        heads.sort(key=lambda each: (each[0] not in here, len(each[1][1]), each[0] not in self._shelves.live))
        for pack, head in heads:
            if all(self.of(base.digest, base.pack) is not None for base in head[1]):
                steps = max((self._steps.get(base.digest, 0) + 1 for base in head[1]), default=0)
                if steps > MAX_CHAIN:
                    continue
                self._steps[digest] = steps
                return Move(pack, *head, instead=spoilt)
        found = self._sources.where(digest)
        return Anew(found[0].name, found[1]) if found is not None else None
