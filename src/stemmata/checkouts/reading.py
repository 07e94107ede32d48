"""Reading: a file's bytes in order, held against its tree. Owns that check for every reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import TypeAlias

from blake3 import blake3

from stemmata.codecs.workers import Threads
from stemmata.errors import DamagedFile
from stemmata.storage.base import Buffer
from stemmata.trees import TreeFile

ReadObject: TypeAlias = Callable[[str], Buffer]
"""The bytes of the object with this digest (hex), decoded and verified. Safe in any thread.

If it has a `give_back`, that is told when what was read is not needed any more."""


def _keep(data: Buffer) -> None:
    """What was read is the caller's own."""


_READ_AHEAD = 64 << 20
"""Bytes of objects that may be in memory at once; above it the next one waits."""
_READERS = 2
"""Objects that are read at once, beside the one in use."""


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
    """The objects of all `files` in order, the next ones read while one is used. Close it."""
    give_back: Callable[[Buffer], None] = getattr(read, "give_back", _keep)
    waiting = _objects(files)
    ahead: deque[tuple[Future[Buffer], int]] = deque()
    following = next(waiting, None)
    with Threads(_READERS, thread_name_prefix="stemmata-checkout") as readers:
        while following is not None or ahead:
            held = sum(length for _, length in ahead)
            while following is not None and (
                not ahead or (len(ahead) <= _READERS and held + following[1] <= _READ_AHEAD)
            ):
                ahead.append((readers.submit(read, following[0]), following[1]))
                held += following[1]
                following = next(waiting, None)
            data = ahead[0][0].result()
            yield data
            give_back(data)
            del data  # else it would stay while the next is waited for
            ahead.popleft()


def _objects(files: Iterable[TreeFile]) -> Iterator[tuple[str, int]]:
    """(digest, about how many bytes) of every object, in order."""
    for file in files:
        for segment in file.segments:
            for digest in segment.objects:
                yield digest, segment.length // len(segment.objects)
