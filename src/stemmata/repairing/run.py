"""Run: a whole repair, round by round, until nothing more can be mended. Any may be cut off anywhere."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress

from stemmata.catalog import checkpointing, queries
from stemmata.checking import Affected, Report
from stemmata.collecting.applying import Change, Overtaken, commit
from stemmata.collecting.copies import LivePack
from stemmata.collecting.picture import Kept, kept_versions, live_packs
from stemmata.errors import CommitContention
from stemmata.ids import Digest, PackName, VersionId
from stemmata.repairing.deciding import Anew, Move, Shelves, Stay
from stemmata.repairing.planning import Plan, Planner
from stemmata.repairing.report import RepairReport, Restored
from stemmata.repairing.sources import OWN, opened
from stemmata.repairing.stock import Stock
from stemmata.repairing.writing import Changed, Progress, Writing
from stemmata.session import Session

_ROUNDS = 8
_ELSEWHERE = ("identity", "log", "bundle", "record", "ref")
"""Kinds of damage that is not in packs."""


def repair(
    session: Session,
    found: Report,
    sources: Sequence[str | os.PathLike[str]] = (),
    *,
    versions: Container[VersionId] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RepairReport:
    """Mend what a check `found` in packs, with what other copies here, cached checkouts and `sources` have.

    `sources`: other repositories, folders of model files, single files. `versions`: mend only packs that
    these need. Raises RepairSourceMissing, StorageReadOnly, StorageFull, CommitContention and the storage's
    other errors; nothing needed is lost then.
    """
    return _Run(session, found, sources, versions, dry_run, progress).run()


class _Run:
    def __init__(
        self,
        session: Session,
        found: Report,
        sources: Sequence[str | os.PathLike[str]],
        versions: Container[VersionId] | None,
        dry_run: bool,
        progress: Progress | None,
    ) -> None:
        self._session, self._found, self._dry = session, found, dry_run
        self._only, self._progress = versions, progress
        self._sources = opened(session, sources)
        self._rotten: set[tuple[PackName, Digest]] = set()
        self._restored: dict[Digest, tuple[str, int]] = {}
        self._seen: set[str] = set()
        """Versions that were looked at."""
        self.report = RepairReport(dry=dry_run)
        self._damaged = {PackName.parse(p.pack) for p in found.problems if p.pack}
        self._affected = {VersionId.parse(version.id) for version in found.affected}

    def run(self) -> RepairReport:
        self.report.damaged = sorted(pack.key for pack in self._damaged)
        if self._damaged or self._affected:
            if not self._dry:
                self._session.storage.require_writable()
            self._mend()
        self._renew_checkpoints()
        self._finish()
        return self.report

    def _mend(self) -> None:
        for _ in range(_ROUNDS):
            try:
                if self._round():
                    return
            except (Changed, Overtaken):
                continue
        raise CommitContention(attempts=_ROUNDS)

    def _renew_checkpoints(self) -> None:
        """Those that were found wrong go, whatever their place; what the log says comes in their place."""
        self.report.checkpoints = [p.where for p in self._found.problems if p.kind == "checkpoint"]
        if self._dry or not self.report.checkpoints:
            return
        for key in self.report.checkpoints:
            self._session.storage.delete(key)
        with suppress(OSError, sqlite3.Error):  # no room to make it: it costs time alone
            checkpointing.write(self._session.storage, self._session.identity)

    def _round(self) -> bool:
        """Plan and apply at the log's end; True if there was nothing to do."""
        with self._session.catalog.lock:
            self._session.refresh()
            kept = kept_versions(self._session.catalog)
            packs = live_packs(self._session.catalog)
        live = frozenset(pack.name for pack in packs)
        stock = Stock(self._session.storage, live)
        shelves = Shelves(self._session.storage, stock, live)
        shelves.rotten = self._rotten
        planner = Planner(self._session, kept, packs, self._sources, shelves)
        damaged, wanted = self._scope(kept, packs)
        plan = planner.plan(damaged, wanted)
        self._seen |= {needs.version.id.hex for needs in plan.needs}
        self.report.lost = list(planner.name_lost(plan, self._model_name))
        if self._dry:
            self._note_restored(planner, plan)
            return True
        return self._apply(planner, plan, kept)

    def _apply(self, planner: Planner, plan: Plan, kept: Sequence[Kept]) -> bool:
        writing = Writing(planner, plan, self._sources, self._session.storage)
        places = writing.run(self._progress)
        going = plan.deciding.going
        if not places and not going:
            writing.new.discard()
            return True
        before = {version.id: version for version in kept}
        try:
            done = commit(self._session, Change(before, places, going, writing.new.written), "repaired")
        except Overtaken:
            writing.new.discard()
            raise
        self._note_restored(planner, plan)
        self.report.packs_added += len(done.added)
        self.report.packs_retired += len(done.retired)
        self.report.versions_placed += sum(done.placed.values())
        self.report.written += sum(pack.size for pack in done.added)
        return False

    def _scope(self, kept: Sequence[Kept], packs: Sequence[LivePack]) -> tuple[set[PackName], set[VersionId]]:
        """The damaged packs to mend, and versions that want something."""
        if self._only is None:
            return self._damaged, self._affected
        chosen = {version.id for version in kept if version.id in self._only}
        needed = {pack for version in kept if version.id in chosen for pack in version.packs}
        for pack in reversed(packs):
            if pack.name in needed:
                needed.update(pack.bases)
        return self._damaged & needed, self._affected & chosen

    # --- telling ------------------------------------------------------------------------------------

    def _note_restored(self, planner: Planner, plan: Plan) -> None:
        """Take down where what was damaged comes from, what others lean on included."""
        ahead: list[tuple[Digest, PackName | None]] = []
        for needs in plan.needs:
            kept = set(needs.version.packs) - plan.deciding.going
            ahead += [(d, None) for d in planner.objects_of(needs) if not plan.deciding.stays_in(d, kept)]
        seen: set[tuple[Digest, PackName | None]] = set()
        while ahead:
            digest, near = ahead.pop()
            if (digest, near) in seen:
                continue
            seen.add((digest, near))
            match plan.deciding.of(digest, near):
                case Move(row=row, bases=bases, instead=instead):
                    ahead += [(base.digest, base.pack) for base in bases]
                    if instead:
                        self._restored.setdefault(digest, (OWN, row.raw))
                case Stay(instead=True):
                    self._restored.setdefault(digest, (OWN, 0))
                case Anew(source=source, length=length):
                    self._restored.setdefault(digest, (source, length))
                case _ if digest in planner.made:
                    data, source = planner.made[digest]
                    self._restored.setdefault(digest, (source, len(data)))

    def _finish(self) -> None:
        by_source: dict[str, Restored] = {}
        for source, length in self._restored.values():
            found = by_source.setdefault(source, Restored(source))
            found.objects += 1
            found.bytes += length
        self.report.restored = sorted(by_source.values(), key=lambda each: each.source)
        lost = {each.version for each in self.report.lost}
        self.report.whole = [v for v in self._found.affected if self._is_whole(v, lost)]
        problems = self._found.problems
        self.report.left = [f"{p.where}: {p.reason}" for p in problems if p.kind in _ELSEWHERE]
        if not self._dry:
            self.report.left += self._packs_left()

    def _is_whole(self, version: Affected, lost: Container[str]) -> bool:
        if version.id in lost or version.id not in self._seen:
            return False
        return not any(p.kind == "record" and version.id in p.versions for p in self._found.problems)

    def _packs_left(self) -> Iterable[str]:
        """Damaged packs that are live still."""
        live = {pack.name for pack in live_packs(self._session.catalog)}
        why = "it holds what is lost, or what that leans on"
        if not self.report.lost:
            why = "no version that was chosen needs it"
        for pack in sorted(self._damaged & live):
            yield f"{pack.key}: {why}"

    def _model_name(self, key: str) -> str:
        return queries.model_name(self._session.catalog.connection, key)
