"""Folders: files that lie outside of any repository, cut as a save cuts them, by the digests of their pieces.

Owns which files are looked at: every ordinary file below a folder, through links to files, not to folders,
and none in a repository. What cannot be read is passed over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from stemmata import sources
from stemmata.codecs.buffers import Buffers
from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.hashing import Buffer
from stemmata.containers.base import MAX_ELEMENTS
from stemmata.containers.chunks import CHUNK
from stemmata.containers.cut import plan
from stemmata.errors import StemmataError
from stemmata.ids import Digest
from stemmata.recording import leave_out
from stemmata.records import Content
from stemmata.seen import marks_of
from stemmata.sources.files import OpenedFile, SourceFile
from stemmata.trees import Segment, Tree, TreeFile, content_of


class _Place(NamedTuple):
    """A piece of a file."""

    file: SourceFile
    offset: int
    length: int
    dtype: str


class FolderSource:
    """A folder, or a single file. All is read once, when it is asked first; what is taken is read again."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._path = path
        self._read = False
        self._places: dict[Digest, _Place] = {}
        self._files: dict[Path, tuple[SourceFile, TreeFile]] = {}
        self._by_content: dict[str, SourceFile] = {}

    def find(self, digest: Digest) -> tuple[Buffer, DType] | None:
        self._look()
        place = self._places.get(digest)
        if place is None:
            return None
        into = memoryview(bytearray(place.length))
        with OpenedFile(place.file) as content:
            content.read_into(place.offset, into)
        return into, dtype_of(place.dtype)

    def expect(self, tree: Tree, wanted: Set[Digest]) -> bool:
        self._look()
        found = False
        for file in tree.files:
            here = self._by_content.get(file.digest)
            if here is None or here.size != file.size:
                continue
            offset = 0
            for segment in file.segments:
                for at, (text, length) in enumerate(_lengths(segment)):
                    if (digest := Digest.parse(text)) in wanted:
                        begin = offset + at * _step(segment)
                        self._places.setdefault(digest, _Place(here, begin, length, segment.dtype or ""))
                        found = True
                offset += segment.length
        return found

    def tree_of(self, content: Content) -> Tree | None:
        """The folder itself, one below it, or a single file: all that lies there, or what a save takes."""
        self._look()
        for folder in self._candidates(content):
            for include, without in (((), leave_out), (("*",), None)):
                try:
                    listed = sources.scan(folder, include=include, leave_out=without)
                except StemmataError:
                    continue
                files = [self._renamed(file) for file in listed.on_disk]
                tree = Tree([f for f in files if f is not None], list(listed.empty_folders))
                if len(tree.files) == len(files) and content_of(tree) == content:
                    return tree
        return None

    def _candidates(self, content: Content) -> Iterator[Path]:
        counts: dict[Path, int] = {}
        root = self._path.resolve()
        for path in self._files:
            if content.files == 1:
                yield path
            for folder in path.parents:
                counts[folder] = counts.get(folder, 0) + 1
                if folder == root:
                    break
        yield from (f for f, n in counts.items() if n >= content.files and f.is_relative_to(root))

    def _renamed(self, file: SourceFile) -> TreeFile | None:
        known = self._files.get(file.real)
        if known is None or known[0].marks != file.marks:
            return None
        cut = known[1]
        return TreeFile(file.path, cut.size, cut.digest, cut.segments, file.executable, cut.container)

    def _look(self) -> None:
        if self._read:
            return
        self._read = True
        buffers = Buffers()
        for file in _files(self._path):
            try:
                self._take(file, buffers)
            except StemmataError:
                continue  # it changes just now, or cannot be read

    def _take(self, file: SourceFile, buffers: Buffers) -> None:
        places: dict[Digest, _Place] = {}
        whole, segments = blake3(), []
        with OpenedFile(file) as content:
            cut = plan(content, file.size, file.path, allow_broken=True)
            for segment in cut.segments:
                objects = []
                for piece in segment.pieces:
                    data = buffers.lend(piece.length)
                    content.read_into(piece.offset, data)
                    whole.update(data)
                    digest = Digest.of(data)
                    buffers.give_back(data)
                    places.setdefault(digest, _Place(file, piece.offset, piece.length, segment.dtype))
                    objects.append(digest.hex)
                shape = None if segment.shape is None else list(segment.shape)
                segments.append(Segment(segment.length, objects, segment.name, segment.dtype or None, shape))
            content.verify_unchanged()
        for digest, place in places.items():
            self._places.setdefault(digest, place)
        found = TreeFile(file.path, file.size, whole.hexdigest(), segments, file.executable, cut.container)
        self._files[file.real] = file, found
        self._by_content.setdefault(found.digest, file)


def _step(segment: Segment) -> int:
    return MAX_ELEMENTS * dtype_of(segment.dtype).itemsize if segment.dtype else CHUNK


def _lengths(segment: Segment) -> Iterator[tuple[str, int]]:
    """A segment's objects with their lengths, where those can be told."""
    if len(segment.objects) == 1:
        yield segment.objects[0], segment.length
        return
    step = _step(segment)
    if len(segment.objects) == -(-segment.length // step):
        for i, text in enumerate(segment.objects):
            yield text, min(step, segment.length - i * step)


def _files(path: Path) -> Iterator[SourceFile]:
    if path.is_file():
        yield from _file(path)
        return
    for folder, names, files in os.walk(path):
        if "stemmata.json" in files:
            names.clear()
            continue
        names.sort()
        for name in sorted(files):
            yield from _file(Path(folder) / name)


def _file(path: Path) -> Iterator[SourceFile]:
    try:
        real = path.resolve()
        about = real.stat()
    except (OSError, RuntimeError):
        return
    if stat.S_ISREG(about.st_mode):
        executable = os.name == "posix" and bool(about.st_mode & stat.S_IXUSR)
        yield SourceFile(path.name, real, about.st_size, executable, marks_of(about))
