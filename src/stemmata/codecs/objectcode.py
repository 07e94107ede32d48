"""Objects encoded: the choice of a codec for each frame, and the proof that it comes back.

A frame passes through memory of its thread: what it leans on is decoded there, its payload made and
proved there. Only what is stored of it is kept, so that nothing but the object itself is whole in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol, TypeAlias

from blake3 import blake3

from stemmata.codecs import cast, delta, littlecode, loops, planes, zstd
from stemmata.codecs.decoding import ObjectDecoder, comes_back
from stemmata.codecs.dtypes import BYTES, LITTLE, MAX_FRAME_BYTES, SAMPLE, DType
from stemmata.codecs.faults import DamagedFault, translated
from stemmata.codecs.frames import (
    BASED,
    CAST,
    DELTA,
    FRAME_OVERHEAD,
    MAX_HEADER,
    PLANES,
    RAW,
    ZSTD,
    Reference,
    most_stored,
    write_frame_head,
    write_header,
)
from stemmata.codecs.hashing import Buffer
from stemmata.codecs.pages import small
from stemmata.codecs.streams import Memory
from stemmata.codecs.workers import each

_NUMBER = bytes([0])
"""The first byte of a frame that leans on a base: an object written here has one reference."""
_CLEARLY = 0.95
"""A delta this much smaller than coding alone is taken without trying the other."""


class Under(Protocol):
    """What an object may lean on: another of the same number of elements, `length` bytes of `dtype`."""

    @property
    def reference(self) -> Reference: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def length(self) -> int: ...

    def frame(self, element: int, count: int) -> memoryview:
        """The bytes of the elements of one frame, good until this thread asks for others."""
        ...

    def seen(self, frame: memoryview) -> None:
        """Told of each frame that was asked for, in their order."""
        ...

    def require_whole(self) -> None:
        """Asked once all were seen: raises Damage if they are not what the digest says."""
        ...


Watch: TypeAlias = "Callable[[int, memoryview, memoryview | None], Callable[[], None] | None]"
"""Takes a frame's number, its bytes, and those of what it leans on, not verified yet; on any thread. What it
answers is called on that thread before its next frame, for one frame after another."""


@dataclass(frozen=True, slots=True)
class Base:
    """One whose verified content is at hand."""

    reference: Reference
    dtype: DType
    content: memoryview

    @property
    def length(self) -> int:
        return len(self.content)

    def frame(self, element: int, count: int) -> memoryview:
        size = self.dtype.itemsize
        return self.content[element * size : (element + count) * size]

    def seen(self, frame: memoryview) -> None:
        pass

    def require_whole(self) -> None:
        pass


class StoredBase:
    """One that is decoded where it is needed, and verified when all of it was."""

    def __init__(self, reference: Reference, decoder: ObjectDecoder) -> None:
        self.reference = reference
        self.dtype = decoder.header.dtype
        self.length = decoder.header.raw_length
        self._decoder = decoder
        self._hasher = blake3()

    def frame(self, element: int, count: int) -> memoryview:
        """Raises Damage; also where its frames are cut otherwise."""
        size = count * self.dtype.itemsize
        found = self._decoder.frame_at(element)
        if found is None or found.raw_length != size:
            with self._told():
                raise DamagedFault("its frames are not those of what leans on it")
        into = _scratch.under[:size]
        self._decoder.decode_into(found, into)
        return into

    def seen(self, frame: memoryview) -> None:
        self._hasher.update(frame)

    def require_whole(self) -> None:
        if self._hasher.digest() != self._decoder.digest.raw:
            with self._told():
                raise DamagedFault("its content is not what its digest says")

    def _told(self) -> AbstractContextManager[None]:
        return translated(self._decoder.digest.hex, self._decoder.where)


class _Scratch(threading.local):
    """One frame's memory per thread: it stays in the processor's cache."""

    def __init__(self) -> None:
        self.under = small(MAX_FRAME_BYTES)
        self.stored = memoryview(bytearray(MAX_FRAME_BYTES + FRAME_OVERHEAD))


_scratch = _Scratch()


class _Turns:
    """Order among threads: frames are coded by several, but follow one another where they are stored."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._broken: BaseException | None = None

    def take(self, number: int, work: Callable[[], int]) -> int:
        """Do `work` after that of all lower numbers. Whoever takes these has begun already.

        Raises what any frame failed of: a later one may be the first to find the base damaged.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._next == number or self._broken is not None)
            if self._broken is not None:
                raise self._broken
        done = work()
        with self._changed:
            self._next += 1
            self._changed.notify_all()
        return done

    def break_off(self, error: BaseException) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._broken = self._broken or error
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried on every frame of one object, as a sample of it suggests."""

    whole: bool
    repeats: tuple[bool, ...]
    alone: float
    """Stored bytes by byte, coded without a base."""
    habits: delta.Habits | None = None
    cast: bool = False
    little: bool = False
    """Of an object so small that trying everything costs less than finding out."""

    def without_base(self) -> Plan:
        return replace(self, habits=None, cast=False)


def encode_object(
    data: Buffer,
    dtype: DType,
    threads: Executor | None = None,
    base: Under | None = None,
    plan: Plan | None = None,
    into: memoryview | None = None,
    watch: Watch | None = None,
) -> memoryview:
    """The encoded object; in `into`, which has room for `most_stored` bytes, if that is given.

    Every frame has been decoded and compared when this returns, and `base` verified; one that does not come
    back is stored raw. `data` that is no whole number of elements is coded as bytes. The result does not
    depend on `threads`. `plan`: made of the middle frame, if it was made before. `watch` is shown every frame
    as it is coded. Raises ValueError for more than `dtype.max_object_bytes`, and Damage if it is the base's.
    """
    view = memoryview(data).cast("B")
    if len(view) % dtype.itemsize:
        dtype, base, plan = BYTES, None, None
    if len(view) > dtype.max_object_bytes:
        limit = dtype.max_object_bytes
        raise ValueError(f"an object of {dtype.word} is at most {limit} bytes, not {len(view)}")
    if base is not None and not fits(dtype, len(view), base.dtype, base.length):
        raise ValueError(f"{base.length} bytes of {base.dtype.word} are no base for {dtype.word}")
    if dtype is BYTES and len(view) <= littlecode.MOST and watch is None:
        whole = littlecode.encode(view)
        if into is None:
            return memoryview(bytearray(whole))
        into[: len(whole)] = whole
        return into[: len(whole)]
    if plan is None:
        plan = _planned(view, dtype, base)
    room = memoryview(bytearray(most_stored(len(view), dtype))) if into is None else into
    frames = _encode_frames(view, dtype, plan, base, room, threads, watch)
    references = [base.reference] if base is not None and frames.lean else []
    header = write_header(dtype, frames.count, len(view), references)
    begin = MAX_HEADER - len(header)
    room[begin:MAX_HEADER] = header
    return room[begin : frames.end]


@dataclass(slots=True)
class _Frames:
    """The frames of one object that are written, and where the next one will be."""

    count: int = 0
    end: int = MAX_HEADER
    lean: bool = False


def _encode_frames(
    content: memoryview,
    dtype: DType,
    plan: Plan,
    base: Under | None,
    room: memoryview,
    threads: Executor | None,
    watch: Watch | None,
) -> _Frames:
    step = dtype.max_frame_bytes
    written, turns = _Frames(), _Turns()

    def encode(number: int) -> None:
        data = content[number * step : (number + 1) * step]
        try:
            under = None
            if base is not None:
                under = base.frame(number * step // dtype.itemsize, len(data) // dtype.itemsize)
            watched = watch(number, data, under) if watch is not None else None
            codec, stored = _encode_frame(data, dtype, plan, base, under)

            def take_place() -> int:
                if base is not None and under is not None:
                    base.seen(under)
                if watched is not None:
                    watched()
                begin = written.end
                written.end += len(stored)
                written.count += 1
                written.lean |= codec in BASED
                return begin

            begin = turns.take(number, take_place)
            loops.copy(stored, room[begin : begin + len(stored)])
        except BaseException as error:
            turns.break_off(error)
            raise

    each(encode, range(-(-len(content) // step)), threads)
    if base is not None:
        base.require_whole()
    return written


def _planned(content: memoryview, dtype: DType, base: Under | None) -> Plan:
    middle, sample = sample_of(content, dtype)
    plan = plan_alone(sample, dtype, len(content))
    if base is None or not len(sample):
        return plan
    element, count = middle // dtype.itemsize, len(sample) // dtype.itemsize
    frame = min(dtype.max_frame_bytes, len(content) - middle) // dtype.itemsize
    under = base.frame(element, frame)[: count * base.dtype.itemsize]
    return plan_against(plan, sample, under, dtype, base.dtype)[0]


def sample_of(content: memoryview, dtype: DType) -> tuple[int, memoryview]:
    """The beginning of the middle frame, and where that is."""
    step = dtype.max_frame_bytes
    begin = -(-len(content) // step) // 2 * step
    return begin, content[begin : begin + min(step, SAMPLE * dtype.itemsize)]


def fits(dtype: DType, length: int, base: DType, base_length: int) -> bool:
    """Whether an object of `base_length` bytes may be a base for one of `length`."""
    if base == dtype:
        return dtype.has_planes and length == base_length
    return base == cast.WIDE and dtype.word in cast.NARROW and 2 * length == base_length


def plan_alone(sample: memoryview, dtype: DType, length: int) -> Plan:
    """What to try on an object of `length` bytes that has no base."""
    if not len(sample):
        return Plan(False, (), 1.0)
    whole = len(zstd.compress_general(sample))
    if not dtype.has_planes:
        return Plan(True, (), min(1.0, whole / len(sample)))
    little = length <= LITTLE
    repeats = (True,) * dtype.itemsize if little else planes.repeats_pay(sample, dtype)
    split = _size(planes.encode(sample, dtype, repeats))
    smallest = min(split, whole, len(sample))
    return Plan(whole < min(split, len(sample)), repeats, smallest / len(sample), little=little)


def plan_against(
    alone: Plan, sample: memoryview, under: memoryview, dtype: DType, base_dtype: DType
) -> tuple[Plan, float]:
    """What to try against a base, given a frame of as many elements; the bytes that the sample takes so."""
    if base_dtype != dtype and cast.is_rounding(sample, under, dtype):
        # Other frames may be none: a part of a table that was never used, say.
        return replace(alone, cast=True, habits=delta.UNKNOWN), len(_NUMBER)
    fitted = cast.as_wide_as(dtype, under, base_dtype)
    if fitted is None:
        return alone, inf
    habits, size = delta.habits_of(sample, fitted, dtype, little=alone.little)
    return replace(alone, habits=habits), size


def _size(parts: Sequence[Buffer]) -> int:
    return sum(map(len, parts))


def _encode_frame(
    data: memoryview, dtype: DType, plan: Plan, base: Under | None, under: memoryview | None
) -> tuple[int, memoryview]:
    """A frame in its smallest form, proved by decoding it, and its codec; good until this thread's next."""
    fitted = None
    codec: int
    payload: list[Buffer]
    if base is not None and under is not None:
        fitted = cast.as_wide_as(dtype, under, base.dtype)
    if plan.cast and under is not None and cast.is_rounding(data, under, dtype):
        codec, payload = CAST, [_NUMBER]
    else:
        codec, payload = _smallest(data, fitted, dtype, plan)
    into = _scratch.stored
    stored = _place(payload, into)
    if codec not in (RAW, CAST) and not comes_back(data, codec, stored, fitted, dtype):
        codec, stored = RAW, _place([data], into)
    head = write_frame_head(codec, dtype, len(data), [stored])
    into[: len(head)] = head
    return codec, into[: len(head) + len(stored)]


def _place(parts: Sequence[Buffer], into: memoryview) -> memoryview:
    """Copy a payload to where it will stand, behind its frame's head."""
    end = FRAME_OVERHEAD
    for part in parts:
        into[end : end + len(part)] = part
        end += len(part)
    return into[FRAME_OVERHEAD:end]


def _smallest(data: memoryview, under: Memory | None, dtype: DType, plan: Plan) -> tuple[int, list[Buffer]]:
    """The payload is good until this thread encodes again."""
    codec, size = RAW, len(data)
    payload: list[Buffer] = [data]
    if plan.habits is not None and under is not None:
        found = [_NUMBER, *delta.encode(data, under, dtype, plan.habits)]
        if _size(found) < size:
            codec, payload, size = DELTA, found, _size(found)
            if size < _CLEARLY * plan.alone * len(data):
                return codec, payload
            # Coding it in planes may use the same memory.
            payload = [b"".join(found)]
    if plan.whole and len(whole := zstd.compress_general(data)) < size:
        codec, payload, size = ZSTD, [whole], len(whole)
    if dtype.has_planes and _size(split := planes.encode(data, dtype, plan.repeats)) < size:
        codec, payload = PLANES, split
    return codec, payload
