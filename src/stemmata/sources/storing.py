"""Storing: from a listed source to objects and a tree. Owns the one pass over the bytes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Protocol

from blake3 import blake3

from stemmata.containers.base import Piece, PlannedSegment
from stemmata.containers.cut import plan
from stemmata.ids import Digest
from stemmata.sources.files import OpenedFile, SourceFile
from stemmata.sources.memory import MemoryFile, OpenedMemory
from stemmata.sources.source import Source, opened
from stemmata.storage.base import Buffer
from stemmata.trees import Segment, Tree, TreeFile

_READ_AHEAD = 128 << 20
"""Bytes of two pieces that may be in memory at once; above it the next one waits."""
_WORTH_A_THREAD = 256 << 10
"""Bytes from which reading ahead gains more than handing over costs."""

Progress = Callable[[int], None]


class Writer(Protocol):
    """Takes objects. `dtype` is safetensors' word, '' for bytes that are no tensor; `candidates` are what
    they may be coded against."""

    def put(self, data: Buffer, dtype: str, candidates: Any, /) -> Digest: ...


Alike = Callable[[PlannedSegment], Sequence[Sequence[Any]]]
"""For each piece of a segment, stored objects that it may be coded against: what `Writer.put` takes."""


def planned(source: Source) -> Iterator[PlannedSegment]:
    """How the files of `source` will be cut, by their headers alone. Raises as `store`."""
    for file in source.files:
        with opened(file) as reader:
            yield from plan(reader, file.size, file.path, source.allow_broken).segments


def store(
    source: Source, writer: Writer, progress: Progress | None = None, alike: Alike | None = None
) -> Tree:
    """Cut and put every file, one piece in memory and at most one read ahead.

    `progress` gets the bytes of each piece once it is stored. Raises SourceChanged,
    BrokenContainer, UnsupportedFile, and whatever `writer` raises.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="stemmata-read") as reader:
        files = [_store_file(f, source.allow_broken, writer, progress, reader, alike) for f in source.files]
    source.verify_unchanged()
    source.remember((f.path, f.digest) for f in files)
    return Tree(files=files, empty_folders=list(source.empty_folders))


def _store_file(
    file: SourceFile | MemoryFile,
    allow_broken: bool,
    writer: Writer,
    progress: Progress | None,
    reader: ThreadPoolExecutor,
    alike: Alike | None,
) -> TreeFile:
    with opened(file) as content:
        cut = plan(content, file.size, file.path, allow_broken)
        whole = blake3()
        pieces = [piece for segment in cut.segments for piece in segment.pieces]
        # Closed before the file is: the reader must not meet another file under the same number.
        with closing(_in_order(content, whole, pieces, reader)) as bodies:
            segments = [_store_segment(s, bodies, writer, progress, alike) for s in cut.segments]
        content.verify_unchanged()
    return TreeFile(
        path=file.path,
        size=file.size,
        digest=whole.hexdigest(),
        segments=segments,
        executable=file.executable,
        container=cut.container,
    )


def _store_segment(
    segment: PlannedSegment,
    bodies: Iterator[Buffer],
    writer: Writer,
    progress: Progress | None,
    alike: Alike | None,
) -> Segment:
    objects = []
    candidates = alike(segment) if alike is not None else [()] * len(segment.pieces)
    for piece, near in zip(segment.pieces, candidates, strict=True):
        objects.append(writer.put(next(bodies), segment.dtype, near).hex)
        if progress is not None:
            progress(piece.length)
    if segment.name is None:
        return Segment(length=segment.length, objects=objects)
    return Segment(segment.length, objects, segment.name, segment.dtype, list(segment.shape or ()))


def _in_order(
    content: OpenedFile | OpenedMemory, whole: blake3, pieces: Sequence[Piece], reader: ThreadPoolExecutor
) -> Generator[Buffer, None, None]:
    """Read piece after piece, hashing the very bytes handed out; the next while one is stored."""

    def load(piece: Piece) -> Buffer:
        data = content.read_piece(piece.offset, piece.length)
        whole.update(data)
        return data

    ahead: Future[Buffer] | None = None
    try:
        for i, piece in enumerate(pieces):
            data = load(piece) if ahead is None else ahead.result()
            ahead = None
            following = pieces[i + 1].length if i + 1 < len(pieces) else 0
            if following >= _WORTH_A_THREAD and piece.length + following <= _READ_AHEAD:
                ahead = reader.submit(load, pieces[i + 1])
            yield data
            del data  # else two pieces would stay while the next is waited for
    finally:
        if ahead is not None and not ahead.cancel():
            ahead.exception()
