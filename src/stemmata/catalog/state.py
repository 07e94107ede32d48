"""The fold's state in SQLite. Owns what each effect writes; decides nothing (see `log.fold`)."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec

from stemmata.ids import PackName, VersionId
from stemmata.log import ops
from stemmata.log.fold import DROPPED, FORGOTTEN, LIVE, NAME, VISIBLE, Moment, Pointer, Standing
from stemmata.names import name_key
from stemmata.records import Record, Stored, decode_record, load_value

Fact: TypeAlias = tuple[float | None, str | None]
"""A value as (num, text): see the schema."""

_json = msgspec.json.Encoder()
_INT_MAX = 2**63 - 1


def fact_of(value: Stored) -> Fact:
    """How a stored value is kept for searching."""
    if isinstance(value, str):
        if not value.startswith("~"):
            return None, value
        try:
            loaded = load_value(value)
        except ValueError:
            return None, value  # '~int:' with no digits behind it
    else:
        loaded = value
    if loaded is None or isinstance(loaded, str):
        return None, loaded
    if isinstance(loaded, bool):
        return float(loaded), "true" if loaded else "false"
    if isinstance(loaded, list):
        return None, _dumps(value)
    if isinstance(loaded, float):
        return (None, "nan") if math.isnan(loaded) else (loaded, None)
    if -_INT_MAX <= loaded <= _INT_MAX:
        return float(loaded), None
    try:
        return float(loaded), str(loaded)
    except (OverflowError, ValueError):
        return None, str(value)  # more digits than Python turns into text


def metric_of(value: float | str) -> Fact:
    """As `fact_of`; a text that is no tagged number counts as NaN."""
    num, text = fact_of(value)
    return (num, text) if num is not None else (None, "nan")


def _dumps(value: object) -> str:
    return _json.encode(value).decode("utf-8")


class SqliteState:
    """Implements `fold.State` over the catalog's tables. Runs inside the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        # A plain cursor: the connection's own kind fetches eagerly, for other threads' sake.
        self._cursor = connection.cursor(sqlite3.Cursor)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        self._cursor.execute("SAVEPOINT entry")
        try:
            yield
        except BaseException:
            try:
                self._cursor.execute("ROLLBACK TO entry")
                self._cursor.execute("RELEASE entry")
            except sqlite3.Error:
                pass  # SQLite has rolled the whole transaction back itself; the first error says why
            raise
        self._cursor.execute("RELEASE entry")

    # --- what the fold asks ---------------------------------------------------------------------

    def format(self) -> int:
        row = self._one("SELECT value FROM meta WHERE key = 'format'")
        return int(row[0]) if row is not None else 1

    def pack_state(self, pack: PackName) -> str | None:
        row = self._one("SELECT state FROM packs WHERE name = ?", pack.raw)
        return str(row[0]) if row is not None else None

    def packs_upon(self, pack: PackName) -> Iterable[PackName]:
        self._do("SELECT pack FROM pack_bases WHERE base = ?", pack.raw)
        return [PackName(row[0]) for row in self._cursor.fetchall()]

    def pack_is_named(self, pack: PackName) -> bool:
        # Forgotten versions have no rows in version_packs.
        return self._one("SELECT 1 FROM version_packs WHERE pack = ?", pack.raw) is not None

    def version(self, version: VersionId) -> Standing | None:
        row = self._one("SELECT model, state FROM versions WHERE id = ?", version.raw)
        return Standing(str(row[0]), str(row[1])) if row is not None else None

    def object_kinds(self, version: VersionId) -> set[str]:
        row = self._one("SELECT record FROM versions WHERE id = ?", version.raw)
        kinds = set(decode_record(row[0]).provenance) if row is not None else set()
        self._do("SELECT objects FROM annotations WHERE version = ?", self._seq(version))
        for (objects,) in self._cursor.fetchall():
            kinds |= set(msgspec.json.decode(objects))
        return kinds

    def redacted(self, version: VersionId) -> set[str]:
        self._do("SELECT item FROM redactions WHERE version = ?", self._seq(version))
        return {row[0] for row in self._cursor.fetchall()}

    def is_pointed_at(self, version: VersionId) -> bool:
        found = self._one("SELECT 1 FROM refs WHERE target = ? AND kind <> ?", version.raw, NAME)
        return found is not None

    def ref(self, model: str, key: str) -> Pointer | None:
        row = self._one("SELECT kind, target FROM refs WHERE model = ? AND key = ?", model, key)
        return Pointer(row[0], VersionId(row[1])) if row is not None else None

    # --- what the fold changes ------------------------------------------------------------------

    def set_format(self, to: int) -> None:
        self._do("INSERT OR REPLACE INTO meta VALUES ('format', ?)", str(to))

    def add_pack(self, moment: Moment, pack: PackName, op: ops.PackAdd) -> None:
        self._do(
            "INSERT INTO packs (name, state, size, digest, n) VALUES (?, ?, ?, ?, ?)",
            *(pack.raw, LIVE, op.size, op.digest, moment.n),
        )
        for base in op.bases:
            raw = PackName.parse(base).raw
            self._do("INSERT OR IGNORE INTO pack_bases VALUES (?, ?)", pack.raw, raw)

    def set_pack_state(self, moment: Moment, pack: PackName, state: str) -> None:
        self._do(
            "INSERT INTO packs (name, state, n) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET state = excluded.state, n = excluded.n",
            *(pack.raw, state, moment.n),
        )
        if state == DROPPED:
            self._do("DELETE FROM objects WHERE pack = ?", pack.raw)

    def add_version(self, moment: Moment, version: VersionId, record: Record, op: ops.VersionAdd) -> None:
        model = name_key(op.model)
        run = record.run
        self._do(
            "INSERT INTO versions (id, model, name, n, at, state, state_n, record, tree, created_at, run,"
            " run_id, step, epoch, event, kind, author, message, bytes, files, content)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(version.raw, model, op.name, moment.n, moment.at, VISIBLE, moment.n, bytes(op.record)),
            *(_dumps(op.tree), record.created_at),
            *((run.name, run.id) if run is not None else (None, None)),
            *(record.step, record.epoch, record.event, record.kind, record.author, record.message),
            *(record.content.bytes, record.content.files, record.content.digest),
        )
        seq = self._cursor.lastrowid
        if seq is None:
            raise sqlite3.InternalError("an insert without a row")
        self._add_model(moment, op.model)
        self._do("INSERT INTO version_states VALUES (?, ?, ?, ?)", seq, moment.n, moment.at, VISIBLE)
        self._add_packs(seq, op.packs)
        self._add_parents(seq, record.parents)
        self._add_facts(moment, seq, record)
        self._point(moment, version, op.model, NAME, op.name, "", None)

    def place_version(self, version: VersionId, op: ops.VersionPlace) -> None:
        seq = self._seq(version)
        self._do("UPDATE versions SET tree = ? WHERE seq = ?", _dumps(op.tree), seq)
        self._do("DELETE FROM version_packs WHERE version = ?", seq)
        self._add_packs(seq, op.packs)

    def set_version_state(self, moment: Moment, version: VersionId, state: str) -> None:
        seq = self._seq(version)
        self._do("UPDATE versions SET state = ?, state_n = ? WHERE seq = ?", state, moment.n, seq)
        self._do("INSERT INTO version_states VALUES (?, ?, ?, ?)", seq, moment.n, moment.at, state)
        if state == FORGOTTEN:
            self._do("DELETE FROM version_packs WHERE version = ?", seq)

    def annotate(self, moment: Moment, version: VersionId, op: ops.VersionAnnotate) -> None:
        seq = self._seq(version)
        metrics: Mapping[str, float | str] = op.metrics or {}
        labels: Mapping[str, str | None] = op.labels or {}
        self._do(
            "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(seq, moment.n, moment.at, moment.by, _dumps(metrics), _dumps(labels)),
            *(op.notes or "", _dumps(op.details or {}), _dumps(op.objects or {}), op.event, op.why),
        )
        self._add_packs(seq, op.packs)
        for key, number in metrics.items():
            self._set_fact(moment, seq, "metric", key, metric_of(number))
        for key, label in labels.items():
            self._set_fact(moment, seq, "label", key, None if label is None else (None, label))

    def redact(self, moment: Moment, version: VersionId, item: str, why: str) -> None:
        self._do(
            "INSERT INTO redactions VALUES (?, ?, ?, ?, ?, ?)",
            *(self._seq(version), item, moment.n, moment.at, moment.by, why),
        )

    def set_ref(self, moment: Moment, target: VersionId, op: ops.RefSet) -> None:
        self._point(moment, target, op.model, op.kind, op.name, op.why, op.evidence)

    def delete_ref(self, moment: Moment, op: ops.RefDelete) -> None:
        model, key = name_key(op.model), name_key(op.name)
        self._do("DELETE FROM refs WHERE model = ? AND key = ?", model, key)
        self._do(
            "INSERT INTO ref_moves VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, '{}', ?)",
            *(model, key, op.kind, op.name, moment.n, moment.at, moment.by, op.why, moment.txn),
        )

    def configure(self, moment: Moment, op: ops.ModelConfigure) -> None:
        model = name_key(op.model)
        self._add_model(moment, op.model)
        for key, value in op.settings.items():
            self._do("DELETE FROM settings WHERE model = ? AND key = ?", model, key)
            if value is not None:
                self._do("INSERT INTO settings VALUES (?, ?, ?)", model, key, _dumps(value))

    def add_void(self, n: int, reason: str) -> None:
        """Remember that entry `n` has no effect, and why."""
        self._do("INSERT OR REPLACE INTO voids VALUES (?, ?)", n, reason)

    # --- parts ----------------------------------------------------------------------------------

    def _do(self, sql: str, *values: object) -> None:
        self._cursor.execute(sql, values)

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._cursor.execute(sql, values).fetchone()
        return row

    def _seq(self, version: VersionId) -> int:
        row = self._one("SELECT seq FROM versions WHERE id = ?", version.raw)
        if row is None:
            raise sqlite3.InternalError("a version that the fold has seen is not there")
        return int(row[0])

    def _add_model(self, moment: Moment, name: str) -> None:
        self._do("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", name_key(name), name, moment.n)

    def _add_packs(self, seq: int, packs: list[str]) -> None:
        rows = [(seq, PackName.parse(pack).raw) for pack in packs]
        self._cursor.executemany("INSERT OR IGNORE INTO version_packs VALUES (?, ?)", rows)

    def _add_parents(self, seq: int, parents: list[str]) -> None:
        for position, text in enumerate(parents):
            try:
                parent = VersionId.parse(text)
            except ValueError:
                continue  # a record may say anything; what is no id has no parent
            self._do("INSERT INTO parents VALUES (?, ?, ?)", seq, parent.raw, position)

    def _add_facts(self, moment: Moment, seq: int, record: Record) -> None:
        metrics = [(seq, "metric", k, *metric_of(v), moment.n) for k, v in record.metrics.items()]
        rows = [*metrics]
        rows += [(seq, "config", k, *fact_of(v), moment.n) for k, v in record.config.items()]
        rows += [(seq, "data", k, *fact_of(v), moment.n) for k, v in record.data.items()]
        self._cursor.executemany("INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)
        moves = [(*row, moment.at) for row in metrics]
        self._cursor.executemany("INSERT INTO fact_moves VALUES (?, ?, ?, ?, ?, 0, ?, ?)", moves)

    def _set_fact(self, moment: Moment, seq: int, space: str, key: str, fact: Fact | None) -> None:
        num, text = fact if fact is not None else (None, None)
        if fact is None:
            self._do("DELETE FROM facts WHERE version = ? AND space = ? AND key = ?", seq, space, key)
        else:
            row = (seq, space, key, num, text, moment.n)
            self._do("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)", *row)
        self._do(
            "INSERT INTO fact_moves VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(seq, space, key, num, text, int(fact is None), moment.n, moment.at),
        )

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
        self._do("INSERT OR REPLACE INTO refs VALUES (?, ?, ?, ?, ?, ?)", *at, target.raw, moment.n)
        self._do(
            "INSERT INTO ref_moves VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(*at, moment.n, moment.at, moment.by, target.raw, why, _dumps(evidence or {}), moment.txn),
        )
