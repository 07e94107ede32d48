"""Writing: from bytes to a digest. Owns deduplication.

Nothing here is visible to others before a transaction says so; nothing is ever deleted here.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec

from stemmata.codecs import littlecode
from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.frames import most_stored, read_header
from stemmata.codecs.hashing import Buffer, digest_of
from stemmata.codecs.workers import Threads, frame_pool, object_pool
from stemmata.errors import StemmataError
from stemmata.ids import Digest, PackName
from stemmata.objects.reading import ObjectReader
from stemmata.objects.room import Room
from stemmata.objects.surveying import Look, Survey
from stemmata.packs import PackSummary, PackWriter
from stemmata.storage.base import Storage

if TYPE_CHECKING:
    from stemmata.objects.choosing import Chosen, Held

PACK_BYTES = 1 << 30
"""A pack that has grown to this is finished and another begun."""
PACK_OBJECTS = 1 << 20

_CHOOSING = "stemmata.objects.choosing"
"""What brings all that codes along, and numpy where nothing was compiled."""

_WORTH_A_THREAD = 64 << 10
"""Bytes of an object from which coding it beside others gains more than handing over costs."""

_UNWRITTEN = 64 << 20
"""Bytes of objects that are coded or written, above which another one waits."""

Candidate = tuple[Digest, Sequence[PackName]]
"""An object that a new one may resemble, and packs that may hold it."""


class WriterStats(msgspec.Struct):
    """What one writer was given and what it stored. Bytes and counts of objects."""

    objects: int = 0
    bytes_in: int = 0
    objects_new: int = 0
    bytes_new: int = 0
    """Of `bytes_in`, those that were not there before."""
    bytes_stored: int = 0
    """What the new ones take once encoded."""


class _Encoded(msgspec.Struct, frozen=True):
    """An object on its way: `stored` None if `pack` has it already."""

    digest: Digest
    length: int
    pack: PackName | None
    stored: memoryview | None = None
    base: PackName | None = None


class Pending:
    """An object that was handed to a writer."""

    def __init__(self, writer: ObjectWriter, future: Future[_Encoded], length: int) -> None:
        self._writer, self.future, self.length = writer, future, length
        self.written = False

    def result(self) -> Digest:
        """Wait until it is encoded: its bytes are not needed any more. Raises as `put`, also what was raised
        so far by writing those before it."""
        return self._writer._settle(self)


class ObjectWriter:
    """Puts objects into new packs, each content once, in the order in which they are handed over.

    `submit` may be called while earlier ones are coded on other threads, up to three at a time, and written
    on one more, so that coding does not wait for the disk. Memory: the objects that are not written, for each
    what it is encoded to and its base as it is stored, where that is read whole (while it is chosen, two
    candidates), and a few MiB. `lookup` names live packs that may hold a digest; each is asked itself before
    it is relied on. `held` says where the bytes of a stored object may lie too.
    """

    def __init__(
        self,
        storage: Storage,
        lookup: Callable[[Digest], Iterable[PackName]],
        reader: ObjectReader,
        *,
        held: Held | None = None,
        pack_bytes: int = PACK_BYTES,
        pack_objects: int = PACK_OBJECTS,
    ) -> None:
        self.stats = WriterStats()
        self._storage = storage
        self._lookup = lookup
        self._reader = reader
        self._held = held
        self._limits = (pack_bytes, pack_objects)
        self._lock = threading.Condition()
        self._queue: deque[Pending] = deque()
        """What is not written, in order."""
        self._unwritten = 0
        """Bytes of those."""
        self._pen: Threads | None = None
        self._writing = False
        """Whether that thread is at work on the queue."""
        self._failure: BaseException | None = None
        self._buffers = Room()
        self._prepared: Future[ModuleType] | None = None
        self._at: dict[Digest, PackName] = {}
        self._open_pack: PackWriter | None = None
        self._done: list[PackSummary] = []

    @property
    def packs_used(self) -> set[PackName]:
        """Every pack that an object put so far lies in, older ones included."""
        with self._lock:
            return set(self._at.values())

    def prepare(self) -> None:
        """Something large is about to be read, and then handed over: what codes it is imported meanwhile."""
        pool = frame_pool()
        if self._prepared is None and pool is not None and _CHOOSING not in sys.modules:
            self._prepared = pool.submit(import_module, _CHOOSING)

    def put(self, data: Buffer, dtype: DType | str = "", candidates: Sequence[Candidate] = ()) -> Digest:
        """Store `data` unless it is there already. `dtype` may be safetensors' word for it.

        `candidates` are stored objects that it may be coded against.

        Raises ValueError for more than one object may hold, and as storages do, for this object or one before
        it; then only `abort` makes sense.
        """
        pending = self.submit(data, dtype, candidates)
        with self._lock:
            self._lock.wait_for(lambda: pending.written or self._failure is not None)
        return pending.result()

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
        ready = self._prepared is None or self._prepared.done()
        # Until that is imported whoever codes waits for it: another thread, so that this one reads on.
        pool = object_pool() if len(view) >= _WORTH_A_THREAD or not ready else None
        with self._lock:
            self._lock.wait_for(lambda: self._unwritten <= _UNWRITTEN or self._failure is not None)
            self._require_no_failure()
        future: Future[_Encoded]
        if pool is not None:
            future = pool.submit(self._encode, view, kind, candidates, look)
        else:
            future = Future()
            future.set_result(self._encode(view, kind, candidates, look))
        pending = Pending(self, future, len(view))
        with self._lock:
            if pool is None and not self._queue:
                self._write(future.result())  # nothing is under way: another thread would not gain anything
                pending.written = True
                return pending
            self._queue.append(pending)
            self._unwritten += pending.length
            if not self._writing:
                self._take_up()
        return pending

    def holds(self, digests: Sequence[Digest]) -> int | None:
        """Bytes of these objects, if all are stored: they count as put then. None else."""
        with self._lock:
            found = [(d, self._reader.find(d, self._lookup(d))) for d in digests]
            rows = [(digest, *place) for digest, place in found if place is not None]
            if len(rows) < len(digests):
                return None
            for digest, pack, row in rows:
                self._at.setdefault(digest, pack)
                self.stats.bytes_in += row.raw
            self.stats.objects += len(rows)
            return sum(row.raw for _, _, row in rows)

    def finish(self) -> list[PackSummary]:
        """Make all new packs durable and name them; none if everything was there already (I1)."""
        with self._lock:
            self._lock.wait_for(lambda: not self._writing)
            self._require_no_failure()
            self._put_down()
            self._close_pack()
            return list(self._done)

    def abort(self) -> None:
        """Drop the pack that is being written. Finished ones stay, unnamed by any log."""
        with self._lock:
            left = [pending.future for pending in self._queue if not pending.future.cancel()]
            self._failure = self._failure or RuntimeError("what was to be written was given up")
            self._lock.wait_for(lambda: not self._writing)
            self._put_down()
            self._queue.clear()
            wait(left)  # they read from the storage
            pack, self._open_pack = self._open_pack, None
            if pack is not None:
                pack.abort()

    def _take_up(self) -> None:
        self._writing = True
        try:
            self._pen = self._pen or Threads(1, thread_name_prefix="stemmata-write")
            self._pen.submit(self._write_all)
        except BaseException as error:
            # None could be had, or who waited for it was interrupted: one that began finds this, and ends.
            self._failure = self._failure or error
            self._writing = False
            if self._pen is not None:
                self._pen.shutdown(wait=False)
                self._pen = None
            raise

    def _put_down(self) -> None:
        if self._pen is not None:
            self._pen.shutdown()
            self._pen = None

    def _require_no_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _settle(self, pending: Pending) -> Digest:
        digest = pending.future.result().digest
        with self._lock:
            self._require_no_failure()
        return digest

    def _write_all(self) -> None:
        """On the thread that writes: object after object, until nothing is left or one fails."""
        while True:
            with self._lock:
                if not self._queue or self._failure is not None:
                    self._writing = False
                    self._lock.notify_all()
                    return
                pending = self._queue[0]
            try:
                self._write(pending.future.result())
            except BaseException as error:  # noqa: BLE001
                with self._lock:
                    self._failure = error  # whoever waits for anything is told
            with self._lock:
                self._queue.popleft()
                self._unwritten -= pending.length
                pending.written = self._failure is None
                self._lock.notify_all()

    def _write(self, encoded: _Encoded) -> None:
        """Write an object; one at a time."""
        with self._lock:  # `holds` counts too
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
                survey = Survey(look, dtype, data, self._reader, self._buffers, self._held)
        pack = self._at.get(digest) or self._find(digest, len(data))
        if pack is not None:
            if survey is not None:
                survey.whole()
            return _Encoded(digest, len(data), pack)
        if not candidates and survey is None and littlecode.suits(len(data), dtype):
            return _Encoded(digest, len(data), None, memoryview(littlecode.encode(data, dtype)))
        from stemmata.objects.choosing import chosen

        room = self._buffers.lend(most_stored(len(data), dtype))
        try:
            against = look.against if survey is not None and look is not None else None
            with chosen(data, dtype, candidates, self._reader, self._buffers, against, self._held) as found:
                stored = _coded(data, dtype, found, room, survey)
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
    from stemmata.codecs.held import Elsewhere
    from stemmata.codecs.objectcode import encode_object

    def coded(way: Chosen) -> memoryview:
        if survey is None:
            return encode_object(data, dtype, frame_pool(), way.base, way.plan, room)
        with survey.watching(way.base, way.kept) as watch:
            return encode_object(data, dtype, frame_pool(), way.base, way.plan, room, watch)

    *before, last = found.ways()
    for way in before:
        # Only the base can be at fault. Nothing is built on damage; `check` will tell of it.
        with suppress(Elsewhere, StemmataError):
            return coded(way)
    return coded(last)
