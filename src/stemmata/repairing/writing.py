"""Writing: a plan becomes new packs, durable and read back. Owns that nothing damaged is written again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stemmata.checking.report import FAULTS
from stemmata.codecs.dtypes import BYTES, DType
from stemmata.codecs.frames import Reference
from stemmata.codecs.hashing import Buffer, digest_of
from stemmata.codecs.objectcode import encode_object
from stemmata.codecs.workers import frame_pool
from stemmata.collecting.newpacks import NewPacks
from stemmata.collecting.picture import Kept
from stemmata.collecting.rewriting import moved
from stemmata.errors import MissingObject, StemmataError
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectReader
from stemmata.repairing.deciding import Anew, Move, Stay
from stemmata.repairing.planning import Needs, Plan, Planner
from stemmata.repairing.sources import Sources
from stemmata.storage.base import Storage

Progress = Callable[[int, int], None]
"""Called with the objects done and the objects to do."""


class Changed(StemmataError):
    """What was decided upon does not hold: a copy that decodes to something else, a source that changed."""

    kind = "changed"
    what = "what was to be written is not what it was"


class Writing:
    """Writes what a plan needs written."""

    def __init__(self, planner: Planner, plan: Plan, sources: Sources, storage: Storage) -> None:
        self._planner, self._plan, self._sources = planner, plan, sources
        self.new = NewPacks(storage, ObjectReader(storage))
        self._where: dict[Digest, PackName] = {}
        self._moves: dict[Digest, Move] = {}

    def run(self, progress: Progress | None = None) -> list[Kept]:
        """Write it and read it back. Returns the versions as they are to be placed, changed ones only.

        Raises Changed: it is to be decided anew; and as storages do. Nothing is left over then.
        """
        try:
            places = []
            for i, needs in enumerate(self._plan.needs):
                if (place := self._place(needs)) != needs.version:
                    places.append(place)
                if progress is not None:
                    progress(i + 1, len(self._plan.needs))
            self.new.close()
            self._prove()
        except BaseException:
            self.new.discard()
            raise
        return places

    def _place(self, needs: Needs) -> Kept:
        deciding = self._plan.deciding
        gone = self._plan.lost.get(needs.version.id, set())
        packs = set(needs.version.packs) - deciding.going
        kept = frozenset(packs)
        for digest in self._planner.objects_of(needs):
            if digest not in gone and not deciding.stays_in(digest, kept):
                packs.add(self._write(digest))
        tree = tuple(digest.hex for digest in needs.tree)
        return replace(needs.version, tree=tree, packs=tuple(sorted(packs)))

    def _write(self, digest: Digest, near: PackName | None = None) -> PackName:
        """Where the object lies now."""
        decision = self._plan.deciding.of(digest, near)
        if isinstance(decision, Stay):
            return decision.pack
        if digest not in self._where:
            if isinstance(decision, Move):
                self._where[digest] = self._move(digest, decision)
            elif decision is None and digest in self._planner.made:
                self._where[digest] = self._encode(digest, self._planner.made[digest][0], BYTES)
            else:
                assert isinstance(decision, Anew), digest
                found = self._sources.find(digest)
                if found is None:
                    raise Changed()
                self._where[digest] = self._encode(digest, *found)
        return self._where[digest]

    def _move(self, digest: Digest, decision: Move) -> PackName:
        lies: dict[Reference, PackName] = {
            base: self._write(base.digest, base.pack) for base in decision.bases
        }
        try:
            stored, row = self._planner.shelves.stored(decision.pack, digest)
            parts, bases = moved(stored, digest, decision.pack, lambda base: lies[base])
        except FAULTS:
            self._planner.shelves.rotten.add((decision.pack, digest))
            raise Changed() from None
        self._moves[digest] = decision
        return self.new.add(digest, parts, row.raw, bases)

    def _encode(self, digest: Digest, content: Buffer, dtype: DType) -> PackName:
        if digest_of(content) != digest:
            raise MissingObject(digest=digest)
        return self.new.add(digest, [encode_object(content, dtype, frame_pool())], len(content))

    def _prove(self) -> None:
        """Read everything back; a copy that moved and does not decode is not taken again."""
        failed = dict(self.new.unreadable())
        for digest, error in failed.items():
            move = self._moves.get(digest)
            if move is None:
                raise error  # what was encoded here came back when it was: the storage fails
            if not any(base.digest in failed for base in move.bases):
                self._planner.shelves.rotten.add((move.pack, digest))
        if failed:
            raise Changed()
