"""Steps: the losses that two runs logged, step by step. Owns which of them is the first that differs.

What a store keeps of a run's losses is what its training logged, kept with its versions, and the metrics that
those were saved with, each at its own step. A log rounds: that two logged losses are equal does not make the
weights so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stemmata import resuming
from stemmata.catalog import lines
from stemmata.compare.readings import is_number
from stemmata.compare.records import equal
from stemmata.histories import logs
from stemmata.names import name_key
from stemmata.records import load_metrics, store_number
from stemmata.version import Version

_FIRST = ("loss", "train_loss")
"""Of several losses at one step these are told of first."""


@dataclass(frozen=True, slots=True)
class LossDifference:
    """The first logged loss that differs."""

    step: int
    metric: str
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        values = {"before": store_number(self.before), "after": store_number(self.after)}
        return {"step": self.step, "metric": self.metric, **values}


@dataclass(frozen=True, slots=True)
class Losses:
    """What two runs logged, held against each other. `compared`: steps of which both logged a same loss."""

    compared: int = 0
    last: int | None = None
    """The last step that was compared."""
    first: LossDifference | None = None
    sources: tuple[str, ...] = ()
    """Where the losses stand, of the original and of the copy."""
    problem: str = ""
    """Why none were compared."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "compared": self.compared,
            "last": self.last,
            "first_difference": self.first.to_dict() if self.first else None,
            "sources": list(self.sources),
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class History:
    """Losses of one run, by step and name."""

    losses: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    source: str = ""


def history(version: Version) -> History:
    """What is kept of the losses that the version's run logged, along the line that the version is of."""
    session = version.source
    found: dict[int, dict[str, float]] = {}
    holders: dict[str, None] = {}
    for step, logged in logs.of_run(session, session.row(version.id)).items():
        _add(found, step, logged.metrics)
        if step in found:
            holders.update(dict.fromkeys(logged.holders))
    sources = _kept_with(list(holders))
    logged_steps = set(found)
    for row in logs.line_of(session, session.row(version.id)):
        # Those of the save alone: an evaluation that somebody added later is not the run's.
        _add(found, row.step, load_metrics(session.record(row).metrics))
    if set(found) - logged_steps or (found and not sources):
        sources.append("the metrics of its versions")
    return History(found, " and ".join(sources))


def _kept_with(holders: Sequence[str]) -> list[str]:
    if not holders:
        return []
    more = f" and {len(holders) - 2} between" if len(holders) > 2 else ""
    last = f" to {holders[-1]}" if len(holders) > 1 else ""
    return [f"the training's log, kept with {holders[0]}{last}{more}"]


def versions_of_run(version: Version) -> list[Version]:
    """The versions of its run, in the order in which they were committed; itself where it is of no run."""
    if version.run is None:
        return [version]
    session = version.source
    rows = lines.versions(session.catalog.connection, name_key(version.model), version.run)
    return [Version(session, row) for row in rows]


def version_at(version: Version, step: int) -> Version | None:
    """A version of its run at that very step, else a state that was kept there to go on from."""
    there = [each for each in versions_of_run(version) if each.step == step]
    if not there and version.run is not None:
        session = version.source
        model = name_key(resuming.states_of(version.model))
        rows = lines.versions(session.catalog.connection, model, version.run)
        there = [Version(session, row) for row in rows if row.step == step]
    return there[-1] if there else None


def _add(found: dict[int, dict[str, float]], step: object, metrics: Mapping[str, Any]) -> None:
    if not isinstance(step, int) or isinstance(step, bool):
        return
    for key, value in metrics.items():
        if key.endswith("loss") and is_number(value):
            try:
                found.setdefault(step, {}).setdefault(key, float(value))
            except OverflowError:
                found.setdefault(step, {}).setdefault(key, math.inf)


def compare_losses(a: History, b: History, until: int | None = None) -> Losses:
    """What both logged at the same steps, up to and with step `until`. NaN equals NaN."""
    problems = [f"no loss of the {who} was kept" for who, h in (("original", a), ("copy", b)) if not h.losses]
    if problems:
        return Losses(problem="; ".join(problems))
    compared, last, first = 0, None, None
    for step in sorted(a.losses.keys() & b.losses.keys()):
        if until is not None and step > until:
            break
        names = a.losses[step].keys() & b.losses[step].keys()
        if not names:
            continue
        compared, last = compared + 1, step
        for name in sorted(names, key=lambda n: (n not in _FIRST, n)):
            before, after = a.losses[step][name], b.losses[step][name]
            if first is None and not equal(before, after):
                first = LossDifference(step, name, before, after)
    if not compared:
        where = f" up to step {until:,}" if until is not None else ""
        return Losses(problem=f"the two runs logged no loss at a same step{where}")
    return Losses(compared, last, first, (a.source, b.source))
