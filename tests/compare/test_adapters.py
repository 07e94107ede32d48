"""Delta-W from its factors: norms, spectra, angles, against the product itself and against known ones."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from stemmata.compare.adapters import (
    MAX_CORE,
    NotComparable,
    Product,
    principal_angles,
    product,
    relate,
    relate_to_itself,
)
from stemmata.compare.floats import ROUNDING

Array = npt.NDArray[np.float64]
F32 = ROUNDING["F32"]
DEGREE = math.pi / 180


def orthonormal(seed: int, rows: int, columns: int) -> Array:
    q: Array = np.linalg.qr(np.random.default_rng(seed).normal(size=(rows, columns)))[0]
    return q


def made(
    values: list[float], *, rank: int = 0, outputs: int = 48, inputs: int = 40, seed: int = 0
) -> tuple[Array, Array]:
    """Factors (rank r, at least that of the values) whose product has these singular values."""
    left, right = orthonormal(seed, outputs, len(values)), orthonormal(seed + 1, inputs, len(values))
    rank = max(rank, len(values))
    # Any r x k matrix of full column rank, and its left inverse, between them.
    mix = np.random.default_rng(seed + 2).normal(size=(rank, len(values)))
    return left * np.array(values) @ np.linalg.pinv(mix), mix @ right.T


def stored(*factors: Array, dtype: str = "float32") -> list[Array]:
    return [f.astype(dtype).astype(np.float64) for f in factors]


def of(delta: Array) -> Array:
    values: Array = np.linalg.svd(delta, compute_uv=False)
    return values


# --- one adapter --------------------------------------------------------------------------------


@pytest.mark.parametrize(("outputs", "inputs", "rank"), [(48, 40, 6), (5, 40, 8), (700, 3, 4), (1, 1, 1)])
def test_spectrum_of_the_product_that_is_never_made(outputs: int, inputs: int, rank: int) -> None:
    rng = np.random.default_rng(outputs)
    b, a = rng.normal(size=(outputs, rank)), rng.normal(size=(rank, inputs))
    found = product(b, a, -0.75)
    delta = -0.75 * b @ a
    np.testing.assert_allclose(found.left * found.values @ found.right.T, delta, atol=1e-12)
    expected = of(delta)[: min(outputs, inputs, rank)]
    np.testing.assert_allclose(found.values, expected, rtol=1e-10, atol=1e-12)
    told = found.spectrum
    assert told.rank == rank
    assert told.norm == pytest.approx(np.linalg.norm(delta), rel=1e-12)
    assert told.spectral_norm == pytest.approx(np.linalg.norm(delta, 2), rel=1e-12)
    assert told.stable_rank == pytest.approx((told.norm / told.spectral_norm) ** 2, rel=1e-12)


def test_a_known_effective_rank_is_recovered_from_float32() -> None:
    """Three equal directions of sixteen: 3. Shares of 1/2, 1/4, 1/8, 1/8: 2 ** 1.75."""
    for values, expected in (([2.0] * 3, 3.0), ([4.0, 2.0, 1.0, 1.0], 2**1.75)):
        b, a = stored(*made(values, rank=16))
        told = product(b, a, 1.0, rounding=(F32, F32)).spectrum
        assert told.effective_rank == pytest.approx(expected, abs=1e-5)
        assert told.rank == 16
        assert told.resolved_rank == len(values)
        assert told.norm == pytest.approx(math.hypot(*values), rel=1e-6)
        np.testing.assert_allclose(told.singular_values[: len(values)], values, rtol=1e-6)


def test_unused_rank_is_what_carries_less_than_a_hundredth() -> None:
    told = product(*made([10.0, 0.5, 0.1, 0.01]), 1.0).spectrum
    assert (told.rank, told.resolved_rank, told.used_rank, told.unused_rank) == (4, 4, 1, 3)
    assert product(*made([10.0, 2.0, 0.1, 0.01]), 1.0).spectrum.used_rank == 2
    assert product(*made([1.0, 1.0, 1.0]), 1.0).spectrum.unused_rank == 0


def test_a_fresh_adapter_is_zero() -> None:
    b, a = np.zeros((48, 8)), np.random.default_rng(0).normal(size=(8, 40))
    told = product(b, a, 2.0).spectrum
    assert (told.norm, told.spectral_norm, told.effective_rank, told.stable_rank) == (0, 0, 0, 0)
    assert (told.resolved_rank, told.used_rank, told.unused_rank) == (0, 0, 8)
    assert not any(told.singular_values)


def test_extreme_factors_neither_overflow_nor_vanish_on_the_way() -> None:
    b, a = made([3.0, 1.0])
    told = product(b * 1e200, a * 1e-200, 1.0).spectrum
    np.testing.assert_allclose(told.singular_values[:2], [3.0, 1.0], rtol=1e-10)
    with pytest.raises(NotComparable, match="beyond float64"):
        product(b * 1e200, a * 1e200, 1.0)


def test_what_cannot_be_told_says_why() -> None:
    b, a = made([1.0, 1.0])
    for broken in (np.nan, np.inf):
        spoiled = b.copy()
        spoiled[0, 0] = broken
        with pytest.raises(NotComparable, match="1 of 176 values in the factors are NaN or infinite"):
            product(spoiled, a, 1.0)
    with pytest.raises(NotComparable, match="ranks 2 and 1"):
        product(b[:, :1], a, 1.0)
    with pytest.raises(NotComparable, match="nothing to multiply"):
        product(b[:0], a, 1.0)
    with pytest.raises(NotComparable, match="scale nan"):
        product(b, a, math.nan)
    side = MAX_CORE + 1
    with pytest.raises(NotComparable, match="too large"):
        product(np.zeros((side, side)), np.zeros((side, 1)), 1.0)


def test_memory_grows_with_the_factors_alone() -> None:
    b, a = np.ones((20_000, 4)), np.ones((4, 20_000))
    tracemalloc.start()
    try:
        first = product(b, a, 1.0)
        relate(first, first)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * (b.nbytes + a.nbytes)  # the product itself would be 3.2 GB


# --- two adapters -------------------------------------------------------------------------------


def test_difference_and_cosine_of_the_products() -> None:
    """Of other ranks, scales and signs."""
    rng = np.random.default_rng(2)
    b1, a1, b2, a2 = (rng.normal(size=s) for s in ((48, 6), (6, 40), (48, 9), (9, 40)))
    one, two = 0.5 * b1 @ a1, -2.0 * b2 @ a2
    found = relate(product(b1, a1, 0.5), product(b2, a2, -2.0))
    assert found.difference == pytest.approx(np.linalg.norm(two - one), rel=1e-12)
    assert found.relative == pytest.approx(np.linalg.norm(two - one) / np.linalg.norm(one), rel=1e-12)
    assert found.inner == pytest.approx(np.sum(one * two), rel=1e-10)
    assert found.cosine == pytest.approx(
        np.sum(one * two) / np.linalg.norm(one) / np.linalg.norm(two), abs=1e-12
    )
    assert len(found.output_angles) == len(found.input_angles) == 6
    assert not found.equal


def refactored(b: Array, a: Array, seed: int) -> tuple[Array, Array]:
    mix = np.random.default_rng(seed).normal(size=(b.shape[1], b.shape[1])) + 3 * np.eye(b.shape[1])
    return b @ mix, np.linalg.inv(mix) @ a


def test_the_same_delta_under_another_factorisation_is_equal() -> None:
    b, a = made([5.0, 2.0, 1.0, 0.5])
    found = relate(product(b, a, 2.0), product(*refactored(b, a, 3), 2.0))
    assert found.relative is not None
    assert found.relative < 1e-12
    assert found.equal
    assert found.cosine == pytest.approx(1, abs=1e-14)
    assert max(*found.output_angles, *found.input_angles) < 1e-7


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_equal_means_within_the_rounding_of_the_stored_type(dtype: str) -> None:
    by = ROUNDING[{"float32": "F32", "float16": "F16"}[dtype]]
    b, a = made([5.0, 2.0, 1.0, 0.5])
    first = product(*stored(b, a, dtype=dtype), 2.0, rounding=(by, by))
    again = product(*stored(*refactored(b, a, 4), dtype=dtype), 2.0, rounding=(by, by))
    found = relate(first, again)
    assert found.equal
    assert found.difference  # for the rounding is there
    moved = b + 40 * by.unit * np.linalg.norm(b) * orthonormal(7, *b.shape)
    assert not relate(first, product(*stored(moved, a, dtype=dtype), 2.0, rounding=(by, by))).equal


def test_rounding_below_the_smallest_normal_number_is_reckoned_with() -> None:
    """B of a young adapter in float16: its values have three bits left."""
    by = ROUNDING["F16"]
    b, a = made([1e-6, 1e-6])
    exact = product(b, a, 1.0)
    rounded = product(*stored(b, a, dtype="float16"), 1.0, rounding=(by, by))
    found = relate(exact, rounded)
    assert found.relative is not None
    assert found.relative > 8 * by.unit
    assert found.equal


def test_a_small_difference_is_not_lost_in_the_norms() -> None:
    b, a = made([5.0, 2.0, 1.0])
    step = 1e-9 * np.random.default_rng(5).normal(size=b.shape)
    found = relate(product(b, a, 1.0), product(b + step, a, 1.0))
    assert found.difference == pytest.approx(np.linalg.norm(step @ a), rel=1e-5)


def rotated(angle: float, *, seed: int = 0, rows: int = 48, columns: int = 3) -> tuple[Array, Array]:
    """Two subspaces all of whose principal angles are `angle`."""
    both = orthonormal(seed, rows, 2 * columns)
    first, beyond = both[:, :columns], both[:, columns:]
    return first, math.cos(angle) * first + math.sin(angle) * beyond


@pytest.mark.parametrize("angle", [0.0, 1e-10, 1e-7, 1e-3, 0.3, 45 * DEGREE, 1.2, 90 * DEGREE])
def test_principal_angles_of_every_size(angle: float) -> None:
    found = principal_angles(*rotated(angle))
    np.testing.assert_allclose(found, [angle] * 3, rtol=1e-7, atol=2e-15)


def test_angles_of_several_sizes_at_once_ascend() -> None:
    both = orthonormal(1, 30, 6)
    angles = np.array([1e-7, 0.4, 1.5])
    second = np.cos(angles) * both[:, :3] + np.sin(angles) * both[:, 3:]
    mixed = second @ orthonormal(2, 3, 3)
    np.testing.assert_allclose(principal_angles(both[:, :3], mixed), angles, rtol=1e-7)
    # As many as the smaller space has directions; which is given first makes no difference.
    np.testing.assert_allclose(principal_angles(both[:, :3], second[:, 1:]), angles[1:], rtol=1e-12)
    np.testing.assert_allclose(principal_angles(second[:, 1:], both[:, :3]), angles[1:], rtol=1e-12)
    assert principal_angles(both[:, :0], second) == ()
    # In a space that is too narrow for both to be apart.
    assert principal_angles(np.eye(2), np.eye(2)[:, :1]) == (0.0,)


def test_a_known_angle_between_adapters_is_recovered_from_float32() -> None:
    """Outputs 20 degrees apart, inputs 70; hidden in another factorisation and a rank that is not used."""
    outputs, inputs = rotated(20 * DEGREE), rotated(70 * DEGREE, seed=9, rows=40)
    sides: list[Product] = []
    for side, left, right in ((0, outputs[0], inputs[0]), (1, outputs[1], inputs[1])):
        mix = np.random.default_rng(side).normal(size=(16, 3))
        b, a = stored(left * [3.0, 2.0, 1.0] @ np.linalg.pinv(mix), mix @ right.T)
        sides.append(product(b, a, 4.0, rounding=(F32, F32)))
    found = relate(*sides)
    np.testing.assert_allclose(found.output_angles, [20 * DEGREE] * 3, atol=1e-5)
    np.testing.assert_allclose(found.input_angles, [70 * DEGREE] * 3, atol=1e-5)
    assert found.output_overlap == pytest.approx(math.cos(20 * DEGREE) ** 2, abs=1e-5)
    assert found.input_overlap == pytest.approx(math.cos(70 * DEGREE) ** 2, abs=1e-5)
    # Every inner product of singular vectors is shrunk by both cosines.
    assert found.cosine == pytest.approx(math.cos(20 * DEGREE) * math.cos(70 * DEGREE), abs=1e-5)


def test_zero_has_no_angles() -> None:
    b, a = made([1.0, 1.0])
    zero, one = product(np.zeros_like(b), a, 1.0), product(b, a, 1.0)
    from_zero, to_zero, none = relate(zero, one), relate(one, zero), relate(zero, zero)
    assert (from_zero.relative, from_zero.cosine, from_zero.output_overlap) == (None, None, None)
    assert from_zero.difference == pytest.approx(math.sqrt(2))
    assert (to_zero.relative, to_zero.cosine) == (pytest.approx(1.0), None)
    assert (none.difference, none.relative, none.equal) == (0.0, 0.0, True)
    assert from_zero.output_angles == from_zero.input_angles == ()


def test_shapes_that_differ_are_said() -> None:
    one, two = product(*made([1.0]), 1.0), product(*made([1.0], outputs=50), 1.0)
    with pytest.raises(NotComparable, match="48×40 in a and 50×40 in b"):
        relate(one, two)


def test_to_itself_without_rounding() -> None:
    one = product(*made([3.0, 1.0]), 1.0)
    exact, computed = relate_to_itself(one), relate(one, one)
    assert (exact.difference, exact.relative, exact.cosine, exact.equal) == (0.0, 0.0, 1.0, True)
    assert exact.output_angles == (0.0, 0.0)
    assert computed.equal
    assert computed.inner == pytest.approx(exact.inner)
    assert relate_to_itself(product(np.zeros((3, 2)), np.ones((2, 3)), 1.0)).cosine is None


def test_angles_hold_at_any_scale() -> None:
    found = relate(product(*made([2.0]), 1.0), product(*made([1.0], seed=5), 1.0)).up_to_scale()
    assert (found.difference, found.relative, found.inner, found.equal) == (None, None, None, False)
    assert found.cosine is not None
    assert len(found.output_angles) == 1
