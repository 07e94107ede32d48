"""Milestones: what the run of a version measured at a step or an epoch. Owns where that is looked for:
among the versions of its line in the run, then in what its training logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stemmata.compare.readings import Point, Reading, listed, logged, points_in, rows_at
from stemmata.histories import logs
from stemmata.logrows import Logged
from stemmata.session import Session
from stemmata.version import Version


def reading(session: Session, version: Version, point: Point) -> Reading:
    """The metrics of the version's run at `point`: those of the version there in its line of the run, of
    several near an epoch the nearest, and what the training logged there, as far as it was kept. With none
    of both, why."""
    run, own = version.run, session.row(version.id)
    line = [row for row in logs.line_of(session, own) if version.at is None or row.at <= version.at]
    told = logs.of_line(session, own, line, at=version.at).values()
    if run is None:
        return _alone(version, point, list(told))
    at = [row for row in line if point.is_at(row.step, row.epoch)]
    found = _logged(list(told), point) or Reading()
    if at:
        nearest = min(at, key=lambda row: (point.distance(row.epoch), row.seq != own.seq, -row.seq))
        # A run has several of one step: its last epoch and its end, say. What one lacks another tells.
        beside = [row for row in at if row.step == nearest.step and row.epoch == nearest.epoch]
        beside.sort(key=lambda row: (row.seq != nearest.seq, -row.seq))
        metrics = dict(found.metrics)
        sources: list[str] = []
        for there in (Version(session, row, at=version.at) for row in reversed(beside)):
            metrics.update(there.metrics)
            if there.metrics or there.id == nearest.id:
                sources.insert(0, f"version {there.model}@{there.name}")
        found = Reading(
            metrics,
            nearest.step if nearest.step is not None else found.step,
            nearest.epoch if nearest.epoch is not None else found.epoch,
            (*sources, *found.sources),
        )
    if found.metrics:
        return found
    points: list[tuple[object, object]] = [(row.step, row.epoch) for row in line]
    known = listed([*points, *points_in([each.row() for each in told])], point)
    problem = f"run {run.name} has no metrics at {point}" + (f"; it has some at {known}" if known else "")
    return replace(found, problem=problem)


def _alone(version: Version, point: Point, told: Sequence[Logged]) -> Reading:
    if point.is_at(version.step, version.epoch):
        return Reading(
            version.metrics, version.step, version.epoch, (f"version {version.model}@{version.name}",)
        )
    line = _logged(told, point)
    if line is not None:
        return replace(line, sources=("the training's log, kept with it",))
    return Reading(problem=f"{version.name} is of no run, and not of {point}")


def _logged(told: Sequence[Logged], point: Point) -> Reading | None:
    rows = [each.row() for each in told]
    found = logged(rows, point)
    if found is None:
        return None
    steps = {row["step"] for row in rows_at(rows, point)}
    holders = dict.fromkeys(holder for each in told if each.step in steps for holder in each.holders)
    return replace(found, sources=(f"the training's log, kept with {' and '.join(holders)}",))
