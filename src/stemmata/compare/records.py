"""Differences between flat mappings: config, data, metrics. Owns when two values count as equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stemmata.measurements import NO_DATASET, Dataset, contradiction
from stemmata.records import Record, Value, load_value

_NONE: Mapping[str, str] = {}
Way = Callable[[str], str | None]
"""Whether less or more of a metric is better: min, max, or None where that cannot be told."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value differs."""

    key: str
    a: Value
    b: Value


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the keys of a mapping, sorted by key."""

    added: dict[str, Value] = field(default_factory=dict)
    removed: dict[str, Value] = field(default_factory=dict)
    changed: tuple[Change, ...] = ()
    same: int = 0
    """How many keys have equal values."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        return {
            "added": dict(self.added),
            "removed": dict(self.removed),
            "changed": {c.key: {"a": c.a, "b": c.b} for c in self.changed},
            "same": self.same,
        }


@dataclass(frozen=True, slots=True)
class MetricChange:
    """One metric that either side has; None where it is absent."""

    key: str
    a: float | None
    b: float | None
    direction: str | None = None
    """min: less is better; max: more is; None where that cannot be told."""
    differing_data: str | None = None
    """Why the two may not compare: they are known to be measured on other data."""

    @property
    def better(self) -> bool | None:
        """Whether b is better than a; None where they are equal, or that cannot be told."""
        if not self.difference or self.direction is None:
            return None
        return (self.difference < 0) == (self.direction == "min")

    @property
    def difference(self) -> float | None:
        """b - a; None where one is absent or it is no finite number."""
        if self.a is None or self.b is None:
            return None
        found = self.b - self.a
        return found if math.isfinite(found) else None

    @property
    def same(self) -> bool:
        return equal(self.a, self.b)

    def to_dict(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "direction": self.direction,
            "better": self.better,
            "differing_data": self.differing_data,
        }


def equal(a: object, b: object) -> bool:
    """NaN equals NaN; 1 equals 1.0, but not True: a flag is no number."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) is not isinstance(b, bool):
        return False
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return a == b


def changes(a: Mapping[str, Value], b: Mapping[str, Value]) -> Changes:
    """What leads from `a` to `b`."""
    common = sorted(a.keys() & b.keys())
    changed = tuple(Change(key, a[key], b[key]) for key in common if not equal(a[key], b[key]))
    return Changes(
        added={key: b[key] for key in sorted(b.keys() - a.keys())},
        removed={key: a[key] for key in sorted(a.keys() - b.keys())},
        changed=changed,
        same=len(common) - len(changed),
    )


def metric_changes(
    a: Mapping[str, float],
    b: Mapping[str, float],
    way: Way = lambda _: None,
    datasets: Sequence[Mapping[str, Dataset]] = (),
) -> tuple[MetricChange, ...]:
    """Every metric of either side, by name; `datasets` says what each side's were measured on."""
    return tuple(
        MetricChange(key, a.get(key), b.get(key), way(key), differing_data(key, datasets))
        for key in sorted(a.keys() | b.keys())
    )


def differing_data(metric: str, datasets: Iterable[Mapping[str, Dataset]]) -> str | None:
    """Why values of a metric may not compare. Where nothing is known of one, nothing is said."""
    found = (side.get(metric, NO_DATASET) for side in datasets)
    return contradiction(dataset for dataset in found if dataset)


def by_data(metrics: Iterable[tuple[str, str | None]]) -> list[str]:
    """`eval_loss, eval_f1: measured on x, the other on y`: each reason once."""
    reasons: dict[str, list[str]] = {}
    for key, why in metrics:
        if why is not None:
            reasons.setdefault(why, []).append(key)
    return [f"{', '.join(keys)}: {why}" for why, keys in reasons.items()]


def provenance_changes(
    a: Record, b: Record, redacted_a: Mapping[str, str] = _NONE, redacted_b: Mapping[str, str] = _NONE
) -> Changes:
    """Kinds of provenance by digest: whether the environment, the packages or the code differ. Of what was
    redacted nothing is said, not even whether it is the same: a digest tells those who can guess."""
    sides = [
        {k: f"redacted on {gone[k][:10]}" if k in gone else digest for k, digest in record.provenance.items()}
        for record, gone in ((a, redacted_a), (b, redacted_b))
    ]
    return changes(*(dict[str, Value](side) for side in sides))


def config_of(record: Record) -> dict[str, Value]:
    """The flat config."""
    return {key: load_value(value) for key, value in record.config.items()}


def data_of(record: Record) -> dict[str, Value]:
    """Row counts and fingerprints of the data."""
    return {key: load_value(value) for key, value in record.data.items()}


def about_of(record: Record) -> dict[str, Value]:
    """The rest of what a record says: kind, run, base, author and so on; never its own times."""
    base = record.base
    found: dict[str, Value] = {
        "kind": record.kind,
        "run": record.run.name if record.run else None,
        "step": record.step,
        "epoch": record.epoch,
        "event": record.event,
        "author": record.author or None,
        "message": record.message or None,
        "base": (base.name_or_path or None) if base else None,
        "base.revision": base.revision if base else None,
        "base.digest": base.digest if base else None,
    }
    return {key: value for key, value in found.items() if value is not None}
