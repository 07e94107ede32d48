"""Unread: what a save knows of files without reading them. Owns which files need not be read, and where the
bytes of stored tensors still lie.

A file that was read before and has not been touched since is stored already, if its content is that of a
parent. And the files that the parents were saved from mostly still lie there: what is coded against them
is coded against those bytes, held against their digests, so that nothing has to be decoded.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType

from stemmata.candidates import Candidates
from stemmata.ids import Digest
from stemmata.objects import ObjectWriter
from stemmata.seen import LEAST, Seen, marks_of
from stemmata.sources import SourceFile
from stemmata.storage.descriptors import NO_FOLLOW, READ, read_into
from stemmata.surveyor import Surveyor
from stemmata.trees import Tree, TreeFile


class Unread:
    """Answers whether a file of a save is what a file of a parent was."""

    def __init__(self, seen: Seen, alike: Candidates, surveyor: Surveyor, writer: ObjectWriter) -> None:
        self._seen, self._alike, self._surveyor, self._writer = seen, alike, surveyor, writer
        self._unread: set[str] = set()

    def __call__(self, file: SourceFile) -> TreeFile | None:
        """The file as it is stored; None if it has to be read. Then nothing has changed."""
        if file.size < LEAST:
            return None
        digest = self._seen.digest_of(file.real, file.seen_as)
        known = self._alike.file_of(digest) if digest is not None else None
        if known is None or known.size != file.size:
            return None
        taken = self._surveyor.unmoved(file.path, known)
        if taken is None:
            return None
        objects = [Digest.parse(text) for segment in known.segments for text in segment.objects]
        if self._writer.holds(objects) != file.size:
            return None
        taken()
        self._alike.pass_over(known.segments)
        self._unread.add(file.path)
        return known

    def remember(self, files: Iterable[SourceFile], tree: Tree, begun_ns: int) -> None:
        """Note those that were read, which began at `begun_ns`, unchanged since they were listed."""
        digests = {file.path: file.digest for file in tree.files}
        fresh = [f for f in files if f.size >= LEAST and f.path in digests and f.path not in self._unread]
        for file in fresh:
            self._seen.remember(file.real, file.seen_as, digests[file.path], begun_ns)
        if fresh:
            self._seen.tidy()


class Held:
    """Files that versions were saved from, opened where something in them is asked for. A context manager;
    safe in any thread."""

    def __init__(self, seen: Seen, alike: Callable[[Digest], tuple[str, int] | None]) -> None:
        """`alike`: the digest of a file that holds a stored object's bytes, and where in it."""
        self._seen, self._alike = seen, alike
        self._lock = threading.Lock()
        self._open: dict[str, int | None] = {}

    def __call__(self, digest: Digest) -> Callable[[int, memoryview], bool] | None:
        """See `objects.choosing.Held`."""
        spot = self._alike(digest)
        if spot is None:
            return None
        file, begin = spot
        with self._lock:
            if file not in self._open:
                self._open[file] = self._opened(file)
            fd = self._open[file]
        return partial(_read, fd, begin) if fd is not None else None

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            for fd in self._open.values():
                if fd is not None:
                    os.close(fd)
            self._open.clear()

    def _opened(self, digest: str) -> int | None:
        place = self._seen.place_of(digest)
        if place is None:
            return None
        path, marks = place
        try:
            fd = os.open(path, READ | NO_FOLLOW)
        except OSError:
            return None  # it was moved, or is not ours to read
        about = os.fstat(fd)
        # Of a file that was rotated away, or written anew, not a byte needs to be read to know it.
        if stat.S_ISREG(about.st_mode) and marks_of(about) == marks:
            return fd
        os.close(fd)
        return None


def _read(fd: int, begin: int, offset: int, into: memoryview) -> bool:
    try:
        return read_into(fd, begin + offset, into) == len(into)
    except OSError:
        return False
