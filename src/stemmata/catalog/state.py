"""The fold's state in SQLite. Owns what each effect writes; decides nothing (see `log.fold`)."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeAlias

import msgspec

from stemmata.ids import Digest, PackName, VersionId
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


class _Shared(msgspec.Struct, frozen=True):
    """The parts of a record that a run's versions have in common, as written."""

    config: msgspec.Raw = msgspec.Raw(b"{}")
    data: msgspec.Raw = msgspec.Raw(b"{}")


_shared = msgspec.json.Decoder(_Shared)
_EMPTY = b"{}"
_REMEMBERED = 1000
_WAITING = 50_000
_INSERTS = {
    "parents": "INSERT INTO parents VALUES (?, ?, ?)",
    "ref_moves": "INSERT INTO ref_moves VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
}
_FACTS = "facts"

_FactRow: TypeAlias = tuple[int, int, float | None, str | None, bool, int, str | None]
"""key, version, num, text, removed, n, at: as in the schema."""


class SqliteState:
    """Implements `fold.State` over the catalog's tables. Runs inside the caller's transaction.

    Rows of tables that no rule asks wait for each other and go in together.
    """

    def __init__(self, connection: sqlite3.Connection, *, long: bool = False) -> None:
        """`long`: many entries are to come; call `flush` after the last."""
        # A plain cursor: the connection's own kind fetches eagerly, for other threads' sake.
        self._cursor = connection.cursor(sqlite3.Cursor)
        self._long = long
        self._waiting: dict[str, list[Any]] = {table: [] for table in (*_INSERTS, _FACTS)}
        self._forget()

    def _forget(self) -> None:
        """Ask the tables again: what was noted may have been undone."""
        self._format: int | None = None
        self._live: set[bytes] = set()
        self._models: set[str] = set()
        self._keys: dict[tuple[str, str, str], int] = {}
        self._shared: dict[tuple[str, bytes], int] = {}

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        self._cursor.execute("SAVEPOINT entry")
        marks = {table: len(rows) for table, rows in self._waiting.items()}
        try:
            yield
        except BaseException:
            for table, mark in marks.items():
                del self._waiting[table][mark:]
            self._forget()
            try:
                self._cursor.execute("ROLLBACK TO entry")
                self._cursor.execute("RELEASE entry")
            except sqlite3.Error:
                pass  # SQLite has rolled the whole transaction back itself; the first error says why
            raise
        self._cursor.execute("RELEASE entry")
        if not self._long or sum(map(len, self._waiting.values())) > _WAITING:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        self._write_facts(self._waiting[_FACTS])
        for table, sql in _INSERTS.items():
            self._cursor.executemany(sql, self._waiting[table])
        for rows in self._waiting.values():
            rows.clear()

    def _write_facts(self, rows: list[_FactRow]) -> None:
        """The last value of each key stands; those before it, of these rows and of the table, have moved."""
        last: dict[tuple[int, int], _FactRow] = {}
        moved: list[_FactRow] = []
        for row in rows:
            place = row[:2]
            before = last.get(place)
            if before is None and row[6] is not None:
                before = self._standing_fact(*place)
            if before is not None and not before[4]:
                moved.append(before)
            if row[4]:
                moved.append(row)
            last[place] = row
        if not last:
            return
        self._cursor.executemany(
            "INSERT INTO fact_moves (key, version, num, text, removed, n, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            moved,
        )
        # In the order of the table: each of its pages is then looked for once.
        ordered = sorted(last.items())
        gone = [place for place, row in ordered if row[4]]
        self._cursor.executemany("DELETE FROM facts WHERE key = ? AND version = ?", gone)
        self._cursor.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)",
            [(*row[:4], *row[5:]) for _, row in ordered if not row[4]],
        )

    def _standing_fact(self, key: int, version: int) -> _FactRow | None:
        sql = "SELECT key, version, num, text, 0, n, at FROM facts WHERE key = ? AND version = ?"
        row = self._one(sql, key, version)
        return None if row is None else (row[0], row[1], row[2], row[3], False, row[5], row[6])

    # --- what the fold asks ---------------------------------------------------------------------

    def format(self) -> int:
        if self._format is None:
            row = self._one("SELECT value FROM meta WHERE key = 'format'")
            self._format = int(row[0]) if row is not None else 1
        return self._format

    def pack_state(self, pack: PackName) -> str | None:
        if pack.raw in self._live:
            return LIVE
        row = self._one("SELECT state FROM packs WHERE name = ?", pack.raw)
        if row is not None and row[0] == LIVE:
            self._live.add(pack.raw)
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
        seq = self._seq(version)
        row = self._one("SELECT record FROM records WHERE version = ?", seq)
        kinds = set(decode_record(row[0]).provenance) if row is not None else set()
        self._do("SELECT objects FROM annotations WHERE version = ?", seq)
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
        self._format = to

    def add_pack(self, moment: Moment, pack: PackName, op: ops.PackAdd) -> None:
        self._do(
            "INSERT INTO packs (name, state, size, digest, n) VALUES (?, ?, ?, ?, ?)",
            *(pack.raw, LIVE, op.size, op.digest, moment.n),
        )
        for base in op.bases:
            raw = PackName.parse(base).raw
            self._do("INSERT OR IGNORE INTO pack_bases VALUES (?, ?)", pack.raw, raw)

    def set_pack_state(self, moment: Moment, pack: PackName, state: str) -> None:
        self._live.discard(pack.raw)
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
        common = _shared.decode(op.record)
        self._do(
            "INSERT INTO versions (id, model, name, n, at, state, state_n, tree, created_at, run,"
            " run_id, step, epoch, event, kind, author, message, bytes, files, content, config, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(version.raw, model, op.name, moment.n, moment.at, VISIBLE, moment.n),
            *(_dumps(op.tree), record.created_at),
            *((run.name, run.id) if run is not None else (None, None)),
            *(record.step, record.epoch, record.event, record.kind, record.author, record.message),
            *(record.content.bytes, record.content.files, record.content.digest),
            self._share("config", bytes(common.config), record.config),
            self._share("data", bytes(common.data), record.data),
        )
        seq = self._cursor.lastrowid
        if seq is None:
            raise sqlite3.InternalError("an insert without a row")
        self._do("INSERT INTO records VALUES (?, ?)", seq, bytes(op.record))
        self._add_model(moment, op.model)
        self._add_packs(seq, op.packs)
        self._add_parents(seq, record.parents)
        rows = [
            (self._key("metric", key, model), seq, *metric_of(value), False, moment.n, None)
            for key, value in record.metrics.items()
        ]
        self._waiting[_FACTS] += rows
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
        seq, model = self._one("SELECT seq, model FROM versions WHERE id = ?", version.raw) or _missing()
        metrics: Mapping[str, float | str] = op.metrics or {}
        labels: Mapping[str, str | None] = op.labels or {}
        self._do(
            "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(seq, moment.n, moment.at, moment.by, _dumps(metrics), _dumps(labels)),
            *(op.notes or "", _dumps(op.details or {}), _dumps(op.objects or {}), op.event, op.why),
        )
        self._add_packs(seq, op.packs)
        found = [("metric", key, metric_of(value), False) for key, value in metrics.items()]
        found += [("label", key, (None, label), label is None) for key, label in labels.items()]
        self._waiting[_FACTS] += [
            (self._key(space, key, model), seq, *fact, removed, moment.n, moment.at)
            for space, key, fact, removed in found
        ]

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
        self._waiting["ref_moves"].append(
            (model, key, op.kind, op.name, moment.n, moment.at, moment.by, None, op.why, "{}", moment.txn)
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
        row = self._one("SELECT seq FROM versions WHERE id = ?", version.raw) or _missing()
        return int(row[0])

    def _add_model(self, moment: Moment, name: str) -> None:
        key = name_key(name)
        if key not in self._models:
            self._do("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", key, name, moment.n)
            self._models.add(key)

    def _add_packs(self, seq: int, packs: list[str]) -> None:
        rows = [(seq, bytes.fromhex(pack)) for pack in packs]  # the fold has parsed them
        self._cursor.executemany("INSERT OR IGNORE INTO version_packs VALUES (?, ?)", rows)

    def _add_parents(self, seq: int, parents: list[str]) -> None:
        for position, text in enumerate(parents):
            try:
                parent = VersionId.parse(text)
            except ValueError:
                continue  # a record may say anything; what is no id has no parent
            self._waiting["parents"].append((seq, parent.raw, position))

    def _key(self, space: str, key: str, model: str = "") -> int:
        """The number of a key, new or known."""
        place = (space, key, model)
        found = self._keys.get(place)
        if found is None:
            row = self._one("SELECT id FROM keys WHERE space = ? AND key = ? AND model = ?", *place)
            if row is None:
                self._do("INSERT INTO keys (space, key, model) VALUES (?, ?, ?)", *place)
            found = int(row[0]) if row is not None else int(self._cursor.lastrowid or 0)
            self._remember(self._keys, place, found)
        return found

    def _share(self, space: str, text: bytes, values: Mapping[str, Stored]) -> int:
        """The number of a config or of what is said of data, new or known; `text` is how it was written."""
        if text == _EMPTY:
            return 0
        place = (space, text)
        found = self._shared.get(place)
        if found is None:
            digest = Digest.of(text).raw
            row = self._one("SELECT id FROM shared WHERE digest = ? AND space = ?", digest, space)
            if row is None:
                self._do("INSERT INTO shared (space, digest) VALUES (?, ?)", space, digest)
            found = int(row[0]) if row is not None else int(self._cursor.lastrowid or 0)
            if row is None:
                facts = [(self._key(space, key), found, *fact_of(value)) for key, value in values.items()]
                self._cursor.executemany("INSERT INTO shared_facts VALUES (?, ?, ?, ?)", facts)
            self._remember(self._shared, place, found)
        return found

    def _remember(self, known: dict[Any, int], place: object, found: int) -> None:
        if len(known) >= _REMEMBERED:
            known.clear()
        known[place] = found

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
        said = _dumps(evidence) if evidence else "{}"
        self._waiting["ref_moves"].append(
            (*at, moment.n, moment.at, moment.by, target.raw, why, said, moment.txn)
        )


def _missing() -> NoReturn:
    raise sqlite3.InternalError("a version that the fold has seen is not there")
