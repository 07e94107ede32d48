"""Element types: their codes and safetensors words. Owns the table of FORMAT.md, section 5."""

from __future__ import annotations

import msgspec

MAX_RAW_LENGTH = 128 << 20
"""Bytes of the largest object there may be."""
_OBJECT_ELEMENTS = 16 << 20
_OBJECT_BYTES = 64 << 20
_FRAME_ELEMENTS = 128 << 10
_FRAME_BYTES = 1 << 20
BLOCK = 128
"""Elements of one frame that a delta treats alike."""
MOMENTS = 15
"""How many numbers tell what many are: see `numpy_moments.moments`."""
LITTLE = 64 << 10
"""Bytes of data below which calls cost more than what they do with it."""
SAMPLE = 8 << 10
"""Elements that are coded in every way to find out which pays. More choose nothing smaller that is worth the
name, and cost more than coding does where tensors are of a few frames."""


class DType(msgspec.Struct, frozen=True):
    """One element type. `code` is stored; `word` is what safetensors calls it."""

    code: int
    word: str
    itemsize: int
    is_float: bool = False
    mantissa: int = -1
    """Bits of a float's mantissa; -1 where it is none."""

    @property
    def rotate(self) -> bool:
        """Whether planes rotate the sign to the low end, so that the exponent begins the top byte."""
        return self.is_float and self.itemsize > 1

    @property
    def has_planes(self) -> bool:
        return self.code >= 2

    @property
    def max_object_bytes(self) -> int:
        return _OBJECT_ELEMENTS * self.itemsize if self.code else _OBJECT_BYTES

    @property
    def max_frame_bytes(self) -> int:
        return _FRAME_ELEMENTS * self.itemsize if self.code else _FRAME_BYTES


DTYPES: tuple[DType, ...] = (
    DType(0, "bytes", 1),
    DType(1, "BOOL", 1),
    DType(2, "U8", 1),
    DType(3, "I8", 1),
    DType(4, "F8_E4M3", 1, is_float=True, mantissa=3),
    DType(5, "F8_E5M2", 1, is_float=True, mantissa=2),
    DType(6, "I16", 2),
    DType(7, "U16", 2),
    DType(8, "F16", 2, is_float=True, mantissa=10),
    DType(9, "BF16", 2, is_float=True, mantissa=7),
    DType(10, "I32", 4),
    DType(11, "U32", 4),
    DType(12, "F32", 4, is_float=True, mantissa=23),
    DType(13, "I64", 8),
    DType(14, "U64", 8),
    DType(15, "F64", 8, is_float=True, mantissa=52),
)
"""By code."""

BYTES = DTYPES[0]
MAX_FRAME_BYTES = max(dtype.max_frame_bytes for dtype in DTYPES)
_BY_WORD = {dtype.word: dtype for dtype in DTYPES}


def dtype_of(word: str) -> DType:
    """The type that safetensors calls `word`; plain bytes for '' and for a word that is not known."""
    return _BY_WORD.get(word, BYTES)
