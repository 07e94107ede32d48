"""Run: a whole collection, step by step. Each may be cut off, and is taken up by the next run.

It folds the log anew and goes by that alone: of a wrong row in a cached catalog nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager

from stemmata.catalog import checkpointing, queries
from stemmata.checkouts import eviction
from stemmata.collecting import dropping, planning
from stemmata.collecting.applying import Overtaken, apply, rewritten
from stemmata.collecting.clocks import StoreClock, sweep_probes
from stemmata.collecting.holding import Holdings
from stemmata.collecting.picture import Kept, Picture
from stemmata.collecting.planning import Plan
from stemmata.collecting.report import Collection, Forgotten
from stemmata.errors import CommitContention, Damage, StorageFull
from stemmata.ids import VersionId
from stemmata.log.fold import DELETED, FORGOTTEN
from stemmata.session import Session
from stemmata.storage.local import LocalStorage
from stemmata.undo import undo_window

_ATTEMPTS = 5
_ABANDONED = 24 * 3600.0
"""Seconds after which a file that is being written counts as one of a dead writer."""


def gc(
    session: Session,
    *,
    dry_run: bool = False,
    undo_window: float | None = None,
    grace: float | None = None,
    now: float | None = None,
    trust_clock: bool = False,
    only: Container[VersionId] | None = None,
) -> Collection:
    """Free what nobody needs. Times in seconds, `now` in those of the store.

    `undo_window`: for how long deleted versions stay restorable (None: as each model says). `grace`: for how
    long bytes stay that a reader or a save may still be at (None: an hour for readers, a day for saves).
    `only`: no other version is forgotten, as when somebody was shown these.

    Raises ClockDoubted, Damage (of the log, or it cannot be told what a version needs), StorageReadOnly,
    StorageFull, CommitContention and the storage's other errors; whatever was done until then stands, nothing
    needed is lost.
    """
    with _afresh(session, dry_run) as sure:
        return _Run(sure, dry_run, now, trust_clock).collect(undo_window, grace, only)


def repack(session: Session, model: str | None = None, *, dry_run: bool = False) -> Collection:
    """Code all tensors (of a model, by its key) anew where that makes them smaller, put small packs together.

    The store's live packs never become larger. A dry run tells what is looked at: how much smaller it
    becomes is known when it is done. Raises as `gc`.
    """
    with _afresh(session, dry_run) as sure:
        return _Run(sure, dry_run, None, False).repack(model)


@contextmanager
def _afresh(session: Session, dry: bool) -> Iterator[Session]:
    """For a collection: no cache has a say in what is deleted (I8). Of its new packs the cache learns."""
    if not dry:
        _require_writable(session)
    with session.afresh() as sure:
        yield sure
    session.refresh()
    if not dry:
        session.learn_packs()


def _require_writable(session: Session) -> None:
    """Raises as the storage does; a full one after what needs no new byte has been freed: packs that the log
    has dropped already, checkpoints that are not needed, and what dead writers have left."""
    try:
        session.storage.require_writable()
    except StorageFull:
        with session.afresh() as sure:
            clock = StoreClock(sure.storage, writable=False)
            freed = dropping.free(sure)
            freed += checkpointing.retire(sure.storage)
        if isinstance(session.storage, LocalStorage):
            freed += session.storage.sweep(clock.now - _ABANDONED)
        if not freed:
            raise
        session.storage.require_writable()


class _Run:
    def __init__(self, session: Session, dry_run: bool, now: float | None, trusted: bool) -> None:
        self._session, self._dry = session, dry_run
        session.refresh()
        self._clock = StoreClock(session.storage, now=now, trusted=trusted, writable=not dry_run)
        self.report = Collection(dry=dry_run)

    def collect(
        self, window: float | None, grace: float | None, only: Container[VersionId] | None
    ) -> Collection:
        readers = dropping.READERS if grace is None else grace
        writers = dropping.WRITERS if grace is None else grace
        # Decided before anything is done: a clock in doubt stops the whole run.
        due = {v: n for v, n in self._due(window).items() if only is None or v in only}
        left = dropping.look(self._session, self._clock, readers=readers, writers=writers)
        self._drop(left)
        self._retire_orphans(left)
        self._decide_and_apply(due, why="nobody needs it")
        if readers <= 0 and not self._dry:
            self._drop(
                dropping.look(self._session, self._clock, readers=0, writers=writers + 1 if writers else 1)
            )
        elif not self._dry:
            self.report.waiting = dropping.look(
                self._session, self._clock, readers=readers, writers=float("inf")
            ).waiting
        self._tidy()
        return self.report

    def repack(self, model: str | None) -> Collection:
        self._decide_and_apply({}, repack=True, model=model, why="repacked")
        return self.report

    def _due(self, window: float | None) -> dict[VersionId, int]:
        """Deleted versions whose undo window is over, and the entries that deleted them."""
        with self._session.catalog.lock:
            self._session.refresh()
            found = self._session.catalog.connection
            sql = "SELECT id, model, state_n FROM versions WHERE state = ? ORDER BY seq"
            rows = found.execute(sql, (DELETED,)).fetchall()
            windows = {m: _window(queries.settings(found, m), window) for m in {row[1] for row in rows}}
        return {VersionId(v): n for v, model, n in rows if self._clock.is_over(n, windows[model])}

    def _drop(self, left: dropping.Leftovers) -> None:
        self.report.waiting = left.waiting
        if self._dry:
            self.report.deleted += sum(each.stored.size for each in (*left.dropped, *left.due))
        else:
            self.report.deleted += dropping.drop(self._session, left)

    def _retire_orphans(self, left: dropping.Leftovers) -> None:
        if self._dry:
            self.report.orphans = len(left.orphans)
        else:
            self.report.orphans = len(dropping.retire_orphans(self._session, left.orphans))

    def _decide_and_apply(
        self, over: Mapping[VersionId, int], *, why: str, repack: bool = False, model: str | None = None
    ) -> None:
        for _ in range(_ATTEMPTS):
            seen = self._session.catalog.position
            try:
                picture = Picture(self._session)
                seen = picture.position
                if self._decide_upon(picture, over, why, repack, model):
                    return
            except Damage:
                # Another collection may have deleted what this one was reading; then it looks again.
                if self._session.catalog.refresh() == seen:
                    raise
        raise CommitContention(attempts=_ATTEMPTS)

    def _decide_upon(
        self, picture: Picture, over: Mapping[VersionId, int], why: str, repack: bool, model: str | None
    ) -> bool:
        """Plan and apply; False: others were faster, and it is to be done again."""

        def decide(apart: frozenset[bytes] = frozenset()) -> Plan:
            return planning.plan(picture, over, apart=apart, repack=repack, model=model)

        decided = decide()
        if self._dry:
            self.report.freed, self.report.rewritten = decided.freed, decided.rewritten
            self.report.packs_retired = len(decided.packs)
            self.report.forgotten = self._forgotten(picture, [v.id for v in decided.forget])
            return True
        if decided:
            decided, moving = rewritten(picture, decide, decided)
        if not decided:
            return True
        try:
            done = apply(self._session, picture, decided, moving, why)
        except Overtaken:
            moving.discard()
            return False
        self.report.forgotten = self._forgotten(picture, done.forgotten)
        sizes = {pack.name: pack.size for pack in picture.copies.packs}
        self.report.rewritten = sum(pack.size for pack in done.added)
        self.report.freed = sum(sizes[name] for name in done.retired) - self.report.rewritten
        self.report.packs_retired, self.report.packs_added = len(done.retired), len(done.added)
        self.report.versions_placed = sum(done.placed.values())
        return True

    def _forgotten(self, picture: Picture, gone: list[VersionId]) -> list[Forgotten]:
        if not gone:
            return []
        held = Holdings(picture)
        names = {m.key: m.name for m in queries.models(self._session.catalog.connection)}
        return [_forgotten(picture.as_it_was(v), names, held.alone(v)) for v in gone]

    def _tidy(self) -> None:
        """What lies outside of the log's care: checkpoints, probes, unfinished files, cached checkouts."""
        if self._dry:
            self.report.deleted += sum(key.size for key in checkpointing.retired(self._session.storage))
            return
        self.report.deleted += checkpointing.retire(self._session.storage)
        self.report.checkpoint = checkpointing.renew(self._session.storage, self._session.identity)
        sweep_probes(self._session.storage)
        if isinstance(self._session.storage, LocalStorage):
            self.report.leftovers = self._session.storage.sweep(self._clock.now - _ABANDONED)
        sql = "SELECT id FROM versions WHERE state = ?"
        gone = {VersionId(row[0]).hex for row in self._session.catalog.connection.execute(sql, (FORGOTTEN,))}
        folders = [cache / "checkouts" for cache in self._session.cache_folders()]
        for folder in folders:
            eviction.sweep(folder)
        if gone:
            self.report.cached = sum(eviction.remove_all(folder, gone) for folder in folders)


def _window(settings: dict[str, object], chosen: float | None) -> float:
    return chosen if chosen is not None else undo_window(settings)


def _forgotten(version: Kept, names: dict[str, str], alone: int) -> Forgotten:
    return Forgotten(version.id.hex, names.get(version.model, version.model), version.name, alone)
