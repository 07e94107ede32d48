"""What a pair of LoRA factors does to a weight: delta-W = scale B A, told without ever making delta-W.

Owns the numerics, on arrays alone; knows no versions, names or files. The factorisation is not unique: for
every invertible R, B R and R^-1 A give the same delta-W. So nothing here compares factors. B = Q_B R_B and
A^T = Q_A R_A give delta-W = Q_B (scale R_B R_A^T) Q_A^T, whose singular values are those of the small core.
All in float64; memory and time grow with the factors, not with their product.

- effective rank: exp of the Shannon entropy of the singular values' shares of their sum
  (Roy & Vetterli 2007, "The effective rank", EUSIPCO)
- stable rank: squared Frobenius norm by squared spectral norm (Rudelson & Vershynin 2007, JACM 54(4))
- principal angles: Björck & Golub 1973, Math. Comp. 27(123); from their sines below 45 degrees, where a
  cosine tells an angle of 1e-7 no longer from none
- overlap: mean squared cosine of those angles (Hu et al. 2021, "LoRA", section 7.2)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stemmata.compare.floats import EXACT, Rounding

Array: TypeAlias = npt.NDArray[np.float64]

ENERGY = 0.99
"""What share of delta-W's squared Frobenius norm the directions in use carry together."""
_OWN_ROUNDING = 64 * float(np.finfo(np.float64).eps)
MAX_CORE = 4096
"""Greatest side of a core that is decomposed."""


class NotComparable(Exception):
    """Factors of which nothing can be told; the text says why, as a clause."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Delta-W of one module, by its singular values."""

    rank: int
    """Of the factors: r."""
    norm: float
    """Frobenius norm."""
    spectral_norm: float
    """The greatest singular value."""
    singular_values: tuple[float, ...]
    """Descending; as many as the factors allow."""
    effective_rank: float
    """exp(entropy); between 1 and r, 0 where delta-W is zero."""
    stable_rank: float
    resolved_rank: int
    """Singular values above what rounding the factors to their stored type may have made of zero."""
    used_rank: int
    """The fewest directions that carry 99 % of the squared norm."""

    @property
    def unused_rank(self) -> int:
        """Directions of r that delta-W, but for 1 % of its squared norm, does without."""
        return self.rank - self.used_rank

    def to_dict(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "norm": self.norm,
            "spectral_norm": self.spectral_norm,
            "effective_rank": self.effective_rank,
            "stable_rank": self.stable_rank,
            "resolved_rank": self.resolved_rank,
            "used_rank": self.used_rank,
            "unused_rank": self.unused_rank,
            "singular_values": list(self.singular_values),
        }


@dataclass(frozen=True)
class Product:
    """Delta-W in singular form: orthonormal left (outputs, k), right (inputs, k); values (k,) descend."""

    left: Array
    values: Array
    right: Array
    rank: int
    rounding: float
    """How far (Frobenius) delta-W may lie from that of the factors before they were rounded to be stored;
    with what float64 adds on the way."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.left.shape[0], self.right.shape[0]

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.values))

    @property
    def resolved(self) -> int:
        return int(np.count_nonzero(self.values > self.rounding))

    @cached_property
    def spectrum(self) -> Spectrum:
        values, total = self.values, float(self.values.sum())
        if not total:
            return Spectrum(self.rank, 0.0, 0.0, tuple(values.tolist()), 0.0, 0.0, 0, 0)
        shares = values[values > 0] / total
        squares = (values / values[0]) ** 2
        carried = np.cumsum(squares) / squares.sum()
        return Spectrum(
            rank=self.rank,
            norm=self.norm,
            spectral_norm=float(values[0]),
            singular_values=tuple(values.tolist()),
            effective_rank=math.exp(-float(np.sum(shares * np.log(shares)))),
            stable_rank=float(squares.sum()),
            resolved_rank=self.resolved,
            used_rank=int(np.searchsorted(carried, ENERGY) + 1),
        )


@dataclass(frozen=True, slots=True)
class Relation:
    """Two delta-Ws of the same shape, a and b. Angles in radians, ascending; of as many directions as the
    one of the lower resolved rank has, none where either is zero."""

    difference: float | None
    """Frobenius norm of b - a; None where their scales are not known, as all that needs them."""
    relative: float | None
    """That by the norm of a; None where a alone is zero."""
    inner: float | None
    """trace(a^T b)."""
    cosine: float | None
    """inner by both norms; None where either is zero."""
    output_angles: tuple[float, ...]
    """Between the column spaces: what the modules write."""
    input_angles: tuple[float, ...]
    """Between the row spaces: what they read."""
    equal: bool
    """The difference is no more than rounding both sides' factors to their stored types may have made."""

    @property
    def output_overlap(self) -> float | None:
        """Mean squared cosine: 1 for the same subspace, 0 for orthogonal ones; None without angles."""
        return _overlap(self.output_angles)

    @property
    def input_overlap(self) -> float | None:
        return _overlap(self.input_angles)

    def up_to_scale(self) -> Relation:
        """Only what holds at any two positive scales: cosine and angles."""
        return replace(self, difference=None, relative=None, inner=None, equal=False)

    def to_dict(self) -> dict[str, Any]:
        return {
            "difference": self.difference,
            "relative": self.relative,
            "cosine": self.cosine,
            "equal": self.equal,
            "output_overlap": self.output_overlap,
            "input_overlap": self.input_overlap,
            "output_angles": list(self.output_angles),
            "input_angles": list(self.input_angles),
        }


def _overlap(angles: tuple[float, ...]) -> float | None:
    return sum(math.cos(x) ** 2 for x in angles) / len(angles) if angles else None


def product(
    b: Array, a: Array, scale: float, *, rounding: tuple[Rounding, Rounding] = (EXACT, EXACT)
) -> Product:
    """The singular form of `scale * b @ a`, for b (outputs, r) and a (r, inputs).

    `rounding` is that of the types which b and a were stored in. Raises NotComparable.
    """
    rank = b.shape[1]
    if a.shape[0] != rank:
        raise NotComparable(f"the factors have ranks {a.shape[0]} and {rank}")
    if min(rank, max(b.shape[0], a.shape[1])) > MAX_CORE:
        raise NotComparable(f"factors of rank {rank} are too large to decompose")
    broken = sum(int(f.size - np.count_nonzero(np.isfinite(f))) for f in (b, a))
    if broken:
        raise NotComparable(f"{broken} of {b.size + a.size} values in the factors are NaN or infinite")
    if not (b.size and a.size and math.isfinite(scale)):
        raise NotComparable(f"nothing to multiply: factors of {b.shape} and {a.shape}, scale {scale:g}")
    # Brought near 1, or products of extreme factors would overflow on the way to a norm that does not.
    (b, high), (a, wide) = _near_one(b), _near_one(a)
    left, tall = np.linalg.qr(b)
    right, flat = np.linalg.qr(a.T)
    try:
        u, values, vt = np.linalg.svd(tall @ flat.T, full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise NotComparable(f"the factors cannot be decomposed: {error}") from None
    with np.errstate(all="ignore"):
        factor = np.multiply(np.multiply(scale, high), wide)
        values = values * abs(factor)
        moved = abs(factor) * (
            _moved(b, high, rounding[0]) * _spectral(flat) + _moved(a, wide, rounding[1]) * _spectral(tall)
        )
        moved += abs(factor) * _OWN_ROUNDING * _spectral(flat) * _spectral(tall)
    if not np.isfinite(values).all():
        raise NotComparable("the norm of their product is beyond float64")
    # A negative scale turns the left vectors, for singular values have no sign.
    return Product(left @ (u if factor >= 0 else -u), values, right @ vt.T, rank, float(moved))


def _near_one(factor: Array) -> tuple[Array, float]:
    greatest = float(np.abs(factor).max())
    if greatest == 0:
        return factor, 1.0
    power = 2.0 ** min(1023, max(-1022, math.frexp(greatest)[1]))  # exact but for subnormals
    return factor / power, power


def _moved(factor: Array, power: float, by: Rounding) -> float:
    """How far (Frobenius) rounding may have moved a factor that was divided by `power` since."""
    return by.unit * float(np.linalg.norm(factor)) + by.least / power * math.sqrt(factor.size)


def _spectral(core: Array) -> float:
    return float(np.linalg.norm(core, 2))


def relate(a: Product, b: Product) -> Relation:
    """How two delta-Ws of the same shape lie to each other. Raises NotComparable."""
    if a.shape != b.shape:
        raise NotComparable(f"delta-W is {a.shape[0]}×{a.shape[1]} in a and {b.shape[0]}×{b.shape[1]} in b")
    outputs, inputs = _Sides.of(a.left, b.left), _Sides.of(a.right, b.right)
    difference = _difference(a, b, outputs, inputs)
    weights = outputs.cross * inputs.cross
    cosine = None
    if a.norm and b.norm:
        cosine = min(1.0, max(-1.0, float((a.values / a.norm) @ weights @ (b.values / b.norm))))
    return Relation(
        difference=difference,
        relative=difference / a.norm if a.norm else None if difference else 0.0,
        inner=float(a.values @ weights @ b.values),
        cosine=cosine,
        output_angles=outputs.angles(a.resolved, b.resolved),
        input_angles=inputs.angles(a.resolved, b.resolved),
        equal=difference <= a.rounding + b.rounding,
    )


def relate_to_itself(a: Product) -> Relation:
    """What `relate(a, a)` is, without float64's rounding."""
    angles = (0.0,) * a.resolved
    return Relation(0.0, 0.0, a.norm**2, 1.0 if a.norm else None, angles, angles, equal=True)


@dataclass(frozen=True, slots=True)
class _Sides:
    """Orthonormal vectors of two sides, what they have in common and what lies beyond the first one's."""

    first: Array
    second: Array
    cross: Array
    """first^T second."""
    beyond: Array
    """R of what is left of `second` without its part in the span of `first`."""

    @classmethod
    def of(cls, first: Array, second: Array) -> _Sides:
        cross = first.T @ second
        beyond = np.linalg.qr(second - first @ cross, mode="r")
        return cls(first, second, cross, np.asarray(beyond))

    def angles(self, of_first: int, of_second: int) -> tuple[float, ...]:
        """Between the spans of so many leading vectors of each."""
        if self.cross.shape == (of_first, of_second) and of_first >= of_second:
            return _angles(self.cross, self.beyond)
        return principal_angles(self.first[:, :of_first], self.second[:, :of_second])


def _difference(a: Product, b: Product, outputs: _Sides, inputs: _Sides) -> float:
    """The Frobenius norm of b - a, in the basis of a's vectors and what b's have beyond them.

    Not from norms and inner product: of a small difference their cancellation would leave nothing.
    """
    left = np.vstack([outputs.cross, outputs.beyond])
    core = (left * b.values) @ np.vstack([inputs.cross, inputs.beyond]).T
    count = len(a.values)
    core[:count, :count] -= np.diag(a.values)
    return float(np.linalg.norm(core))


def principal_angles(first: Array, second: Array) -> tuple[float, ...]:
    """Angles in radians, ascending, between the spans of orthonormal columns (Björck & Golub 1973)."""
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    sides = _Sides.of(first, second)
    return _angles(sides.cross, sides.beyond)


def _angles(cross: Array, beyond: Array) -> tuple[float, ...]:
    """From the cosines' matrix (k, l), k >= l, and one that has the sines as its singular values."""
    if not cross.size:
        return ()
    cosines = np.linalg.svd(cross, compute_uv=False)
    sines = np.zeros_like(cosines)
    # Fewer where the whole space has no more; both descend, so these are turned round to belong together.
    found = np.linalg.svd(beyond, compute_uv=False)
    sines[: len(found)] = found
    sines = sines[::-1]
    small = sines**2 <= 0.5
    angles = np.where(small, np.arcsin(np.clip(sines, 0.0, 1.0)), np.arccos(np.clip(cosines, 0.0, 1.0)))
    return tuple(float(x) for x in np.sort(angles))
