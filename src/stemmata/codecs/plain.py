"""Plain: the planes of few numbers, split and joined in Python: to import anything faster takes longer than
that. Does for a table of statistics what the kernels do for tensors."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from stemmata.codecs.dtypes import DType
from stemmata.codecs.hashing import Buffer

MOST = 128 << 10
"""Bytes up to which this is quicker than an import."""
_left = 4 * MOST
"""Bytes that this process will decode here yet."""
_WORDS = {2: "H", 4: "I", 8: "Q"}


def suits(length: int) -> bool:
    """Whether so many bytes are better coded here: not where something faster is there already."""
    there = "numpy" in sys.modules or is_compiled_there()
    return length <= MOST and not there and sys.byteorder == "little"


def reads(length: int) -> bool:
    """Whether so many bytes are to be decoded here; what is, counts: after so much, it is worth an import."""
    global _left
    if suits(length):
        _left -= length
        return _left >= 0
    return False


def is_compiled_there() -> bool:
    """Whether `payloads` has been imported and does something: it reads and writes anything."""
    return getattr(sys.modules.get("stemmata.codecs.payloads"), "_own", None) is not None


def split(data: memoryview, dtype: DType) -> list[bytes]:
    """The bytes of the elements, those of one place together; of floats the sign is the lowest bit first."""
    if dtype.rotate:
        top = 8 * dtype.itemsize - 1
        rest = (1 << top) - 1
        words = array(_WORDS[dtype.itemsize], bytes(data))
        data = memoryview(array(words.typecode, [(word & rest) << 1 | word >> top for word in words])).cast(
            "B"
        )
    return [bytes(data[place :: dtype.itemsize]) for place in range(dtype.itemsize)]


def join(planes: Sequence[Buffer], dtype: DType, into: memoryview) -> None:
    """Write the elements to `into`: their bytes, and of floats the sign back from the lowest bit."""
    for place, plane in enumerate(planes):
        into[place :: dtype.itemsize] = memoryview(plane)
    if dtype.rotate:
        words = into.cast(_WORDS[dtype.itemsize])  # type: ignore[call-overload]
        top = 8 * dtype.itemsize - 1
        for place, word in enumerate(words):
            words[place] = word >> 1 | (word & 1) << top
