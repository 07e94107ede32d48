"""What a frame's numbers are, and how they differ from another's: in numpy, where nothing was compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from stemmata.codecs.dtypes import MOMENTS, DType

_DIRECT = {
    "I8": "<i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "I64": "<i8",
    "U64": "<u8",
    "F64": "<f8",
}
_Doubles = npt.NDArray[np.float64]


def moments(
    data: npt.NDArray[np.uint8], dtype: DType, other: npt.NDArray[np.uint8] | None, other_dtype: DType
) -> list[float]:
    """How many numbers are finite, and how many not. Of the finite ones: how many are zero, least, greatest,
    mean, sum of squared deviations from it, sum of squares. Against `other`, of equally many elements: how
    many are finite on both sides, how many equal; of those finite on both sides the sum of squared
    differences, the greatest difference, the sum of products, and of both sides' squares. Zeros if there is
    no other."""
    with np.errstate(all="ignore"):
        x = doubles(data, dtype)
        finite = np.isfinite(x)
        kept = x[finite]
        mean = float(kept.mean()) if len(kept) else 0.0
        told = [
            float(len(kept)),
            float(len(x) - len(kept)),
            float(np.count_nonzero(x == 0)),
            float(kept.min()) if len(kept) else math.inf,
            float(kept.max()) if len(kept) else -math.inf,
            mean,
            float(np.square(kept - mean).sum()),
            float(np.square(kept).sum()),
        ]
        if other is None:
            return told + [0.0] * (MOMENTS - len(told))
        y = doubles(other, other_dtype)
        both = finite & np.isfinite(y)
        a, b = x[both], y[both]
        apart = a - b
        return [
            *told,
            float(len(a)),
            float(np.count_nonzero((x == y) | (np.isnan(x) & np.isnan(y)))),
            float(np.square(apart).sum()),
            float(np.abs(apart).max()) if len(a) else 0.0,
            float((a * b).sum()),
            float(np.square(a).sum()),
            float(np.square(b).sum()),
        ]


def doubles(data: npt.NDArray[np.uint8], dtype: DType) -> _Doubles:
    """The elements as float64. Integers beyond 2**53 are rounded."""
    if dtype.word == "BF16":
        return (data.view("<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    if dtype.word == "F8_E5M2":
        return (data.astype("<u2") << 8).view("<f2").astype(np.float64)
    if dtype.word == "F8_E4M3":
        return _EIGHTHS[data]
    known: Any = _DIRECT.get(dtype.word)
    return (data.view(known) if known else data).astype(np.float64)


def _eighth(bits: int) -> float:
    exponent, mantissa = bits >> 3 & 15, bits & 7
    if bits & 0x7F == 0x7F:
        return math.nan
    size = (mantissa / 8 + 1) * 2.0 ** (exponent - 7) if exponent else mantissa / 8 * 2.0**-6
    return -size if bits & 0x80 else size


_EIGHTHS = np.array([_eighth(bits) for bits in range(256)])
