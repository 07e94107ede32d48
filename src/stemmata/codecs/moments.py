"""Moments: what is told of many numbers by a few, and how those of two parts make those of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stemmata.codecs import loops
from stemmata.codecs.dtypes import DType
from stemmata.codecs.streams import Memory


@dataclass(slots=True)
class Moments:
    """Of some numbers, or of two equally many held against each other. Sums are taken in float64; what is not
    finite is counted and left out of everything else."""

    finite: int = 0
    nonfinite: int = 0
    zeros: int = 0
    least: float = math.inf
    greatest: float = -math.inf
    mean: float = 0.0
    deviation: float = 0.0
    """Sum of squared deviations from the mean."""
    squares: float = 0.0
    both: int = 0
    """How many are finite on both sides; what follows is of those."""
    equal: int = 0
    """Of all: equal on both sides, or not a number on both."""
    apart: float = 0.0
    """Sum of squared differences."""
    furthest: float = 0.0
    product: float = 0.0
    own: float = 0.0
    others: float = 0.0
    """Sums of squares, of this side and of the other."""

    @classmethod
    def of(
        cls, data: Memory, dtype: DType, other: Memory | None = None, like: DType | None = None
    ) -> Moments:
        """Of the elements in `data`, held against those of `other`, which are `like` (as `data` if None)."""
        told = loops.moments(data, dtype, other, like or dtype)
        counts = {0, 1, 2, 8, 9}
        return cls(*(int(x) if k in counts else x for k, x in enumerate(told)))  # type: ignore[arg-type]

    @classmethod
    def together(cls, parts: Iterable[Moments]) -> Moments:
        """Of all parts. Means and deviations as Chan, Golub and LeVeque (1979) put them together."""
        whole = cls()
        for part in parts:
            before, count = whole.finite, whole.finite + part.finite
            if part.finite:
                step = part.mean - whole.mean
                whole.mean += step * (part.finite / count)
                whole.deviation += part.deviation
                if before:  # else it is nothing times what may be infinite
                    whole.deviation += step * step * (before * part.finite / count)
            whole.finite = count
            whole.nonfinite += part.nonfinite
            whole.zeros += part.zeros
            whole.least = min(whole.least, part.least)
            whole.greatest = max(whole.greatest, part.greatest)
            whole.squares += part.squares
            whole.both += part.both
            whole.equal += part.equal
            whole.apart += part.apart
            whole.furthest = max(whole.furthest, part.furthest)
            whole.product += part.product
            whole.own += part.own
            whole.others += part.others
        return whole
