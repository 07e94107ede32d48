"""Packs: what a catalog knows of them. Owns the questions; what the log says, and hints of what they hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from stemmata.ids import Digest, PackName
from stemmata.log.fold import LIVE


class KnownPacks:
    """What `Catalog` is made on."""

    @property
    def connection(self) -> sqlite3.Connection:
        """For queries; see `Catalog.connection`."""
        raise NotImplementedError

    def keep_hints(self, *changes: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        """Write rows that the log does not say; see `Catalog.keep_hints`."""
        raise NotImplementedError

    def pack_state(self, pack: PackName) -> str | None:
        """live, retired or dropped; None of a pack that the log has never named."""
        row = self.connection.execute("SELECT state FROM packs WHERE name = ?", (pack.raw,)).fetchone()
        return str(row[0]) if row is not None else None

    def pack_is_live(self, pack: PackName) -> bool:
        return self.pack_state(pack) == LIVE

    def pack_size(self, pack: PackName) -> int | None:
        """Bytes of a pack as the log says; None of one that it does not describe."""
        row = self.connection.execute("SELECT size FROM packs WHERE name = ?", (pack.raw,)).fetchone()
        return int(row[0]) if row is not None and row[0] is not None else None

    def pack_digest(self, pack: PackName) -> str | None:
        """BLAKE3 of a pack's whole file as the log says; None of one that it does not describe."""
        row = self.connection.execute("SELECT digest FROM packs WHERE name = ?", (pack.raw,)).fetchone()
        return str(row[0]) if row is not None and row[0] is not None else None

    def bases_of(self, pack: PackName) -> list[PackName]:
        """The packs that objects in a pack lean on."""
        rows = self.connection.execute("SELECT base FROM pack_bases WHERE pack = ?", (pack.raw,))
        return [PackName(row[0]) for row in rows]

    def packs_holding(self, digest: Digest) -> list[PackName]:
        """Live packs that are known to hold an object. Others may: this is a cache."""
        rows = self.connection.execute(
            "SELECT o.pack FROM objects o JOIN packs p ON p.name = o.pack WHERE o.digest = ? AND p.state = ?",
            (digest.raw, LIVE),
        )
        return [PackName(row[0]) for row in rows]

    def unremembered_packs(self) -> list[PackName]:
        """Live packs whose objects nobody has told this catalog of, oldest first."""
        sql = "SELECT name FROM packs WHERE state = ? AND remembered = 0 ORDER BY n"
        return [PackName(row[0]) for row in self.connection.execute(sql, (LIVE,))]

    def remember_pack(self, pack: PackName, digests: Iterable[Digest]) -> None:
        """Note what a pack holds, so that nothing is stored twice. Best effort."""
        rows = [(digest.raw, pack.raw) for digest in digests]
        self.keep_hints(
            ("INSERT OR IGNORE INTO objects VALUES (?, ?)", rows),
            ("UPDATE packs SET remembered = 1 WHERE name = ?", [(pack.raw,)]),
        )
