"""Readings: a run's metrics at one step or epoch. Owns how such a point is told, and what a training's own
log (`log_history` of trainer_state.json) says of it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_BYTES = 64 << 20
_NEAR = 0.005
"""Epochs that differ by less are one: a Trainer rounds them in its log."""
_ASIDE = ("step", "epoch", "total_flos")


@dataclass(frozen=True, slots=True)
class Point:
    """A step, or an epoch, of a run."""

    step: int | None = None
    epoch: float | None = None

    def __str__(self) -> str:
        return f"step {self.step:,}" if self.step is not None else f"epoch {self.epoch:g}"

    def is_at(self, step: object, epoch: object) -> bool:
        """Whether this is that step and epoch, as far as they are known."""
        if self.step is not None:
            return isinstance(step, int) and step == self.step
        if self.epoch is None or not isinstance(epoch, int | float):
            return False
        return abs(epoch - self.epoch) < _NEAR

    def distance(self, epoch: object) -> float:
        """How far that epoch is from this one; 0 for a step, which is met or is not."""
        if self.epoch is None or not isinstance(epoch, int | float):
            return 0.0
        return abs(epoch - self.epoch)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one side's run measured at a point."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int | None = None
    epoch: float | None = None
    sources: tuple[str, ...] = ()
    """Where that stands: versions, and logs that were kept with versions."""
    problem: str = ""
    """Why there are no metrics."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "epoch": self.epoch,
            "sources": list(self.sources),
            "problem": self.problem or None,
        }


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def rows_of(state: bytes) -> list[dict[str, Any]]:
    """The log's rows; none for what is no such state."""
    if len(state) > MAX_BYTES:
        return []
    try:
        # Not msgspec: the Trainer writes NaN and Infinity, which JSON proper does not have.
        document = json.loads(state)
    except (ValueError, RecursionError):
        return []
    rows = document.get("log_history") if isinstance(document, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def logged(rows: list[dict[str, Any]], point: Point) -> Reading | None:
    """What the log has of a point; None for nothing."""
    metrics: dict[str, float] = {}
    step, epoch = None, None
    # Where many steps are near an epoch, what is nearest counts.
    for row in sorted(rows_at(rows, point), key=lambda row: -point.distance(row.get("epoch"))):
        for key, value in row.items():
            if is_number(value) and key not in _ASIDE:
                with contextlib.suppress(OverflowError):
                    metrics[key] = float(value)
        step = row["step"] if isinstance(row.get("step"), int) else step
        epoch = float(row["epoch"]) if is_number(row.get("epoch")) else epoch
    return Reading(metrics, step, epoch) if metrics else None


def rows_at(rows: list[dict[str, Any]], point: Point) -> list[dict[str, Any]]:
    return [row for row in rows if point.is_at(row.get("step"), row.get("epoch"))]


def points_in(rows: list[dict[str, Any]]) -> Iterator[tuple[object, object]]:
    """Step and epoch of each row."""
    return ((row.get("step"), row.get("epoch")) for row in rows)


def listed(points: list[tuple[object, object]], wanted: Point) -> str:
    """Where a run has metrics, in words: steps or epochs, those next to the wanted one if they are many."""
    place = 0 if wanted.step is not None else 1
    aim = float(wanted.step if wanted.step is not None else wanted.epoch or 0.0)
    found = sorted({float(p[place]) for p in points if is_number(p[place]) and math.isfinite(p[place])})  # type: ignore[arg-type]
    if not found:
        return ""
    near = sorted(sorted(found, key=lambda x: abs(x - aim))[:6])
    words = ", ".join(f"{x:,.0f}" if place == 0 else f"{x:.4g}" for x in near)
    what = ("step" if place == 0 else "epoch") + ("s" if len(near) > 1 else "")
    return f"{what} {words}" + (f" and {len(found) - len(near):,} others" if len(found) > len(near) else "")
