"""Choosing: which stored object a new one is coded against. Owns the bound on what a read has to decode.

A sample decides: the beginning of the middle frame, coded against every candidate and all that they lean on
themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from stemmata.codecs.decoding import ObjectDecoder, Scratch
from stemmata.codecs.dtypes import DType
from stemmata.codecs.frames import CAST, Frame, Reference
from stemmata.codecs.held import HeldBase, Read
from stemmata.codecs.objectcode import Plan, StoredBase, fits, plan_against, plan_alone, sample_of
from stemmata.errors import StemmataError
from stemmata.ids import Digest, PackName
from stemmata.objects.reading import ObjectReader
from stemmata.objects.room import Room

Held: TypeAlias = "Callable[[Digest], Read | None]"
"""Where the bytes of an object lie outside of the store, if that is known."""

WORK = 4
"""What reading an object may decode, its bases included, in multiples of its own bytes."""
_SMALLEST = 1024
"""Bytes of an object below which a base gains next to nothing."""
_GAIN = 0.97
"""A base has to make of an object less than this part of what it takes alone."""
_STEP = 1.2
"""Decoding as many bytes more as the object has must make it smaller by this factor."""
_scratch = Scratch()


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was found out of how to code an object, if anything."""

    base: StoredBase | HeldBase | None = None
    """None: none pays."""
    plan: Plan | None = None
    kept: ObjectDecoder | None = None
    """The candidate that was to be kept, if it can be read."""

    stored: StoredBase | None = None
    """The base as it is decoded, where `base` is held elsewhere."""

    def ways(self) -> Iterator[Chosen]:
        """What to try, one after the other, where the one before is not what it was taken for."""
        yield self
        if self.stored is not None:
            yield replace(self, base=self.stored, stored=None)
        if self.base is not None:
            yield replace(self, base=None, stored=None, plan=self.plan and self.plan.without_base())


@contextmanager
def chosen(
    data: memoryview,
    dtype: DType,
    candidates: Sequence[tuple[Digest, Sequence[PackName]]],
    reader: ObjectReader,
    buffers: Room,
    keep: Digest | None = None,
    held: Held | None = None,
) -> Iterator[Chosen]:
    """The best base among the candidates and what they lean on, as it is stored, in memory lent by `buffers`
    until this ends. `keep`: a candidate that is asked for afterwards, chosen or not.

    The base is not verified yet: `encode_object` does that, and raises Damage before anything is built on it.
    `held`: where an object's bytes may still lie, so that it need not be decoded.
    """
    if not candidates or len(data) < _SMALLEST or len(data) % dtype.itemsize or not dtype.has_planes:
        yield Chosen()
        return
    begin, sample = sample_of(data, dtype)
    alone = plan_alone(sample, dtype, len(data))
    limit = _GAIN * _STEP * alone.alone * len(sample)
    best: tuple[Reference, ObjectDecoder, Plan, Read | None] | None = None
    seen: set[Digest] = set()
    asked: ObjectDecoder | None = None
    with ExitStack() as always, ExitStack() as kept:
        for digest, packs in candidates:
            # Of those that lose nothing stays: with many candidates it would be much.
            with ExitStack() as opened:
                better = False
                kin = _kin(digest, packs, reader, always if digest == keep else opened, buffers, seen)
                if digest == keep and kin and kin[0][1].digest == keep:
                    asked = kin[0][1]
                frames = _Frames(begin // dtype.itemsize)
                for reference, decoder in kin:
                    raw = decoder.header.raw_length
                    within = decoder.work + len(data) <= WORK * len(data)
                    if not within or not fits(dtype, len(data), decoder.header.dtype, raw):
                        continue
                    element, count = begin // dtype.itemsize, len(sample) // dtype.itemsize
                    read = held(reference.digest) if held is not None else None
                    under = _held(read, decoder, element, count) if read is not None else None
                    if under is None:
                        read, under = None, frames.sample(decoder, count)
                    if under is None:
                        continue
                    plan, size = plan_against(alone, sample, under, dtype, decoder.header.dtype)
                    size *= _STEP ** (decoder.work / len(data))
                    if size < limit:
                        best, limit, better = (reference, decoder, plan, read), size, True
                if better:
                    kept.close()
                    kept.enter_context(opened.pop_all())
        if best is None:
            yield Chosen(plan=alone, kept=asked)
        else:
            reference, decoder, plan, read = best
            base = StoredBase(reference, decoder)
            if read is None:
                yield Chosen(base, plan, asked)
            else:
                yield Chosen(HeldBase(reference, decoder, read), plan, asked, base)


def _kin(
    digest: Digest,
    packs: Sequence[PackName],
    reader: ObjectReader,
    opened: ExitStack,
    buffers: Room,
    seen: set[Digest],
) -> list[tuple[Reference, ObjectDecoder]]:
    """A candidate and all that it leans on, what was `seen` left out; of a tensor and its mere rounding,
    the tensor."""
    if digest in seen:
        return []
    try:
        found = opened.enter_context(reader.opened(digest, packs, buffers))
    except StemmataError:
        return []  # missing or damaged: a base that is not taken costs bytes, never correctness
    fresh = [each for each in found[1].lineage(found[0]) if each[1].digest not in seen]
    seen.update(decoder.digest for _, decoder in fresh)
    # A difference from a rounding is one from the rounding of the wide tensor, which follows.
    return [each for each in fresh if not all(frame.codec == CAST for frame in each[1].frames)]


def _held(read: Read, decoder: ObjectDecoder, element: int, count: int) -> memoryview | None:
    """The bytes of `count` elements of an object from an element on, from where they are held."""
    size = decoder.header.dtype.itemsize
    into = memoryview(bytearray(count * size))
    return into if read(element * size, into) else None


class _Frames:
    """The frames of a chain that begin at an element, each decoded once, though one leans on the other. They
    are good until this thread makes another of these."""

    def __init__(self, element: int) -> None:
        self._element = element
        self._found: dict[tuple[Digest, int, int], memoryview] = {}

    def sample(self, decoder: ObjectDecoder, count: int) -> memoryview | None:
        """The first `count` elements of an object's; None where they cannot be had."""
        frame = decoder.frame_at(self._element)
        length = count * decoder.header.dtype.itemsize
        if frame is None or frame.raw_length < length:
            return None
        try:
            return self._decoded(decoder, frame)[:length]
        except StemmataError:
            return None

    def _decoded(self, decoder: ObjectDecoder, frame: Frame) -> memoryview:
        key = decoder.digest, frame.raw_offset, frame.raw_length
        found = self._found.get(key)
        if found is not None:
            return found
        base, known = decoder.base_of(frame), None
        under = base.frame_at(self._element) if base is not None else None
        if base is not None and under is not None:
            known = base.digest, self._decoded(base, under)
        found = _scratch.at(len(self._found), frame.raw_length)
        decoder.decode_into(frame, found, known)
        self._found[key] = found
        return found
