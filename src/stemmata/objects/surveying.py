"""Surveying: what is learnt of a tensor's numbers while it is stored. Owns what they are held against.

Frames pass through a processor's cache once to be coded; their moments are taken then. What a tensor is
held against is mostly what it is coded against, and decoded for that already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from stemmata.codecs.dtypes import DType
from stemmata.codecs.pages import small
from stemmata.errors import StemmataError
from stemmata.ids import Digest, PackName
from stemmata.objects.reading import ObjectReader
from stemmata.objects.room import Room

if TYPE_CHECKING:
    from stemmata.codecs.decoding import ObjectDecoder
    from stemmata.codecs.held import Read
    from stemmata.codecs.moments import Moments
    from stemmata.codecs.objectcode import Under, Watch
    from stemmata.objects.choosing import Held


class Look(msgspec.Struct):
    """What is to be learnt of one object, and once it is written, what was."""

    against: Digest | None = None
    """The stored object that it is held against, of as many elements."""
    like: DType | None = None
    """The numbers of that one: what it is stored as may be another tensor's type, of the same bytes."""
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

    def __init__(
        self,
        look: Look,
        dtype: DType,
        data: memoryview,
        reader: ObjectReader,
        buffers: Room,
        held: Held | None = None,
    ) -> None:
        self._look, self._dtype, self._data = look, dtype, data
        self._reader, self._buffers, self._held = reader, buffers, held
        self._parts: dict[int, Moments] = {}

    @contextmanager
    def watching(self, base: Under | None, against: ObjectDecoder | None = None) -> Iterator[Watch]:
        """What to show the frames to, while they are coded against `base`. The answer is there when this
        ends, unless that raises. `against`: what they are held against, where it is open already."""
        from stemmata.codecs.moments import Moments

        self._parts.clear()
        with self._other(base, against) as (other, like):

            def watch(number: int, data: memoryview, under: memoryview | None) -> Callable[[], None] | None:
                seen = None
                if other is not None:
                    begin = number * self._dtype.max_frame_bytes // self._dtype.itemsize
                    frame = other.frame(begin, len(data) // self._dtype.itemsize, under)
                    under, seen = frame, partial(other.seen, frame)
                self._parts[number] = Moments.of(data, self._dtype, under if like is not None else None, like)
                return seen

            yield watch
            if other is not None and other.is_not_where_it_was():
                self._held = None  # it is read as it is stored
                self.whole()
                return
            # What was read beside may have been damaged: then its own numbers are all that is told.
            compared = like is not None and (other is None or other.is_whole())
        found = Moments.together(self._parts[k] for k in sorted(self._parts))
        if self._look.same:
            found.both, found.equal = found.finite, found.finite + found.nonfinite
            found.product = found.own = found.others = found.squares
        self._look.compared = self._look.same or compared
        self._look.moments = found

    def whole(self) -> None:
        """Of an object that is there already, and so is not coded."""
        content, step = self._data, self._dtype.max_frame_bytes
        with self.watching(None) as watch:
            for begin in range(0, len(content), step):
                seen = watch(begin // step, content[begin : begin + step], None)
                if seen is not None:
                    seen()

    @contextmanager
    def _other(
        self, base: Under | None, against: ObjectDecoder | None
    ) -> Iterator[tuple[Beside | None, DType | None]]:
        """What to read the frames from that these are held against, None where that is what they lean on; and
        its type, None where there is nothing to hold them against."""
        look = self._look
        if look.against is None or look.same:
            yield None, None
            return
        if base is not None and base.reference.digest == look.against:
            yield None, self._numbers(base.dtype)
            return
        with ExitStack() as opened:
            if against is None:
                try:
                    asked = self._reader.opened(look.against, look.packs, self._buffers)
                    _, against = opened.enter_context(asked)
                except StemmataError:
                    yield None, None  # missing or damaged: less is told; nothing else depends on it
                    return
            like = self._numbers(against.header.dtype)
            if like is not None and against.length * self._dtype.itemsize == len(self._data) * like.itemsize:
                read = self._held(look.against) if self._held is not None else None
                yield Beside(against, base, read), like
            else:
                yield None, None

    def _numbers(self, stored: DType) -> DType | None:
        """How to read what is stored as `stored`; None where there is nothing to hold against it."""
        like = self._look.like or stored
        # Frames are counted in elements of what is stored.
        return like if like.itemsize == stored.itemsize and comparable(self._dtype, like) else None


class Beside:
    """The tensor of the parent, read frame by frame beside one that leans on something else: mostly on what
    the parent's leans on as well, itself or through others, which is decoded once for both."""

    def __init__(self, decoder: ObjectDecoder, base: Under | None, read: Read | None = None) -> None:
        """`read`: from where its bytes are held, so that nothing is decoded."""
        from blake3 import blake3

        self._decoder, self._base, self._read = decoder, base, read
        self._hasher = blake3()
        self._sound = True
        self._own = threading.local()

    def frame(self, element: int, count: int, under: memoryview | None) -> memoryview:
        """The bytes of the elements of one frame, good until this thread asks for the next."""
        header = self._decoder.header
        into: memoryview | None = getattr(self._own, "into", None)
        if into is None or len(into) < count * header.dtype.itemsize:
            into = self._own.into = small(count * header.dtype.itemsize)
        into = into[: count * header.dtype.itemsize]
        if self._read is not None:
            self._sound &= self._read(element * header.dtype.itemsize, into)
            return into
        found = self._decoder.frame_at(element)
        try:
            if found is None or found.raw_length != len(into):
                self._sound = False
            else:
                known = (self._base.reference.digest, under) if self._base and under is not None else None
                self._decoder.decode_into(found, into, known)
        except StemmataError:
            self._sound = False
        return into

    def seen(self, frame: memoryview) -> None:
        self._hasher.update(frame)

    def is_not_where_it_was(self) -> bool:
        """Once all were seen: whether something else was read where its bytes are said to be held."""
        if self._read is None or self.is_whole():
            return False
        self._read.refuse()
        return True

    def is_whole(self) -> bool:
        """Once all were seen: whether they are what the digest says."""
        return self._sound and self._hasher.digest() == self._decoder.digest.raw


def comparable(a: DType, b: DType) -> bool:
    """Whether a difference of their numbers means anything: not that of a weight and its quantised form."""
    return a == b or (a.is_float and b.is_float)
