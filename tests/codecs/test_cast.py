"""Casts: rounding that is a library's bit for bit, and objects that are the rounding of stored ones."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crafted_objects import frame, header
from golden.second_reader import cast as told
from kernel_choices import CHOICES
from stemmata.codecs import cast, native, native_kernels, numpy_kernels
from stemmata.codecs.decoding import Stored, decode_object
from stemmata.codecs.dtypes import DType, dtype_of
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.frames import Reference
from stemmata.codecs.objectcode import Base, encode_object
from stemmata.ids import Digest, PackName

F32 = dtype_of("F32")
NARROW = [dtype_of("BF16"), dtype_of("F16")]
TORCH = {"BF16": torch.bfloat16, "F16": torch.float16}
LOWER = [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xF000, 0xFFFF]
"""Lower halves about the ties of both roundings."""
PACK = PackName(bytes(range(16)))

narrow = pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.word)


def finite(bits: np.ndarray) -> np.ndarray:
    """Without NaN."""
    return bits[(bits & 0x7FFFFFFF) <= 0x7F800000].astype("<u4")


def by_torch(bits: np.ndarray, dtype: DType) -> bytes:
    wide = torch.from_numpy(bits.view("<i4").copy()).view(torch.float32)
    return wide.to(TORCH[dtype.word]).view(torch.int16).numpy().tobytes()


@narrow
@pytest.mark.parametrize("kernel", CHOICES)
def test_i3_rounding_is_that_of_torch(kernel: ModuleType, dtype: DType) -> None:
    upper = np.arange(1 << 16, dtype=np.uint64) << 16
    for lower in LOWER:
        bits = finite(upper | np.uint64(lower))
        found = kernel.narrow(bits.view(np.uint8), dtype)
        assert found.tobytes() == by_torch(bits, dtype), hex(lower)


@narrow
@pytest.mark.parametrize("kernel", CHOICES)
def test_i3_numbers_that_become_denormal_or_nothing_round_as_those_of_torch(
    kernel: ModuleType, dtype: DType
) -> None:
    """Every exponent about the smallest normal and the smallest number at all, ties of every place too."""
    exponents = np.concatenate([np.arange(4), np.arange(100, 116), np.arange(140, 146)]).astype(np.uint64)
    mantissas = [(1 << k) + d for k in range(23) for d in (-1, 0, 1)] + [
        0x7FFFFF - (1 << k) for k in range(23)
    ]
    mantissas += [(1 << k) | (1 << j) for k in range(23) for j in range(k)]
    bits = (
        exponents[:, None] << np.uint64(23) | np.array(mantissas, np.uint64) & np.uint64(0x7FFFFF)
    ).ravel()
    bits = np.concatenate([bits, bits | np.uint64(1 << 31)]).astype("<u4")
    assert kernel.narrow(bits.view(np.uint8), dtype).tobytes() == by_torch(bits, dtype)


@narrow
@given(bits=st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=40))
def test_all_agree_on_any_bits_and_on_what_is_nan(dtype: DType, bits: list[int]) -> None:
    wide = np.array(bits, "<u4").view(np.uint8)
    holds_nan = any(v & 0x7FFFFFFF > 0x7F800000 for v in bits)
    for kernel in (numpy_kernels, native_kernels) if native.library is not None else (numpy_kernels,):
        found = kernel.narrow(wide, dtype)
        assert (found is None) == holds_nan
        assert found is None or found.tobytes() == told(wide.tobytes(), dtype.code)


# --- objects --------------------------------------------------------------------------------------


def numbers(count: int) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal(count) * 0.02).astype("<f4")


def base_of(content: bytes, dtype: DType = F32) -> tuple[Base, bytes]:
    """A stored object that leans on nothing, and its encoding."""
    reference = Reference(PACK, Digest.of(content))
    encoded = bytes(encode_object(content, dtype))
    return Base(reference, dtype, memoryview(content)), encoded


def decoded(encoded: bytes, content: bytes, base: Base, stored: bytes) -> bytearray:
    def fetch(reference: Reference) -> Stored:
        assert reference == base.reference
        return Stored(stored, len(base.content), reference.digest, reference.pack.hex)

    return decode_object(
        encoded, raw_length=len(content), digest=Digest.of(content), where="test", fetch=fetch
    )


@narrow
@pytest.mark.parametrize("count", [1, 127, 5_000, (128 << 10) + 1])
def test_i3_the_rounding_of_a_stored_tensor_is_a_reference_per_frame(dtype: DType, count: int) -> None:
    wide = numbers(count)
    base, stored = base_of(wide.tobytes())
    content = by_torch(wide.view("<u4"), dtype)
    out = bytes(encode_object(content, dtype, None, base))
    assert decoded(out, content, base, stored) == content
    assert len(out) == 16 + 48 + 8 + 25 * -(-count // (128 << 10))


@narrow
def test_i3_nearly_the_rounding_is_a_delta_on_it(dtype: DType) -> None:
    wide = numbers(20_000)
    base, stored = base_of(wide.tobytes())
    content = bytearray(by_torch(wide.view("<u4"), dtype))
    for at in range(0, len(content), 500):
        content[at] ^= 1
    out = bytes(encode_object(bytes(content), dtype, None, base))
    assert out[72] == 3
    assert len(out) < len(content) / 30
    assert decoded(out, bytes(content), base, stored) == content


@narrow
def test_a_frame_whose_base_holds_nan_is_coded_alone(dtype: DType) -> None:
    """No rule settles what the bits of a rounded NaN are: libraries differ."""
    wide = numbers(2 * (128 << 10))
    content = by_torch(wide.view("<u4"), dtype)
    wide[5] = np.nan
    base, stored = base_of(wide.tobytes())
    out = bytes(encode_object(content, dtype, None, base))
    first, second = codecs_of(out)
    assert (first in (0, 1, 2), second) == (True, 4)
    assert decoded(out, content, base, stored) == content


def codecs_of(encoded: bytes) -> list[int]:
    found, at = [], 24 + 48 * encoded[3]
    while at < len(encoded):
        found.append(encoded[at])
        at += 24 + int.from_bytes(encoded[at + 8 : at + 12], "little")
    return found


def test_a_cast_put_together_by_hand() -> None:
    """1.0, the tie between 1 and its neighbour to the even one, one above it, -0, infinity, a tiny number."""
    wide = [0x3F800000, 0x3F808000, 0x3F808001, 0x80000000, 0x7F800000, 0x33000001]
    content = np.array(wide, "<u4").tobytes()
    base, stored = base_of(content)
    for dtype, bits in (
        (dtype_of("BF16"), [0x3F80, 0x3F80, 0x3F81, 0x8000, 0x7F80, 0x3300]),
        (dtype_of("F16"), [0x3C00, 0x3C04, 0x3C04, 0x8000, 0x7C00, 0x0001]),
    ):
        narrow_content = np.array(bits, "<u2").tobytes()
        out = header(frames=1, raw=12, dtype=dtype.code, bases=[(PACK.raw, Digest.of(content).raw)])
        out += frame(b"\0", raw=12, codec=4, dtype=dtype.code)
        assert decoded(out, narrow_content, base, stored) == narrow_content
        assert encode_object(narrow_content, dtype, None, base) == out


def test_bytes_after_the_reference_are_refused() -> None:
    into = np.zeros(2, np.uint8)
    with pytest.raises(DamagedFault, match="follow the reference"):
        cast.decode(memoryview(b"x"), np.zeros(4, np.uint8), NARROW[0], into)
