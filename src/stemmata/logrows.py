"""Log rows: what a training logged at its steps. Owns how the rows since a version before are kept, how many
there may be, and what rows of several versions make together. FORMAT.md has them under "Logged rows".

Knows no version and no file: who has the bytes hands them in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from stemmata.records import Stored, load_value, store_value

KIND = "logged"
"""The kind of object, among a version's provenance, that holds its rows."""
MOST = 10_000
"""Rows of one version. Of more, every second of a series goes, again and again."""
MOST_NUMBERS = 500_000
MAX_BYTES = 16 << 20

Row: TypeAlias = Mapping[str, int | float]
"""`step`, `epoch` if that is known, and each metric under its own name."""

_PLACE = ("step", "epoch")
_LARGEST_STEP = 2**63 - 1


class _Document(msgspec.Struct, frozen=True, gc=False):
    rows: list[dict[str, str | int | float | bool | None]] = []
    left_out: int = 0


_decoder = msgspec.json.Decoder(_Document)


@dataclass(slots=True)
class _Series:
    """Rows with the same names in them: the training's, those of an evaluation, …"""

    stride: int = 1
    seen: int = 0


class Rows:
    """The rows since the version before; of one thread. To add one is to append to a list.

    Of more rows than may be kept those stay whose number in their series is a multiple of 2, 4, 8, …: an
    evaluation that comes once in a hundred rows loses its rows no sooner than the training.
    """

    def __init__(self, most: int = MOST, numbers: int = MOST_NUMBERS) -> None:
        self._most, self._numbers = most, numbers
        self._begin()

    def _begin(self) -> None:
        self._rows: list[tuple[tuple[str, ...], int, Row]] = []
        self._series: dict[tuple[str, ...], _Series] = {}
        self._held = 0
        self._left_out = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, step: int, epoch: float | None, values: Mapping[str, int | float]) -> None:
        """Take a row in. What it says of `step` and `epoch` itself is not a metric."""
        metrics = {name: value for name, value in values.items() if name not in _PLACE}
        if not metrics:
            return
        names = tuple(metrics)
        series = self._series.setdefault(names, _Series())
        number, series.seen = series.seen, series.seen + 1
        if number % series.stride:
            self._left_out += 1
            return
        place: dict[str, int | float] = {"step": step} if epoch is None else {"step": step, "epoch": epoch}
        self._rows.append((names, number, {**place, **metrics}))
        self._held += len(metrics) + 2
        if len(self._rows) > self._most or self._held > self._numbers:
            self._thin()

    def take(self) -> Kept:
        """All of them; the next ones are those of the next version."""
        kept = Kept(tuple(row for _, _, row in self._rows), self._left_out)
        self._begin()
        return kept

    def _thin(self) -> None:
        before = len(self._rows)
        for series in self._series.values():
            series.stride *= 2
        self._rows = [each for each in self._rows if each[1] % self._series[each[0]].stride == 0]
        if len(self._rows) > before // 2 + 1:
            # Rows of which each has names of its own.
            self._rows = self._rows[::2]
        if len(self._series) > self._most:
            self._series = {names: self._series[names] for names, _, _ in self._rows}
        self._left_out += before - len(self._rows)
        self._held = sum(len(row) for _, _, row in self._rows)


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows as one version keeps them, in the order in which they were logged."""

    rows: Sequence[Row] = ()
    left_out: int = 0
    """Rows between them that there was no room for."""

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __add__(self, later: Kept) -> Kept:
        return Kept((*self.rows, *later.rows), self.left_out + later.left_out)

    def encoded(self, limit: int = MAX_BYTES) -> bytes:
        """The object's bytes: integers and floats exactly, NaN and infinities as tagged strings."""
        rows, left = list(self.rows), self.left_out
        while True:
            stored = [{name: store_value(value) for name, value in row.items()} for row in rows]
            data = msgspec.json.encode({"rows": stored, "left_out": left})
            if len(data) <= limit or not rows:
                return data
            half = rows[::2] if len(rows) > 1 else []
            rows, left = half, left + len(rows) - len(half)


def decoded(data: bytes | bytearray) -> Kept:
    """The rows in an object's bytes; none in what is no such object. A row without a step, and a value that
    is no number, are passed over: the bytes may come from a hostile place."""
    if len(data) > MAX_BYTES:
        return Kept()
    try:
        document = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Kept()
    return Kept(tuple(filter(None, map(_loaded, document.rows))), max(0, document.left_out))


def _loaded(stored: Mapping[str, Stored]) -> Row | None:
    row: dict[str, int | float] = {}
    for name, value in stored.items():
        number = load_value(value)
        if isinstance(number, int | float) and _is_number(number):
            row[name] = number
    return row if is_step(row.get("step")) else None


def is_step(value: object) -> bool:
    return isinstance(value, int) and _is_number(value) and 0 <= value <= _LARGEST_STEP


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- rows of several versions ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """A version of a run, as its line is found."""

    id: str
    parent: str | None
    """Within the run; None for a version that has none there."""
    aside: bool = False
    """Whether nothing goes on from it: the best weights, brought back at the end."""


def line_of(wanted: str, run: Sequence[Placed]) -> list[str]:
    """The line of one version of a run, first to last: what it came from, itself, and what came of it.

    `run` is in the order in which the versions were committed. A training that went on from an earlier
    version leaves a branch behind: of several branches that come of the version, the last one is meant.
    """
    parents = {each.id: each.parent for each in run}
    come, last = {wanted}, wanted
    for each in run:
        if each.parent in come and each.id != wanted:
            come.add(each.id)
            last = last if each.aside else each.id
    found: dict[str, None] = {}
    at: str | None = last
    while at is not None and at in parents and at not in found:  # no record can, a catalog that is wrong may
        found[at] = None
        at = parents[at]
    return list(found)[::-1]


@dataclass(slots=True)
class Logged:
    """All that was logged at one step."""

    step: int
    epoch: float | None = None
    metrics: dict[str, int | float] = field(default_factory=dict)
    holders: list[str] = field(default_factory=list)
    """Which versions keep it."""

    def row(self) -> dict[str, int | float]:
        place: dict[str, int | float] = {"step": self.step}
        return {**place, **({} if self.epoch is None else {"epoch": self.epoch}), **self.metrics}


def joined(parts: Iterable[tuple[str, Iterable[Row]]]) -> dict[int, Logged]:
    """Rows of a line of versions, first to last, as one log by step. What was logged twice, since a training
    went on from an earlier step, is there once, as it was logged last."""
    found: dict[int, Logged] = {}
    for holder, rows in parts:
        for row in rows:
            step = row.get("step")
            if not isinstance(step, int) or not is_step(step):
                continue
            at = found.setdefault(step, Logged(step))
            numbers = {name: value for name, value in row.items() if _is_number(value)}
            at.epoch = numbers.get("epoch", at.epoch)
            at.metrics.update((name, value) for name, value in numbers.items() if name not in _PLACE)
            if holder not in at.holders:
                at.holders.append(holder)
    return {step: found[step] for step in sorted(found)}


def missing_from(found: Mapping[int, Logged], more: Mapping[int, Logged]) -> dict[int, Logged]:
    """`found`, with the steps of `more` that it has nothing of."""
    both = {**more, **found}
    return {step: both[step] for step in sorted(both)}


def between(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Of more points than `most` the least and the greatest of each stretch, and one that is not finite where
    there is one, in their order. For drawings."""
    if len(points) <= most:
        return list(points)
    wide = -(-3 * len(points) // most)
    found: list[tuple[float, float]] = []
    for start in range(0, len(points), wide):
        stretch = range(start, min(start + wide, len(points)))
        known = [at for at in stretch if math.isfinite(points[at][1])]
        gaps = [at for at in stretch if not math.isfinite(points[at][1])]
        drawn = set(gaps[:1])
        if known:
            drawn |= {min(known, key=lambda at: points[at][1]), max(known, key=lambda at: points[at][1])}
        found += [points[at] for at in sorted(drawn)]
    return found
