"""Storing: from a listed source to objects and a tree. Owns the one pass over the bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from typing import Any, Protocol

import msgspec
from blake3 import blake3

from stemmata.codecs.buffers import Buffers
from stemmata.codecs.workers import Threads
from stemmata.containers.base import Piece, PlannedSegment
from stemmata.containers.cut import plan
from stemmata.ids import Digest
from stemmata.sources.files import OpenedFile, SourceFile
from stemmata.sources.memory import MemoryFile, OpenedMemory
from stemmata.sources.source import Source, opened
from stemmata.trees import Segment, Tree, TreeFile

_READ_AHEAD = 64 << 20
"""Bytes of two pieces that may be in memory at once; above it the next one waits."""
_IN_FLIGHT = 48 << 20
"""Bytes of pieces that may be on their way to the writer; a longer one is there alone."""
_WORTH_A_THREAD = 256 << 10
"""Bytes from which reading ahead gains more than handing over costs."""

Progress = Callable[[int], None]


class Pending(Protocol):
    """An object that was handed over."""

    def result(self) -> Digest:
        """Wait until its bytes are not needed any more."""
        ...


class Writer(Protocol):
    """Takes objects. `dtype` is safetensors' word, '' for bytes that are no tensor; `candidates` are what
    they may be coded against, `look` what is to be learnt of them. `data` holds still until the answer's
    `result` is there."""

    def submit(self, data: memoryview, dtype: str, candidates: Any, look: Any, /) -> Pending: ...


Alike = Callable[[PlannedSegment], Sequence[Sequence[Any]]]
"""For each piece of a segment, stored objects that it may be coded against: what `Writer.put` takes."""
Looks = Callable[[str, PlannedSegment], Sequence[Any]]
"""For each piece of a segment of a file, what is to be learnt of it."""
Known = Callable[[SourceFile, OpenedFile], "TreeFile | None"]
"""A file that is stored already, as it is; None if it has to be read and cut."""


def planned(source: Source) -> Iterator[PlannedSegment]:
    """How the files of `source` will be cut, by their headers alone. Raises as `store`."""
    for file in source.files:
        with opened(file) as content:
            yield from plan(content, file.size, file.path, source.allow_broken).segments


def store(
    source: Source,
    writer: Writer,
    progress: Progress | None = None,
    alike: Alike | None = None,
    looks: Looks | None = None,
    known: Known | None = None,
) -> Tree:
    """Cut and put every file: a few pieces on their way to the writer, at most one read ahead of them.

    What is `known` is opened and held against its listing, not cut. `progress` gets the bytes of each piece
    once it is stored. Raises SourceChanged, BrokenContainer, UnsupportedFile, and whatever `writer` raises.
    """
    flight = _Flight(
        writer,
        progress,
        alike or (lambda segment: [()] * len(segment.pieces)),
        looks or (lambda _, segment: [None] * len(segment.pieces)),
    )
    with Threads(1, thread_name_prefix="stemmata-read") as reader:
        files = [_store_file(f, source.allow_broken, flight, reader, known) for f in source.files]
    flight.land_all()
    source.verify_unchanged()
    source.remember((f.path, f.digest) for f in files)
    return Tree(files=files, empty_folders=list(source.empty_folders))


class _Flight:
    """Pieces that were read and are not stored yet, in order; their memory is used again."""

    def __init__(self, writer: Writer, progress: Progress | None, alike: Alike, looks: Looks) -> None:
        self.buffers = Buffers()
        self._writer, self._progress, self._alike, self._looks = writer, progress, alike, looks
        self._waiting: deque[tuple[Pending, memoryview, list[str], int]] = deque()
        self._bytes = 0

    def send(self, path: str, segment: PlannedSegment, bodies: Iterator[memoryview]) -> Segment:
        """Hand over a segment's pieces. Its objects' names are complete when everything has landed."""
        objects = [""] * len(segment.pieces)
        looks = self._looks(path, segment)
        for i, near in enumerate(self._alike(segment)):
            data = next(bodies)
            while self._waiting and self._bytes + len(data) > _IN_FLIGHT:
                self._land()
            self._waiting.append((self._writer.submit(data, segment.dtype, near, looks[i]), data, objects, i))
            self._bytes += len(data)
        shape = None if segment.shape is None else list(segment.shape)
        return Segment(segment.length, objects, segment.name, segment.dtype or None, shape)

    def pass_over(self, size: int) -> None:
        """Tell of bytes that need not be handed over."""
        if self._progress is not None:
            self._progress(size)

    def land_all(self) -> None:
        while self._waiting:
            self._land()

    def _land(self) -> None:
        pending, data, objects, i = self._waiting.popleft()
        objects[i] = pending.result().hex
        length = len(data)
        self._bytes -= length
        self.buffers.give_back(data)
        if self._progress is not None:
            self._progress(length)


def _store_file(
    file: SourceFile | MemoryFile,
    allow_broken: bool,
    flight: _Flight,
    reader: Executor,
    known: Known | None,
) -> TreeFile:
    with opened(file) as content:
        stored = None
        if known is not None and isinstance(file, SourceFile) and isinstance(content, OpenedFile):
            stored = known(file, content)
        if stored is not None:
            flight.pass_over(file.size)
            return msgspec.structs.replace(stored, path=file.path, executable=file.executable)
        cut = plan(content, file.size, file.path, allow_broken)
        whole = blake3()
        pieces = [piece for segment in cut.segments for piece in segment.pieces]
        # Closed before the file is: the reader must not meet another file under the same number.
        with closing(_in_order(content, whole, pieces, reader, flight.buffers)) as bodies:
            segments = [flight.send(file.path, segment, bodies) for segment in cut.segments]
        content.verify_unchanged()
    return TreeFile(
        path=file.path,
        size=file.size,
        digest=whole.hexdigest(),
        segments=segments,
        executable=file.executable,
        container=cut.container,
    )


def _in_order(
    content: OpenedFile | OpenedMemory,
    whole: blake3,
    pieces: Sequence[Piece],
    reader: Executor,
    buffers: Buffers,
) -> Generator[memoryview, None, None]:
    """Read piece after piece, hashing the very bytes handed out; the next while one is on its way."""

    def load(piece: Piece) -> memoryview:
        data = content.view(piece.offset, piece.length)
        if data is None:
            data = buffers.lend(piece.length)
            content.read_into(piece.offset, data)
        whole.update(data)
        return data

    ahead: Future[memoryview] | None = None
    try:
        for i, piece in enumerate(pieces):
            data = load(piece) if ahead is None else ahead.result()
            ahead = None
            following = pieces[i + 1].length if i + 1 < len(pieces) else 0
            if following >= _WORTH_A_THREAD and piece.length + following <= _READ_AHEAD:
                ahead = reader.submit(load, pieces[i + 1])
            yield data
    finally:
        if ahead is not None and not ahead.cancel():
            ahead.exception()
