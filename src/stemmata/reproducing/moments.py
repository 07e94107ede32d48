"""Moments: the repository as the run found it. Owns which entries of the log a run sees that is made again.

It goes on from the last entry before the run's process was started, so that every name points where it
pointed then. Bytes of that time may have been moved since, by a collection: the scratch repository then
begins with an entry that says where they lie now. What nobody has any more is gone there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from stemmata.catalog import lines, queries, selecting
from stemmata.catalog.contents import live_packs
from stemmata.errors import KeyMissing, StemmataError
from stemmata.ids import PackName
from stemmata.log.entries import unseal
from stemmata.log.fold import FORGOTTEN
from stemmata.log.ops import PackAdd, VersionPlace
from stemmata.log.reader import fetch
from stemmata.names import name_key
from stemmata.redirecting import scratch_over
from stemmata.reproducing.holding import Hold
from stemmata.session import Session
from stemmata.version import Version


@dataclass(frozen=True, slots=True)
class Moment:
    """`upto`: the last entry that is seen. `problem`: what of that time is not there any more."""

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


def bring_up(version: Version, moment: Moment, scratch: Path, hold: Hold) -> Moment:
    """Make the scratch repository that goes on from a moment, and let it know where versions of that time lie
    now; all packs of theirs are taken hold of. `problem` of the answer says how many versions are gone."""
    now = version.source
    source = Path(now.storage.where)
    then = Session(scratch_over(source, scratch, moment.upto), author=now.author)
    try:
        then.refresh()
        hold.take(name for name, _ in live_packs(then.catalog.connection))
        if all(_is_there(then, name) for name, _ in live_packs(then.catalog.connection)):
            return moment
        now.refresh()
        places, gone = _moved(then, now)
        if places:
            packs = _packs(then, now, places)
            hold.take(PackName.parse(pack) for place in places for pack in place.packs)
            hold.take(PackName.parse(pack.pack) for pack in packs)
            then.commit(lambda _catalog: [*packs, *places])
    finally:
        then.close()
    if not gone:
        return moment
    versions = f"{gone} version{' is' if gone == 1 else 's are'}"
    return replace(moment, problem=f"{versions} gone from the repository that the run may have read")


def _moved(then: Session, now: Session) -> tuple[list[VersionPlace], int]:
    """Where the versions that were there lie now, and how many lie nowhere."""
    places, gone = [], 0
    for row in selecting.versions(then.catalog.connection):
        found = queries.version_by_id(now.catalog.connection, row.id)
        packs = now.packs(found) if found is not None and found.state != FORGOTTEN else []
        if found is None or not packs:
            gone += 1
        elif set(packs) != set(then.packs(row)):
            packed = [pack.hex for pack in packs]
            places.append(VersionPlace(version=row.id.hex, tree=list(found.tree), packs=packed))
    return places, gone


def _packs(then: Session, now: Session, places: Sequence[VersionPlace]) -> list[PackAdd]:
    """The packs that they name and that came later, each after those that it leans on."""
    found: dict[PackName, PackAdd] = {}

    def add(pack: PackName) -> None:
        if pack in found or then.catalog.pack_is_live(pack):
            return
        bases = now.catalog.bases_of(pack)
        for base in bases:
            add(base)
        size, digest = now.catalog.pack_size(pack), now.catalog.pack_digest(pack)
        if size is not None and digest is not None:
            found[pack] = PackAdd(pack=pack.hex, size=size, digest=digest, bases=[b.hex for b in bases])

    for place in places:
        for pack in place.packs:
            add(PackName.parse(pack))
    return list(found.values())


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
