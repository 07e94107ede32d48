"""Objects encoded: the choice of a codec for each frame, and the proof that it comes back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from stemmata.codecs import cast, delta, planes, zstd
from stemmata.codecs.decoding import comes_back
from stemmata.codecs.dtypes import BYTES, DType
from stemmata.codecs.frames import (
    BASED,
    CAST,
    DELTA,
    FRAME_OVERHEAD,
    MAX_HEADER,
    PLANES,
    RAW,
    ZSTD,
    Frame,
    Reference,
    write_frame_head,
    write_header,
)
from stemmata.codecs.hashing import Buffer
from stemmata.codecs.streams import Bytes
from stemmata.codecs.workers import each

_NUMBER = bytes([0])
"""The first byte of a frame that leans on a base: an object written here has one reference."""
_SAMPLE = 32 << 10
"""Elements that are coded in every way to find out which pays. Whole frames would cost more than coding
does where tensors are of a few frames."""
_CLEARLY = 0.95
"""A delta this much smaller than coding alone is taken without trying the other."""


@dataclass(frozen=True, slots=True)
class Base:
    """A stored object to lean on: where it lies and its verified content, of the same number of elements."""

    reference: Reference
    dtype: DType
    content: memoryview

    def frame(self, begin: int, length: int, dtype: DType) -> Bytes:
        """The bytes of the elements that lie in `length` bytes from `begin` on in an object of `dtype`."""
        scale = self.dtype.itemsize / dtype.itemsize
        return np.frombuffer(self.content, np.uint8)[int(begin * scale) : int((begin + length) * scale)]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried on every frame of one object, as a sample of it suggests."""

    whole: bool
    repeats: tuple[bool, ...]
    alone: float
    """Stored bytes by byte, coded without a base."""
    habits: delta.Habits | None = None
    cast: bool = False


def encode_object(
    data: Buffer,
    dtype: DType,
    threads: Executor | None = None,
    base: Base | None = None,
    plan: Plan | None = None,
    into: memoryview | None = None,
) -> memoryview:
    """The encoded object; in `into`, which has room for `most_stored` bytes, if that is given.

    Every frame has been decoded and compared when this returns; one that does not come back is
    stored raw. `data` that is no whole number of elements is coded as bytes. The result does not
    depend on `threads`. `plan`: made of the middle frame, if it was made before. Raises ValueError
    for more than `dtype.max_object_bytes`.
    """
    view = memoryview(data).cast("B")
    if len(view) % dtype.itemsize:
        dtype, base, plan = BYTES, None, None
    if len(view) > dtype.max_object_bytes:
        limit = dtype.max_object_bytes
        raise ValueError(f"an object of {dtype.word} is at most {limit} bytes, not {len(view)}")
    if base is not None and not fits(dtype, len(view), base.dtype, len(base.content)):
        raise ValueError(f"{len(base.content)} bytes of {base.dtype.word} are no base for {dtype.word}")
    content = np.frombuffer(view, np.uint8)
    step = dtype.max_frame_bytes
    starts = range(0, len(view), step)
    if plan is None:
        middle, sample = sample_of(content, dtype)
        plan = plan_alone(sample, dtype)
        if base is not None:
            under = base.frame(middle, len(sample), dtype)
            plan, _ = plan_against(plan, sample, under, dtype, base.dtype)
    room = memoryview(bytearray(most_stored(len(view), dtype))) if into is None else into
    # Each frame has a place of its own, as long as it may be; then they are moved together.
    places = [MAX_HEADER + begin + i * FRAME_OVERHEAD for i, begin in enumerate(starts)]

    def encode(i: int) -> tuple[int, int]:
        data = content[starts[i] : starts[i] + step]
        under = base.frame(starts[i], len(data), dtype) if base is not None else None
        return _encode_frame(data, dtype, plan, base, under, room[places[i] :])

    frames = each(encode, range(len(starts)), threads)
    leans = base is not None and any(codec in BASED for codec, _ in frames)
    references = [base.reference] if base is not None and leans else []
    header = write_header(dtype, len(starts), len(view), references)
    begin = MAX_HEADER - len(header)
    room[begin:MAX_HEADER] = header
    end = MAX_HEADER
    for place, (_, length) in zip(places, frames, strict=True):
        if place != end:
            room[end : end + length] = room[place : place + length]
        end += length
    return room[begin:end]


def sample_of(content: Bytes, dtype: DType) -> tuple[int, Bytes]:
    """The beginning of the middle frame, and where that is."""
    step = dtype.max_frame_bytes
    begin = -(-len(content) // step) // 2 * step
    return begin, content[begin : begin + min(step, _SAMPLE * dtype.itemsize)]


def most_stored(length: int, dtype: DType) -> int:
    """Bytes that an object of `length` bytes takes at most, once encoded."""
    return MAX_HEADER + length + -(-length // dtype.max_frame_bytes) * FRAME_OVERHEAD


def fits(dtype: DType, length: int, base: DType, base_length: int) -> bool:
    """Whether an object of `base_length` bytes may be a base for one of `length`."""
    if base == dtype:
        return dtype.has_planes and length == base_length
    return base == cast.WIDE and dtype.word in cast.NARROW and 2 * length == base_length


def plan_alone(sample: Bytes, dtype: DType) -> Plan:
    """What to try on an object that has no base."""
    if not len(sample):
        return Plan(False, (), 1.0)
    whole = len(zstd.compress_general(sample.data))
    if not dtype.has_planes:
        return Plan(True, (), min(1.0, whole / len(sample)))
    repeats = planes.repeats_pay(sample, dtype)
    split = _size(planes.encode(sample, dtype, repeats))
    smallest = min(split, whole, len(sample))
    return Plan(whole < min(split, len(sample)), repeats, smallest / len(sample))


def plan_against(
    alone: Plan, sample: Bytes, under: Bytes, dtype: DType, base_dtype: DType
) -> tuple[Plan, float]:
    """What to try against a base, given a frame of as many elements; the bytes that the sample takes so."""
    if base_dtype != dtype and cast.is_rounding(sample, under, dtype):
        # Other frames may be none: a part of a table that was never used, say.
        return replace(alone, cast=True, habits=delta.UNKNOWN), len(_NUMBER)
    fitted = cast.as_wide_as(dtype, under, base_dtype)
    if fitted is None:
        return alone, inf
    habits, size = delta.habits_of(sample, fitted, dtype)
    return replace(alone, habits=habits), size


def _size(parts: Sequence[Buffer]) -> int:
    return sum(map(len, parts))


def _encode_frame(
    data: Bytes, dtype: DType, plan: Plan, base: Base | None, under: Bytes | None, into: memoryview
) -> tuple[int, int]:
    """Write a frame in its smallest form to `into`, proved by decoding it; its codec and how long it is."""
    fitted = None
    codec: int
    payload: list[Buffer]
    if base is not None and under is not None:
        fitted = cast.as_wide_as(dtype, under, base.dtype)
    if plan.cast and under is not None and cast.is_rounding(data, under, dtype):
        codec, payload = CAST, [_NUMBER]
    else:
        codec, payload = _smallest(data, fitted, dtype, plan)
    stored = _place(payload, into)
    if codec not in (RAW, CAST) and not comes_back(
        data, Frame(codec, dtype, 0, len(data), stored[:0], b"", stored), fitted
    ):
        codec, stored = RAW, _place([data.data], into)
    head = write_frame_head(codec, dtype, len(data), [stored])
    into[: len(head)] = head
    return codec, len(head) + len(stored)


def _place(parts: Sequence[Buffer], into: memoryview) -> memoryview:
    """Copy a payload to where it will stand, behind its frame's head."""
    end = FRAME_OVERHEAD
    for part in parts:
        into[end : end + len(part)] = part
        end += len(part)
    return into[FRAME_OVERHEAD:end]


def _smallest(data: Bytes, under: Bytes | None, dtype: DType, plan: Plan) -> tuple[int, list[Buffer]]:
    """The payload is good until this thread encodes again."""
    codec, size = RAW, len(data)
    payload: list[Buffer] = [data.data]
    if plan.habits is not None and under is not None:
        found = [_NUMBER, *delta.encode(data, under, dtype, plan.habits)]
        if _size(found) < size:
            codec, payload, size = DELTA, found, _size(found)
            if size < _CLEARLY * plan.alone * len(data):
                return codec, payload
            # Coding it in planes may use the same memory.
            payload = [b"".join(found)]
    if plan.whole and len(whole := zstd.compress_general(data.data)) < size:
        codec, payload, size = ZSTD, [whole], len(whole)
    if dtype.has_planes and _size(split := planes.encode(data, dtype, plan.repeats)) < size:
        codec, payload = PLANES, split
    return codec, payload
