"""Cast: a tensor that is exactly the rounding of a stored float32 one. Owns codec 4 of FORMAT.md, section 5.

The payload is the reference alone. Rounding is that of the page, on integers, never a library's. A delta of
a narrow tensor may lean on a wide one too: on its rounding.
"""

from __future__ import annotations

from stemmata.codecs import loops
from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.streams import Memory, view

WIDE = dtype_of("F32")
NARROW = frozenset({"F16", "BF16"})


def is_rounding(data: Memory, wide: Memory, dtype: DType) -> bool:
    """Whether a frame is what `decode` makes of `wide`, twice as long."""
    rounded = loops.narrow(wide, dtype)
    return rounded is not None and len(rounded) == len(data) and loops.same(rounded, data)


def as_wide_as(dtype: DType, base: Memory, base_dtype: DType) -> Memory | None:
    """A base's bytes as elements of `dtype`: as they are, or rounded to it; None if there is a NaN."""
    return base if base_dtype == dtype else loops.narrow(base, dtype)


def decode(payload: memoryview, wide: Memory, dtype: DType, into: memoryview) -> None:
    """Fill `into`, half as long as `wide`. Raises DamagedFault."""
    if len(payload):
        raise DamagedFault("bytes follow the reference of a cast")
    rounded = loops.narrow(wide, dtype)
    if rounded is None:
        raise DamagedFault("a cast of NaN")
    into[:] = view(rounded)
