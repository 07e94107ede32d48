"""Stored floats as float64. Owns what each stored type's bits mean, and how coarse it is."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from stemmata.codecs.dtypes import DTYPES, DType
from stemmata.storage.base import Buffer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Rounding(NamedTuple):
    """How far rounding to nearest may move one value: by `unit` of its size, or by `least`."""

    unit: float
    least: float


def _rounding(dtype: DType) -> Rounding:
    bias = (1 << (8 * dtype.itemsize - 2 - dtype.mantissa)) - 1
    # Below the smallest normal number the steps stay as they are there.
    return Rounding(2.0 ** -(dtype.mantissa + 1), 2.0 ** -(bias + dtype.mantissa))


EXACT = Rounding(0.0, 0.0)
ROUNDING = {dtype.word: _rounding(dtype) for dtype in DTYPES if dtype.is_float}
"""By what safetensors calls each type of floats."""


def to_float64(data: Buffer, word: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The little-endian elements of a tensor of the type `word`, one of ROUNDING, exactly."""
    import numpy as np

    with np.errstate(invalid="ignore"):  # of the NaNs that signal, which stay NaN
        if word == "BF16":
            values = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
        elif word == "F8_E5M2":  # the upper half of a float16
            values = (np.frombuffer(data, "u1").astype("<u2") << 8).view("<f2").astype(np.float64)
        elif word == "F8_E4M3":
            values = _e4m3()[np.frombuffer(data, "u1")]
        else:
            kind = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[word]
            values = np.frombuffer(data, kind).astype(np.float64)
    assert values.size == prod(shape)
    return values.reshape(shape)


def _e4m3() -> npt.NDArray[np.float64]:
    """All 256 values of float8_e4m3fn: bias 7, no infinities, NaN where all bits but the sign are set
    (Micikevicius et al. 2022, arXiv:2209.05433)."""
    import numpy as np

    bits = np.arange(256)
    exponent, mantissa = (bits >> 3) & 15, (bits & 7) / 8
    size = np.where(exponent == 0, np.ldexp(mantissa, -6), np.ldexp(1 + mantissa, exponent - 7))
    size[(bits & 127) == 127] = np.nan
    return np.where(bits & 128, -size, size)
