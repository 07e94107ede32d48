"""The fold's state in SQLite. Owns what each effect writes; decides nothing (see `log.fold`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NoReturn

import msgspec

from stemmata.catalog.conditions import MEASURED_ON
from stemmata.catalog.facts import dumps, fact_of, metric_of, shared_of
from stemmata.catalog.waiting import Waiting
from stemmata.ids import Digest, PackName, VersionId
from stemmata.log import ops
from stemmata.log.fold import DROPPED, FORGOTTEN, LIVE, NAME, VISIBLE, Moment, Pointer, Standing
from stemmata.measurements import measured
from stemmata.names import name_key
from stemmata.records import Record, Stored, decode_record

_NOTHING = b"{}"
_ABSENT = "absent"


class _Known(NamedTuple):
    """What is asked of a version most often."""

    seq: int
    model: str
    state: str


class SqliteState:
    """Implements `fold.State` over the catalog's tables. Runs inside the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, *, long: bool = False) -> None:
        """`long`: many entries are to come; call `flush` after the last."""
        # A plain cursor: the connection's own kind fetches eagerly, for other threads' sake.
        self._cursor = connection.cursor(sqlite3.Cursor)
        self._waiting = Waiting(self._cursor, long=long)
        self._format: int | None = None

    def savepoint(self) -> AbstractContextManager[object]:
        return self._waiting.entry()

    def flush(self) -> None:
        """Bring the tables up to date."""
        self._waiting.write()

    # --- what the fold asks ---------------------------------------------------------------------

    def format(self) -> int:
        found = self._waiting.known("format")
        if found is None:
            row = self._one("SELECT value FROM meta WHERE key = 'format'")
            found = int(row[0]) if row is not None else 1
            self._waiting.note("format", found)
        return int(found)

    def pack_state(self, pack: PackName) -> str | None:
        found = self._waiting.known(pack.raw)
        if found is None and not self._waiting.is_all:
            row = self._one("SELECT state FROM packs WHERE name = ?", pack.raw)
            if row is not None:
                found = str(row[0])
                self._waiting.note(pack.raw, found)
        return str(found) if found is not None else None

    def packs_upon(self, pack: PackName) -> Iterable[PackName]:
        self._waiting.settle()
        self._do("SELECT pack FROM pack_bases WHERE base = ?", pack.raw)
        return [PackName(row[0]) for row in self._cursor.fetchall()]

    def pack_is_named(self, pack: PackName) -> bool:
        self._waiting.settle()
        # Forgotten versions have no rows in version_packs.
        return self._one("SELECT 1 FROM version_packs WHERE pack = ?", pack.raw) is not None

    def version(self, version: VersionId) -> Standing | None:
        found = self._find(version)
        return Standing(found.model, found.state) if found is not None else None

    def object_kinds(self, version: VersionId) -> set[str]:
        self._waiting.settle()
        seq = self._get(version).seq
        row = self._one("SELECT record FROM records WHERE version = ?", seq)
        kinds = set(decode_record(row[0]).provenance) if row is not None else set()
        self._do("SELECT objects FROM annotations WHERE version = ?", seq)
        for (objects,) in self._cursor.fetchall():
            kinds |= set(msgspec.json.decode(objects))
        return kinds

    def redacted(self, version: VersionId) -> set[str]:
        self._waiting.settle()
        self._do("SELECT item FROM redactions WHERE version = ?", self._get(version).seq)
        return {row[0] for row in self._cursor.fetchall()}

    def is_pointed_at(self, version: VersionId) -> bool:
        self._waiting.settle()
        found = self._one("SELECT 1 FROM refs WHERE target = ? AND kind <> ?", version.raw, NAME)
        return found is not None

    def ref(self, model: str, key: str) -> Pointer | None:
        found = self._waiting.known((model, key))
        if found is None and not self._waiting.is_all:
            row = self._one("SELECT kind, target FROM refs WHERE model = ? AND key = ?", model, key)
            if row is not None:
                found = Pointer(row[0], VersionId(row[1]))
        return found if isinstance(found, Pointer) else None

    # --- what the fold changes ------------------------------------------------------------------

    def set_format(self, to: int) -> None:
        self._waiting.settle()
        self._do("INSERT OR REPLACE INTO meta VALUES ('format', ?)", str(to))
        self._waiting.note("format", to)

    def add_pack(self, moment: Moment, pack: PackName, op: ops.PackAdd) -> None:
        rows = self._waiting.rows
        rows["packs"].append((pack.raw, LIVE, op.size, op.digest, moment.n))
        rows["pack_bases"] += [(pack.raw, PackName.parse(base).raw) for base in op.bases]
        self._waiting.note(pack.raw, LIVE)

    def set_pack_state(self, moment: Moment, pack: PackName, state: str) -> None:
        self._waiting.settle()
        self._do(
            "INSERT INTO packs (name, state, n) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET state = excluded.state, n = excluded.n",
            *(pack.raw, state, moment.n),
        )
        if state == DROPPED:
            self._do("DELETE FROM objects WHERE pack = ?", pack.raw)
            self._do("DELETE FROM pack_contents WHERE pack = ?", pack.raw)
        self._waiting.note(pack.raw, state)

    def add_version(self, moment: Moment, version: VersionId, record: Record, op: ops.VersionAdd) -> None:
        model = name_key(op.model)
        run, content = record.run, record.content
        common = shared_of(op.record)
        rows = self._waiting.rows
        seq = self._waiting.number("versions")
        rows["versions"].append(
            (
                *(seq, version.raw, model, op.name, moment.n, moment.at, VISIBLE, moment.n),
                *(dumps(op.tree), record.created_at),
                *((run.name, run.id) if run is not None else (None, None)),
                *(record.step, record.epoch, record.event, record.kind, record.author, record.message),
                *(content.bytes, content.files, content.digest),
                self._share("config", bytes(common.config), record.config),
                self._share("data", bytes(common.data), record.data),
            )
        )
        rows["records"].append((seq, bytes(op.record)))
        self._waiting.note(version.raw, _Known(seq, model, VISIBLE))
        self._add_model(moment, op.model)
        self._add_packs(seq, op.packs)
        self._add_parents(seq, record.parents)
        rows["facts"] += [
            (self._key("metric", key, model), seq, *metric_of(value), False, moment.n, None)
            for key, value in record.metrics.items()
        ]
        self._point(moment, version, op.model, NAME, op.name, "", None)

    def place_version(self, version: VersionId, op: ops.VersionPlace) -> None:
        self._waiting.settle()
        seq = self._get(version).seq
        self._do("UPDATE versions SET tree = ? WHERE seq = ?", dumps(op.tree), seq)
        self._do("DELETE FROM version_packs WHERE version = ?", seq)
        self._add_packs(seq, op.packs)

    def set_version_state(self, moment: Moment, version: VersionId, state: str) -> None:
        self._waiting.settle()
        found = self._get(version)
        self._do("UPDATE versions SET state = ?, state_n = ? WHERE seq = ?", state, moment.n, found.seq)
        self._do("INSERT INTO version_states VALUES (?, ?, ?, ?)", found.seq, moment.n, moment.at, state)
        if state == FORGOTTEN:
            self._do("DELETE FROM version_packs WHERE version = ?", found.seq)
        self._waiting.note(version.raw, found._replace(state=state))

    def annotate(self, moment: Moment, version: VersionId, op: ops.VersionAnnotate) -> None:
        found = self._get(version)
        metrics: Mapping[str, float | str] = op.metrics or {}
        labels: Mapping[str, str | None] = op.labels or {}
        self._waiting.rows["annotations"].append(
            (
                *(found.seq, moment.n, moment.at, moment.by, dumps(metrics), dumps(labels)),
                *(op.notes or "", dumps(op.details or {}), dumps(op.objects or {}), op.event, op.why),
            )
        )
        self._add_packs(found.seq, op.packs)
        said = [("metric", key, metric_of(value), False) for key, value in metrics.items()]
        said += [("label", key, (None, label), label is None) for key, label in labels.items()]
        said += [(MEASURED_ON, key, (None, name), not name) for key, name in self._measured_on(found, op)]
        self._waiting.rows["facts"] += [
            (self._key(space, key, found.model), found.seq, *fact, removed, moment.n, moment.at)
            for space, key, fact, removed in said
        ]

    def _measured_on(self, found: _Known, op: ops.VersionAnnotate) -> list[tuple[str, str]]:
        """By metric, the dataset that its value was measured on; "" where an earlier one counts no more."""
        dataset = measured(op.details)[0].name
        return [
            (key, dataset)
            for key in op.metrics or ()
            if dataset or self._is_key(MEASURED_ON, key, found.model)
        ]

    def redact(self, moment: Moment, version: VersionId, item: str, why: str) -> None:
        self._waiting.settle()
        self._do(
            "INSERT INTO redactions VALUES (?, ?, ?, ?, ?, ?)",
            *(self._get(version).seq, item, moment.n, moment.at, moment.by, why),
        )

    def set_ref(self, moment: Moment, target: VersionId, op: ops.RefSet) -> None:
        self._point(moment, target, op.model, op.kind, op.name, op.why, op.evidence)

    def delete_ref(self, moment: Moment, op: ops.RefDelete) -> None:
        model, key = name_key(op.model), name_key(op.name)
        self._waiting.settle()
        self._do("DELETE FROM refs WHERE model = ? AND key = ?", model, key)
        self._waiting.note((model, key), _ABSENT)
        self._waiting.rows["ref_moves"].append(
            (model, key, op.kind, op.name, moment.n, moment.at, moment.by, None, op.why, "{}", moment.txn)
        )

    def configure(self, moment: Moment, op: ops.ModelConfigure) -> None:
        model = name_key(op.model)
        self._add_model(moment, op.model)
        self._waiting.settle()
        for key, value in op.settings.items():
            self._do("DELETE FROM settings WHERE model = ? AND key = ?", model, key)
            said = None if value is None else dumps(value)
            if said is not None:
                self._do("INSERT INTO settings VALUES (?, ?, ?)", model, key, said)
            moved = (model, key, said, moment.n, moment.at, moment.by)
            self._do("INSERT INTO setting_moves VALUES (?, ?, ?, ?, ?, ?)", *moved)

    def add_void(self, n: int, reason: str) -> None:
        """Remember that entry `n` has no effect, and why."""
        self._do("INSERT OR REPLACE INTO voids VALUES (?, ?)", n, reason)

    # --- parts ----------------------------------------------------------------------------------

    def _do(self, sql: str, *values: object) -> None:
        self._cursor.execute(sql, values)

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._cursor.execute(sql, values).fetchone()
        return row

    def _find(self, version: VersionId) -> _Known | None:
        found: _Known | None = self._waiting.known(version.raw)
        if found is None and not self._waiting.is_all:
            row = self._one("SELECT seq, model, state FROM versions WHERE id = ?", version.raw)
            if row is not None:
                found = _Known(*row)
                self._waiting.note(version.raw, found)
        return found

    def _get(self, version: VersionId) -> _Known:
        return self._find(version) or _missing()

    def _add_model(self, moment: Moment, name: str) -> None:
        key = name_key(name)
        if not self._waiting.known(("model", key, "")):
            self._waiting.rows["models"].append((key, name, moment.n))
            self._waiting.note(("model", key, ""), True)

    def _add_packs(self, seq: int, packs: list[str]) -> None:
        # The fold has found them to be names.
        self._waiting.rows["version_packs"] += [(seq, bytes.fromhex(pack)) for pack in packs]

    def _add_parents(self, seq: int, parents: list[str]) -> None:
        for position, text in enumerate(parents):
            try:
                parent = VersionId.parse(text)
            except ValueError:
                continue  # a record may say anything; what is no id has no parent
            self._waiting.rows["parents"].append((seq, parent.raw, position))

    def _is_key(self, space: str, key: str, model: str) -> bool:
        place = (space, key, model)
        sql = "SELECT id FROM keys WHERE space = ? AND key = ? AND model = ?"
        known = self._waiting.known(place) is not None
        return known or (not self._waiting.is_all and self._one(sql, *place) is not None)

    def _key(self, space: str, key: str, model: str = "") -> int:
        """The number of a key, new or known."""
        place = (space, key, model)
        found = self._waiting.known(place)
        if found is None:
            sql = "SELECT id FROM keys WHERE space = ? AND key = ? AND model = ?"
            row = None if self._waiting.is_all else self._one(sql, *place)
            found = int(row[0]) if row is not None else self._waiting.number("keys")
            if row is None:
                self._waiting.rows["keys"].append((found, *place))
            self._waiting.note(place, found)
        return int(found)

    def _share(self, space: str, text: bytes, values: Mapping[str, Stored]) -> int:
        """The number of a config or of what is said of data, new or known; `text` is how it was written."""
        if text == _NOTHING:
            return 0
        digest = Digest.of(text).raw
        place = (space, digest)
        found = self._waiting.known(place)
        if found is None:
            sql = "SELECT id FROM shared WHERE space = ? AND digest = ?"
            row = None if self._waiting.is_all else self._one(sql, *place)
            found = int(row[0]) if row is not None else self._waiting.number("shared")
            if row is None:
                rows = self._waiting.rows
                rows["shared"].append((found, *place))
                rows["shared_facts"] += [
                    (self._key(space, key), found, *fact_of(value)) for key, value in values.items()
                ]
            self._waiting.note(place, found)
        return int(found)

    def _point(
        self,
        moment: Moment,
        target: VersionId,
        model: str,
        kind: str,
        name: str,
        why: str,
        evidence: Mapping[str, object] | None,
    ) -> None:
        at = (name_key(model), name_key(name), kind, name)
        said = dumps(evidence) if evidence else "{}"
        rows = self._waiting.rows
        rows["refs"].append((*at, target.raw, moment.n))
        rows["ref_moves"].append((*at, moment.n, moment.at, moment.by, target.raw, why, said, moment.txn))
        self._waiting.note(at[:2], Pointer(kind, target))


def _missing() -> NoReturn:
    raise sqlite3.InternalError("a version that the fold has seen is not there")
