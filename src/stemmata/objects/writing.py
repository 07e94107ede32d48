"""Writing: from bytes to a digest. Owns deduplication.

Nothing here is visible to others before a transaction says so; nothing is ever deleted here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.hashing import Buffer, digest_of
from stemmata.codecs.workers import frame_pool, object_pool
from stemmata.errors import StemmataError
from stemmata.ids import Digest, PackName
from stemmata.objects.reading import ObjectReader
from stemmata.objects.room import Room
from stemmata.objects.surveying import Look, Survey
from stemmata.packs import PackSummary, PackWriter
from stemmata.storage.base import Storage

if TYPE_CHECKING:
    from stemmata.objects.choosing import Chosen

PACK_BYTES = 1 << 30
"""A pack that has grown to this is finished and another begun."""
PACK_OBJECTS = 1 << 20

_WORTH_A_THREAD = 64 << 10
"""Bytes of an object from which coding it beside others gains more than handing over costs."""

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


@dataclass(frozen=True, slots=True)
class _Encoded:
    """An object on its way: `stored` None if `pack` has it already."""

    digest: Digest
    length: int
    pack: PackName | None
    stored: memoryview | None = None
    base: PackName | None = None


class Pending:
    """An object that was handed to a writer."""

    def __init__(self, writer: ObjectWriter, future: Future[_Encoded]) -> None:
        self._writer, self.future = writer, future
        self.written = False

    def result(self) -> Digest:
        """Wait until it is written, and all before it; its bytes are not needed any more. Raises as `put`."""
        return self._writer._settle(self)


class ObjectWriter:
    """Puts objects into new packs, each content once, in the order in which they are handed over.

    `submit` may be called while earlier ones are coded on other threads, up to two at a time. Memory: the
    objects that are not settled, for each what it is encoded to and its base as it is stored, where that is
    read whole (while it is chosen, two candidates), and a few MiB. `lookup` names live packs that may hold
    a digest; each is asked itself before it is relied on.
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
        self._lock = threading.RLock()
        self._queue: deque[Pending] = deque()
        self._buffers = Room()
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
        return self.submit(data, dtype, candidates).result()

    def submit(
        self,
        data: Buffer,
        dtype: DType | str = "",
        candidates: Sequence[Candidate] = (),
        look: Look | None = None,
    ) -> Pending:
        """As `put`, which waits: `data` must not change until the answer's `result` is there. By then `look`
        has been answered.

        Raises ValueError as `put`; what else may fail is raised by `result`.
        """
        kind = dtype_of(dtype) if isinstance(dtype, str) else dtype
        view = memoryview(data).cast("B")
        if len(view) > kind.max_object_bytes:
            raise ValueError(
                f"an object of {kind.word} is at most {kind.max_object_bytes} bytes, not {len(view)}"
            )
        pool = object_pool() if len(view) >= _WORTH_A_THREAD else None
        with self._lock:
            if pool is not None:
                future = pool.submit(self._encode, view, kind, candidates, look)
            else:
                encoded = self._encode(view, kind, candidates, look)
                future = Future()
                future.set_result(encoded)
            pending = Pending(self, future)
            self._queue.append(pending)
            return pending

    def finish(self) -> list[PackSummary]:
        """Make all new packs durable and name them; none if everything was there already (I1)."""
        with self._lock:
            while self._queue:
                self._write_next()
            self._close_pack()
            return list(self._done)

    def abort(self) -> None:
        """Drop the pack that is being written. Finished ones stay, unnamed by any log."""
        with self._lock:
            left = [pending.future for pending in self._queue if not pending.future.cancel()]
            self._queue.clear()
            wait(left)  # they read from the storage
            pack, self._open_pack = self._open_pack, None
            if pack is not None:
                pack.abort()

    def _settle(self, pending: Pending) -> Digest:
        with self._lock:
            while not pending.written:
                self._write_next()
            return pending.future.result().digest

    def _write_next(self) -> None:
        """Write the object that was handed over first of those that are not written."""
        encoded = self._queue[0].future.result()
        self._queue.popleft().written = True
        self.stats.objects += 1
        self.stats.bytes_in += encoded.length
        if encoded.stored is None:
            if encoded.pack is not None:
                self._at.setdefault(encoded.digest, encoded.pack)
            return
        try:
            if encoded.digest not in self._at:
                self._add(encoded, encoded.stored)
        finally:
            self._buffers.give_back(encoded.stored)

    def _add(self, encoded: _Encoded, stored: memoryview) -> None:
        if self._open_pack is None:
            self._open_pack = PackWriter(self._storage)
        pack = self._open_pack
        before = pack.size
        pack.add(encoded.digest, [stored], encoded.length, encoded.base)
        self._at[encoded.digest] = pack.name
        self.stats.objects_new += 1
        self.stats.bytes_new += encoded.length
        self.stats.bytes_stored += pack.size - before
        if pack.size >= self._limits[0] or len(pack) >= self._limits[1]:
            self._close_pack()

    # --- on any thread --------------------------------------------------------------------------

    def _encode(
        self, data: memoryview, dtype: DType, candidates: Sequence[Candidate], look: Look | None
    ) -> _Encoded:
        digest = digest_of(data)
        survey = None
        if look is not None and len(data) and not len(data) % dtype.itemsize:
            look.same = digest == look.against and look.like in (None, dtype)
            if not (look.same and look.known):
                survey = Survey(look, dtype, len(data), self._reader, self._buffers)
        pack = self._at.get(digest) or self._find(digest, len(data))
        if pack is not None:
            if survey is not None:
                survey.whole(data)
            return _Encoded(digest, len(data), pack)
        from stemmata.codecs.frames import read_header
        from stemmata.codecs.objectcode import most_stored
        from stemmata.objects.choosing import chosen

        room = self._buffers.lend(most_stored(len(data), dtype))
        try:
            against = look.against if survey is not None and look is not None else None
            with chosen(data, dtype, candidates, self._reader, self._buffers, against) as found:
                try:
                    stored = _coded(data, dtype, found, room, survey)
                except StemmataError:
                    # Only the base can be at fault. Nothing is built on damage; `check` will tell of it.
                    stored = _coded(data, dtype, found.without_base(), room, survey)
        except BaseException:
            self._buffers.give_back(room)
            raise
        self._buffers.instead(room, stored)
        leans = read_header(stored).references
        return _Encoded(digest, len(data), None, stored, leans[0].pack if leans else None)

    def _find(self, digest: Digest, length: int) -> PackName | None:
        found = self._reader.find(digest, self._lookup(digest))
        return found[0] if found is not None and found[1].raw == length else None

    def _close_pack(self) -> None:
        pack = self._open_pack
        if pack is not None:
            self._done.append(pack.commit())
            self._open_pack = None


def _coded(
    data: memoryview, dtype: DType, found: Chosen, room: memoryview, survey: Survey | None
) -> memoryview:
    from stemmata.codecs.objectcode import encode_object

    if survey is None:
        return encode_object(data, dtype, frame_pool(), found.base, found.plan, room)
    with survey.watching(found.base, found.kept) as watch:
        return encode_object(data, dtype, frame_pool(), found.base, found.plan, room, watch)
