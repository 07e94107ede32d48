"""Applying: a plan becomes new packs, then entries of the log. Owns the order: durable, read back, committed.

What others committed meanwhile decides: a version that was saved, placed or annotated since keeps its packs,
and a pack that anything still needs at the log's end is not retired. The next collection takes up the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from stemmata.catalog.catalog import Catalog
from stemmata.collecting.copies import LivePack
from stemmata.collecting.picture import Kept, Picture, kept_versions, live_packs
from stemmata.collecting.planning import Plan
from stemmata.collecting.rebasing import Rebasing
from stemmata.collecting.rewriting import Moving
from stemmata.errors import StemmataError
from stemmata.ids import PackName, VersionId
from stemmata.log.fold import DELETED
from stemmata.log.ops import Op, PackAdd, PackRetire, VersionForget, VersionPlace
from stemmata.packs import PackSummary
from stemmata.session import Session

_MOST = 16 << 20
"""Bytes of one entry, roughly; more are divided. The limit of a reader is 64 MiB."""
_OP = 160
_ROUNDS = 3
"""How often coding anew is tried: what is left of it may find other tensors to lean on each time."""

Replan = Callable[[frozenset[bytes]], Plan]


class Overtaken(StemmataError):
    """A pack that the new ones lean on was retired meanwhile: all is to be computed again."""

    kind = "overtaken"
    what = "another collection was faster"


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be committed, as it was decided upon the versions `before`. `places`: versions as they are
    to be; `going`: packs that may be retired; `new`: durable packs that no log has named."""

    before: Mapping[VersionId, Kept]
    places: Sequence[Kept]
    going: Set[PackName]
    new: Sequence[PackSummary]
    forget: Sequence[Kept] = ()


class Applied:
    """What an application has committed."""

    def __init__(self) -> None:
        self.forgotten: list[VersionId] = []
        self.placed: dict[int, int] = {}
        """How many versions, by the entries' order."""
        self.added: list[PackSummary] = []
        self.retired: list[PackName] = []


def rewritten(picture: Picture, replan: Replan, first: Plan) -> tuple[Plan, Moving]:
    """Write what a plan needs written, and read it back. Where coding anew does not pay, plan without it.

    Raises Damage, and as storages do; nothing is left over then.
    """
    found, apart, rounds = first, frozenset[bytes](), 0
    while True:
        moving = Moving(picture.copies, found.packs, picture.session.storage, picture.session.reader)
        try:
            later = {row for cluster in found.clusters for row in cluster.leaning.tolist()}
            digests = {picture.copies.digest_at(row) for row in later}
            for version in found.stay:
                if not found.packs.isdisjoint(version.packs):
                    rows = picture.rows(version).tolist()
                    moving.move(row for row in rows if picture.copies.digest_at(row) not in digests)
            moving.close()
            worse = Rebasing(picture, found, moving).run() if found.clusters else frozenset()
            if not worse:
                moving.prove()
                return found, moving
        except BaseException:
            moving.discard()
            raise
        moving.discard()
        rounds += 1
        if rounds == _ROUNDS:
            worse |= {bytes(picture.copies.digest[row]) for row in later}
        apart |= worse
        found = replan(apart)


def apply(session: Session, picture: Picture, decided: Plan, moving: Moving, why: str) -> Applied:
    """Commit: new packs, versions placed in them, versions forgotten, packs retired.

    Raises Overtaken, and as `transaction.commit`.
    """
    places = list(_places(picture, decided, moving))
    change = Change(picture.by_id, places, decided.packs, moving.written, decided.forget)
    return commit(session, change, why)


def commit(session: Session, change: Change, why: str) -> Applied:
    """Commit a change, as far as what others committed meanwhile lets it. Raises as `apply`."""
    done = Applied()
    parts = list(_parts(change.places))
    for i, part in enumerate(parts):
        last, whole = i == len(parts) - 1, len(parts) == 1

        def ops(
            catalog: Catalog,
            part: list[Kept] = part,
            last: bool = last,
            whole: bool = whole,
            number: int = i,
        ) -> Sequence[Op]:
            first = number == 0
            now = {version.id: version for version in kept_versions(catalog)}
            valid = [new for new in part if _unchanged(change.before[new.id], now.get(new.id))]
            live = live_packs(catalog)
            new = list(change.new) if first else []
            _require_usable(catalog, new, live)
            there = {pack.name for pack in live} | {pack.name for pack in new}
            valid = [version for version in valid if there.issuperset(version.packs)]
            if whole:
                new = _used(new, valid)
            forget = _forgettable(change, now) if last else []
            for version in valid:
                now[version.id] = version
            for gone in forget:
                del now[gone]
            retire = _retirable(change, live, new, now.values()) if last else []
            done.added, done.retired, done.forgotten = (new if first else done.added), retire, forget
            done.placed[number] = len(valid)
            return _ops(new, valid, forget, retire, why)

        session.commit(ops)
    unused = [pack for pack in change.new if pack not in done.added]
    for pack in unused:
        session.storage.delete(pack.name.key)  # no log has named it
    for pack in done.added:
        session.catalog.remember_pack(pack.name, pack.index.digests())
    return done


def _ops(
    new: Sequence[PackSummary],
    places: Sequence[Kept],
    forget: Sequence[VersionId],
    retire: Sequence[PackName],
    why: str,
) -> list[Op]:
    made: list[Op] = [_added(pack) for pack in new]
    made += [
        VersionPlace(version=v.id.hex, tree=list(v.tree), packs=[p.hex for p in v.packs]) for v in places
    ]
    if forget:
        made.append(VersionForget(versions=[v.hex for v in forget], why=why))
    if retire:
        made.append(PackRetire(packs=[p.hex for p in retire], why=why))
    return made


def _places(picture: Picture, decided: Plan, moving: Moving) -> Iterator[Kept]:
    """The versions that are affected, as they are to be."""
    for version in decided.stay:
        if decided.packs.isdisjoint(version.packs):
            continue
        packs = sorted({moving.place_of(row) for row in picture.rows(version).tolist()})
        yield replace(version, packs=tuple(packs))


def _unchanged(before: Kept, now: Kept | None) -> bool:
    return now is not None and now.placed == before.placed


def _parts(places: Sequence[Kept]) -> Iterator[list[Kept]]:
    """Divided so that no entry is too long; one part, empty, if there is none."""
    part: list[Kept] = []
    size = 0
    for version in places:
        length = _OP + 67 * len(version.tree) + 35 * len(version.packs)
        if part and size + length > _MOST:
            yield part
            part, size = [], 0
        part.append(version)
        size += length
    yield part


def _require_usable(catalog: Catalog, new: Sequence[PackSummary], live: Sequence[LivePack]) -> None:
    names = {pack.name for pack in live} | {pack.name for pack in new}
    if any(base not in names for pack in new for base in pack.bases):
        raise Overtaken()
    if any(catalog.pack_state(pack.name) is not None for pack in new):
        raise Overtaken()  # somebody took them for leftovers


def _used(new: Sequence[PackSummary], places: Iterable[Kept]) -> list[PackSummary]:
    """Those that a version names, or another of them leans on."""
    used = {pack for version in places for pack in version.packs}
    for pack in reversed(new):
        if pack.name in used:
            used.update(pack.bases)
    return [pack for pack in new if pack.name in used]


def _forgettable(change: Change, now: dict[VersionId, Kept]) -> list[VersionId]:
    """Those whose deletion still is the one whose window is over."""
    return [
        v.id
        for v in change.forget
        if v.id in now and now[v.id].state == DELETED and now[v.id].state_n == v.state_n
    ]


def _retirable(
    change: Change, live: Sequence[LivePack], new: Sequence[PackSummary], kept: Iterable[Kept]
) -> list[PackName]:
    """The packs of the change that nothing needs once all else is done."""
    needed = {pack for version in kept for pack in version.packs}
    ordered = [*((p.name, p.bases) for p in live), *((p.name, p.bases) for p in new)]
    for name, bases in reversed(ordered):
        if name in needed:
            needed.update(bases)
    return sorted(pack.name for pack in live if pack.name in change.going and pack.name not in needed)


def _added(pack: PackSummary) -> PackAdd:
    return PackAdd(
        pack=pack.name.hex, size=pack.size, digest=pack.digest.hex, bases=[base.hex for base in pack.bases]
    )
