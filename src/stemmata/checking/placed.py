"""Placed: packs and versions as the log places them. Owns the questions that a check asks of a catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.chunks import record_of
from stemmata.errors import HostileData
from stemmata.ids import Digest, PackName, VersionId


@dataclass(frozen=True, slots=True)
class PlacedPack:
    """A pack whose bytes may not have been dropped, as its pack.add describes it."""

    name: PackName
    size: int
    digest: Digest
    bases: frozenset[PackName]
    retired: bool = False
    """Nobody needs it any more."""


@dataclass(frozen=True, slots=True)
class PlacedVersion:
    """A visible or restorable version, as the log places it."""

    id: VersionId
    record: bytes
    tree: tuple[Digest, ...]
    packs: tuple[PackName, ...]
    redacted: frozenset[str]
    attached: dict[str, str]
    """Kind -> digest of the objects that annotations attached."""


def packs_of(catalog: Catalog) -> list[PlacedPack]:
    """Oldest first."""
    ask = catalog.connection.execute
    bases: dict[bytes, set[PackName]] = {}
    for pack, base in ask("SELECT pack, base FROM pack_bases").fetchall():
        bases.setdefault(bytes(pack), set()).add(PackName(bytes(base)))
    rows = ask(
        "SELECT name, size, digest, state = 'retired' FROM packs"
        " WHERE state != 'dropped' AND digest IS NOT NULL ORDER BY n, name"
    )
    return [
        PlacedPack(
            PackName(bytes(name)),
            size,
            Digest.parse(digest),
            frozenset(bases.get(bytes(name), ())),
            bool(retired),
        )
        for name, size, digest, retired in rows.fetchall()
    ]


def versions_of(catalog: Catalog) -> Iterator[PlacedVersion]:
    """Oldest first, one at a time: their records may be long."""
    ask = catalog.connection.execute
    states = "SELECT seq FROM versions WHERE state IN ('visible', 'deleted') ORDER BY seq"
    for (seq,) in ask(states).fetchall():
        version, tree = ask("SELECT id, tree FROM versions WHERE seq = ?", (seq,)).fetchone()
        packs = ask("SELECT pack FROM version_packs WHERE version = ? ORDER BY pack", (seq,)).fetchall()
        redacted = ask("SELECT item FROM redactions WHERE version = ?", (seq,)).fetchall()
        added = queries.annotations_of(catalog.connection, seq)
        yield PlacedVersion(
            VersionId(bytes(version)),
            record_of(catalog.connection.cursor(), seq),
            tuple(map(Digest.parse, msgspec.json.decode(tree))),
            tuple(PackName(bytes(pack)) for (pack,) in packs),
            frozenset(item for (item,) in redacted),
            {kind: digest for a in added for kind, digest in a.objects.items()},
        )


def digest_in(text: str) -> Digest:
    """A digest that a record or tree states. Raises HostileData for what is none."""
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise HostileData(where=f"digest {text[:80]!r}", reason=str(error)) from None
