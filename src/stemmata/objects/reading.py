"""Reading: from a digest to verified bytes, through as many packs and bases as it takes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from stemmata.codecs.frames import Reference
from stemmata.codecs.workers import frame_pool
from stemmata.errors import Damage, HostileData, MissingObject, MissingPack, StemmataError, StorageFailed
from stemmata.ids import Digest, PackName
from stemmata.objects.room import Room
from stemmata.packindex import IndexRow
from stemmata.packs import PackReader
from stemmata.storage.base import Storage
from stemmata.storage.forks import held_at_forks

if TYPE_CHECKING:
    from stemmata.codecs.decoding import ObjectDecoder

_INDEX_BYTES = 64 << 20
_OPEN_PACKS = 1024
_IN_PIECES = 256 << 10
"""Stored bytes of an object from which on it is read frame by frame, where storage allows: what is not taken
into memory whole need not be got from the system, and is in the processor's cache when it is decoded."""
_WIDER = 2
"""No base is longer than this many times what leans on it: a float32 tensor under its rounding."""

_Found = TypeVar("_Found")


class ObjectReader:
    """Reads objects out of the packs that hold them. Safe to use from many threads.

    Keeps the indexes of the packs last used, up to 64 MiB. Large objects are read frame by frame, each before
    it is decoded: what was opened may turn out to be missing or damaged later.
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

        def decode(pack: PackReader, digest: Digest, row: IndexRow) -> bytearray:
            with self._decoder(pack, digest, row, Room()) as decoder:
                return decoder.content(frame_pool())

        return self._first(digest, packs, decode)

    def fill(
        self, digest: Digest, packs: Sequence[PackName], into: memoryview, buffers: Room | None = None
    ) -> None:
        """As `read`, into memory that is given, of the object's size. If this raises, it holds rubbish.

        `buffers`: where to keep what is stored while it is decoded, for who reads many objects.
        """

        def decode(pack: PackReader, digest: Digest, row: IndexRow) -> None:
            with self._decoder(pack, digest, row, buffers or Room()) as decoder:
                decoder.fill(into, frame_pool())

        self._first(digest, packs, decode)

    def lend(self, digest: Digest, packs: Sequence[PackName], buffers: Room) -> memoryview:
        """As `read`, in memory that `buffers` lends; the caller gives it back."""

        def decode(pack: PackReader, digest: Digest, row: IndexRow) -> memoryview:
            with self._decoder(pack, digest, row, buffers) as decoder:
                into = buffers.lend(row.raw)
                try:
                    decoder.fill(into, frame_pool())
                except BaseException:
                    buffers.give_back(into)
                    raise
                return into

        return self._first(digest, packs, decode)

    @contextmanager
    def opened(
        self, digest: Digest, packs: Sequence[PackName], buffers: Room
    ) -> Iterator[tuple[Reference, ObjectDecoder]]:
        """Where the object lies; it and its bases as they are stored, not decoded yet. Raises as `read`, and
        so does decoding: the rest of a large one may be gone by then."""

        def begin(pack: PackReader, digest: Digest, row: IndexRow) -> tuple[Reference, ObjectDecoder]:
            found = opened.enter_context(self._decoder(pack, digest, row, buffers))
            return Reference(pack.name, digest), found

        with ExitStack() as opened:
            yield self._first(digest, packs, begin)

    def locate(self, digest: Digest, packs: Sequence[PackName]) -> tuple[PackName, IndexRow]:
        """The first of `packs` whose index has the object. Raises as `read`."""
        return self._first(digest, packs, lambda pack, _, row: (pack.name, row))

    def find(self, digest: Digest, packs: Iterable[PackName]) -> tuple[PackName, IndexRow] | None:
        """As `locate`, None if there is none; a pack that is missing, damaged or out of reach has none."""
        for name in packs:
            try:
                row = self._open(name).index.find(digest)
            except (Damage, StorageFailed):
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
        failure: Damage | StorageFailed | None = None
        for name in packs:
            try:
                pack = self._open(name)
                row = pack.index.find(digest)
                if row is not None:
                    return use(pack, digest, row)
            except MissingPack as error:
                self.forget(name)
                failure = failure or error
            except (Damage, StorageFailed) as error:
                failure = failure or error
        raise failure or MissingObject(digest=digest)

    @contextmanager
    def _decoder(
        self, pack: PackReader, digest: Digest, row: IndexRow, buffers: Room
    ) -> Iterator[ObjectDecoder]:
        # Imported here: much is asked that reads no object.
        from stemmata.codecs.decoding import ObjectDecoder, Stored
        from stemmata.codecs.encoded import Pieces

        lent: list[memoryview] = []
        links: list[tuple[PackReader, Digest, IndexRow]] = []

        def stored(pack: PackReader, digest: Digest, row: IndexRow) -> Stored:
            encoded: memoryview | Pieces
            if row.stored >= _IN_PIECES and self._storage.reads_pieces:
                encoded = Pieces(row.stored, partial(self._read_at, pack, digest, row))
            else:
                encoded = buffers.lend(row.stored)
                lent.append(encoded)
                buffers.read_into(pack, digest, row, encoded)
            links.append((pack, digest, row))
            return Stored(encoded, row.raw, digest, pack.name.hex)

        def stored_base(pack: PackReader, digest: Digest, found: IndexRow) -> Stored:
            if found.raw > _WIDER * row.raw:
                reason = f"{found.raw} bytes are the base of {row.raw}"
                raise HostileData(where=f"object {digest} of pack {pack.name}", reason=reason)
            return stored(pack, digest, found)

        def fetch(base: Reference) -> Stored:
            return self._first(base.digest, [base.pack], stored_base)

        try:
            yield ObjectDecoder(stored(pack, digest, row), fetch)
        except StemmataError:
            # Checksums were left aside, for the digest tells all that they could. Not so after a failure: a
            # damaged byte may look like a newer format, or like the fault of what leans on it.
            for where, found, place in links:
                where.read_row(found, place)
            raise
        finally:
            for view in lent:
                buffers.give_back(view)

    def _read_at(self, pack: PackReader, digest: Digest, row: IndexRow, at: int, into: memoryview) -> None:
        try:
            pack.read_into(digest, row, into, at)
        except MissingPack:
            self.forget(pack.name)  # it was there when its object was opened
            raise

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
