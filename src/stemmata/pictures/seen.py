"""Seen: what pictures know of a version, and which runs there are. Owns the order and colours of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stemmata.metricnames import by_interest, direction_of, is_aside

FAINT = -1
"""The colour of a run that is there for the whole."""
NO_RUN = "(no run)"


@dataclass(frozen=True, slots=True)
class Seen:
    """One version in plain values."""

    id: str
    """The first digits of it."""
    name: str
    run: str | None = None
    run_id: str | None = None
    epoch: float | None = None
    step: int | None = None
    at: str = ""
    """RFC 3339."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runs:
    """Versions by run, each run's in the order in which they were made; the best run first."""

    runs: Mapping[str, tuple[Seen, ...]]
    """By a label that no other has."""
    metric: str | None
    direction: str | None
    colours: Mapping[str, int]
    """By label; FAINT beyond those that have one of their own."""

    def best_of(self, versions: Iterable[Seen], metric: str | None = None) -> Seen | None:
        """The version with the best finite value of a metric, the first of those that are equal."""
        key = metric or self.metric
        if key is None:
            return None
        known = [v for v in versions if math.isfinite(v.metrics.get(key, math.nan))]
        if not known:
            return None
        pick = max if self.way(key) == "max" else min
        return pick(known, key=lambda v: v.metrics[key])

    def way(self, metric: str) -> str | None:
        """min, max, or None where neither is better."""
        if metric == self.metric and self.direction:
            return self.direction
        return None if is_aside(metric) else direction_of(metric)


def runs_of(
    versions: Iterable[Seen], colours: int, *, metric: str | None = None, direction: str | None = None
) -> Runs:
    """Gathered. `metric` decides which runs are the best: by default the one of most interest."""
    gathered: dict[tuple[str | None, str], list[Seen]] = {}
    for seen in versions:
        gathered.setdefault((seen.run_id, seen.run or _line_of(seen.name)), []).append(seen)
    groups = [(name, sorted(found, key=lambda v: v.at)) for (_, name), found in gathered.items()]
    groups.sort(key=lambda group: group[1][0].at)
    labelled: dict[str, tuple[Seen, ...]] = {}
    for name, found in groups:
        label, number = name, 2
        while label in labelled:  # two runs of one name are two runs
            label, number = f"{name} ({number})", number + 1
        labelled[label] = tuple(found)
    chosen = metric or first_metric([v for found in labelled.values() for v in found])
    bare = Runs(labelled, chosen, direction, {})
    ordered = sorted(labelled, key=lambda label: _goodness(bare, labelled[label]))
    tones = {label: place if place < colours else FAINT for place, label in enumerate(ordered)}
    return Runs({label: labelled[label] for label in ordered}, chosen, direction, tones)


def _line_of(name: str) -> str:
    """Where a version without a run belongs: with those whose names begin alike, as in `warm/epoch-3`."""
    return name.rpartition("/")[0] or NO_RUN


def _goodness(runs: Runs, versions: Sequence[Seen]) -> tuple[bool, float]:
    best = runs.best_of(versions)
    if best is None or runs.metric is None:
        return True, 0.0
    value = best.metrics[runs.metric]
    return False, -value if runs.way(runs.metric) == "max" else value


def first_metric(versions: Sequence[Seen]) -> str | None:
    """Of most interest among those that more than one version has; else among all."""
    counts: dict[str, int] = {}
    for seen in versions:
        for key in seen.metrics:
            counts[key] = counts.get(key, 0) + 1
    common = [key for key, count in counts.items() if count > 1] or list(counts)
    wanted = [key for key in common if not is_aside(key)] or common
    return by_interest(wanted)[0] if wanted else None
