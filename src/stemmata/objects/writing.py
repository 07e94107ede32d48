"""Writing: from bytes to a digest. Owns deduplication.

Nothing here is visible to others before a transaction says so; nothing is ever deleted here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.hashing import Buffer, digest_of
from stemmata.codecs.workers import frame_pool
from stemmata.ids import Digest, PackName
from stemmata.objects.reading import ObjectReader
from stemmata.packs import PackSummary, PackWriter
from stemmata.storage.base import Storage

PACK_BYTES = 1 << 30
"""A pack that has grown to this is finished and another begun."""
PACK_OBJECTS = 1 << 20

Candidate = tuple[Digest, Sequence[PackName]]
"""An object that a new one may resemble, and packs that may hold it."""


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

    def put(self, data: Buffer, dtype: DType | str = "", candidates: Sequence[Candidate] = ()) -> Digest:
        """Store `data` unless it is there already. `dtype` may be safetensors' word for it.

        `candidates` are stored objects that it may be coded against.

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
                self._at[digest] = self._find(digest, len(view)) or self._add(digest, view, kind, candidates)
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

    def _add(
        self, digest: Digest, data: memoryview, dtype: DType, candidates: Sequence[Candidate]
    ) -> PackName:
        from stemmata.codecs.objectcode import encode_object
        from stemmata.objects.choosing import choose

        base = choose(data, dtype, candidates, self._reader) if candidates else None
        parts = encode_object(data, dtype, frame_pool(), base)
        if self._open_pack is None:
            self._open_pack = PackWriter(self._storage)
        pack = self._open_pack
        before = pack.size
        pack.add(digest, parts, len(data), base.reference.pack if base is not None else None)
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
