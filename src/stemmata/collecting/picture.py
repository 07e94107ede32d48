"""Picture: what is stored at one position of the log, and which objects each version needs. Decides
nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.queries import VersionRow
from stemmata.collecting.copies import Copies, LivePack, Rows, in_order
from stemmata.errors import HostileData
from stemmata.ids import Digest, PackName, VersionId
from stemmata.log.fold import DELETED, LIVE, VISIBLE
from stemmata.objects import ObjectReader
from stemmata.records import decode_record
from stemmata.session import Session
from stemmata.trees import Tree, decode_tree, join_tree


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that is visible or can be restored, as the log places it."""

    id: VersionId
    model: str
    name: str
    state: str
    state_n: int
    """The entry that made it visible, or deleted it."""
    tree: tuple[str, ...]
    packs: tuple[PackName, ...]
    attached: int = 0
    """How many annotations attach objects: only more of them make it need more."""

    @property
    def placed(self) -> tuple[object, ...]:
        """What a `version.place` would replace, and what tells whether more lies there by now: an object may
        be attached that was in a pack of the version's already."""
        return self.tree, self.packs, self.attached


class Picture:
    """Everything live at one moment. Reading what a version needs raises Damage where it cannot be told."""

    def __init__(self, session: Session) -> None:
        self.session = session
        with session.catalog.lock:
            session.refresh()
            self.position = session.catalog.position
            self.kept = kept_versions(session.catalog)
            packs = live_packs(session.catalog)
        self.copies = Copies(session.storage, packs)
        self._rows: dict[VersionId, Rows] = {}
        self.by_id = {version.id: version for version in self.kept}

    def as_it_was(self, version: VersionId) -> Kept:
        return self.by_id[version]

    def rows(self, version: Kept) -> Rows:
        """The copies that a version reads, what they lean on aside; 8 bytes each are kept."""
        found = self._rows.get(version.id)
        if found is None:
            needed = objects_of(self.session, version)
            needed -= {digest for digest in self._statistics(version) if not self.copies.has(digest)}
            found = self._rows[version.id] = self.copies.among(sorted(needed), version.packs)
        return found

    def _statistics(self, version: Kept) -> list[Digest]:
        """Without which a version is whole: what is lost of them keeps nothing from being collected."""
        row = row_of(self.session.catalog, version.id)
        learnt = decode_record(row.record, row.id).statistics
        return [_digest(learnt.digest)] if learnt is not None else []

    def roots(self, versions: Iterable[Kept]) -> Rows:
        """The copies that any of these reads."""
        each = [self.rows(version) for version in versions]
        return np.unique(np.concatenate(each)) if each else np.empty(0, np.int64)


def kept_versions(catalog: Catalog) -> list[Kept]:
    """Visible and restorable versions, oldest first."""
    sql = (
        "SELECT v.seq, v.id, v.model, v.name, v.state, v.state_n, v.tree FROM versions v"
        " WHERE v.state IN (?, ?) ORDER BY v.seq"
    )
    attached = dict(
        catalog.connection.execute(
            "SELECT version, COUNT(*) FROM annotations WHERE objects != '{}' GROUP BY version"
        ).fetchall()
    )
    found = []
    for seq, version, model, name, state, state_n, tree in catalog.connection.execute(
        sql, (VISIBLE, DELETED)
    ):
        packs = tuple(queries.packs_of(catalog.connection, seq))
        listed = tuple(msgspec.json.decode(tree, type=list[str]))
        more = attached.get(seq, 0)
        found.append(Kept(VersionId(version), model, name, state, state_n, listed, packs, more))
    return found


def live_packs(catalog: Catalog) -> list[LivePack]:
    """Live packs, each after those that it leans on."""
    bases: dict[bytes, list[PackName]] = {}
    # Of live ones alone: of many small saves nearly all packs were merged away.
    sql = "SELECT b.pack, b.base FROM packs p JOIN pack_bases b ON b.pack = p.name WHERE p.state = ?"
    for pack, base in sorted(catalog.connection.execute(sql, (LIVE,))):
        bases.setdefault(pack, []).append(PackName(base))
    rows = catalog.connection.execute("SELECT name, size, n FROM packs WHERE state = ?", (LIVE,))
    return in_order({PackName(name): (size, n, tuple(bases.get(name, ()))) for name, size, n in rows})


def objects_of(session: Session, version: Kept) -> set[Digest]:
    """The objects that a version needs: of its tree, its files, and what it holds beside them and was not
    redacted. Raises Damage."""
    row = row_of(session.catalog, version.id)
    redacted = queries.redacted_items(session.catalog.connection, row.seq)
    beside = decode_record(row.record, row.id).beside()
    for added in queries.annotations_of(session.catalog.connection, row.seq):
        beside |= added.objects
    needed = {_digest(text) for kind, text in beside.items() if kind not in redacted}
    needed |= {_digest(text) for text in version.tree}
    for file in tree_of(session.reader, row, version.packs).files:
        for segment in file.segments:
            needed |= {_digest(text) for text in segment.objects}
    return needed


def tree_of(reader: ObjectReader, row: VersionRow, packs: Sequence[PackName]) -> Tree:
    """A version's files, whatever its state. Raises Damage."""
    parts = (reader.read(_digest(text), packs) for text in row.tree)
    return decode_tree(
        join_tree(row.id.short, parts), decode_record(row.record, row.id).content, row.id.short
    )


def row_of(catalog: Catalog, version: VersionId) -> VersionRow:
    row = queries.version_by_id(catalog.connection, version)
    if row is None:
        raise LookupError(f"version {version.short} left the catalog")
    return row


def _digest(text: str) -> Digest:
    """A digest that a record or tree states. Raises HostileData for what is none."""
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise HostileData(where=f"digest {text[:80]!r}", reason=str(error)) from None
