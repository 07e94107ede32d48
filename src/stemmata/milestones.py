"""Milestones: what the run of a version measured at a step or an epoch. Owns where that is looked for:
among the run's versions, then in logs that were kept with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from stemmata import resuming
from stemmata.catalog import lines
from stemmata.compare.readings import Point, Reading, listed, logged, points_in, rows_of
from stemmata.errors import StemmataError
from stemmata.names import name_key
from stemmata.records import Run
from stemmata.session import Session
from stemmata.version import Version

_LOG = "trainer_state"
"""The kind of provenance under which an import keeps a training's log."""


def reading(session: Session, version: Version, point: Point) -> Reading:
    """The metrics of the version's run at `point`: those of the run's version there, and what the training's
    log has of it where one was kept. With none of both, why."""
    run = version.run
    if run is None:
        return _alone(session, version, point)
    rows = lines.versions(session.catalog.connection, name_key(version.model), run)
    at = [row for row in rows if point.is_at(row.step, row.epoch)]
    found = Reading()
    points: list[tuple[object, object]] = [(row.step, row.epoch) for row in rows]
    for holder, told in logs_of(session, version):
        points += points_in(told)
        line = logged(told, point)
        if line is not None:
            found = replace(line, sources=(f"the training's log, kept with {holder.model}@{holder.name}",))
            break
    if at:
        there = Version(session, at[-1])
        found = Reading(
            {**found.metrics, **there.metrics},
            there.step if there.step is not None else found.step,
            there.epoch if there.epoch is not None else found.epoch,
            (f"version {there.model}@{there.name}", *found.sources),
        )
    if found.metrics:
        return found
    known = listed(points, point)
    problem = f"run {run.name} has no metrics at {point}" + (f"; it has some at {known}" if known else "")
    return replace(found, problem=problem)


def _alone(session: Session, version: Version, point: Point) -> Reading:
    if point.is_at(version.step, version.epoch):
        return Reading(
            version.metrics, version.step, version.epoch, (f"version {version.model}@{version.name}",)
        )
    for _, told in logs_of(session, version):
        line = logged(told, point)
        if line is not None:
            return replace(line, sources=("the training's log, kept with it",))
    return Reading(problem=f"{version.name} is of no run, and not of {point}")


def logs_of(session: Session, version: Version) -> Iterator[tuple[Version, list[dict[str, Any]]]]:
    """The log of the version's run, as versions keep it: each with its rows, none where it kept none. The
    likeliest come first: the version itself, the run's newest, its last state."""
    for holder in _with_logs(session, version, version.run):
        yield holder, rows_of(_log_of(holder))


def _with_logs(session: Session, version: Version, run: Run | None) -> Iterator[Version]:
    yield version
    if run is None:
        return
    connection = session.catalog.connection
    for model in (version.model, resuming.states_of(version.model)):
        rows = lines.versions(connection, name_key(model), run)
        if rows and rows[-1].id != version.id:
            yield Version(session, rows[-1])


def _log_of(version: Version) -> bytes:
    """As it was kept; empty where it was not, or cannot be read."""
    try:
        if _LOG in version.record.provenance:
            return version.provenance(_LOG)
        return version.read(resuming.TRAINER_STATE)
    except StemmataError:
        return b""
