"""Unnamed: tensors that a tree holds as bytes, for their element type is not one that is stored as numbers
(float8_e8m0, complex, four bits, GGUF's blocks). Owns finding their names in the file's own header."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from stemmata.compare.tensors import Tensor
from stemmata.containers.base import NotThisContainer
from stemmata.describe import is_of_training
from stemmata.errors import Damage
from stemmata.trees import Segment, Tree, TreeFile

ReadObject = Callable[[str], bytes | bytearray | memoryview]
_CONTAINERS = ("safetensors", "gguf")
MAX_HEADER = 64 << 20


def unnamed_tensors(tree: Tree, read: ReadObject) -> Iterator[Tensor]:
    """The tensors of files that no segment names. Reads the headers of the files that have some; one that
    cannot be read names none."""
    for file in tree.files:
        if file.container not in _CONTAINERS or is_of_training(file.path):
            continue
        # The first segment is the header.
        if not any(s.dtype is None and s.length for s in file.segments[1:]):
            continue
        yield from _of_file(file, read)


def _of_file(file: TreeFile, read: ReadObject) -> Iterator[Tensor]:
    from stemmata.containers import gguf, safetensors  # here: few versions have such files

    head = file.segments[0]
    if head.dtype is not None or head.length > MAX_HEADER:
        return
    try:
        start = _Start(b"".join(read(digest) for digest in head.objects))
        reader = safetensors if file.container == "safetensors" else gguf
        extents: Sequence[safetensors.Extent | gguf.Extent] = reader.extents(start, file.size)
    except (NotThisContainer, safetensors.NotSafetensors, Damage):
        return
    there = {begin: segment for begin, segment in _placed(file) if segment.dtype is None}
    for extent in extents:
        segment = there.get(extent.begin)
        if segment is not None and segment.length == extent.end - extent.begin:
            yield Tensor(
                name=extent.name,
                path=file.path,
                dtype=extent.dtype,
                shape=extent.shape,
                length=segment.length,
                objects=tuple(segment.objects),
            )


def _placed(file: TreeFile) -> Iterator[tuple[int, Segment]]:
    at = 0
    for segment in file.segments:
        yield at, segment
        at += segment.length


class _Start:
    """The begin of a file, as what reads headers wants it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, offset: int, length: int) -> bytes:
        """Less where the header ends before."""
        return self._data[offset : offset + length]
