"""Objects encoded: the choice of a codec for each frame, and the proof that it comes back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from math import inf

import numpy as np

from stemmata.codecs import cast, delta, planes, zstd
from stemmata.codecs.decoding import comes_back
from stemmata.codecs.dtypes import BYTES, DType
from stemmata.codecs.frames import (
    CAST,
    DELTA,
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
) -> list[Buffer]:
    """The encoded object, as parts to write one after another; some are views of `data`.

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
    if not starts:
        return [write_header(dtype, 0, 0)]
    if plan is None:
        middle = starts[len(starts) // 2]
        sample = content[middle : middle + step]
        plan = plan_alone(sample, dtype)
        if base is not None:
            under = base.frame(middle, len(sample), dtype)
            plan, _ = plan_against(plan, sample, under, dtype, base.dtype)
    work = partial(_encode_frame, content, dtype=dtype, plan=plan, base=base)
    frames = each(work, starts, threads)
    leans = base is not None and any(codec in (DELTA, CAST) for codec, _ in frames)
    parts: list[Buffer] = [
        write_header(dtype, len(starts), len(view), [base.reference] if base is not None and leans else [])
    ]
    for _, frame in frames:
        parts += frame
    return parts


def fits(dtype: DType, length: int, base: DType, base_length: int) -> bool:
    """Whether an object of `base_length` bytes may be a base for one of `length`."""
    if base == dtype:
        return dtype.has_planes and length == base_length
    return base == cast.WIDE and dtype.word in cast.NARROW and 2 * length == base_length


def plan_alone(sample: Bytes, dtype: DType) -> Plan:
    """What to try on an object that has no base."""
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
        return replace(alone, cast=True), len(_NUMBER)
    fitted = cast.as_wide_as(dtype, under, base_dtype)
    if fitted is None:
        return alone, inf
    habits, size = delta.habits_of(sample, fitted, dtype)
    return replace(alone, habits=habits), size


def _size(parts: Sequence[Buffer]) -> int:
    return sum(map(len, parts))


def _encode_frame(
    content: Bytes, begin: int, *, dtype: DType, plan: Plan, base: Base | None
) -> tuple[int, list[Buffer]]:
    """A frame's codec, and its header and payload in the smallest form, proved by decoding it."""
    data = content[begin : begin + dtype.max_frame_bytes]
    fitted = None
    if base is not None:
        under = base.frame(begin, len(data), dtype)
        if plan.cast and cast.is_rounding(data, under, dtype):
            return CAST, [write_frame_head(CAST, dtype, len(data), [_NUMBER]), _NUMBER]
        fitted = cast.as_wide_as(dtype, under, base.dtype)
    codec, payload = _smallest(data, fitted, dtype, plan)
    if codec != RAW:
        view = memoryview(payload)
        if not comes_back(data, Frame(codec, dtype, 0, len(data), view[:0], b"", view), fitted):
            codec, payload = RAW, data.data
    return codec, [write_frame_head(codec, dtype, len(data), [payload]), payload]


def _smallest(data: Bytes, under: Bytes | None, dtype: DType, plan: Plan) -> tuple[int, Buffer]:
    codec, size = RAW, len(data)
    payload: Buffer = data.data
    if plan.habits is not None and under is not None:
        found = [_NUMBER, *delta.encode(data, under, dtype, plan.habits)]
        if _size(found) < size:
            # Joined at once: what is stored as it is lies in memory that is used again.
            codec, payload, size = DELTA, b"".join(found), _size(found)
            if size < _CLEARLY * plan.alone * len(data):
                return codec, payload
    if plan.whole and len(whole := zstd.compress_general(data.data)) < size:
        codec, payload, size = ZSTD, whole, len(whole)
    if dtype.has_planes and _size(split := planes.encode(data, dtype, plan.repeats)) < size:
        codec, payload = PLANES, b"".join(split)
    return codec, payload
