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
from types import TracebackType

import msgspec
from blake3 import blake3

from stemmata.candidates import Candidates
from stemmata.codecs.dtypes import dtype_of
from stemmata.containers.base import MAX_ELEMENTS
from stemmata.ids import Digest
from stemmata.objects import ObjectWriter
from stemmata.seen import LEAST, Seen, begun_at, marks_of
from stemmata.sources import OpenedFile, SourceFile
from stemmata.storage.descriptors import NO_FOLLOW, READ, read_into
from stemmata.surveyor import Surveyor
from stemmata.trees import Tree, TreeFile

_SAFETENSORS = ".safetensors"


class Unread:
    """Answers whether a file of a save is what a file of a parent was."""

    def __init__(
        self, seen: Seen, alike: Candidates, surveyor: Surveyor, writer: ObjectWriter, *, reread: bool = False
    ) -> None:
        """`reread`: all have to be read."""
        self._seen, self._alike, self._surveyor, self._writer = seen, alike, surveyor, writer
        self._reread = reread
        self._begun: dict[str, int] = {}
        """When those that are worth a note began to be read."""
        self._stored: dict[str, TreeFile] | None = None
        self._sizes: frozenset[int] = frozenset()

    def __call__(self, file: SourceFile, content: OpenedFile) -> TreeFile | None:
        """The file as it is stored; None if it has to be read and cut, now. Then nothing has changed."""
        if file.size < LEAST:
            return self._of_content(file, content)
        known = None
        if not self._reread:
            known = self._known(file, self._seen.digest_of(file.real, file.marks))
        if known is None:
            self._begun[file.path] = begun_at(file.real, file.marks)
            self._writer.prepare()
        return known

    def _of_content(self, file: SourceFile, content: OpenedFile) -> TreeFile | None:
        """A small file, which is read: it need not be cut and coded again if a parent has that content."""
        self._by_digest()
        if file.size not in self._sizes:
            return None
        return self._known(file, blake3(content.read_at(0, file.size)).hexdigest())

    def _known(self, file: SourceFile, digest: str | None) -> TreeFile | None:
        known = self._by_digest().get(digest) if digest is not None else None
        if known is None or known.size != file.size or not _is_cut_alike(file.path, known):
            return None
        taken = self._surveyor.unmoved(file.path, known)
        if taken is None:
            return None
        objects = [Digest.parse(text) for segment in known.segments for text in segment.objects]
        if self._writer.holds(objects) != file.size:
            return None
        taken()
        self._alike.pass_over(known.segments)
        return known

    def _by_digest(self) -> dict[str, TreeFile]:
        """The first of the parents' files with each content: looked for once, as there may be very many."""
        if self._stored is None:
            self._stored = {}
            for stored in self._alike.files:
                self._stored.setdefault(stored.digest, stored)
            self._sizes = frozenset(stored.size for stored in self._stored.values())
        return self._stored

    def remember(self, files: Iterable[SourceFile], tree: Tree) -> None:
        """Note those that were read, unchanged since they were listed."""
        digests = {file.path: file.digest for file in tree.files}
        fresh = [file for file in files if file.path in self._begun and file.path in digests]
        for file in fresh:
            self._seen.remember(file.real, file.marks, digests[file.path], self._begun[file.path])
        if fresh:
            self._seen.tidy()


class Held:
    """Files that versions were saved from, opened where something in them is asked for. A context manager;
    safe in any thread."""

    def __init__(self, seen: Seen, files: Callable[[], Iterable[TreeFile]]) -> None:
        """`files`: of the versions that may be leant on, asked for once, if at all."""
        self._seen, self._files = seen, files
        self._lock = threading.Lock()
        self._spots: dict[str, tuple[str, int]] | None = None
        self._open: dict[str, int | None] = {}
        self._refused: set[str] = set()

    def __call__(self, digest: Digest) -> _Place | None:
        """See `objects.choosing.Held`."""
        with self._lock:
            if self._spots is None:
                self._spots = _spots_of(self._files())
            if digest.hex not in self._spots:
                return None
            file, begin = self._spots[digest.hex]
            if file not in self._open:
                self._open[file] = self._opened(file)
            fd = self._open[file]
            return _Place(self, file, fd, begin) if fd is not None and file not in self._refused else None

    def refuse(self, file: str) -> None:
        """Read nothing of it any more. It stays open: others may be reading."""
        with self._lock:
            self._refused.add(file)

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
        except (OSError, ValueError):
            return None  # it was moved, is not ours to read, or the note of it is damaged
        about = os.fstat(fd)
        # Of a file that was rotated away, or written anew, not a byte needs to be read to know it.
        if stat.S_ISREG(about.st_mode) and marks_of(about) == marks:
            return fd
        os.close(fd)
        return None


def _is_cut_alike(path: str, known: TreeFile) -> bool:
    """Whether a file of this name would be cut as it was, and taken: see `containers.cut.plan`."""
    promised = path.casefold().endswith(_SAFETENSORS)
    return promised == known.path.casefold().endswith(_SAFETENSORS) and (
        not promised or known.container == "safetensors"
    )


def _spots_of(files: Iterable[TreeFile]) -> dict[str, tuple[str, int]]:
    """Of each object of a tensor: the digest of a file that holds its bytes, and where they begin in it."""
    found: dict[str, tuple[str, int]] = {}
    for file in files:
        end = 0
        for segment in file.segments:
            begin, end = end, end + segment.length
            if file.size >= LEAST and segment.name is not None and segment.dtype is not None:
                step = MAX_ELEMENTS * dtype_of(segment.dtype).itemsize
                for place, digest in enumerate(segment.objects):
                    found.setdefault(digest, (file.digest, begin + place * step))
    return found


class _Place(msgspec.Struct, frozen=True):
    """Meets `codecs.held.Read`."""

    held: Held
    file: str
    fd: int
    begin: int

    def __call__(self, offset: int, into: memoryview) -> bool:
        try:
            return read_into(self.fd, self.begin + offset, into) == len(into)
        except OSError:
            return False

    def refuse(self) -> None:
        self.held.refuse(self.file)
