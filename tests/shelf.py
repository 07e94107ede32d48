"""Shelf: a log in memory and a catalog upon it; every call is one entry, a minute after the last."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from ledger import START, TREE, Ledger, add_pack, pack, record
from stemmata.catalog.catalog import Catalog
from stemmata.ids import VersionId
from stemmata.log import ops
from stemmata.names import name_key
from stemmata.records import Content, Run, store_number, store_value, timestamp


class Shelf:
    """Writes versions and names as commits do, without bytes in packs."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.catalog = Catalog(self.ledger.storage, self.ledger.identity, [])
        self.write(add_pack(1))

    @property
    def connection(self) -> sqlite3.Connection:
        return self.catalog.connection

    @property
    def n(self) -> int:
        """Number of the last entry."""
        return self.ledger.here.n

    def write(self, *changes: ops.Op, at: datetime | None = None) -> str:
        """One entry of these ops; its effective time."""
        self.ledger.append(*changes, at=at)
        self.catalog.refresh()
        assert self.catalog.void_reason(self.n) is None
        return self.ledger.here.effective

    @staticmethod
    def time(n: int) -> str:
        """Effective time of entry n, if its time was not given."""
        return timestamp(START + timedelta(minutes=n))

    def save(
        self,
        model: str,
        name: str,
        *,
        metrics: Mapping[str, float] | None = None,
        config: Mapping[str, object] | None = None,
        labels: Mapping[str, str] | None = None,
        data: Mapping[str, object] | None = None,
        parents: Sequence[VersionId] = (),
        run: str | None = None,
        content: str = "0" * 64,
        size: int = 100,
        at: datetime | None = None,
        nonce: int | None = None,
        **fields: object,
    ) -> VersionId:
        made = record(
            self.n if nonce is None else nonce,
            author="me",
            content=Content(content, 1, size),
            metrics={k: store_number(v) for k, v in (metrics or {}).items()},
            config={k: store_value(v) for k, v in (config or {}).items()},
            data={k: store_value(v) for k, v in (data or {}).items()},
            parents=[p.hex for p in parents],
            run=Run(f"id-of-{run}", run) if run else None,
            **({"kind": "files", "created_at": self.time(self.n + 1)} | fields),
        )
        version = VersionId.of(made)
        changes: list[ops.Op] = [ops.VersionAdd(model, name, msgspec.Raw(made), TREE, [pack(1)])]
        if labels:
            changes.append(ops.VersionAnnotate(version=version.hex, labels=dict(labels)))
        self.write(*changes, at=at)
        return version

    def annotate(self, version: VersionId, *, at: datetime | None = None, **metrics: float) -> str:
        stored = {k: store_number(v) for k, v in metrics.items()}
        return self.write(ops.VersionAnnotate(version=version.hex, metrics=stored), at=at)

    def label(self, version: VersionId, **labels: str | None) -> str:
        return self.write(ops.VersionAnnotate(version=version.hex, labels=labels))

    def ref(
        self, model: str, kind: str, name: str, to: VersionId | None, *, at: datetime | None = None
    ) -> str:
        """Set an alias, tag or name; None deletes it."""
        row = self.connection.execute(
            "SELECT target FROM refs WHERE model = ? AND key = ?", (name_key(model), name_key(name))
        ).fetchone()
        current = VersionId(row[0]).hex if row else None
        if to is None:
            assert current is not None
            return self.write(ops.RefDelete(model=model, kind=kind, name=name, expect=current), at=at)
        change = ops.RefSet(model=model, kind=kind, name=name, to=to.hex, expect=current, why="because")
        return self.write(change, at=at)

    def delete(self, version: VersionId) -> str:
        return self.write(ops.VersionDelete(version=version.hex))

    def restore(self, version: VersionId) -> str:
        return self.write(ops.VersionRestore(version=version.hex))

    def forget(self, version: VersionId) -> str:
        return self.write(ops.VersionForget(versions=[version.hex]))

    def configure(self, model: str, **settings: object) -> str:
        return self.write(ops.ModelConfigure(model=model, settings=settings))

    def close(self) -> None:
        self.catalog.close()
