"""Pouring: one file's frames decoded straight into it. Owns that what a file's digest proves is hashed once.

A frame is decoded into a few hundred KiB that stay in the processor's cache, hashed there and written from
there when those before it have been: two that write to one file at once wait for each other. No object is
ever whole in memory, and none is held against its own digest: the file's covers every byte. Where anything is
wrong, the caller reads the file object by object, which names the damage or finds another pack that is sound.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, suppress
from queue import SimpleQueue
from typing import Protocol

from blake3 import blake3

from stemmata.codecs.dtypes import MAX_FRAME_BYTES
from stemmata.codecs.frames import Frame
from stemmata.codecs.workers import Threads, frame_pool
from stemmata.errors import StemmataError
from stemmata.storage.descriptors import begin_sync, write_at
from stemmata.trees import TreeFile

LEAST = 1 << 20
"""Bytes of a file for which this is worth its while."""
_AHEAD = 16 << 20
"""Bytes that the disk is told of at once."""
_SLOTS = 16
"""Frames on their way: enough to read the next object meanwhile, few enough to stay in the cache."""


class Decoder(Protocol):
    """One object that can be decoded frame by frame, unverified; see `codecs.decoding`."""

    @property
    def length(self) -> int: ...

    @property
    def frames(self) -> Sequence[Frame]: ...

    def decode_into(self, frame: Frame, into: memoryview) -> None: ...


Open = Callable[[str], AbstractContextManager[Decoder]]
"""The object with this digest (hex), as it is stored."""


def pour(file: TreeFile, fd: int, opened: Open, progress: Callable[[int], None]) -> bool:
    """Fill an empty file. False if its digest came out wrong, or something could not be decoded: it holds
    rubbish then. `progress` gets the bytes of each object. Raises OSError where writing fails."""
    stream = _Stream(fd)
    held: deque[ExitStack] = deque()
    try:
        for segment in file.segments:
            end = stream.taken + segment.length
            for digest in segment.objects:
                held.append(ExitStack())
                decoder = held[-1].enter_context(opened(digest))
                if stream.taken + decoder.length > end:
                    return False
                stream.add(decoder)
                progress(decoder.length)
                if len(held) > 1:
                    stream.settle(keep=len(decoder.frames))
                    held.popleft().close()
            if stream.taken != end:
                return False
        stream.settle()
    except StemmataError:
        return False
    finally:
        # Whatever happened: nobody decodes any more when memory is given back.
        stream.stop()
        for each in held:
            each.close()
    return stream.taken == file.size and stream.hexdigest() == file.digest


class _Stream:
    """Frames on their way into a file, hashed and written in its order by whichever thread is at hand."""

    def __init__(self, fd: int) -> None:
        self.taken = 0
        """Bytes handed over so far."""
        self._fd = fd
        self._pool = frame_pool()
        self._whole = blake3()
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        for _ in range(_SLOTS):
            self._free.put(memoryview(bytearray(MAX_FRAME_BYTES)))
        self._lock = threading.Lock()
        self._ready: dict[int, tuple[memoryview, memoryview]] = {}
        self._next = 0
        self._draining = False
        self._ahead = _Ahead(fd)
        self._under_way: deque[Future[None]] = deque()

    def add(self, decoder: Decoder) -> None:
        """Hand over an object's frames. Raises what decoding or writing any before them raised."""
        begin = self.taken
        for frame in decoder.frames:
            slot = self._free.get()
            if slot is None:
                self.settle()
                return
            at = begin + frame.raw_offset
            if self._pool is None:
                self._take(decoder, frame, slot, at)
            else:
                self._under_way.append(self._pool.submit(self._take, decoder, frame, slot, at))
        self.taken = begin + decoder.length

    def settle(self, keep: int = 0) -> None:
        """Wait for all frames but the last `keep`. Raises as `add`."""
        while len(self._under_way) > keep:
            self._under_way.popleft().result()

    def stop(self) -> None:
        """Nothing is under way any more after this."""
        wait([future for future in self._under_way if not future.cancel()])
        self._under_way.clear()
        self._ahead.stop()

    def hexdigest(self) -> str:
        return self._whole.hexdigest()

    def _take(self, decoder: Decoder, frame: Frame, slot: memoryview, at: int) -> None:
        part = slot[: frame.raw_length]
        try:
            decoder.decode_into(frame, part)
            with self._lock:
                self._ready[at] = slot, part
                if self._draining:
                    return
                self._draining = True
            self._drain()
        except BaseException:
            self._free.put(None)  # whoever waits for a slot learns of it
            raise

    def _drain(self) -> None:
        """All frames that are next, one after the other. Where writing fails nobody drains any more."""
        while True:
            with self._lock:
                found = self._ready.pop(self._next, None)
                if found is None:
                    self._draining = False
                    return
            slot, part = found
            self._whole.update(part)
            write_at(self._fd, part, self._next)
            self._next += len(part)
            self._free.put(slot)
            self._ahead.written(self._next)


class _Ahead:
    """Lets the disk begin with a file while the rest is decoded: less is left then for whoever waits for it.

    On a thread of its own, piece after piece: where the disk is slow that one falls behind, and nobody else.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = 0
        self._thread: Threads | None = None
        self._call: Future[None] | None = None

    def written(self, end: int) -> None:
        """All of the file before `end` is. Never called by two at once."""
        if end - self._begun < _AHEAD or (self._call is not None and not self._call.done()):
            return
        self._thread = self._thread or Threads(1, thread_name_prefix="stemmata-disk")
        with suppress(RuntimeError):  # no thread is to be had: it is a hint
            self._call = self._thread.submit(begin_sync, self._fd, self._begun, _AHEAD)
        self._begun += _AHEAD

    def stop(self) -> None:
        """The descriptor is not used any more after this."""
        if self._thread is not None:
            self._thread.shutdown()
