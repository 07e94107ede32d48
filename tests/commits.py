"""A repository to commit into: counters, and a rival who is faster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import msgspec

from faults import contents
from ledger import Ledger
from stemmata.catalog.catalog import Catalog
from stemmata.ids import Digest, PackName
from stemmata.log import ops
from stemmata.log.entries import unseal
from stemmata.storage.base import Storage
from stemmata.transaction import Committed, commit

COUNTER = "counter"


@dataclass(frozen=True)
class Summary:
    """A pack as the log is told of it."""

    name: PackName = field(default_factory=PackName.fresh)
    size: int = 7
    digest: Digest = field(default_factory=lambda: Digest.of(b"pack"))
    bases: tuple[PackName, ...] = ()


class World:
    def __init__(self, storage: Storage | None = None) -> None:
        self.ledger = Ledger(storage)
        self.storage = self.ledger.storage
        self.catalog = Catalog(self.storage, self.ledger.identity, [])

    def commit(self, *changes: ops.Op, storage: Storage | None = None, **more: object) -> Committed:
        return commit(
            self.catalog, storage or self.storage, lambda _: changes, by="tester", **more  # type: ignore[arg-type]
        )  # fmt: skip

    def rival(self, *changes: ops.Op) -> None:
        """Another writer commits."""
        with closing(Catalog(self.storage, self.ledger.identity, [])) as catalog:
            commit(catalog, self.storage, lambda _: changes, by="rival")

    def entries(self) -> list[dict]:  # type: ignore[type-arg]
        return [msgspec.json.decode(unseal(data)) for data in contents(self.storage, "log/").values()]

    def value(self) -> int:
        with closing(Catalog(self.storage, self.ledger.identity, [])) as catalog:
            catalog.refresh()
            return counted(catalog)


def configure(value: int) -> ops.ModelConfigure:
    return ops.ModelConfigure(model="m", settings={COUNTER: value})


def counted(catalog: Catalog) -> int:
    row = catalog.connection.execute("SELECT value FROM settings WHERE key = ?", (COUNTER,)).fetchone()
    return int(row[0]) if row is not None else 0


def increment(catalog: Catalog) -> Sequence[ops.Op]:
    return [configure(counted(catalog) + 1)]
