"""Reading: from a digest to verified bytes, through as many packs and bases as it takes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from stemmata.codecs.frames import Reference
from stemmata.codecs.workers import frame_pool
from stemmata.errors import Damage, DamagedObject, MissingObject, MissingPack
from stemmata.ids import Digest, PackName
from stemmata.packs import IndexRow, PackReader
from stemmata.storage.base import Storage
from stemmata.storage.forks import held_at_forks

if TYPE_CHECKING:
    from stemmata.codecs.decoding import ObjectDecoder, Stored

_INDEX_BYTES = 64 << 20
_OPEN_PACKS = 1024

_Found = TypeVar("_Found")


class ObjectReader:
    """Reads objects out of the packs that hold them. Safe to use from many threads.

    Keeps the indexes of the packs last used, up to 64 MiB.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = held_at_forks(threading.Lock())
        self._packs: OrderedDict[PackName, PackReader] = OrderedDict()
        self._kept = 0

    def read(self, digest: Digest, packs: Sequence[PackName]) -> bytearray:
        """The object's content, verified (I4). An object that one pack has lost is sought in the others.

        Raises MissingObject, MissingPack, DamagedPack, DamagedObject, HostileData, NewerFormat.
        """
        return self._first(digest, packs, self._decoded)

    def fill(self, digest: Digest, packs: Sequence[PackName], into: memoryview) -> None:
        """As `read`, into memory that is given, of the object's size. If this raises, it holds rubbish."""

        def fill(pack: PackReader, digest: Digest, row: IndexRow) -> None:
            if row.raw != len(into):
                reason = f"it has {row.raw} bytes where {len(into)} are wanted"
                raise DamagedObject(digest=digest, pack=pack.name, reason=reason)
            self._decoder(pack, digest, row).content_into(into, frame_pool())

        self._first(digest, packs, fill)

    def open(self, digest: Digest, packs: Sequence[PackName]) -> tuple[Reference, ObjectDecoder]:
        """Where the object lies; it and its bases as they are stored, not decoded yet. Raises as `read`."""

        def opened(pack: PackReader, digest: Digest, row: IndexRow) -> tuple[Reference, ObjectDecoder]:
            return Reference(pack.name, digest), self._decoder(pack, digest, row)

        return self._first(digest, packs, opened)

    def locate(self, digest: Digest, packs: Sequence[PackName]) -> tuple[PackName, IndexRow]:
        """The first of `packs` whose index has the object. Raises as `read`."""
        return self._first(digest, packs, lambda pack, _, row: (pack.name, row))

    def find(self, digest: Digest, packs: Iterable[PackName]) -> tuple[PackName, IndexRow] | None:
        """As `locate`, None if there is none; a pack that is missing or damaged has none."""
        for name in packs:
            try:
                row = self._open(name).index.find(digest)
            except Damage:
                continue  # a missed duplicate costs bytes, never correctness
            if row is not None:
                return name, row
        return None

    def forget(self, name: PackName) -> None:
        """Let go of a pack's index, as after the pack was dropped."""
        with self._lock:
            self._discard(name)

    def _first(
        self, digest: Digest, packs: Iterable[PackName], use: Callable[[PackReader, Digest, IndexRow], _Found]
    ) -> _Found:
        """What `use` makes of the first pack in which it succeeds; else the first failure."""
        failure: Damage | None = None
        for name in packs:
            try:
                pack = self._open(name)
                row = pack.index.find(digest)
                if row is not None:
                    return use(pack, digest, row)
            except MissingPack as error:
                self.forget(name)
                failure = failure or error
            except Damage as error:
                failure = failure or error
        raise failure or MissingObject(digest=digest)

    def _decoded(self, pack: PackReader, digest: Digest, row: IndexRow) -> bytearray:
        return self._decoder(pack, digest, row).content(frame_pool())

    def _decoder(self, pack: PackReader, digest: Digest, row: IndexRow) -> ObjectDecoder:
        # Imported here: numpy costs a tenth of a second, and much is asked that reads no object.
        from stemmata.codecs.decoding import ObjectDecoder

        return ObjectDecoder(_stored(pack, digest, row), self.fetch)

    def fetch(self, base: Reference) -> Stored:
        """An object that another leans on, encoded. Raises as `read`."""
        return self._first(base.digest, [base.pack], _stored)

    def _open(self, name: PackName) -> PackReader:
        """The pack with its index read."""
        with self._lock:
            if name in self._packs:
                self._packs.move_to_end(name)
                return self._packs[name]
        # Not under the lock: two threads may read one index twice, none waits for another's pack.
        pack = PackReader(self._storage, name)
        size = pack.index.size
        with self._lock:
            self._discard(name)
            self._packs[name] = pack
            self._kept += size
            while len(self._packs) > 1 and (self._kept > _INDEX_BYTES or len(self._packs) > _OPEN_PACKS):
                self._discard(next(iter(self._packs)))
        return pack

    def _discard(self, name: PackName) -> None:
        pack = self._packs.pop(name, None)
        if pack is not None:
            self._kept -= pack.index.size


def _stored(pack: PackReader, digest: Digest, row: IndexRow) -> Stored:
    from stemmata.codecs.decoding import Stored

    return Stored(pack.read_unchecked(digest, row), row.raw, digest, pack.name.hex)
