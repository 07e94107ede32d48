"""Dropping: the bytes of retired packs go, after the readers' grace. Owns every delete of a pack.

The log says so first. What a killed run has left lying is deleted by the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stemmata.catalog.catalog import Catalog
from stemmata.collecting.clocks import StoreClock
from stemmata.ids import PackName
from stemmata.log.fold import DROPPED, RETIRED
from stemmata.log.ops import Op, PackDrop, PackRetire
from stemmata.session import Session
from stemmata.storage.base import StoredKey

READERS = 3600.0
"""Seconds for which the bytes of a retired pack stay: a reader may have looked it up before."""
WRITERS = 24 * 3600.0
"""Seconds after which a pack that no log names is taken for what a killed save left behind."""

_AT_ONCE = 10_000


class Lying(NamedTuple):
    """A pack's file as it lies in the store."""

    name: PackName
    stored: StoredKey
    retired: int = 0
    """The entry that retired it, if it is due."""


class Leftovers(NamedTuple):
    """Packs that may go. `dropped`: their bytes at once; `due`: after the log has dropped them;
    `orphans`: after it has retired and dropped them."""

    dropped: list[Lying]
    due: list[Lying]
    orphans: list[Lying]
    unlisted: dict[PackName, int]
    """Due as well, and not there any more; the entries that retired them."""
    waiting: int
    """Bytes of retired packs whose grace is not over."""


def look(session: Session, clock: StoreClock, *, readers: float, writers: float) -> Leftovers:
    """What lies in the store that nobody needs. Raises ClockDoubted if that hangs on a time in doubt."""
    lying = [
        Lying(name, key)
        for key in session.storage.list("packs/")
        if (name := PackName.in_key(key.key)) is not None
    ]
    # Listed before the log is read: a pack whose save has ended since is known by then.
    session.refresh()
    states = _states(session.catalog)
    over = {name: n for name, (state, n) in states.items() if state == RETIRED and clock.is_over(n, readers)}
    there = {each.name for each in lying}
    # A log without any entry names no pack: it may be the log that is gone.
    known = lying if session.catalog.position.n else []
    orphans = [
        each
        for each in known
        if each.name not in states and (writers <= 0 or clock.age(each.stored.modified) >= writers)
    ]
    return Leftovers(
        dropped=[each for each in lying if states.get(each.name, ("",))[0] == DROPPED],
        due=[each._replace(retired=over[each.name]) for each in lying if each.name in over],
        orphans=orphans,
        unlisted={name: over[name] for name in sorted(over.keys() - there)},
        waiting=sum(
            each.stored.size
            for each in lying
            if each.name not in over and states.get(each.name, ("",))[0] == RETIRED
        ),
    )


def drop(session: Session, found: Leftovers) -> int:
    """Drop what is due, then delete the bytes; how many. As far as a fold without any cache says the same."""
    if not (found.due or found.unlisted or found.dropped):
        return 0
    with session.afresh() as sure:
        states = _states(sure.catalog)
        retired = {each.name: each.retired for each in found.due} | found.unlisted
        names = [name for name, n in retired.items() if states.get(name) == (RETIRED, n)]
        for part in _parts(names):

            def ops(catalog: Catalog, part: Sequence[PackName] = part) -> Sequence[Op]:
                left = [name.hex for name in part if catalog.pack_state(name) == RETIRED]
                return [PackDrop(packs=left)] if left else []

            sure.commit(ops)
        return _delete(sure, [*found.dropped, *found.due])


def free(session: Session) -> int:
    """Delete the bytes of packs that the log has dropped already; how many. Writes nothing."""
    states = _states(session.catalog)
    gone = {name for name, (state, _) in states.items() if state == DROPPED}
    lying = ((PackName.in_key(key.key), key) for key in session.storage.list("packs/"))
    return _delete(session, [Lying(name, key) for name, key in lying if name is not None and name in gone])


def retire_orphans(session: Session, orphans: Sequence[Lying]) -> list[PackName]:
    """Retire packs that no log has named, so that no sleeping writer can add them any more."""
    done: list[PackName] = []
    for part in _parts([each.name for each in orphans]):
        kept: list[PackName] = []

        def ops(
            catalog: Catalog, part: Sequence[PackName] = part, kept: list[PackName] = kept
        ) -> Sequence[Op]:
            kept[:] = left = [name for name in part if catalog.pack_state(name) is None]
            why = "left behind by a save that did not end"
            return [PackRetire(packs=[name.hex for name in left], why=why)] if left else []

        session.commit(ops)
        done += kept
    return done


def _delete(session: Session, packs: Iterable[Lying]) -> int:
    freed = 0
    for each in packs:
        if session.catalog.pack_state(each.name) == DROPPED:
            session.storage.delete(each.stored.key)
            session.reader.forget(each.name)
            freed += each.stored.size
    return freed


def _states(catalog: Catalog) -> dict[PackName, tuple[str, int]]:
    rows = catalog.connection.execute("SELECT name, state, n FROM packs")
    return {PackName(name): (state, n) for name, state, n in rows}


def _parts(names: Sequence[PackName]) -> Iterable[Sequence[PackName]]:
    return (names[i : i + _AT_ONCE] for i in range(0, len(names), _AT_ONCE))
