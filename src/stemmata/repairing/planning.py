"""Planning: which packs can go, and what each version needs for that. Writes nothing; `--dry-run` prints it.

A pack that is damaged goes if all that is needed of it can be had; what leans on it goes with it, for it
names the pack. One that holds something lost stays, with what it leans on: the lost may yet be found.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stemmata.catalog import queries
from stemmata.checking.report import FAULTS
from stemmata.codecs.hashing import Buffer
from stemmata.collecting.copies import LivePack
from stemmata.collecting.picture import Kept, row_of
from stemmata.errors import HostileData, MissingObject
from stemmata.ids import Digest, PackName, VersionId
from stemmata.records import STATISTICS, decode_record
from stemmata.repairing.deciding import Deciding, Shelves
from stemmata.repairing.report import Lost
from stemmata.repairing.sources import Sources
from stemmata.session import Session
from stemmata.trees import Tree, decode_tree, encode_tree, join_tree, split_tree


@dataclass(slots=True)
class Needs:
    """What one version needs."""

    version: Kept
    objects: array[int] = field(default_factory=lambda: array("Q"))
    """Numbers of objects, in the order of its files."""
    tree: tuple[Digest, ...] = ()
    is_known: bool = True
    """Its tree could be read, or made anew."""
    made_by: str = ""
    """The source from whose files its tree was made anew."""
    optional: set[Digest] = field(default_factory=set)
    """Without which it is whole all the same: statistics."""


@dataclass(slots=True)
class Plan:
    """What a repair is to do."""

    deciding: Deciding
    needs: list[Needs]
    lost: dict[VersionId, set[Digest]]
    """Of each version that cannot be made whole, what is lost; empty if that is not known."""


class Planner:
    """Plans for one position of the log."""

    def __init__(
        self,
        session: Session,
        versions: Sequence[Kept],
        packs: Sequence[LivePack],
        sources: Sources,
        shelves: Shelves,
    ) -> None:
        self._session, self._versions, self._sources = session, versions, sources
        self._packs = {pack.name: pack for pack in packs}
        self._order = [pack.name for pack in packs]
        self.shelves = shelves
        self.digests: list[Digest] = []
        self._numbers: dict[Digest, int] = {}
        self.made: dict[Digest, tuple[bytes, str]] = {}
        """Objects of trees that were made anew, and from what."""

    def plan(self, damaged: Iterable[PackName], wanted: Iterable[VersionId] = ()) -> Plan:
        """`damaged`: live packs in which a check found damage. `wanted`: versions that it found wanting,
        whatever packs they name."""
        bad = set(damaged) & self._packs.keys()
        doubtful = self._with_all_upon(bad)
        also = set(wanted)
        needs = [
            self._needs(version)
            for version in self._versions
            if version.id in also or not doubtful.isdisjoint(version.packs)
        ]
        deciding = Deciding(self.shelves, self._sources, doubtful, doubtful)
        lost = self._lost(deciding, needs)
        if lost and self._look_closer(needs, lost):
            deciding = Deciding(self.shelves, self._sources, doubtful, doubtful)
            lost = self._lost(deciding, needs)
        if lost:
            staying = self._staying(needs, lost, doubtful)
            going = self._with_all_upon(bad - staying)
            deciding = Deciding(self.shelves, self._sources, going, doubtful)
            lost = self._lost(deciding, needs)
        return Plan(deciding, needs, lost)

    def objects_of(self, needs: Needs) -> Iterator[Digest]:
        return (self.digests[number] for number in needs.objects)

    # --- packs --------------------------------------------------------------------------------------

    def _with_all_upon(self, packs: set[PackName]) -> set[PackName]:
        """These packs and all that lean on them, at however many steps."""
        found = set(packs)
        for name in self._order:  # each after those that it leans on
            if not found.isdisjoint(self._packs[name].bases):
                found.add(name)
        return found

    def _with_all_under(self, packs: set[PackName]) -> set[PackName]:
        found = set(packs)
        for name in reversed(self._order):
            if name in found:
                found.update(self._packs[name].bases)
        return found

    def _staying(
        self, needs: Sequence[Needs], lost: Mapping[VersionId, set[Digest]], doubtful: set[PackName]
    ) -> set[PackName]:
        """Packs in which something lost may be, and what they lean on."""
        found: set[PackName] = set()
        for need in needs:
            if need.version.id not in lost:
                continue
            here = doubtful.intersection(need.version.packs)
            if not need.is_known:
                found |= here
            for digest in lost[need.version.id]:
                holds = here & {*self.shelves.stock.packs_with(digest), *self.shelves.stock.unreadable}
                found |= holds or here
        return self._with_all_under(found)

    def _look_closer(self, needs: Sequence[Needs], lost: Mapping[VersionId, set[Digest]]) -> bool:
        """Tell the sources how the files were cut in which something is lost; whether any has more to say."""
        found = False
        for need in needs:
            gone = lost.get(need.version.id)
            tree = self._tree(need) if gone and need.is_known and not need.made_by else None
            if gone and tree is not None:
                found |= self._sources.expect(tree, gone)
        return found

    def _lost(self, deciding: Deciding, needs: Sequence[Needs]) -> dict[VersionId, set[Digest]]:
        found: dict[VersionId, set[Digest]] = {}
        for need in needs:
            keeps = set(need.version.packs) - deciding.going
            gone = {
                digest
                for digest in self.objects_of(need)
                if digest not in self.made
                and not deciding.stays_in(digest, keeps)
                and deciding.of(digest) is None
            }
            if spared := gone & need.optional:
                need.objects = array("Q", (n for n in need.objects if self.digests[n] not in spared))
                gone -= spared
            if gone or not need.is_known:
                found[need.version.id] = gone
        return found

    # --- versions -----------------------------------------------------------------------------------

    def _needs(self, version: Kept) -> Needs:
        found = Needs(version, tree=tuple(Digest.parse(text) for text in version.tree))
        for kind, digest in self._beside(version):
            self._add(found, digest)
            if kind == STATISTICS:
                found.optional.add(digest)
        tree = self._tree(found)
        for digest in found.tree:
            self._add(found, digest)
        if tree is None:
            found.is_known = False
            return found
        for file in tree.files:
            for segment in file.segments:
                for text in segment.objects:
                    self._add(found, Digest.parse(text))
        return found

    def _add(self, needs: Needs, digest: Digest) -> None:
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self.digests)
            self.digests.append(digest)
        needs.objects.append(number)

    def _beside(self, version: Kept) -> Iterator[tuple[str, Digest]]:
        """What a version holds beside its files and was not redacted."""
        row = row_of(self._session.catalog, version.id)
        beside = decode_record(row.record, row.id).beside()
        for added in queries.annotations_of(self._session.catalog.connection, row.seq):
            beside |= added.objects
        redacted = queries.redacted_items(self._session.catalog.connection, row.seq)
        for kind, text in sorted(beside.items()):
            if kind not in redacted:
                yield kind, _digest(text)

    def _tree(self, needs: Needs) -> Tree | None:
        """A version's files, from wherever its tree still is; else from files that are the same."""
        row = row_of(self._session.catalog, needs.version.id)
        content = decode_record(row.record, row.id).content
        try:
            parts = (bytes(self._content(digest)) for digest in needs.tree)
            return decode_tree(join_tree(row.id.short, parts), content, row.id.short)
        except FAULTS:
            pass
        made = self._sources.tree_of(content)
        if made is None:
            return None
        source, tree = made
        needs.made_by = source.name
        contents = split_tree(encode_tree(tree))
        needs.tree = tuple(map(Digest.of, contents))
        for digest, data in zip(needs.tree, contents, strict=True):
            self.made[digest] = data, source.name
        return tree

    def _content(self, digest: Digest) -> Buffer:
        if digest in self.made:
            return self.made[digest][0]
        found = self._sources.find(digest)
        if found is None:
            raise MissingObject(digest=digest)
        return found.content

    def name_lost(self, plan: Plan, names: Callable[[str], str]) -> Iterator[Lost]:
        """What is lost, in words that its owner knows. `names`: a model's name by its key."""
        for needs in plan.needs:
            gone = plan.lost.get(needs.version.id)
            if gone is None:
                continue
            version = needs.version
            of = Lost(version.id.hex, names(version.model), version.name, "", "")
            for kind, digest in self._beside(version):
                if digest in gone:
                    yield replace(of, what="provenance", name=kind, digest=digest.hex)
            tree = self._tree(needs) if needs.is_known else None
            if tree is None:
                yield replace(of, what="tree", name="the list of its files")
                continue
            if not gone.isdisjoint(needs.tree):
                yield replace(of, what="tree", name="the list of its files")
            for file in tree.files:
                where = replace(of, what="file", name=file.path, size=file.size, digest=file.digest)
                parts = [s for s in file.segments if any(_digest(text) in gone for text in s.objects)]
                yield from dict.fromkeys(replace(where, tensor=part.name or "") for part in parts)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise HostileData(where=f"digest {text[:80]!r}", reason=str(error)) from None
