"""Surveying: what is learnt of a tensor's numbers while it is stored. Owns what they are held against.

Frames pass through a processor's cache once to be coded; their moments are taken then. What a tensor is
held against is mostly what it is coded against, and decoded for that already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemmata.codecs.buffers import Buffers
from stemmata.codecs.dtypes import DType
from stemmata.errors import StemmataError
from stemmata.ids import Digest, PackName
from stemmata.objects.reading import ObjectReader

if TYPE_CHECKING:
    from stemmata.codecs.moments import Moments
    from stemmata.codecs.objectcode import Under, Watch
    from stemmata.codecs.streams import Bytes


@dataclass(slots=True)
class Look:
    """What is to be learnt of one object, and once it is written, what was."""

    against: Digest | None = None
    """The stored object that it is held against, of as many elements."""
    packs: Sequence[PackName] = ()
    """Packs that may hold that."""
    known: bool = False
    """Of that one all is known: if the new one is the same, nothing is computed."""
    same: bool = False
    """Answer: it is the very same object."""
    moments: Moments | None = None
    """Answer: of its numbers; None where it is the same and all is known."""
    compared: bool = False
    """Answer: whether these tell of differences too."""


class Survey:
    """Of one object: takes frames in any order, on any thread."""

    def __init__(self, look: Look, dtype: DType, length: int, reader: ObjectReader, buffers: Buffers) -> None:
        self._look, self._dtype, self._length = look, dtype, length
        self._reader, self._buffers = reader, buffers
        self._parts: dict[int, Moments] = {}

    @contextmanager
    def watching(self, base: Under | None) -> Iterator[Watch]:
        """What to show the frames to, while they are coded against `base`. The answer is there when this
        ends, unless that raises."""
        from stemmata.codecs.moments import Moments

        self._parts.clear()
        with self._other(base) as (other, like):

            def watch(number: int, data: Bytes, under: Bytes | None) -> None:
                if other is not None and like is not None:
                    begin = number * self._dtype.max_frame_bytes // self._dtype.itemsize
                    count = len(data) // self._dtype.itemsize
                    under = other[begin * like.itemsize : (begin + count) * like.itemsize]
                self._parts[number] = Moments.of(data, self._dtype, under if like is not None else None, like)

            yield watch
        found = Moments.together(self._parts[k] for k in sorted(self._parts))
        if self._look.same:
            found.both, found.equal = found.finite, found.finite + found.nonfinite
            found.product = found.own = found.others = found.squares
        self._look.compared = self._look.same or like is not None
        self._look.moments = found

    def whole(self, data: memoryview) -> None:
        """Of an object that is there already, and so is not coded."""
        import numpy as np

        from stemmata.codecs.workers import each, frame_pool

        content, step = np.frombuffer(data, np.uint8), self._dtype.max_frame_bytes
        with self.watching(None) as watch:
            each(
                lambda number: watch(number, content[number * step : (number + 1) * step], None),
                range(-(-len(content) // step)),
                frame_pool(),
            )

    @contextmanager
    def _other(self, base: Under | None) -> Iterator[tuple[Bytes | None, DType | None]]:
        """The bytes to hold the frames against, None where that is what they lean on; and their type, None
        where there is nothing to hold them against."""
        look = self._look
        if look.against is None or look.same:
            yield None, None
        elif base is not None and base.reference.digest == look.against:
            yield None, base.dtype if comparable(self._dtype, base.dtype) else None
        else:
            import numpy as np

            lent, like = self._read(look.against)
            try:
                yield None if lent is None else np.frombuffer(lent, np.uint8), like
            finally:
                if lent is not None:
                    self._buffers.give_back(lent)

    def _read(self, digest: Digest) -> tuple[memoryview | None, DType | None]:
        packs = self._look.packs
        try:
            with self._reader.opened(digest, packs, self._buffers) as (_, decoder):
                like, length = decoder.header.dtype, decoder.length
            fits = length * self._dtype.itemsize == self._length * like.itemsize
            if not fits or not comparable(self._dtype, like):
                return None, None
            return self._reader.lend(digest, packs, self._buffers), like
        except StemmataError:
            return None, None  # missing or damaged: less is told; nothing else depends on it


def comparable(a: DType, b: DType) -> bool:
    """Whether a difference of their numbers means anything: not that of a weight and its quantised form."""
    return a == b or (a.is_float and b.is_float)
