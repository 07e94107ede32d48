"""Rows of the catalog as frozen values. Owns how columns become types; runs no query."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from stemmata.catalog.chunks import record_in
from stemmata.ids import VersionId

Row: TypeAlias = tuple[Any, ...]

VERSION_COLUMNS = (
    "v.seq, v.id, v.model, v.name, v.n, v.at, v.state, v.state_n, r.data, v.tree, v.created_at, v.run,"
    " v.run_id, v.step, v.epoch, v.event, v.kind, v.author, v.message, v.bytes, v.files, v.content, r.first"
)


class VersionRow(msgspec.Struct, frozen=True):
    """One version. `model` is the model's key; `name` the version's first name."""

    seq: int
    id: VersionId
    model: str
    name: str
    n: int
    at: str
    """Effective time of the entry that added it."""
    state: str
    """visible, deleted or forgotten."""
    state_n: int
    record: bytes
    tree: tuple[str, ...]
    """Digests of the objects that hold the tree."""
    created_at: str
    run: str | None
    run_id: str | None
    step: int | None
    epoch: float | None
    event: str
    kind: str
    author: str
    message: str
    bytes: int
    files: int
    content: str

    @classmethod
    def of(cls, row: Row) -> VersionRow:
        """From the columns VERSION_COLUMNS. ValueError for what no fold wrote: see `asking`."""
        *values, first = row
        values[1] = VersionId(row[1])
        values[8] = record_in(first, row[8], row[0])
        if VersionId.of(values[8]) != values[1]:
            raise ValueError("a record whose digest is not the version's id")
        values[9] = tuple(msgspec.json.decode(row[9], type=list[str]))
        return cls(*values)


class ModelRow(msgspec.Struct, frozen=True):
    key: str
    name: str
    n: int


class RefRow(msgspec.Struct, frozen=True):
    """An alias, tag or version name as it stands now."""

    model: str
    key: str
    kind: str
    name: str
    target: VersionId
    n: int

    @classmethod
    def of(cls, row: Row) -> RefRow:
        return cls(row[0], row[1], row[2], row[3], VersionId(row[4]), row[5])


class RefMove(msgspec.Struct, frozen=True):
    """One change of a name; `target` None is its deletion."""

    model: str
    key: str
    kind: str
    name: str
    n: int
    at: str
    by: str
    target: VersionId | None
    why: str
    evidence: dict[str, Any]
    txn: str

    @classmethod
    def of(cls, row: Row) -> RefMove:
        values = list(row)
        values[7] = VersionId(row[7]) if row[7] is not None else None
        values[9] = msgspec.json.decode(row[9])
        return cls(*values)


class SettingMove(msgspec.Struct, frozen=True):
    """One change of a model's setting; `value` None takes it away."""

    n: int
    at: str
    by: str
    value: Any

    @classmethod
    def of(cls, row: Row) -> SettingMove:
        return cls(row[0], row[1], row[2], None if row[3] is None else msgspec.json.decode(row[3]))


class AnnotationRow(msgspec.Struct, frozen=True):
    """What was added to a version after its save. A label of None takes that label away."""

    n: int
    at: str
    by: str
    metrics: dict[str, float | str]
    labels: dict[str, str | None]
    notes: str
    event: str
    why: str
    details: dict[str, Any]
    objects: dict[str, str]
    """Kind -> digest of attached objects."""

    @classmethod
    def of(cls, row: Row) -> AnnotationRow:
        values = list(row)
        values[3] = msgspec.json.decode(row[3], type=dict[str, float | str])
        values[4] = msgspec.json.decode(row[4], type=dict[str, str | None])
        values[8] = msgspec.json.decode(row[8])
        values[9] = msgspec.json.decode(row[9], type=dict[str, str])
        return cls(*values)


class BestRow(msgspec.Struct, frozen=True):
    """The version whose metric is best, and all that are just as good but later: they may be very many."""

    row: VersionRow
    value: float
    ties: tuple[VersionId, ...]
