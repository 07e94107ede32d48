"""Moments: equal to what torch computes in float64, for every type and any cut, compiled and in numpy."""

from __future__ import annotations

import itertools
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_choices import needs_native
from stemmata.codecs import native_kernels, numpy_moments
from stemmata.codecs.dtypes import DTYPES, DType, dtype_of
from stemmata.codecs.moments import Moments

WORDS = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "I64": torch.int64,
    "F64": torch.float64,
}
CHOICES = [
    pytest.param(numpy_moments, id="numpy"),
    pytest.param(native_kernels, id="native", marks=needs_native),
]


def _tensors(word: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    a = torch.randn(count, generator=generator, dtype=torch.float64) * 3 + 1
    b = a + torch.randn(count, generator=generator, dtype=torch.float64) * 0.5
    a[::7], b[::7] = 0, 0
    kind = WORDS[word]
    return (a.abs() if word == "U8" else a).to(kind), (b.abs() if word == "U8" else b).to(kind)


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.uint8).numpy().reshape(-1)


def _close(found: float, wanted: float) -> None:
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("module", CHOICES)
@pytest.mark.parametrize("count", [1, 5, 1024, 4099])
@pytest.mark.parametrize("word", WORDS)
def test_what_torch_computes(
    module: ModuleType, word: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stemmata.codecs import kernels

    monkeypatch.setattr(kernels, "moments", module.moments)
    a, b = _tensors(word, count)
    found = Moments.of(_bytes(a), dtype_of(word), _bytes(b))
    x, y = a.double(), b.double()
    assert (found.finite, found.nonfinite, found.both) == (count, 0, count)
    assert found.zeros == int((x == 0).sum())
    assert found.equal == int((x == y).sum())
    _close(found.least, float(x.min()))
    _close(found.greatest, float(x.max()))
    _close(found.mean, float(x.mean()))
    _close(found.deviation, float(((x - x.mean()) ** 2).sum()))
    _close(found.squares, float((x**2).sum()))
    _close(found.apart, float(((x - y) ** 2).sum()))
    _close(found.furthest, float((x - y).abs().max()))
    _close(found.product, float((x * y).sum()))
    _close(found.own, float((x**2).sum()))
    _close(found.others, float((y**2).sum()))


@pytest.mark.parametrize("module", CHOICES)
@pytest.mark.parametrize("word", ["F8_E4M3", "F8_E5M2", "F16", "BF16"])
def test_every_bit_pattern_has_its_value(module: ModuleType, word: str) -> None:
    """Of each single pattern: least is the number itself, or it is counted as none."""
    dtype = dtype_of(word)
    patterns = np.arange(1 << (8 * dtype.itemsize), dtype=f"<u{dtype.itemsize}")
    values = torch.from_numpy(patterns.view(f"<i{dtype.itemsize}").copy()).view(WORDS[word]).double()
    step = 1 if dtype.itemsize == 1 else 97
    for k in range(0, len(patterns), step):
        told = module.moments(patterns[k : k + 1].view(np.uint8), dtype, None, dtype)
        wanted = float(values[k])
        if math.isfinite(wanted):
            assert (told[0], told[3], told[4]) == (1, wanted, wanted)
        else:
            assert (told[0], told[1]) == (0, 1)


@pytest.mark.parametrize("module", CHOICES)
def test_what_is_not_finite_is_counted_and_left_out(module: ModuleType) -> None:
    a = np.array([1, math.nan, math.inf, -2, math.nan, 0], "<f4")
    b = np.array([1, math.nan, 3, -4, 5, math.inf], "<f4")
    f32 = dtype_of("F32")
    told = module.moments(a.view(np.uint8), f32, b.view(np.uint8), f32)
    assert told[:5] == [3, 3, 1, -2, 1]
    assert told[5] == pytest.approx(-1 / 3)
    # Equal: the first, and the number that is none on both sides.
    assert told[8:12] == [2, 2, 4, 2]


@pytest.mark.parametrize("module", CHOICES)
def test_a_mean_far_from_zero_does_not_drown_the_deviation(module: ModuleType) -> None:
    x = 1e8 + np.random.default_rng(1).standard_normal(5000)
    f64 = dtype_of("F64")
    told = module.moments(x.view(np.uint8), f64, None, f64)
    assert told[6] == pytest.approx(float(((x - x.mean()) ** 2).sum()), rel=1e-9)


@needs_native
@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, -1e4, 1e8, 1e30, 1e160]),
            st.sampled_from([0.0, 1e-3, 1.0, 50.0]),
            st.sampled_from([None, None, None, math.nan, math.inf, -math.inf]),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
    short=st.sampled_from([0, 1, 5, 1023]),
    seed=st.integers(0, 9),
)
def test_whatever_a_run_of_numbers_is_like_both_tell_the_same(
    chunks: list[tuple[float, float, float | None, bool]], short: int, seed: int
) -> None:
    """Runs as long as the compiled loops take at once: around any number, spread, with one that is none."""
    random = np.random.default_rng(seed)
    parts, others = [], []
    for centre, spread, odd, on_the_other_side in chunks:
        x = centre + spread * random.standard_normal(1024)
        y = x + random.integers(0, 2, 1024) * 0.25
        if odd is not None:
            (y if on_the_other_side else x)[random.integers(1024)] = odd
        parts.append(x)
        others.append(y)
    x, y = (np.concatenate(each)[: 1024 * len(chunks) - short] for each in (parts, others))
    f64 = dtype_of("F64")
    told = native_kernels.moments(x.view(np.uint8), f64, y.view(np.uint8), f64)
    wanted = numpy_moments.moments(x.view(np.uint8), f64, y.view(np.uint8), f64)
    # What rounding a sum takes from a mean is small beside the largest number, not beside that mean.
    rounding = 1e-13 * max(abs(wanted[3]), abs(wanted[4])) if wanted[0] else 0.0
    slack = {5: rounding, 6: rounding * rounding * wanted[0]}
    for k, (one, two) in enumerate(zip(told, wanted, strict=True)):
        assert one == pytest.approx(two, rel=1e-9, abs=slack.get(k, 0.0)), (k, one, two)


@pytest.mark.parametrize("module", CHOICES)
def test_two_types_are_held_against_each_other(module: ModuleType) -> None:
    wide = np.linspace(-1, 1, 777, dtype="<f4")
    half = wide.astype("<f2")
    told = module.moments(half.view(np.uint8), dtype_of("F16"), wide.view(np.uint8), dtype_of("F32"))
    assert told[10] == pytest.approx(float(np.square(half.astype("f8") - wide.astype("f8")).sum()), rel=1e-9)


def test_parts_make_the_whole() -> None:
    x = np.random.default_rng(2).standard_normal(10_001).astype("<f4")
    y = (x + 1).astype("<f4")
    f32 = dtype_of("F32")
    whole = Moments.of(x.view(np.uint8), f32, y.view(np.uint8))
    cuts = [0, 1, 1, 4000, 10_001]
    parts = [
        Moments.of(x[i:j].view(np.uint8), f32, y[i:j].view(np.uint8)) for i, j in itertools.pairwise(cuts)
    ]
    found = Moments.together(parts)
    for name in Moments.__slots__:
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-9), name


@needs_native
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=lambda dtype: dtype.word)
def test_both_implementations_agree_on_any_bytes(dtype: DType) -> None:
    random = np.random.default_rng(dtype.code)
    for count in (1, 3, 1023, 1025):
        a, b = (random.integers(0, 256, count * dtype.itemsize, dtype=np.uint8) for _ in range(2))
        one, other = (
            _bounded(module.moments(a, dtype, b, dtype)) for module in (native_kernels, numpy_moments)
        )
        assert one == pytest.approx(other, rel=1e-9)


def _bounded(told: list[float]) -> list[float]:
    """Sums beyond float64's range become infinite, and what is made of those NaN: either will do."""
    return [x if math.isfinite(x) else -1.0 for x in told]
