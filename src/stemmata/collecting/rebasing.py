"""Rebasing: tensors that lean on what no version holds any more are coded anew against those that are left.

Version by version, the oldest first, each against versions before it: as if only these had ever been saved.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from stemmata.candidates import Candidates, among
from stemmata.catalog.catalog import Catalog
from stemmata.collecting.picture import Kept, Picture, row_of, tree_of
from stemmata.collecting.planning import Plan
from stemmata.collecting.rewriting import Moving
from stemmata.containers.base import Piece, PlannedSegment
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectWriter
from stemmata.trees import Segment, Tree

_NEAR = 4
"""Versions of the same model that are looked at beside the parents, and of any."""
_TREES = 16


class Before:
    """Of versions in their order, those before one that it may be coded against; what it takes to find them
    does not grow with how many there are."""

    def __init__(self, stay: Sequence[Kept]) -> None:
        self._stay = stay
        self._places = {version.id.hex: at for at, version in enumerate(stay)}
        self._models: dict[str, list[int]] = {}
        for at, version in enumerate(stay):
            self._models.setdefault(version.model, []).append(at)

    def near(self, at: int, parents: Iterable[str]) -> tuple[list[Kept], list[Kept]]:
        """Its parents, then the newest of the model; then the newest of all. Each the newest first."""
        places = {self._places[parent] for parent in parents if parent in self._places}
        near = sorted((place for place in places if place < at), reverse=True)
        model = self._models[self._stay[at].model]
        of_model = (model[i] for i in reversed(range(bisect_left(model, at))))
        near += _first(of_model, set(near))
        others = _first(reversed(range(at)), set(near))
        return [self._stay[place] for place in near], [self._stay[place] for place in others]


def _first(places: Iterator[int], known: set[int]) -> list[int]:
    """The first few that are not known."""
    return list(islice((place for place in places if place not in known), _NEAR))


class Rebasing:
    """Codes the clusters of a plan anew, through `moving`, which has moved everything else."""

    def __init__(self, picture: Picture, plan: Plan, moving: Moving) -> None:
        self._picture, self._plan, self._moving = picture, plan, moving
        self._before = Before(plan.stay)
        self._trees: OrderedDict[Kept, Tree] = OrderedDict()
        copies = picture.copies
        self._due = {copies.digest_at(row) for c in plan.clusters for row in c.leaning.tolist()}
        self._stored: dict[Digest, int] = {}

    def run(self) -> frozenset[bytes]:
        """Code them anew. Returns the digests of those clusters that did not become smaller.

        Raises Damage, and as storages do.
        """
        for i, version in enumerate(self._plan.stay):
            if self._of(version):
                self._code(version, i)
        worse: set[bytes] = set()
        copies = self._picture.copies
        for cluster in self._plan.clusters:
            rows = cluster.leaning.tolist()
            before = int(copies.stored[cluster.leaning].sum() + copies.stored[cluster.ghosts].sum())
            if sum(self._stored[copies.digest_at(row)] for row in rows) >= before:
                worse |= {bytes(copies.digest[row]) for row in rows}
        return frozenset(worse)

    def _of(self, version: Kept) -> set[Digest]:
        """What is left to do of a version."""
        digests = map(self._picture.copies.digest_at, self._picture.rows(version).tolist())
        return {digest for digest in digests if digest in self._due and digest not in self._stored}

    def _code(self, version: Kept, place: int) -> None:
        session = self._picture.session
        todo = self._of(version)
        alike = self._relatives(version, place)
        writer = ObjectWriter(session.storage, lambda _: (), session.reader)
        try:
            for file in self._tree(version).files:
                for segment in file.segments:
                    near = alike.of(_planned(segment)) if segment.name else [[]] * len(segment.objects)
                    for text, candidates in zip(segment.objects, near, strict=True):
                        digest = Digest.parse(text)
                        if digest in todo:
                            todo.remove(digest)
                            data = session.reader.read(digest, version.packs)
                            writer.put(data, segment.dtype or "", candidates)
            for digest in sorted(todo):
                # What is no part of a file: statistics, which resemble nothing.
                writer.put(session.reader.read(digest, version.packs), "F64")
            packs = writer.finish()
        except BaseException:
            writer.abort()
            raise
        for pack in packs:
            for digest in pack.index.digests():
                found = pack.index.find(digest)
                self._stored[digest] = found.stored if found is not None else 0
            self._moving.take(pack)

    def _relatives(self, version: Kept, place: int) -> Candidates:
        parents = self._picture.session.record(row_of(self._catalog, version.id)).parents
        near, others = self._before.near(place, parents)
        return among(
            ((self._tree(v), self._packs(v)) for v in near), ((self._tree(v), self._packs(v)) for v in others)
        )

    def _packs(self, version: Kept) -> list[PackName]:
        """Where a version's objects lie now."""
        return sorted({self._moving.place_of(row) for row in self._picture.rows(version).tolist()})

    def _tree(self, version: Kept) -> Tree:
        if version not in self._trees:
            session = self._picture.session
            self._trees[version] = tree_of(session.reader, row_of(self._catalog, version.id), version.packs)
            while len(self._trees) > _TREES:
                self._trees.popitem(last=False)
        self._trees.move_to_end(version)
        return self._trees[version]

    @property
    def _catalog(self) -> Catalog:
        return self._picture.session.catalog


def _planned(segment: Segment) -> PlannedSegment:
    pieces = tuple(Piece(0, 0) for _ in segment.objects)
    shape = None if segment.shape is None else tuple(segment.shape)
    return PlannedSegment(0, segment.length, pieces, segment.name, segment.dtype or "", shape)
