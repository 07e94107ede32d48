"""Copies: every copy of an object that lies in a live pack, and what it leans on.

A copy is a row of one table, sorted by digest; some 80 bytes of memory each, whatever the objects hold.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stemmata.codecs.dtypes import BYTES
from stemmata.codecs.faults import Fault
from stemmata.codecs.frames import MAX_HEADER, Header, read_header
from stemmata.errors import Damage, DamagedObject, KeyMissing, MissingObject, MissingPack
from stemmata.ids import Digest, PackName
from stemmata.packs import PackReader
from stemmata.storage.base import Storage

Rows: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_WINDOW = 1 << 20
_LITTLE = 64 << 10
"""Bytes of an object, on average, below which a pack is read through for the headers in it."""
_DIGEST = "S32"


@dataclass(frozen=True, slots=True)
class LivePack:
    """A pack as the log knows it. `bases`: those that it leans on."""

    name: PackName
    size: int
    n: int
    bases: tuple[PackName, ...]


class Copies:
    """`packs` come in an order in which each stands after those that it leans on."""

    def __init__(self, storage: Storage, packs: Sequence[LivePack]) -> None:
        self.packs = list(packs)
        self.place: dict[PackName, int] = {pack.name: i for i, pack in enumerate(packs)}
        self.broken: dict[PackName, Damage] = {}
        """Packs whose index cannot be read, and why."""
        self._storage = storage
        tables = [self._table(pack) for pack in packs]
        digest = np.concatenate([t["digest"] for t in tables] or [np.empty(0, _DIGEST)])
        order = np.argsort(digest, kind="stable")  # of one digest, the copy in the oldest pack first
        self.digest = digest[order]
        self.pack = np.repeat(np.arange(len(tables), dtype=np.int32), [len(t) for t in tables])[order]
        self.offset, self.stored, self.raw = (
            np.concatenate([t[field].astype(np.int64) for t in tables] or [np.empty(0, np.int64)])[order]
            for field in ("offset", "stored", "raw")
        )
        self.text = np.zeros(len(order), np.bool_)
        """Copies of what is no tensor."""
        self.unreadable: dict[int, Damage] = {}
        """Copies whose header is damaged: what they lean on is not known."""
        self._lean()

    def __len__(self) -> int:
        return len(self.digest)

    def digest_at(self, row: int) -> Digest:
        return Digest(bytes(self.digest[row]).ljust(Digest.SIZE, b"\0"))

    def name_at(self, row: int) -> PackName:
        return self.packs[int(self.pack[row])].name

    def find(self, digests: Sequence[Digest]) -> tuple[Rows, Rows]:
        """For each, the range of rows that are copies of it."""
        wanted = np.array([d.raw for d in digests], _DIGEST)
        return (
            np.searchsorted(self.digest, wanted, "left").astype(np.int64),
            np.searchsorted(self.digest, wanted, "right").astype(np.int64),
        )

    def all_of(self, digest: Digest) -> list[int]:
        """Every copy, the oldest first."""
        begin, end = self.find([digest])
        return list(range(int(begin[0]), int(end[0])))

    def has(self, digest: Digest) -> bool:
        """Whether any pack that could be read holds it."""
        begin, end = self.find([digest])
        return bool(end[0] > begin[0])

    def among(self, digests: Sequence[Digest], packs: Iterable[PackName]) -> Rows:
        """For each the oldest copy that lies in one of `packs`. Raises MissingObject, or what is wrong with
        the pack that may hold it."""
        names = list(packs)
        usable = np.zeros(len(self.packs), np.bool_)
        usable[[self.place[name] for name in names if name in self.place]] = True
        begin, end = self.find(digests)
        found = np.full(len(begin), -1, np.int64)
        for i, (low, high) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
            for row in range(low, high):
                if usable[self.pack[row]]:
                    found[i] = row
                    break
            else:
                for name in names:
                    if name in self.broken:
                        raise self.broken[name]
                raise MissingObject(digest=digests[i])
        return found

    def leans_on(self, row: int) -> list[int]:
        """The copies that this one leans on. Raises Damage if one is not there."""
        if row in self.unreadable:
            raise self.unreadable[row]
        found: list[int] = self._to[self._first[row] : self._first[row + 1]].tolist()
        if -1 in found:
            raise self._lost[row]
        return found

    def closure(self, rows: Rows) -> Rows:
        """The copies that these need: themselves and all that they lean on. Raises Damage where that is not
        known or not there."""
        found = ahead = np.unique(rows)
        while len(ahead):
            if self._doubtful:
                for row in self._doubtful.intersection(ahead.tolist()):
                    self.leans_on(row)
            first, last = self._first[ahead], self._first[ahead + 1]
            leaning = np.flatnonzero(last > first)
            spans = [self._to[a:b] for a, b in zip(first[leaning], last[leaning], strict=True)]
            under = np.unique(np.concatenate(spans)) if spans else np.empty(0, np.int64)
            ahead = np.setdiff1d(under, found, assume_unique=True)
            found = np.union1d(found, ahead)
        return found

    def mask(self, rows: Rows) -> Mask:
        found = np.zeros(len(self), np.bool_)
        found[rows] = True
        return found

    def upon(self, mask: Mask) -> Mask:
        """Which copies lean on one in `mask`, at however many steps."""
        found = np.zeros(len(self), np.bool_)
        sources = np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self._first))
        known = self._to >= 0
        sources, targets = sources[known], self._to[known]
        while True:
            more = sources[(mask | found)[targets]]
            more = np.unique(more[~found[more]])
            if not len(more):
                return found
            found[more] = True

    # --- reading ------------------------------------------------------------------------------------

    def _table(self, pack: LivePack) -> npt.NDArray[Any]:
        try:
            return PackReader(self._storage, pack.name).index.table()
        except Damage as error:
            self.broken[pack.name] = error
            return np.empty(0, [("digest", _DIGEST), *((f, "<u8") for f in ("offset", "stored", "raw"))])

    def _lean(self) -> None:
        """Read the header of every copy: its kind, and what it leans on."""
        sources, targets = array("q"), array("q")
        self._lost: dict[int, Damage] = {}
        for row, header in self._headers():
            self.text[row] = header.dtype == BYTES
            for base in header.references:
                here = self.place.get(base.pack)
                found = [each for each in self.all_of(base.digest) if self.pack[each] == here]
                if not found:
                    lost: Damage = MissingObject(digest=base.digest)
                    if here is None:
                        lost = MissingPack(pack=base.pack)
                    self._lost[row] = self.broken.get(base.pack, lost)
                sources.append(row)
                targets.append(found[0] if found else -1)
        self._doubtful = set(self._lost) | set(self.unreadable)
        source = np.array(sources, np.int64)
        order = np.argsort(source, kind="stable")
        self._to: Rows = np.array(targets, np.int64)[order]
        self._first: Rows = np.searchsorted(source[order], np.arange(len(self) + 1)).astype(np.int64)

    def _headers(self) -> Iterator[tuple[int, Header]]:
        by_place = np.lexsort((self.offset, self.pack))
        bounds = np.searchsorted(self.pack[by_place], np.arange(len(self.packs) + 1))
        for i, pack in enumerate(self.packs):
            rows = by_place[bounds[i] : bounds[i + 1]].tolist()
            if not rows:
                continue
            step = _WINDOW if pack.size < _LITTLE * len(rows) else MAX_HEADER
            begin, data = 0, b""
            for row in rows:
                at, length = int(self.offset[row]), int(min(self.stored[row], MAX_HEADER))
                if at + length > begin + len(data) or at < begin:
                    begin = at
                    try:
                        data = self._storage.get(pack.name.key, at, max(step, length))
                    except KeyMissing:
                        data = b""
                try:
                    yield row, read_header(memoryview(data)[at - begin : at - begin + length])
                except Fault as fault:
                    digest = self.digest_at(row)
                    self.unreadable[row] = DamagedObject(digest=digest, pack=pack.name, reason=str(fault))
                    self.text[row] = True  # what cannot be told is not kept for its own sake


def in_order(packs: Mapping[PackName, tuple[int, int, tuple[PackName, ...]]]) -> list[LivePack]:
    """Packs (size, entry, bases) so that each stands after what it leans on: of one entry's, the bases
    first."""
    upon = {
        name: [base for base in bases if base in packs and packs[base][1] == entry]
        for name, (_, entry, bases) in packs.items()
    }
    depth: dict[PackName, int] = {}
    # Without a circle: each base was live before.
    for name in TopologicalSorter(upon).static_order():
        depth[name] = 1 + max((depth[base] for base in upon[name]), default=0)
    ordered = sorted(packs, key=lambda name: (packs[name][1], depth[name], name))
    return [LivePack(name, packs[name][0], packs[name][1], packs[name][2]) for name in ordered]
