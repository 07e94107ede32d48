"""Overfitting: the training loss falls, and what an evaluation measures gets worse. Owns when that is said.

A run's values of the metric are held against a curve that gets better up to the best one and worse from there
on (a valley; of a metric of which more is better a hill). It is said if all of this holds:

- There are three values after the best one or more, and they get worse: were they in any order by chance, so
  few pairs of them would be in the wrong order in less than one case of twenty (of three: none, one in six).
- The same of the whole valley, in less than three cases of a hundred: that takes seven values.
- It ends four times as far from the best as the values scatter about the valley, and by 2 % of it, or more.
- The training loss falls meanwhile: three of four pairs do, and the last is below the one at the best.

Pairs in the wrong order are counted as Kendall does (M. G. Kendall, "A New Measure of Rank Correlation",
Biometrika 30, 1938); how often so few come by chance is counted up to 12 values, and taken as normal beyond.
The valley is fitted by pooling adjacent violators (M. Ayer et al., Ann. Math. Statist. 26, 1955).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from typing import Any

import msgspec

from stemmata.catalog import lines, queries
from stemmata.ids import VersionId
from stemmata.metricnames import Direction, by_interest, direction_of, is_aside
from stemmata.records import Run

LEAST = 7
"""Versions below which nothing is said: no order of fewer values is rare enough."""
_AFTER = 3
_CHANCE_AFTER, _CHANCE_OF_THREE, _CHANCE = 0.05, 1 / 6, 0.03
_SCATTER, _SHARE = 4.0, 0.02
_AS_GOOD = 0.1
"""Of the way to the end: what is so near to the best is about as good."""
_TAU = -0.5
_COUNTED = 12
_NEWEST = 5
"""Versions that are asked which metrics a run has: its last one may have others than the rest."""
_MOST = 200
"""Values that are looked at; of more, means of neighbours are."""
_TRAINING = ("loss", "train_loss", "training_loss", "train/loss", "train_loss_epoch")


@dataclass(frozen=True, slots=True)
class Spot:
    """A version of the run, and its value of the metric."""

    id: str
    """hex"""
    name: str
    step: int | None
    epoch: float | None
    value: float


@dataclass(frozen=True, slots=True)
class Overfitting:
    """What is said of a run. It is a hint: the numbers are the run's own, the conclusion is not."""

    model: str
    run: str
    run_id: str
    metric: str
    direction: Direction
    """min or max: what is better."""
    training: str
    """The metric that falls meanwhile."""
    best: Spot
    since: Spot
    """From here on it gets worse: the best one, unless it stayed about as good for a while."""
    last: Spot
    points: int
    """Versions that have both metrics."""

    def __str__(self) -> str:
        word = "rises" if self.direction == "min" else "falls"
        return f"{self.training} falls, {self.metric} {word} since {self.since.name}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Valley:
    """Where a series has its best value, from where on it gets worse."""

    best: int
    since: int


def of_run(connection: sqlite3.Connection, model: str, run: Run) -> Overfitting | None:
    """What is to be said of a run of a model (by key); None for nothing, as where a metric is missing."""
    settings = queries.settings(connection, model)
    declared, way = settings.get("primary_metric"), settings.get("direction")
    known = _metrics_of(connection, model, run)
    training = next((name for name in _TRAINING if name in known), None)
    metric = _evaluated(known, declared if isinstance(declared, str) else None)
    if training is None or metric is None:
        return None
    direction: Direction = direction_of(metric)
    if metric == declared and way in ("min", "max"):
        direction = "min" if way == "min" else "max"
    rows = [row for row in lines.curve(connection, model, run, (metric, training)) if _whole(row)]
    rows = _last_of_each_step(rows)
    sign = 1.0 if direction == "min" else -1.0
    found = valley([sign * row[4] for row in rows], [row[5] for row in rows])
    if found is None:
        return None
    best, since, last = (_spot(rows[at]) for at in (found.best, found.since, -1))
    name = queries.model_name(connection, model)
    return Overfitting(name, run.name, run.id, metric, direction, training, best, since, last, len(rows))


def of_model(connection: sqlite3.Connection, model: str, run: str | None = None) -> Iterator[Overfitting]:
    """Of each run of a model, or of those of that name, that is to be said something of; the oldest first."""
    for each in lines.runs(connection, model, LEAST):
        if run in (None, each.name) and (found := of_run(connection, model, each)) is not None:
            yield found


def valley(values: Sequence[float], training: Sequence[float]) -> Valley | None:
    """Whether a series of values, of which less is better, gets worse while the training loss falls."""
    if len(values) > _MOST:
        return _of_means(values, training)
    best = min(range(len(values)), key=values.__getitem__) if values else 0
    before, after = values[:best], values[best + 1 :]
    if len(values) < LEAST or len(after) < _AFTER:
        return None
    if not _falls(training[best:]) or not _worsens(before, after):
        return None
    levels = _rising(values[best:])
    fitted = [*(-level for level in _rising([-v for v in values[: best + 1]])), *levels[1:]]
    scatter = math.sqrt(sum((v - f) ** 2 for v, f in zip(values, fitted, strict=True)) / len(values))
    end = sorted(values[-_AFTER:])[_AFTER // 2] - values[best]
    if end < _SCATTER * scatter or end < _SHARE * abs(values[best]):
        return None
    as_good = values[best] + max(2 * scatter, _AS_GOOD * end)
    return Valley(best, best + sum(level <= as_good for level in levels) - 1)


def _of_means(values: Sequence[float], training: Sequence[float]) -> Valley | None:
    """The same of a long series: of the means of as many neighbours as make it short."""
    each = -(-len(values) // _MOST)
    starts = range(0, len(values), each)
    means = [
        [math.fsum(part) / len(part) for part in (side[start : start + each] for start in starts)]
        for side in (values, training)
    ]
    found = valley(*means)
    if found is None:
        return None
    here = range(found.best * each, min((found.best + 1) * each, len(values)))
    best = min(here, key=values.__getitem__)
    return Valley(best, best if found.since == found.best else min((found.since + 1) * each, len(values)) - 1)


# --- what is asked of the values ------------------------------------------------------------------


def _worsens(before: Sequence[float], after: Sequence[float]) -> bool:
    wrong_after = _wrong(after)
    most = _CHANCE_OF_THREE if len(after) == _AFTER else _CHANCE_AFTER
    if _chance((len(after),), wrong_after) > most + 1e-9:
        return False
    wrong_before = _wrong([-value for value in before])
    return _chance((len(before), len(after)), wrong_before + wrong_after) <= _CHANCE


def _falls(values: Sequence[float]) -> bool:
    pairs = list(combinations(values, 2))
    tau = sum((b > a) - (b < a) for a, b in pairs) / len(pairs)
    return tau <= _TAU and values[-1] < values[0]


def _wrong(values: Sequence[float]) -> int:
    """Pairs of which the later one is less."""
    return sum(a > b for a, b in combinations(values, 2))


@cache
def _chance(lengths: tuple[int, ...], wrong: int) -> float:
    """How often series of these lengths, in any order, have `wrong` pairs in the wrong order or fewer."""
    if max(lengths) > _COUNTED:
        mean = sum(n * (n - 1) / 4 for n in lengths)
        variance = sum(n * (n - 1) * (2 * n + 5) / 72 for n in lengths)
        return math.erfc((mean - wrong - 0.5) / math.sqrt(2 * variance)) / 2
    orders = [1]
    for length in lengths:
        for kept in range(2, length + 1):
            # The next one comes before 0 to `kept - 1` of those that are there.
            orders = [sum(orders[max(0, k - kept + 1) : k + 1]) for k in range(len(orders) + kept - 1)]
    return sum(orders[: wrong + 1]) / sum(orders)


def _rising(values: Sequence[float]) -> list[float]:
    """The nearest series that never falls."""
    pooled: list[tuple[float, int]] = []
    for value in values:
        level, count = value, 1
        while pooled and pooled[-1][0] > level:
            other, others = pooled.pop()
            level, count = (level * count + other * others) / (count + others), count + others
        pooled.append((level, count))
    return [level for level, count in pooled for _ in range(count)]


# --- the run's versions ---------------------------------------------------------------------------


def _metrics_of(connection: sqlite3.Connection, model: str, run: Run) -> set[str]:
    """Names of the metrics that the newest of the run's versions were saved with."""
    sql = (
        "SELECT metrics FROM versions WHERE model = ? AND run = ? AND run_id = ? AND +state = 'visible'"
        " ORDER BY seq DESC LIMIT ?"
    )
    found = connection.execute(sql, (model, run.name, run.id, _NEWEST)).fetchall()
    return {name for (metrics,) in found for name in msgspec.json.decode(metrics) if not is_aside(name)}


def _evaluated(known: set[str], declared: str | None) -> str | None:
    """The metric that tells how good the run's versions are."""
    if declared is not None and declared not in _TRAINING:
        return declared  # it may have been added to the versions later
    choices = known - set(_TRAINING)
    told = [name for name in choices if name.startswith(("eval", "val", "test", "dev"))]
    return next(iter(by_interest(told)), None)


def _whole(row: Sequence[Any]) -> bool:
    return all(value is not None and math.isfinite(value) for value in row[4:])


def _last_of_each_step(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """A run may save one step twice, as an epoch and as its end."""
    found: dict[object, tuple[Any, ...]] = {}
    for row in rows:
        found[row[2] if row[2] is not None else row[0]] = row
    return list(found.values())


def _spot(row: Sequence[Any]) -> Spot:
    return Spot(VersionId(row[0]).hex, row[1], row[2], row[3], float(row[4]))
