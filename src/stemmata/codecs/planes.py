"""Planes: the bytes of many numbers, sorted by significance. Owns codec 2 of FORMAT.md, section 5.

Elements are rotated so that a float's sign is its lowest bit; the exponent then fills the top byte,
which Huffman coding shrinks to a third, while the mantissa's bytes are noise and are stored as they
are. The values are only moved as integers: every bit pattern comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stemmata.codecs import plain, streams
from stemmata.codecs.dtypes import DType
from stemmata.codecs.hashing import Buffer
from stemmata.codecs.streams import Memory
from stemmata.deferred import deferred

if TYPE_CHECKING:
    from stemmata.codecs import kernels, loops, payloads
else:
    kernels = deferred("stemmata.codecs.kernels")  # numpy comes with them
    loops = deferred("stemmata.codecs.loops")
    payloads = deferred("stemmata.codecs.payloads")


def encode(data: Memory, dtype: DType, try_repeats: tuple[bool, ...]) -> list[Buffer]:
    """The payload, in parts that are good until this thread encodes again.

    `try_repeats` says for which planes repeats are looked for as well. Huffman coding is tried on every
    plane: a sample would save nothing and could be wrong about the next frame.
    """
    found = payloads.planes_write(data, dtype, try_repeats)
    if found is not None:
        return [found]
    parts: list[Buffer] = []
    for plane, repeats in zip(loops.split(data, dtype), try_repeats, strict=True):
        parts += streams.write(plane, repeats=repeats)
    return parts


def repeats_pay(data: Memory, dtype: DType) -> tuple[bool, ...]:
    """For each plane of a sample, whether looking for repeats beats Huffman coding alone."""
    return tuple(map(streams.repeats_pay, loops.split(data, dtype)))


def decode(payload: memoryview, dtype: DType, into: memoryview) -> None:
    """Fill `into`, whose length is bounded and a whole number of elements, with their bytes.

    Raises DamagedFault and HostileFault.
    """
    if plain.reads(len(into)):
        decode_plainly(payload, dtype, into)
        return
    if payloads.planes_read(payload, dtype, into):
        return
    reader = streams.Reader(payload)
    planes = [reader.take(len(into) // dtype.itemsize) for _ in range(dtype.itemsize)]
    reader.require_end()
    kernels.join(planes, dtype, streams.as_array(into))


def decode_plainly(payload: memoryview, dtype: DType, into: memoryview) -> None:
    """As `decode`, of few numbers, with nothing but Python."""
    reader = streams.Reader(payload)
    planes = [reader.take_plain(len(into) // dtype.itemsize) for _ in range(dtype.itemsize)]
    reader.require_end()
    plain.join(planes, dtype, into)
