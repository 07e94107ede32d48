"""Pairs of tensors for the codecs, the same on every machine and release of numpy: drawn from BLAKE3.

In each block of 128 elements something else has happened: nothing, small steps, steps of one direction as
weight decay makes them, turned signs, or anything at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from stemmata.codecs.dtypes import DTYPES, DType

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[Any]

CODED = [dtype for dtype in DTYPES if dtype.has_planes]
"""What deltas and planes know."""
BLOCK = 128

SPECIAL: dict[str, list[int]] = {
    "F8_E4M3": [0, 0x80, 1, 0x87, 0x7E, 0x7F, 0xFF],
    "F8_E5M2": [0, 0x80, 1, 0x83, 0x7C, 0xFC, 0x7D, 0xFF],
    "F16": [0, 0x8000, 1, 0x83FF, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF],
    "BF16": [0, 0x8000, 1, 0x807F, 0x7F80, 0xFF80, 0x7F81, 0x7FC0, 0xFFFF],
    "F32": [0, 1 << 31, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC12345, 0xFFFFFFFF],
    "F64": [
        0,
        1 << 63,
        1,
        (1 << 63) | (1 << 52) - 1,
        0x7FF << 52,
        0xFFF << 52,
        (0x7FF << 52) | 1,
        (1 << 64) - 1,
    ],
}
"""Zeros, denormals, infinities, NaN with and without payloads."""


def drawn(seed: str, count: int, dtype: DType) -> Words:
    """Bits of `count` elements, any of them."""
    data = blake3(seed.encode()).digest(length=count * dtype.itemsize)
    return np.frombuffer(data, f"<u{dtype.itemsize}").copy()


def patterns(dtype: DType) -> Words:
    """Bits that are worth a thought: a float's own, and the ends of every integer."""
    bits = 8 * dtype.itemsize
    ends = [0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1]
    return np.array([*SPECIAL.get(dtype.word, []), *ends], f"<u{dtype.itemsize}")


def weights(seed: str, count: int, dtype: DType) -> Words:
    """Bits of numbers of some twenty sizes and both signs, as weights have them; integers of any value."""
    bits = drawn(seed, count, dtype)
    if not dtype.is_float:
        return bits
    width = 8 * dtype.itemsize - 1 - dtype.mantissa
    # The number of zeros at the end of a random number: each exponent has half of the one before.
    choice = drawn(f"{seed} exponents", count, DTYPES[10]).astype(np.uint64)
    lowest = (choice & (~choice + np.uint64(1))).astype(np.float64)
    steps = np.maximum(np.frexp(lowest)[1].astype(np.int64) - 1, 0)
    exponent = np.maximum((1 << (width - 1)) - 3 - steps, 0)
    keep = bits & bits.dtype.type(~(((1 << width) - 1) << dtype.mantissa) & (1 << 8 * dtype.itemsize) - 1)
    return keep | (exponent.astype(bits.dtype) << bits.dtype.type(dtype.mantissa))


def later(base: Words, seed: str, dtype: DType) -> Words:
    """What became of `base`, block by block."""
    count, kind = len(base), base.dtype.type
    blocks = -(-count // BLOCK)
    what = np.repeat(drawn(f"{seed} blocks", blocks, DTYPES[2]) % 6, BLOCK)[:count]
    size = drawn(f"{seed} sizes", count, dtype)
    small = size & kind(min(31, (1 << 8 * dtype.itemsize) - 1))
    mantissa = max(dtype.mantissa, 3)
    decay = (base >> kind(mantissa - 3) & kind(7)) + kind(1)
    after = base.copy()
    after = np.where(what == 1, base + small - kind(16), after)
    after = np.where(what == 2, base - decay, after)
    after = np.where(what == 3, base ^ (size & kind(1) << kind(8 * dtype.itemsize - 1)), after)
    after = np.where(what == 4, size, after)
    after = np.where(what == 5, base + (size >> size.dtype.type(4 * dtype.itemsize)), after)
    return after.astype(f"<u{dtype.itemsize}")


def pair(seed: str, count: int, dtype: DType) -> tuple[Bytes, Bytes]:
    """A tensor and its base, as bytes; some elements of both are special."""
    base = weights(seed, count, dtype).astype(f"<u{dtype.itemsize}")
    data = later(base, seed, dtype)
    special = patterns(dtype)
    places = drawn(f"{seed} places", 2 * len(special), DTYPES[10]) % count
    base[places[: len(special)]] = special
    data[places[len(special) :]] = special
    return data.view(np.uint8), base.view(np.uint8)
