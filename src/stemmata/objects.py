"""Objects: from a digest to verified bytes, and from bytes to a digest. Owns deduplication.

Nothing here is visible to others before a transaction says so; nothing is ever deleted here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.hashing import Buffer, digest_of
from stemmata.codecs.workers import frame_pool
from stemmata.errors import Damage, MissingObject, MissingPack
from stemmata.ids import Digest, PackName
from stemmata.packs import IndexRow, PackReader, PackSummary, PackWriter
from stemmata.storage.base import Storage
from stemmata.storage.forks import held_at_forks

PACK_BYTES = 1 << 30
"""A pack that has grown to this is finished and another begun."""
PACK_OBJECTS = 1 << 20
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
        # Imported here: numpy costs a tenth of a second, and much is asked that reads no object.
        from stemmata.codecs.objectcode import decode_object

        encoded = pack.read_row(digest, row)
        return decode_object(
            encoded, raw_length=row.raw, digest=digest, where=pack.name.hex, threads=frame_pool()
        )

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


@dataclass(slots=True)
class WriterStats:
    """What one writer was given and what it stored. Bytes and counts of objects."""

    objects: int = 0
    bytes_in: int = 0
    objects_new: int = 0
    bytes_new: int = 0
    """Of `bytes_in`, those that were not there before."""
    bytes_stored: int = 0
    """What the new ones take once encoded."""


class ObjectWriter:
    """Puts objects into new packs, each content once. One object at a time, from any thread.

    Memory: the object that is put, its encoded form and a few MiB. `lookup` names live packs that
    may hold a digest; each is asked itself before it is relied on.
    """

    def __init__(
        self,
        storage: Storage,
        lookup: Callable[[Digest], Iterable[PackName]],
        reader: ObjectReader,
        *,
        pack_bytes: int = PACK_BYTES,
        pack_objects: int = PACK_OBJECTS,
    ) -> None:
        self.stats = WriterStats()
        self._storage = storage
        self._lookup = lookup
        self._reader = reader
        self._limits = (pack_bytes, pack_objects)
        self._lock = threading.Lock()
        self._at: dict[Digest, PackName] = {}
        self._open_pack: PackWriter | None = None
        self._done: list[PackSummary] = []

    @property
    def packs_used(self) -> set[PackName]:
        """Every pack that an object put so far lies in, older ones included."""
        with self._lock:
            return set(self._at.values())

    def put(self, data: Buffer, dtype: DType | str = "") -> Digest:
        """Store `data` unless it is there already. `dtype` may be safetensors' word for it.

        Raises ValueError for more than one object may hold, and as storages do; then only `abort`
        makes sense.
        """
        kind = dtype_of(dtype) if isinstance(dtype, str) else dtype
        view = memoryview(data).cast("B")
        digest = digest_of(view)
        with self._lock:
            self.stats.objects += 1
            self.stats.bytes_in += len(view)
            if digest not in self._at:
                self._at[digest] = self._find(digest, len(view)) or self._add(digest, view, kind)
        return digest

    def finish(self) -> list[PackSummary]:
        """Make all new packs durable and name them; none if everything was there already (I1)."""
        with self._lock:
            self._close_pack()
            return list(self._done)

    def abort(self) -> None:
        """Drop the pack that is being written. Finished ones stay, unnamed by any log."""
        with self._lock:
            pack, self._open_pack = self._open_pack, None
            if pack is not None:
                pack.abort()

    def _find(self, digest: Digest, length: int) -> PackName | None:
        found = self._reader.find(digest, self._lookup(digest))
        return found[0] if found is not None and found[1].raw == length else None

    def _add(self, digest: Digest, data: memoryview, dtype: DType) -> PackName:
        from stemmata.codecs.objectcode import encode_object

        parts = encode_object(data, dtype, frame_pool())
        if self._open_pack is None:
            self._open_pack = PackWriter(self._storage)
        pack = self._open_pack
        before = pack.size
        pack.add(digest, parts, len(data))
        self.stats.objects_new += 1
        self.stats.bytes_new += len(data)
        self.stats.bytes_stored += pack.size - before
        if pack.size >= self._limits[0] or len(pack) >= self._limits[1]:
            self._close_pack()
        return pack.name

    def _close_pack(self) -> None:
        pack = self._open_pack
        if pack is not None:
            self._done.append(pack.commit())
            self._open_pack = None
