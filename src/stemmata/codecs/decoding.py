"""Decoding: one encoded object, and the bases that its frames lean on. Owns the gate that decoded bytes pass.

Frames of a base are decoded where they are needed, into memory of the thread that needs them: no base is
ever whole in memory. What is handed out is held against its digest, and that is proof of the whole chain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from stemmata.codecs import plain, planes, zstd
from stemmata.codecs.dtypes import LITTLE, MAX_FRAME_BYTES, DType
from stemmata.codecs.encoded import Encoded, Pieces, Whole
from stemmata.codecs.faults import DamagedFault, Fault, HostileFault, translated
from stemmata.codecs.frames import (
    CAST,
    DELTA,
    MAX_CHAIN,
    MAX_WORK,
    PLANES,
    RAW,
    ZSTD,
    Frame,
    Reference,
    header_of,
    read_frames,
)
from stemmata.codecs.hashing import Buffer, digest_of
from stemmata.codecs.pages import small
from stemmata.codecs.streams import Memory, view
from stemmata.codecs.workers import each
from stemmata.deferred import deferred
from stemmata.ids import Digest

if TYPE_CHECKING:
    from stemmata.codecs import cast, delta, loops, payloads
else:
    # What is compiled comes with them; trees, small files and tables of statistics do without.
    cast = deferred("stemmata.codecs.cast")
    delta = deferred("stemmata.codecs.delta")
    loops = deferred("stemmata.codecs.loops")
    payloads = deferred("stemmata.codecs.payloads")


@dataclass(frozen=True, slots=True)
class Stored:
    """An encoded object as it was read, or is yet to be. `where` names its pack, for messages."""

    encoded: Buffer | Pieces
    raw_length: int
    digest: Digest
    where: str


Fetch = Callable[[Reference], Stored]
"""Reads a base. Raises as reading any object does."""
Known: TypeAlias = "tuple[Digest, Memory]"
"""An object, and the decoded bytes of the frame of it that is leant on."""


def no_bases(base: Reference) -> Stored:
    """Where there is nothing to lean on."""
    raise DamagedFault(f"it leans on {base.digest} of pack {base.pack}, which is out of reach")


def prepare() -> None:
    """More is about to be decoded than a page of JSON: import what does that fastest."""
    _ = payloads.why_not


class Scratch(threading.local):
    """A frame's memory for each place in a chain, per thread: new memory is dear."""

    def __init__(self) -> None:
        self._levels: list[memoryview] = []

    def at(self, level: int, size: int) -> memoryview:
        while len(self._levels) <= level:
            self._levels.append(small(MAX_FRAME_BYTES))
        return self._levels[level][:size]


_scratch = Scratch()


@dataclass(slots=True)
class _Work:
    """Bytes that are decoded to read an object of `whole`, counted before any base of theirs is fetched."""

    whole: int
    done: int = 0

    def add(self, size: int) -> None:
        # No sound base is smaller than what leans on it, so that many little ones are no way around this.
        self.done += max(size, self.whole)
        if self.done > MAX_WORK * max(self.whole, 1):
            raise HostileFault(f"more than {MAX_WORK} times its {self.whole} bytes would be decoded")


class ObjectDecoder:
    """One encoded object, structure checked and bases at hand. Frames may be decoded by many threads.

    Raises DamagedObject, HostileData before taking memory beyond FORMAT.md's limits, NewerFormat, and
    what `fetch` raises; a fault of a base is told of the base.
    """

    def __init__(
        self, stored: Stored, fetch: Fetch = no_bases, level: int = 0, work: _Work | None = None
    ) -> None:
        self.digest, self.where = stored.digest, stored.where
        with translated(self.digest.hex, self.where):
            encoded = stored.encoded
            self._encoded: Encoded = encoded if isinstance(encoded, Pieces) else Whole(encoded)
            self.header = header_of(self._encoded)
            if self.header.raw_length != stored.raw_length:
                what = f"{self.header.raw_length} bytes where its pack says {stored.raw_length}"
                raise DamagedFault(f"it holds {what}")
            self.frames = read_frames(self._encoded, self.header)
            used = {frame.reference for frame in self.frames if frame.reference is not None}
            if used and level == MAX_CHAIN:
                raise HostileFault(f"it leans on a chain of more than {MAX_CHAIN} objects")
            if (used or level) and any(frame.dtype != self.header.dtype for frame in self.frames):
                raise DamagedFault("its frames are of several dtypes")
            work = work or _Work(self.header.raw_length)
            work.add(self.header.raw_length)
        with translated(self.digest.hex, self.where):
            self._bases = {
                k: ObjectDecoder(fetch(base), fetch, level + 1, work)
                for k, base in enumerate(self.header.references)
                if k in used
            }
            self._level = level
            self.work: int = self.header.raw_length + sum(base.work for base in self._bases.values())
            """Bytes that are decoded to read it, bases included."""
            for frame in self.frames:
                if frame.reference is not None:
                    self._require_fit(frame, self._bases[frame.reference])
            self._at = {f.raw_offset // f.dtype.itemsize: f for f in self.frames}
        # Asked for again and again: by those that may lean on it, and by what leans on those.
        self._is_kept = len(self.frames) == 1 and self.header.raw_length <= LITTLE
        self._kept: bytes | None = None

    def lineage(self, reference: Reference) -> list[tuple[Reference, ObjectDecoder]]:
        """Itself, which lies at `reference`, then what it leans on, nearest first."""
        found = [(reference, self)]
        for k, base in self._bases.items():
            found += base.lineage(self.header.references[k])
        return found

    def decode_into(self, frame: Frame, into: Memory, known: Known | None = None) -> None:
        """Fill `into` with one frame's bytes. Not verified: see `content`. What is `known` is not decoded."""
        into = view(into)
        if len(into) != frame.raw_length:
            raise ValueError(f"{len(into)} bytes of room for a frame of {frame.raw_length}")
        if self._kept is not None:
            into[:] = self._kept
            return
        with translated(self.digest.hex, self.where):
            if frame.codec == RAW:
                self._encoded.fill(frame.at, into)
            else:
                base = self._base_frame(frame, known)
                # After the bases': payloads of one thread are read into the same memory.
                payload = self._encoded.payload(frame.at, frame.stored)
                decode_payload(frame.codec, payload, base, frame.dtype, into)
        if self._is_kept:
            self._kept = bytes(into)

    @property
    def length(self) -> int:
        """Bytes that it stands for."""
        return self.header.raw_length

    def content(self, threads: Executor | None = None) -> bytearray:
        """All bytes, verified as `fill` does."""
        content = bytearray(self.header.raw_length)
        self.fill(memoryview(content), threads)
        return content

    def fill(self, into: memoryview, threads: Executor | None = None) -> None:
        """All bytes into `into`, held against the digest there: the one gate that decoded bytes pass (I4).

        Whoever gave the memory shows it to nobody if this raises; also where it is not of the object's size.
        """
        whole = memoryview(into).cast("B")
        with translated(self.digest.hex, self.where):
            if len(whole) != self.header.raw_length:
                raise DamagedFault(
                    f"it holds {self.header.raw_length} bytes where {len(whole)} are asked for"
                )

        def decode(frame: Frame) -> None:
            self.decode_into(frame, whole[frame.raw_offset : frame.raw_offset + frame.raw_length])

        each(decode, self.frames, threads)
        with translated(self.digest.hex, self.where):
            if digest_of(into) != self.digest:
                raise DamagedFault("its content is not what its digest says")

    def require_sound(self) -> None:
        """Hold every frame, of the bases first, against its checksum. Raises DamagedObject."""
        for base in self._bases.values():
            base.require_sound()
        with translated(self.digest.hex, self.where):
            for frame in self.frames:
                frame.require_sound(self._encoded.payload(frame.at, frame.stored))

    def frame_at(self, element: int) -> Frame | None:
        """The frame that begins at an element."""
        return self._at.get(element)

    def base_of(self, frame: Frame) -> ObjectDecoder | None:
        """What one of its frames leans on; None where that is nothing."""
        return None if frame.reference is None else self._bases[frame.reference]

    def _require_fit(self, frame: Frame, base: ObjectDecoder) -> None:
        found = base.frame_at(frame.raw_offset // frame.dtype.itemsize)
        count = frame.raw_length // frame.dtype.itemsize
        if base.header.elements != self.header.elements:
            raise DamagedFault("it leans on an object of another size")
        kinds = [frame.dtype] if frame.codec == DELTA else []
        if frame.dtype.word in cast.NARROW:
            kinds.append(cast.WIDE)
        if found is None or found.dtype not in kinds or found.raw_length != count * found.dtype.itemsize:
            raise DamagedFault("a frame leans on one of another kind or size")

    def _base_frame(self, frame: Frame, known: Known | None) -> Memory | None:
        base = self.base_of(frame)
        if base is None:
            return None
        found = base.frame_at(frame.raw_offset // frame.dtype.itemsize)
        if found is None:
            raise DamagedFault("a frame leans on none")
        if known is not None and known[0] == base.digest and len(known[1]) == found.raw_length:
            under = known[1]
        else:
            under = _scratch.at(self._level, found.raw_length)
            base.decode_into(found, under, known)
        if frame.codec == CAST:
            return under
        fitted = cast.as_wide_as(frame.dtype, under, found.dtype)
        if fitted is None:
            raise DamagedFault("a frame leans on the rounding of NaN")
        return fitted


def decode_payload(
    codec: int, payload: memoryview, base: Memory | None, dtype: DType, into: memoryview
) -> None:
    """Fill `into`, whose length the frame's head states, from a payload that is not RAW. Raises a Fault."""
    if codec == ZSTD:
        if not plain.is_compiled_there() or not payloads.zstd_read(payload, into):
            into[:] = memoryview(zstd.decompress(payload, len(into)))
    elif codec == PLANES:
        planes.decode(payload, dtype, into)
    else:
        if base is None:
            raise DamagedFault("a frame leans on nothing")
        decode = delta.decode if codec == DELTA else cast.decode
        decode(payload[1:], base, dtype, into)


def comes_back(data: Memory, codec: int, payload: memoryview, base: Memory | None, dtype: DType) -> bool:
    """Whether what was just encoded, and not as it is, decodes to `data`."""
    decoded = _scratch.at(MAX_CHAIN, len(data))
    try:
        decode_payload(codec, payload, base, dtype, decoded)
    except Fault:
        return False
    return loops.same(decoded, data)


def decode_object(
    encoded: Buffer,
    *,
    raw_length: int,
    digest: Digest,
    where: str,
    threads: Executor | None = None,
    fetch: Fetch = no_bases,
) -> bytearray:
    """The verified content of an encoded object, checksums of frames included. Raises as `ObjectDecoder`."""
    decoder = ObjectDecoder(Stored(encoded, raw_length, digest, where), fetch)
    decoder.require_sound()
    return decoder.content(threads)


def verify_stored(encoded: Buffer, where: str, digest: Digest | None = None) -> None:
    """Check structure and short checksums of an encoded object without decoding it.

    Raises as `decode_object`, whose digest this cannot check.
    """
    with translated(digest.hex if digest else "(unnamed)", where):
        whole = Whole(encoded)
        for frame in read_frames(whole, header_of(whole)):
            frame.require_sound(whole.payload(frame.at, frame.stored))
