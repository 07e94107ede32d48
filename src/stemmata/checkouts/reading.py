"""Reading: a file's bytes in order, held against its tree. Owns that check for every reader."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import TypeAlias

from blake3 import blake3

from stemmata.errors import DamagedFile
from stemmata.storage.base import Buffer
from stemmata.trees import TreeFile

ReadObject: TypeAlias = Callable[[str], Buffer]
"""The bytes of the object with this digest (hex), decoded and verified. Safe in any thread."""

_READ_AHEAD = 128 << 20
"""Bytes of two objects that may be in memory at once; above it the next one waits."""


def read_file(file: TreeFile, read: ReadObject) -> bytes:
    """All bytes of one file. Raises DamagedFile, and what `read` raises."""
    with closing(bodies_of([file], read)) as bodies:
        return b"".join(bytes(data) for data in verified(file, bodies))


def verified(file: TreeFile, bodies: Iterator[Buffer]) -> Iterator[Buffer]:
    """Pass on the bytes of `file`, taken from `bodies`; at its end its size and digest are right.

    Raises DamagedFile: whoever takes the bytes may show them to nobody before the end.
    """
    whole = blake3()
    done = 0
    for segment in file.segments:
        end = done + segment.length
        for _ in segment.objects:
            data = next(bodies)
            done += memoryview(data).nbytes
            if done > end:
                raise DamagedFile(path=file.path, reason="its objects are longer than it is")
            whole.update(data)
            yield data
        if done != end:
            raise DamagedFile(path=file.path, reason="its objects are shorter than it is")
    if done != file.size:
        raise DamagedFile(path=file.path, reason="its segments do not tile it")
    if whole.hexdigest() != file.digest:
        raise DamagedFile(path=file.path, reason="its digest is not the one of the version")


def bodies_of(files: Iterable[TreeFile], read: ReadObject) -> Generator[Buffer, None, None]:
    """The objects of all `files` in order, the next one read while one is used. Close it."""
    last = ("", 0)
    ahead: Future[Buffer] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="stemmata-checkout") as reader:
        for (digest, length), (following, more) in pairwise((*_objects(files), last)):
            data = read(digest) if ahead is None else ahead.result()
            ahead = None
            if following and length + more <= _READ_AHEAD:
                ahead = reader.submit(read, following)
            yield data
            del data  # else two objects would stay while the next is waited for


def _objects(files: Iterable[TreeFile]) -> Iterator[tuple[str, int]]:
    """(digest, about how many bytes) of every object, in order."""
    for file in files:
        for segment in file.segments:
            for digest in segment.objects:
                yield digest, segment.length // len(segment.objects)
