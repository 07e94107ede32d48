"""Clocks: how long ago something was committed, by the store's own times. Owns when they are not believed.

The present is the time that the store gives to a key written for that purpose, and an entry's time is the one
that the store gave it: both of one clock, which need not be this machine's. In a local folder it is, and may
have been set wrong when an entry was written or be wrong now. So an age counts only if times do not run
backwards and nowhere jump by more than a year from one entry to the next, or from the last to the present.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from stemmata.errors import ClockDoubted, StorageProblem
from stemmata.ids import random_hex
from stemmata.log.reader import number_of
from stemmata.storage.base import Storage

YEAR = 366 * 86400.0
SLACK = 3600.0
"""Seconds by which times may run backwards: several writers' clocks, a clock that is being set."""
PROBES = "probes/"


class StoreClock:
    """Ages of log entries. `now`: the present, in the store's seconds, for who knows it."""

    def __init__(
        self, storage: Storage, *, now: float | None = None, trusted: bool = False, writable: bool = True
    ) -> None:
        self._trusted = trusted
        listed = [(number_of(found.key), found.modified) for found in storage.list("log/")]
        # Whatever else lies there is no entry, and its time says nothing.
        self._times = {n: modified for n, modified in listed if n is not None}
        self._order = list(self._times)
        newest = max(self._times.values(), default=0.0)
        if now is not None:
            self.now = now
        else:
            self.now = _probe(storage) if writable else newest
        self._latest = self._running()
        self._places = {n: place for place, n in enumerate(self._order)}
        self._doubts = list(self._find_doubts())

    def age_of(self, entry: int) -> float:
        """Seconds since entry `entry` was written. Raises ClockDoubted where times make no sense."""
        if entry not in self._times:
            return 0.0  # of what the store does not tell the time nothing is said
        if not self._trusted:
            self._require_sense(entry)
        return self.now - (self._times if self._trusted else self._latest)[entry]

    def is_over(self, entry: int, window: float) -> bool:
        """Did a window of so many seconds, begun by an entry, end? One of no length has, whatever any clock
        says. Raises ClockDoubted."""
        return window <= 0 or self.age_of(entry) >= window

    def age(self, modified: float) -> float:
        """Seconds since a key was written, by its own time. Raises ClockDoubted."""
        if not self._trusted and self._order:
            self._require_sense(self._order[-1])
        return self.now - modified

    def _running(self) -> Mapping[int, float]:
        """For each entry the latest time up to it: an entry is no older than what came before."""
        latest, found = 0.0, {}
        for n, modified in self._times.items():
            latest = max(latest, modified)
            found[n] = latest
        return found

    def _require_sense(self, begin: int) -> None:
        """Raise what is wrong with the times from an entry to the present."""
        place = self._places[begin]
        for at, doubt in self._doubts:
            if at > place:
                raise doubt

    def _find_doubts(self) -> Iterator[tuple[int, ClockDoubted]]:
        before = None
        for place, n in enumerate([*self._order, None]):
            moment = self._times[n] if n is not None else self.now
            what = f"entry {n}" if n is not None else "the present"
            if before is not None and moment < before - SLACK:
                yield place, _doubt(what, moment, before, "before")
            elif before is not None and moment > before + YEAR:
                yield place, _doubt(what, moment, before, "more than a year after")
            before = moment
        if self._order and self.now < (latest := self._latest[self._order[-1]]) - SLACK:
            yield len(self._order), _doubt("the present", self.now, latest, "before")


def sweep_probes(storage: Storage) -> None:
    """Delete probes that a killed run left behind."""
    for found in list(storage.list(PROBES)):
        storage.delete(found.key)


def _probe(storage: Storage) -> float:
    """The store's present: the time it gives to a key that is written now."""
    key = f"{PROBES}{random_hex(16)}"
    storage.put_new(key, b"")
    try:
        return next((found.modified for found in storage.list(PROBES) if found.key == key), 0.0)
    finally:
        try:
            storage.delete(key)
        except StorageProblem:
            pass  # the next run deletes it


def _doubt(what: str, moment: float, before: float, how: str) -> ClockDoubted:
    return ClockDoubted(what=what, moment=_shown(moment), how=how, other=_shown(before))


def _shown(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f} s"
