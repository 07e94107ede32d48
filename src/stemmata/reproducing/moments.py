"""Moments: the repository as the run found it. Owns which entries of the log a run sees that is made again.

It goes on from the last entry before the run's process was started, so that every name points where it
pointed then. Where bytes of that time have been moved since, by a collection, it sees the repository as it is
now, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from stemmata.catalog import lines
from stemmata.catalog.contents import live_packs
from stemmata.errors import KeyMissing, StemmataError
from stemmata.ids import PackName
from stemmata.log.entries import unseal
from stemmata.log.reader import fetch
from stemmata.names import name_key
from stemmata.redirecting import end_of, scratch_over
from stemmata.session import Session
from stemmata.version import Version


@dataclass(frozen=True, slots=True)
class Moment:
    """`upto`: the last entry that is seen. `problem`: why it is a later one than the run saw."""

    upto: int
    problem: str = ""


class _Entry(msgspec.Struct):
    at: str


def before_run(version: Version, begun: str | None) -> Moment:
    """The moment before the run of a version, whose process was started at `begun`, if that is known."""
    session = version.source
    first = session.row(version.id).n
    if version.run is not None:
        rows = lines.versions(session.catalog.connection, name_key(version.model), version.run)
        first = min([first, *(row.n for row in rows)])
    upto = first - 1
    while begun and upto > 0 and _time_of(session, upto) > begun:
        upto -= 1
    return Moment(upto)


def require_whole(moment: Moment, source: Path, scratch: Path, author: str) -> Moment:
    """The moment, if every pack that it needs is still there; else the present, with the reason."""
    session = Session(scratch_over(source, scratch, moment.upto), author=author)
    try:
        session.refresh()
        missing = sum(not _is_there(session, name) for name, _ in live_packs(session.catalog.connection))
    finally:
        session.close()
    if not missing:
        return moment
    why = "its names are as they are now: what they pointed at then has been moved by a collection since"
    return Moment(end_of(source), why)


def _is_there(session: Session, name: PackName) -> bool:
    try:
        session.storage.size(name.key)
    except KeyMissing:
        return False
    return True


def _time_of(session: Session, n: int) -> str:
    """When an entry was written, by its writer's clock; "" for one that cannot be read."""
    data = fetch(session.storage, n)
    try:
        return msgspec.json.decode(unseal(data or b""), type=_Entry).at
    except (ValueError, StemmataError):
        return ""
