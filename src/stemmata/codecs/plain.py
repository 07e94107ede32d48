"""Plain: joining the planes of few numbers without numpy, whose import takes longer than that. Does for a
table of statistics what `numpy_kernels.join` does for tensors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stemmata.codecs.dtypes import DType
from stemmata.codecs.hashing import Buffer

MOST = 512 << 10
"""Bytes of an object up to which this is quicker than what it does without."""
_WORDS = {2: "H", 4: "I", 8: "Q"}


def suits(length: int) -> bool:
    """Whether an object of so many bytes is better joined here: not where numpy is there already."""
    return length <= MOST and "numpy" not in sys.modules and sys.byteorder == "little"


def join(planes: Sequence[Buffer], dtype: DType, into: memoryview) -> None:
    """Write the elements to `into`: their bytes, and of floats the sign back from the lowest bit."""
    for place, plane in enumerate(planes):
        into[place :: dtype.itemsize] = memoryview(plane)
    if dtype.rotate:
        words = into.cast(_WORDS[dtype.itemsize])  # type: ignore[call-overload]
        top = 8 * dtype.itemsize - 1
        for place, word in enumerate(words):
            words[place] = word >> 1 | (word & 1) << top
