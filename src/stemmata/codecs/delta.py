"""Delta: a tensor as its difference from another. Owns codec 3 of FORMAT.md, section 5.

Floats are compared as integers in the same order, so that a small step is a small number whatever the
signs. What training adds is noise of a size that the base's exponent tells: elements are coded in groups
of equal exponents, each value as a token (its size, to an eighth of an octave) and raw bits. Two kinds of
blocks are apart: those that did not change, and those that weight decay alone has moved, where the base's
mantissa tells the difference almost to the unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemmata.codecs import loops, payloads, streams
from stemmata.codecs.dtypes import BLOCK, DType
from stemmata.codecs.hashing import Buffer
from stemmata.codecs.streams import Memory, as_array
from stemmata.deferred import deferred

if TYPE_CHECKING:
    from stemmata.codecs import kernels, numpy_kernels
    from stemmata.codecs.numpy_kernels import DeltaParts
else:
    # numpy comes with them
    kernels = deferred("stemmata.codecs.kernels")
    numpy_kernels = deferred("stemmata.codecs.numpy_kernels")


@dataclass(frozen=True, slots=True)
class Habits:
    """What a sample says of the tokens: whether repeats are worth looking for."""

    repeats: bool


UNKNOWN = Habits(repeats=True)
"""Where a sample says nothing: everything is tried."""
_HABITS = (Habits(repeats=False), UNKNOWN)


def encode(data: Memory, base: Memory, dtype: DType, habits: Habits) -> list[Buffer]:
    """The payload without the reference, in parts that are good until this thread encodes again.

    `base` is as long as `data`.
    """
    found = payloads.delta_write(data, base, dtype, habits.repeats)
    if found is not None:
        return [found]
    return _written(kernels.delta_split(as_array(data), as_array(base), dtype), habits)


def _written(found: DeltaParts, habits: Habits) -> list[Buffer]:
    parts = streams.write(found.classes, entropy=False)
    at = 0
    for count in found.groups:
        parts += streams.write(found.tokens[at : at + count], repeats=habits.repeats)
        at += count
    parts += streams.write(found.raw, entropy=False, repeats=False)
    if len(found.low):
        parts += streams.write(found.low)
        parts += streams.write(found.high)
    return parts


def habits_of(data: Memory, base: Memory, dtype: DType, *, little: bool) -> tuple[Habits, int]:
    """What to try on frames like this one, and the bytes that this one takes; of a little object, all."""
    if little:
        return UNKNOWN, _size(data, base, dtype, UNKNOWN)
    tried = [(_size(data, base, dtype, habits), habits.repeats, habits) for habits in _HABITS]
    size, _, habits = min(tried, key=lambda row: row[:2])
    return habits if loops.delta_tokens(data, base, dtype) else UNKNOWN, size


def _size(data: Memory, base: Memory, dtype: DType, habits: Habits) -> int:
    return sum(map(len, encode(data, base, dtype, habits)))


def decode(payload: memoryview, base: Memory, dtype: DType, into: memoryview) -> None:
    """Fill `into`, which is as long as `base`. Raises DamagedFault and HostileFault."""
    if payloads.delta_read(payload, base, dtype, into):
        return
    import numpy as np

    reader = streams.Reader(payload)
    count = len(into) // dtype.itemsize
    classes = reader.take(-(-count // BLOCK))
    under, nothing = as_array(base), np.zeros(0, np.uint8)
    groups = kernels.delta_groups(under, classes, dtype)
    tokens = [reader.take(size) for size in groups.counts]
    raw = reader.take_raw(len(into))
    low, high = (reader.take(groups.drifted) if groups.drifted else nothing for _ in range(2))
    reader.require_end()
    joined = np.concatenate(tokens) if len(tokens) > 1 else tokens[0] if tokens else nothing
    parts = numpy_kernels.DeltaParts(classes, groups.counts, joined, raw, low, high)
    kernels.delta_join(under, groups, parts, dtype, as_array(into))
