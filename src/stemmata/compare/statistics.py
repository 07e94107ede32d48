"""Statistics: what is kept of a version's tensors beside them. Owns the table of FORMAT.md, section 7.

A row is of one tensor: of its own numbers, and of how they differ from those of the version that it was held
against. A difference over a history is told from these tables, and opens no weights.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stemmata.errors import HostileData

FORMAT = 1
_HEAD = 3
_COLUMNS = 14
_KEPT_BITS = 28
"""Of a mantissa's 52: an error of 2e-9, and nearly half of the bytes are zero."""
MAX_TABLE_BYTES = 64 << 20
_EXPLOSION = 10.0
"""Times its norm before from which a tensor has exploded."""


class Movement(msgspec.Struct, frozen=True):
    """How a tensor's numbers differ from an earlier one's, over the elements that are finite in both."""

    change: float
    """L2 norm of the difference."""
    before: float
    """L2 norm of the earlier one."""
    after: float
    """L2 norm of this one."""
    largest: float
    """Greatest absolute difference of an element."""
    cosine: float
    """Of the angle between the two; NaN where one is zero."""
    unchanged: int
    """Elements that are equal."""

    @property
    def relative(self) -> float:
        """The change against the norm before: 0 for none, infinite where everything was zero before."""
        if not self.change:
            return 0.0
        # Squares of very large numbers are beyond float64: then no share is known.
        return self.change / self.before if self.before else math.inf

    def back(self) -> Movement:
        """The same way, from the other end."""
        return msgspec.structs.replace(self, before=self.after, after=self.before)

    def to_dict(self) -> dict[str, Any]:
        """What JSON has no number for is None."""
        found = {**msgspec.structs.asdict(self), "relative": self.relative}
        return {key: value if math.isfinite(value) else None for key, value in found.items()}


class TensorStatistics(msgspec.Struct, frozen=True):
    """Of one tensor. What is not finite is counted, and left out of everything else."""

    nonfinite: int
    zeros: int
    mean: float
    std: float
    """Of a sample (n - 1), as torch computes it; NaN for a single element."""
    min: float
    max: float
    """NaN, as the mean, where no element is finite."""
    l2: float
    movement: Movement | None = None
    """None where there was nothing to hold it against."""

    def to_dict(self, count: int) -> dict[str, Any]:
        """With shares of `count` elements. What JSON has no number for is None."""
        found = {
            "nonfinite": self.nonfinite,
            "zeros": self.zeros / count if count else 0.0,
            "mean": self.mean,
            "std": self.std,
            "min": self.min,
            "max": self.max,
            "l2": self.l2,
        }
        if (moved := self.movement) is not None:
            found |= {
                "change": moved.change,
                "relative_change": moved.relative,
                "largest_change": moved.largest,
                "cosine": moved.cosine,
                "unchanged": moved.unchanged / count if count else 1.0,
            }
        return {key: value if math.isfinite(value) else None for key, value in found.items()}


class AsStored(msgspec.Struct, frozen=True):
    """A tensor that differs, and that is no plain numbers."""

    form: str
    """What it is: `bitsandbytes 4-bit`, `GPTQ or AWQ`, `Q4_K`, `F8_E8M0`, …"""
    unchanged: int | None = None
    """Stored elements that are equal; None where that was not counted at the save."""


@dataclass(frozen=True, slots=True)
class WeightsDiff:
    """How far each tensor that both versions have moved. Those that are equal are not listed."""

    moved: Mapping[str, Movement]
    """By the name that `TensorsDiff` gives it."""
    incomparable: tuple[str, ...] = ()
    """Other shapes, or a float against another kind of numbers."""
    read: int = 0
    """Bytes of weights that were read for it: 0 where all was known since they were saved."""
    as_stored: Mapping[str, AsStored] = field(default_factory=dict)
    """Quantised and packed tensors, and those of types whose numbers are not read: of their bytes alone it is
    told that they differ."""
    norms: Callable[[], Mapping[tuple[str, str], float]] = field(default=dict, repr=False, compare=False)
    """L2 norms of b's tensors by file and name, as far as they were kept when it was saved: what did not move
    is part of a whole too. Read when it is called; the repository must be open then."""

    @property
    def total(self) -> Movement | None:
        """Of all tensors that moved, as one."""
        return together(self.moved.values())

    def to_dict(self) -> dict[str, Any]:
        return {
            "moved": {name: movement.to_dict() for name, movement in self.moved.items()},
            "incomparable": list(self.incomparable),
            "as_stored": {name: msgspec.structs.asdict(form) for name, form in self.as_stored.items()},
            "bytes_read": self.read,
        }


def together(movements: Iterable[Movement]) -> Movement | None:
    """Of several tensors as one: norms and products add up. None of none."""
    known = list(movements)
    if not known:
        return None
    change = math.sqrt(sum(m.change**2 for m in known))
    before = math.sqrt(sum(m.before**2 for m in known))
    # |b|² = |a|² + |b - a|² + 2 a·(b - a), and a·b = |a| |b| cos: the later norms follow.
    after = [m.after for m in known]
    product = sum(m.before * a * m.cosine for m, a in zip(known, after, strict=True) if m.before * a)
    norms = before * math.sqrt(sum(a**2 for a in after))
    return Movement(
        change=change,
        before=before,
        after=math.sqrt(sum(a**2 for a in after)),
        largest=max(m.largest for m in known),
        cosine=_clamped(product / norms) if 0 < norms < math.inf else math.nan,
        unchanged=sum(m.unchanged for m in known),
    )


def of_moments(moments: Any, compared: bool) -> TensorStatistics:
    """From sums over all elements (`codecs.moments.Moments`)."""
    some = moments.finite > 0
    spread = moments.deviation / (moments.finite - 1) if moments.finite > 1 else math.nan
    movement = None
    if compared:
        norms = math.sqrt(moments.own) * math.sqrt(moments.others)
        cosine = _clamped(moments.product / norms) if 0 < norms < math.inf else math.nan
        movement = Movement(
            change=math.sqrt(moments.apart),
            before=math.sqrt(moments.others),
            after=math.sqrt(moments.own),
            largest=moments.furthest,
            cosine=cosine,
            unchanged=moments.equal,
        )
    return TensorStatistics(
        nonfinite=moments.nonfinite,
        zeros=moments.zeros,
        mean=moments.mean if some else math.nan,
        # Squares of finite numbers are beyond float64: then it is infinite, as torch says.
        std=math.sqrt(spread) if spread >= 0 else math.inf if moments.finite > 1 else math.nan,
        min=moments.least if some else math.nan,
        max=moments.greatest if some else math.nan,
        l2=math.sqrt(moments.squares),
        movement=movement,
    )


def _clamped(cosine: float) -> float:
    """Rounding may lead a little beyond 1."""
    return cosine if math.isnan(cosine) else min(1.0, max(-1.0, cosine))


def unmoved(row: TensorStatistics, count: int) -> TensorStatistics:
    """Of the very same tensor one version later."""
    still = Movement(0.0, row.l2, row.l2, 0.0, 1.0 if row.l2 else math.nan, count)
    return TensorStatistics(
        row.nonfinite, row.zeros, row.mean, row.std, row.min, row.max, row.l2, movement=still
    )


def encode(rows: Mapping[int, TensorStatistics]) -> bytes:
    """The table; the keys are running numbers of the tree's segments that have names."""
    columns: list[list[float]] = [[] for _ in range(_COLUMNS)]
    for number in sorted(rows):
        row, moved = rows[number], rows[number].movement
        exact = [float(number), float(row.nonfinite), float(row.zeros)]
        rounded = [row.mean, row.std, row.min, row.max, row.l2]
        if moved is None:
            rounded += [math.nan] * 5
            exact.append(-1.0)
        else:
            rounded += [moved.change, moved.before, moved.after, moved.largest, moved.cosine]
            exact.append(float(moved.unchanged))
        for column, value in zip(columns, [*exact, *map(_rounded, rounded)], strict=True):
            column.append(value)
    numbers = [float(FORMAT), float(len(rows)), float(_COLUMNS), *(x for column in columns for x in column)]
    return struct.pack(f"<{len(numbers)}d", *numbers)


def decode(data: bytes | bytearray | memoryview) -> dict[int, TensorStatistics]:
    """Raises HostileData for what is no such table. Of a newer one the columns that are known are read."""
    view = memoryview(data).cast("B")
    if len(view) % 8 or not _HEAD * 8 <= len(view) <= MAX_TABLE_BYTES:
        raise HostileData(where="statistics", reason=f"{len(view)} bytes are no table")
    numbers = struct.unpack(f"<{len(view) // 8}d", view)
    _, count, width = numbers[:_HEAD]
    if width < _COLUMNS or count < 0 or count * width != len(numbers) - _HEAD:
        raise HostileData(where="statistics", reason="its rows and columns do not fill it")
    rows = int(count)
    columns = [numbers[_HEAD + k * rows : _HEAD + (k + 1) * rows] for k in range(_COLUMNS)]
    found: dict[int, TensorStatistics] = {}
    for row in zip(*columns, strict=True):
        number, nonfinite, zeros, unchanged, mean, std, least, most, l2, *moved = row
        if not all(math.isfinite(x) and x == int(x) for x in (number, nonfinite, zeros, unchanged)):
            raise HostileData(where="statistics", reason="a count is no whole number")
        movement = _movement(moved, int(unchanged)) if unchanged >= 0 else None
        found[int(number)] = TensorStatistics(
            int(nonfinite), int(zeros), mean, std, least, most, l2, movement
        )
    return found


def _movement(moved: Sequence[float], unchanged: int) -> Movement:
    change, before, after, largest, cosine = moved
    return Movement(change, before, after, largest, cosine, unchanged)


def _rounded(value: float) -> float:
    """To the nearest of fewer bits; not beyond what a float can be."""
    if not math.isfinite(value) or abs(value) < sys.float_info.min:
        return value  # below that there are fewer bits to begin with
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    away = 52 - _KEPT_BITS
    near = (bits + (1 << (away - 1))) >> away << away
    (result,) = struct.unpack("<d", struct.pack("<Q", near))
    return float(result) if math.isfinite(result) else value


def grown(rows: Iterable[tuple[str, TensorStatistics]], largest_before: float) -> list[str]:
    """Tensors that have exploded: ten times their norm before, and beyond every number of the version before.
    The second, because what begins at zero (an adapter's B, a new head) grows by any factor, rightly."""
    return [
        name
        for name, row in rows
        if (moved := row.movement) is not None
        and row.l2 > _EXPLOSION * moved.before > 0
        and max(abs(row.min), abs(row.max)) > largest_before
    ]
