"""Merging: many small packs become one, after the save that made them many. Owns which, and when.

In tiers: 16 packs of single saves become one, four of those one that is left alone. So each byte is copied
twice at most, of ten thousand saves not two hundred packs are left, and what one save has to copy is
bounded. The packs that went are retired; a collection deletes them after the readers' grace, and so does
every merge of the second tier.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from weakref import WeakKeyDictionary

import msgspec

from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.codecs.frames import Reference
from stemmata.collecting import dropping, small
from stemmata.collecting.clocks import StoreClock
from stemmata.collecting.copies import LivePack
from stemmata.collecting.picture import live_packs
from stemmata.collecting.rewriting import moved
from stemmata.errors import Damage, MissingObject, NewerFormat, StemmataError
from stemmata.ids import Digest, PackName
from stemmata.log.ops import Op, PackAdd, PackRetire, VersionPlace
from stemmata.packs import PackReader, PackSummary, PackWriter
from stemmata.session import Session

_MOST_ENTRIES = 4000
"""Of a log that a save folds to delete what was merged away: a longer one would be felt."""
_log = logging.getLogger("stemmata")
_looked: WeakKeyDictionary[Session, float] = WeakKeyDictionary()
"""When each session last deleted what had been merged away."""
_unfit: WeakKeyDictionary[Session, set[PackName]] = WeakKeyDictionary()
"""Packs at which each session's merges failed: nothing else waits for them to be mended."""


class _Unfit(StemmataError):
    kind = "unfit"
    what = "pack {pack} cannot be put together with others: {reason}"

    def __init__(self, pack: PackName, reason: str) -> None:
        super().__init__(pack=pack, reason=reason)
        self.pack = pack


class _Overtaken(StemmataError):
    kind = "overtaken"
    what = "the packs to merge changed meanwhile"


def merge_small(session: Session) -> int:
    """Put small packs together if there are many; how many went. What fails here is no failure of a save.

    Raises InvalidArgument for a value of STEMMATA_MERGE that means nothing.
    """
    if not small.are_many(session.catalog):
        return 0
    unfit = _unfit.setdefault(session, set())
    try:
        while chosen := choose(session.catalog, unfit):
            try:
                merge(session, chosen)
            except _Unfit as error:
                _log.warning("%s", error)
                unfit.add(error.pack)
                continue
            if any(pack.size >= small.SINGLE for pack in chosen):
                _drop_old(session)
            break
    except StemmataError as error:
        _log.debug("small packs were not merged: %s", error)
        return 0
    except Exception:  # noqa: BLE001
        # The version is saved: whatever this is, the save did not fail.
        _log.warning("small packs were not merged", exc_info=True)
        return 0
    return len(chosen)


def choose(catalog: Catalog, unfit: Collection[PackName] = ()) -> list[LivePack]:
    """The packs to put together now, oldest first; none if there are few, of very many a part. Those that are
    `unfit` stay."""
    with catalog.lock:
        packs = live_packs(catalog)
        little = {pack.name for pack in packs if pack.size < small.GROWN and pack.name not in unfit}
        little -= {name for name in little if _is_used_by_many(catalog, name)}
    # What a pack that stays leans on stays as well.
    while pinned := {base for p in packs if p.name not in little for base in p.bases} & little:
        little -= pinned
    singles = [p for p in packs if p.name in little and p.size < small.SINGLE]
    grown = [p for p in packs if p.name in little and p.size >= small.SINGLE]
    if len(singles) < small.SINGLES:
        return []
    chosen = {p.name for p in singles} | (
        {p.name for p in grown} if len(grown) + 1 >= small.GROWNS else set()
    )
    # Those that stay may lean on some of these: then these stay too.
    while pinned := {base for p in packs if p.name not in chosen for base in p.bases} & chosen:
        chosen -= pinned
    found = [p for p in packs if p.name in chosen]
    return _newest(found) if len(found) >= small.SINGLES else []


def _newest(packs: Sequence[LivePack]) -> list[LivePack]:
    """As many of them as one save puts together: the newest, for what leans on a pack must go with it."""
    taken: list[LivePack] = []
    room = small.most_bytes()
    for pack in reversed(packs[-small.MOST :]):
        room -= pack.size
        if room < 0:
            break
        taken.append(pack)
    return taken[::-1]


def merge(session: Session, chosen: Sequence[LivePack]) -> PackSummary:
    """Put packs together, in one entry. Raises _Unfit, Damage if the new one cannot be read back, and as
    storages and commits do; then nothing changed."""
    names = {pack.name for pack in chosen}
    new = _write(session, chosen)
    try:
        PackReader(session.storage, new.name).verify_all(new.size, new.digest)
    except Damage:
        session.storage.delete(new.name.key)  # no log has named it
        raise

    def ops(catalog: Catalog) -> Sequence[Op]:
        live = {pack.name: pack for pack in live_packs(catalog)}
        upon = {base for pack in live.values() if pack.name not in names for base in pack.bases}
        if not names <= set(live) or upon & names or not live.keys() >= set(new.bases):
            raise _Overtaken()
        made: list[Op] = [
            PackAdd(
                pack=new.name.hex,
                size=new.size,
                digest=new.digest.hex,
                bases=[base.hex for base in new.bases],
            )
        ]
        made += _places(catalog, names, new.name)
        made.append(PackRetire(packs=sorted(name.hex for name in names), why="merged"))
        return made

    try:
        session.commit(ops)
    except _Overtaken:
        session.storage.delete(new.name.key)  # no log has named it
        raise
    session.catalog.remember_pack(new.name, new.index.digests())
    return new


def _write(session: Session, chosen: Sequence[LivePack]) -> PackSummary:
    """All objects of these packs in a new one, durable; of several copies the oldest, which is read before
    another is let go: it may lean on what is damaged. Raises _Unfit for the pack where that is met."""
    names = {pack.name for pack in chosen}
    writer = PackWriter(session.storage)
    there: dict[Digest, PackName] = {}

    def where(base: Reference) -> PackName:
        if base.pack not in names:
            return base.pack
        if base.digest not in there:
            raise MissingObject(digest=base.digest)  # or it lies behind this one: a collection can do that
        return writer.name

    try:
        for pack in chosen:
            try:
                for digest, raw, stored in PackReader(session.storage, pack.name).read_all():
                    if digest in there:
                        session.reader.read(digest, [there[digest]])
                        continue
                    parts, bases = moved(stored, digest, pack.name, where)
                    writer.add(digest, parts, raw)
                    for base in bases:
                        writer.lean_on(base)
                    there[digest] = pack.name
            except (Damage, NewerFormat) as error:
                raise _Unfit(pack.name, str(error)) from error
        return writer.commit()
    except BaseException:
        writer.abort()
        raise


def _places(catalog: Catalog, names: set[PackName], new: PackName) -> Iterator[VersionPlace]:
    """Every version that named one of the packs names the new one instead."""
    found: set[int] = set()
    for name in names:
        rows = catalog.connection.execute("SELECT version FROM version_packs WHERE pack = ?", (name.raw,))
        found |= {row[0] for row in rows}
    for seq in sorted(found):
        rows = catalog.connection.execute("SELECT lower(hex(id)), tree FROM versions WHERE seq = ?", (seq,))
        version, tree = rows.fetchone()
        packs = {*queries.packs_of(catalog.connection, seq)} - names | {new}
        yield VersionPlace(
            version=version,
            tree=msgspec.json.decode(tree, type=list[str]),
            packs=sorted(p.hex for p in packs),
        )


def _is_used_by_many(catalog: Catalog, pack: PackName) -> bool:
    sql = "SELECT COUNT(*) FROM (SELECT 1 FROM version_packs WHERE pack = ? LIMIT ?)"
    return int(catalog.connection.execute(sql, (pack.raw, small.USERS)).fetchone()[0]) >= small.USERS


def _drop_old(session: Session) -> None:
    """Delete what was merged away before the readers' grace: else ten thousand saves would lie there
    thrice. Once in such a time is enough, for it goes through all that lies in the store. It folds the whole
    log, too: of a long one that is left to `gc`."""
    if session.catalog.position.n > _MOST_ENTRIES:
        return
    now, last = time.monotonic(), _looked.get(session)
    if last is not None and now - last < dropping.READERS:
        return
    _looked[session] = now
    clock = StoreClock(session.storage)
    left = dropping.look(session, clock, readers=dropping.READERS, writers=float("inf"))
    dropping.drop(session, left)
