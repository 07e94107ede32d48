"""Cast: a tensor that is exactly the rounding of a stored float32 one. Owns codec 4 of FORMAT.md, section 5.

The payload is the reference alone. Rounding is that of the page, on integers, never a library's. A delta of
a narrow tensor may lean on a wide one too: on its rounding.
"""

from __future__ import annotations

from stemmata.codecs import kernels
from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.streams import Bytes

WIDE = dtype_of("F32")
NARROW = frozenset({"F16", "BF16"})


def is_rounding(data: Bytes, wide: Bytes, dtype: DType) -> bool:
    """Whether a frame is what `decode` makes of `wide`, twice as long."""
    rounded = kernels.narrow(wide, dtype)
    return rounded is not None and len(rounded) == len(data) and bool(kernels.same(rounded, data))


def as_wide_as(dtype: DType, base: Bytes, base_dtype: DType) -> Bytes | None:
    """A base's bytes as elements of `dtype`: as they are, or rounded to it; None if there is a NaN."""
    return base if base_dtype == dtype else kernels.narrow(base, dtype)


def decode(payload: memoryview, wide: Bytes, dtype: DType, into: Bytes) -> None:
    """Fill `into`, half as long as `wide`. Raises DamagedFault."""
    if len(payload):
        raise DamagedFault("bytes follow the reference of a cast")
    rounded = kernels.narrow(wide, dtype)
    if rounded is None:
        raise DamagedFault("a cast of NaN")
    into[:] = rounded
