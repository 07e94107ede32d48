"""Ledger: writes a log entry by entry, without the commit protocol; and a state that is a dictionary."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec

from stemmata.catalog.asking import every_record
from stemmata.ids import PackName, VersionId
from stemmata.log import ops
from stemmata.log.entries import (
    Entry,
    Position,
    Void,
    advance,
    encode_entry,
    log_key,
    read_entry,
    seal,
)
from stemmata.log.fold import (
    DELETED,
    FORGOTTEN,
    LIVE,
    NAME,
    VISIBLE,
    Moment,
    Pointer,
    Standing,
    State,
    apply,
)
from stemmata.log.identity import Identity, create_identity, read_identity
from stemmata.measurements import measured
from stemmata.names import name_key
from stemmata.records import Content, Outline, Record, encode_record, timestamp
from stemmata.storage.base import Storage
from stemmata.storage.memory import MemoryStorage

START = datetime(2026, 3, 1, tzinfo=UTC)
TREE = ["ab" * 32]


def pack(number: int) -> str:
    """A pack's name, the same in every run."""
    return f"{number:032x}"


def txn(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()[:32]


def record(nonce: int = 0, **fields: object) -> bytes:
    """A record's bytes; `nonce` alone makes two differ."""
    base = {"created_at": timestamp(START), "nonce": f"{nonce:016x}", "content": Content("cd" * 32, 2, 10)}
    return encode_record(Record(**{**base, **fields}))  # type: ignore[arg-type]


def version_of(data: bytes) -> str:
    return VersionId.of(data).hex


def add_pack(number: int, bases: Sequence[int] = ()) -> ops.PackAdd:
    return ops.PackAdd(pack=pack(number), size=100, digest="ef" * 32, bases=[pack(b) for b in bases])


def add_version(
    nonce: int = 0, name: str = "", packs: Iterable[int] = (1,), model: str = "m", **fields: object
) -> ops.VersionAdd:
    return ops.VersionAdd(
        model=model,
        name=name or f"v{nonce}",
        record=msgspec.Raw(record(nonce, **fields)),
        tree=TREE,
        packs=[pack(p) for p in packs],
    )


def alias(name: str, to: str, expect: str | None = None, model: str = "m") -> ops.RefSet:
    return ops.RefSet(model=model, kind="alias", name=name, to=to, expect=expect)


class Ledger:
    """A storage and where its log ends."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage = storage if storage is not None else MemoryStorage()
        create_identity(self.storage)
        self.identity: Identity = read_identity(self.storage)
        self.here: Position = self.identity.genesis

    def append(self, *changes: ops.Op, at: datetime | None = None, by: str = "tester") -> Position:
        """Write an entry of these ops, void or not."""
        n = self.here.n + 1
        moment = timestamp(at or START + timedelta(minutes=n))
        return self.append_bytes(encode_entry(self.here, changes, txn=txn(n), at=moment, by=by))

    def append_body(self, **changed: object) -> Position:
        """Write an entry whose body has these fields instead of the sound ones."""
        return self.append_bytes(seal(msgspec.json.encode(self.body(**changed))))

    def body(self, **changed: object) -> dict[str, object]:
        n = self.here.n + 1
        sound = {
            "n": n,
            "format": 1,
            "txn": txn(n),
            "prev": self.here.hash.hex,
            "at": timestamp(START + timedelta(minutes=n)),
            "by": "tester",
            "ops": [],
        }
        return {key: value for key, value in {**sound, **changed}.items() if value is not msgspec.UNSET}

    def append_bytes(self, data: bytes) -> Position:
        found = read_entry(self.here.n + 1, data, self.here)
        self.storage.put_new(log_key(self.here.n + 1), data)
        self.here = advance(self.here, data, found)
        return self.here


def fold_ops(state: State, here: Position, *changes: ops.Op) -> tuple[Position, str | None]:
    """Fold one entry of these ops, by way of its bytes."""
    data = encode_entry(here, changes, txn=txn(here.n + 1), at=timestamp(START), by="tester")
    found = read_entry(here.n + 1, data, here)
    position = advance(here, data, found)
    if isinstance(found, Void):
        return position, found.reason
    assert isinstance(found, Entry)
    return position, apply(state, position, found)


class DictState:
    """What the log amounts to, in dictionaries: a second opinion on the SQLite state."""

    def __init__(self) -> None:
        self.of: dict[str, dict] = {  # type: ignore[type-arg]
            kind: {}
            for kind in ("packs", "bases", "versions", "refs", "facts", "settings", "moves", "redacted")
        }
        self.current_format = 1

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        before, format_before = copy.deepcopy(self.of), self.current_format
        try:
            yield
        except BaseException:
            self.of, self.current_format = before, format_before
            raise

    def format(self) -> int:
        return self.current_format

    def pack_state(self, pack: PackName) -> str | None:
        return self.of["packs"].get(pack.raw)

    def packs_upon(self, pack: PackName) -> list[PackName]:
        return [PackName(upon) for upon, bases in self.of["bases"].items() if pack.raw in bases]

    def pack_is_named(self, pack: PackName) -> bool:
        needing = (v for v in self.of["versions"].values() if v["state"] in (VISIBLE, DELETED))
        return any(pack.raw in v["packs"] for v in needing)

    def version(self, version: VersionId) -> Standing | None:
        found = self.of["versions"].get(version.raw)
        return Standing(found["model"], found["state"]) if found is not None else None

    def object_kinds(self, version: VersionId) -> set[str]:
        return set(self.of["versions"][version.raw]["provenance"])

    def redacted(self, version: VersionId) -> set[str]:
        return self.of["redacted"].get(version.raw, set())

    def is_pointed_at(self, version: VersionId) -> bool:
        return any(p.target == version and p.kind != NAME for p in self.of["refs"].values())

    def ref(self, model: str, key: str) -> Pointer | None:
        return self.of["refs"].get((model, key))

    def set_format(self, to: int) -> None:
        self.current_format = to

    def add_pack(self, moment: Moment, pack: PackName, op: ops.PackAdd) -> None:
        self.of["packs"][pack.raw] = LIVE
        self.of["bases"][pack.raw] = {bytes.fromhex(b) for b in op.bases}

    def set_pack_state(self, moment: Moment, pack: PackName, state: str) -> None:
        self.of["packs"][pack.raw] = state

    def add_version(self, moment: Moment, version: VersionId, record: Outline, op: ops.VersionAdd) -> None:
        self.of["versions"][version.raw] = {
            "model": name_key(op.model),
            "state": VISIBLE,
            "packs": {bytes.fromhex(p) for p in op.packs},
            "tree": list(op.tree),
            "provenance": set(record.provenance),
        }
        for key, value in record.metrics.items():
            self.of["facts"][version.raw, "metric", key] = value
        self._point(moment, op.model, op.name, Pointer(NAME, version))

    def place_version(self, version: VersionId, op: ops.VersionPlace) -> None:
        found = self.of["versions"][version.raw]
        found["packs"] = {bytes.fromhex(p) for p in op.packs}
        found["tree"] = list(op.tree)

    def set_version_state(self, moment: Moment, version: VersionId, state: str) -> None:
        found = self.of["versions"][version.raw]
        found["state"] = state
        if state == FORGOTTEN:
            found["packs"] = set()

    def annotate(self, moment: Moment, version: VersionId, op: ops.VersionAnnotate) -> None:
        dataset = measured(op.details)[0].name
        for key, value in (op.metrics or {}).items():
            self.of["facts"][version.raw, "metric", key] = value
            if dataset:
                self.of["facts"][version.raw, "measured_on", key] = dataset
            else:
                self.of["facts"].pop((version.raw, "measured_on", key), None)
        for key, label in (op.labels or {}).items():
            if label is None:
                self.of["facts"].pop((version.raw, "label", key), None)
            else:
                self.of["facts"][version.raw, "label", key] = label
        standing = self.of["versions"][version.raw]
        standing["provenance"] = {*standing["provenance"], *(op.objects or {})}
        standing["packs"] = standing["packs"] | {bytes.fromhex(p) for p in op.packs}

    def redact(self, moment: Moment, version: VersionId, item: str, why: str) -> None:
        self.of["redacted"].setdefault(version.raw, set()).add(item)

    def set_ref(self, moment: Moment, target: VersionId, op: ops.RefSet) -> None:
        self._point(moment, op.model, op.name, Pointer(op.kind, target))

    def delete_ref(self, moment: Moment, op: ops.RefDelete) -> None:
        at = (name_key(op.model), name_key(op.name))
        del self.of["refs"][at]
        self.of["moves"].setdefault(at, []).append((moment.n, None))

    def configure(self, moment: Moment, op: ops.ModelConfigure) -> None:
        settings = self.of["settings"].setdefault(name_key(op.model), {})
        settings.update(op.settings)
        for key in [k for k, v in settings.items() if v is None]:
            del settings[key]

    def _point(self, moment: Moment, model: str, name: str, pointer: Pointer) -> None:
        at = (name_key(model), name_key(name))
        self.of["refs"][at] = pointer
        self.of["moves"].setdefault(at, []).append((moment.n, pointer.target.raw))


def labels(**values: str | None) -> Mapping[str, str | None]:
    return values


def every_row(connection: sqlite3.Connection) -> dict[str, list[tuple]]:  # type: ignore[type-arg]
    """The rows of each table of a catalog; records one by one, however many lie together."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in names}
    return {**found, "records": list(every_record(connection))}
