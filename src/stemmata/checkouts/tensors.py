"""Tensors: those of a safetensors file, decoded into memory that the caller gives.

Owns where each object of the file goes, and that a file which is read whole is held against its digest as a
checkout is. Objects are decoded in parallel; beside the tensors, only encoded ones are in memory, a few.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeAlias

import msgspec
from blake3 import blake3

from stemmata.checkouts.reading import ReadObject
from stemmata.codecs.dtypes import dtype_of
from stemmata.codecs.workers import Threads, thread_count
from stemmata.containers.base import MAX_ELEMENTS
from stemmata.containers.safetensors import Extent, NotSafetensors, extents
from stemmata.errors import DamagedFile
from stemmata.storage.base import Buffer
from stemmata.trees import TreeFile

LengthOf: TypeAlias = Callable[[str], int]
"""Bytes of the object with this digest (hex), decoded; nothing of it is read."""
FillObject: TypeAlias = Callable[[str, memoryview], None]
"""The object with this digest (hex) into memory of its size, verified. Safe in any thread."""

_AT_ONCE = 4
"""Objects that are decoded at the same time, at most: so many encoded ones are in memory."""


class _Run(msgspec.Struct, frozen=True):
    """One object's place in the file."""

    offset: int
    length: int
    digest: str

    @property
    def end(self) -> int:
        return self.offset + self.length


class TensorFile:
    """One file whose tensors can be read one by one."""

    def __init__(self, file: TreeFile, read: ReadObject, fill: FillObject, length_of: LengthOf) -> None:
        self._file, self._read, self._fill = file, read, fill
        self._runs = _runs(file, length_of)
        self._head = bytearray()
        """The bytes that the file begins with, as far as they were asked for, in whole objects."""
        self._head_runs = 0
        try:
            self.extents: Sequence[Extent] = extents(self, file.size)
        except NotSafetensors as problem:
            raise DamagedFile(path=file.path, reason=str(problem)) from None

    @classmethod
    def of(cls, file: TreeFile, read: ReadObject, fill: FillObject, length_of: LengthOf) -> TensorFile | None:
        """None for a file that was cut another way: its bytes are to be read whole."""
        return cls(file, read, fill, length_of) if file.container == "safetensors" else None

    def read_at(self, offset: int, length: int) -> bytes:
        """Of the header, which the first objects hold."""
        while len(self._head) < offset + length and self._head_runs < len(self._runs):
            self._head += self._whole(self._runs[self._head_runs])
            self._head_runs += 1
        return bytes(memoryview(self._head)[offset : offset + length])

    def _whole(self, run: _Run) -> Buffer:
        data = self._read(run.digest)
        if len(data) != run.length:
            raise DamagedFile(path=self._file.path, reason="an object is not as long as its place")
        return data

    def fill(self, targets: Mapping[str, memoryview]) -> None:
        """Decode the tensors that `targets` names into its memory, each of its tensor's size.

        All tensors: the file's digest is checked too. Raises DamagedFile and what reading an object
        raises; the memory holds rubbish then.
        """
        wanted = [extent for extent in self.extents if extent.name in targets]
        views = [targets[extent.name] for extent in wanted]
        begins = [extent.begin for extent in wanted]
        ends = [extent.end for extent in wanted]
        whole = len(wanted) == len(self.extents)
        hashed = blake3()

        def decode(run: _Run) -> Buffer:
            at = bisect_right(begins, run.offset) - 1
            # Empty tensors lie where the next one begins.
            if at >= 0 and run.end <= wanted[at].end:
                part = views[at][run.offset - begins[at] : run.end - begins[at]]
                self._fill(run.digest, part)
                return part
            in_head = run.end <= len(self._head)
            data = memoryview(self._head)[run.offset : run.end] if in_head else self._whole(run)
            for extent, view in zip(wanted, views, strict=True):
                begin, end = max(extent.begin, run.offset), min(extent.end, run.end)
                if begin < end:
                    view[begin - extent.begin : end - extent.begin] = memoryview(data)[
                        begin - run.offset : end - run.offset
                    ]
            return data

        needed = self._runs if whole else [run for run in self._runs if _touches(run, begins, ends)]
        with _in_order(decode, needed) as parts:
            for part in parts:
                if whole:
                    hashed.update(part)
        if whole and hashed.hexdigest() != self._file.digest:
            raise DamagedFile(path=self._file.path, reason="its digest is not the one of the version")


def _runs(file: TreeFile, length_of: LengthOf) -> list[_Run]:
    runs: list[_Run] = []
    at = 0
    for segment in file.segments:
        end = at + segment.length
        for digest in segment.objects:
            length = end - at
            if segment.dtype is not None:
                length = min(length, MAX_ELEMENTS * dtype_of(segment.dtype).itemsize)
            elif len(segment.objects) > 1:
                # A header, or a tensor of an unknown type: the tree does not tell where it is cut.
                length = length_of(digest)
            runs.append(_Run(at, length, digest))
            at = runs[-1].end
        if at != end:
            raise DamagedFile(path=file.path, reason="its objects are not as long as it is")
    return runs


def _touches(run: _Run, begins: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether a run holds bytes of one of these extents, which ascend and do not overlap."""
    following = bisect_right(ends, run.offset)
    return following < len(ends) and begins[following] < run.end


@contextmanager
def _in_order(decode: Callable[[_Run], Buffer], runs: Sequence[_Run]) -> Iterator[Iterator[Buffer]]:
    """What `decode` makes of all runs, a few at a time, handed out in order."""
    count = min(_AT_ONCE, thread_count(), max(1, len(runs)))
    with Threads(count, thread_name_prefix="stemmata-tensors") as pool:
        made: list[Future[Buffer]] = [pool.submit(decode, run) for run in runs]
        made.reverse()
        try:
            # Let go of one by one: what is no tensor's own memory need not stay.
            yield (made.pop().result() for _ in runs)
        finally:
            for one in made:
                one.cancel()
