"""Counterparts: which version of a run that was made again stands for which of the first. Owns that match.

Names need not be the same: a run without a name is called by its time. So the runs of one model that one
process made are matched in their order, and within a run the versions by name, by step, by order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stemmata.catalog import selecting
from stemmata.catalog.queries import VersionRow
from stemmata.names import name_key
from stemmata.records import decode_record
from stemmata.session import Session
from stemmata.version import Version

Run = list[VersionRow]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version stands among those that its process made: its run, and that run's number. Told before a
    run is made again: in the days that this takes the original may be deleted."""

    model: str
    row: VersionRow
    run: Run
    number: int


def new_versions(session: Session, model: str, after: int) -> list[VersionRow]:
    """Visible versions of a model that came after entry `after`, oldest first."""
    session.refresh()
    found = selecting.versions(session.catalog.connection, name_key(model), after=after)
    return found[::-1]


def place_of(original: Version, upto: int) -> Place:
    """The place of a version whose process began after entry `upto`. Raises VersionNotFound."""
    row = original.source.row(original.id)
    mine = original.record.provenance.get("command")
    made = [
        each
        for each in new_versions(original.source, original.model, upto)
        if each.id == row.id or (mine is not None and _command(each) == mine)
    ]
    runs = enumerate(_runs(made))
    number, run = next(((n, r) for n, r in runs if any(each.id == row.id for each in r)), (0, [row]))
    return Place(original.model, row, run, number)


def find(place: Place, again: Session, after: int) -> Version | None:
    """What stands in `again`, whose new entries come after `after`, for the version of that place. None:
    nothing does."""
    row = _match(place, _runs(new_versions(again, place.model, after)))
    return Version(again, row) if row is not None else None


def _match(place: Place, second: Sequence[Run]) -> VersionRow | None:
    mine, number = place.row, place.number
    same = [run for run in second if mine.run is not None and run[0].run == mine.run]
    run = same[0] if same else second[number] if number < len(second) else None
    if run is None:
        return None
    name = _within_run(mine)
    for fits in (
        lambda row: _within_run(row) == name,
        lambda row: mine.step is not None and row.step == mine.step and row.event == mine.event,
        lambda row: mine.step is not None and row.step == mine.step,
    ):
        found = [row for row in run if fits(row)]
        if found:
            return found[-1]
    if mine.step is None and mine.run is None:
        at = [row.id for row in place.run].index(mine.id)
        return run[at] if at < len(run) else None
    return None


def last_of(place: Place, again: Session, after: int) -> Version | None:
    """As `find`, of a run that stopped early: its last version where none stands for the original."""
    found = find(place, again, after)
    if found is not None:
        return found
    rows = new_versions(again, place.model, after)
    return Version(again, rows[-1]) if rows else None


def _runs(rows: Iterable[VersionRow]) -> list[Run]:
    """By run, in the order of their first versions; those of no run are one."""
    found: dict[str | None, Run] = {}
    for row in rows:
        found.setdefault(row.run_id, []).append(row)
    return list(found.values())


def _within_run(row: VersionRow) -> str:
    prefix = f"{row.run}/"
    return row.name.removeprefix(prefix) if row.run is not None else row.name


def _command(row: VersionRow) -> str | None:
    return decode_record(row.record, row.id).provenance.get("command")
