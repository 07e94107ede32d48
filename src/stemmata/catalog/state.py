"""The fold's state in SQLite. Owns what each effect writes; decides nothing (see `log.fold`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NoReturn

import msgspec

from stemmata.catalog import chunks
from stemmata.catalog.conditions import MEASURED_ON
from stemmata.catalog.facts import dumps, encode, fact_of, metric_of
from stemmata.catalog.waiting import Waiting
from stemmata.ids import Digest, PackName, VersionId
from stemmata.log import ops
from stemmata.log.entries import is_hex
from stemmata.log.fold import DROPPED, FORGOTTEN, LIVE, NAME, VISIBLE, Moment, Pointer, Standing
from stemmata.measurements import measured
from stemmata.names import name_key
from stemmata.records import Outline, decode_record, stored_values

_NOTHING = b"{}"
_ABSENT = "absent"


class _Known(NamedTuple):
    """What is asked of a version most often."""

    seq: int
    model: str
    state: str


class SqliteState:
    """Implements `fold.State` over the catalog's tables. Runs inside the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, *, long: bool = False, bare: bool = False) -> None:
        """`long`: many entries are to come; call `flush` after the last. `bare`: so many that the indexes
        were dropped, and that facts are left to whoever needs them first."""
        # A plain cursor: the connection's own kind fetches eagerly, for other threads' sake.
        self._cursor = connection.cursor(sqlite3.Cursor)
        self._waiting = Waiting(self._cursor, long=long, bare=bare)
        self._bare = bare
        self._format: int | None = None

    def savepoint(self) -> AbstractContextManager[object]:
        return self._waiting

    def flush(self) -> None:
        """Bring the tables up to date."""
        self._waiting.write()
        self._waiting.index()

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
        try:
            kinds = set(decode_record(chunks.record_of(self._cursor, seq)).provenance)
        except ValueError as error:
            raise sqlite3.DatabaseError(str(error)) from None  # the file is not what a fold wrote
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
                found = (row[0], VersionId(row[1]))
        return None if found is None or found is _ABSENT else Pointer(*found)

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

    def add_version(self, moment: Moment, version: VersionId, record: Outline, op: ops.VersionAdd) -> None:
        model, key = name_key(op.model), name_key(op.name)
        run, content = record.run, record.content
        rows = self._waiting.rows
        seq = self._waiting.number("versions")
        config, data = self._share("config", record.config), self._share("data", record.data)
        parent = self._add_parents(seq, record.parents) if record.parents else None
        rows["versions"].append(
            (
                *(seq, version.raw, model, key, op.name, moment.n, moment.at, moment.by, moment.txn),
                *(VISIBLE, moment.n, dumps(op.tree), record.created_at),
                *((run.name, run.id) if run is not None else (None, None)),
                *(record.step, record.epoch, record.event, record.kind, record.author, record.message),
                *(content.bytes, content.files, content.digest, encode(record.metrics), config, data),
                *(parent, self._add_packs(seq, op.packs), _base_of(record), self._base_name(record)),
            )
        )
        rows["records"].append((seq, bytes(op.record)))
        self._waiting.note(version.raw, _Known(seq, model, VISIBLE))
        self._waiting.note((model, key), (NAME, version))
        self._add_model(moment, op.model, model)
        if record.metrics:
            self._add_metrics(moment, seq, model, record.metrics)

    def place_version(self, version: VersionId, op: ops.VersionPlace) -> None:
        self._waiting.settle()
        seq = self._get(version).seq
        self._do("DELETE FROM more_packs WHERE version = ?", seq)
        pack = self._add_packs(seq, op.packs)
        self._do("UPDATE versions SET tree = ?, pack = ? WHERE seq = ?", dumps(op.tree), pack, seq)

    def set_version_state(self, moment: Moment, version: VersionId, state: str) -> None:
        self._waiting.settle()
        found = self._get(version)
        self._do("UPDATE versions SET state = ?, state_n = ? WHERE seq = ?", state, moment.n, found.seq)
        self._do("INSERT INTO version_states VALUES (?, ?, ?, ?)", found.seq, moment.n, moment.at, state)
        if state == FORGOTTEN:
            self._do("UPDATE versions SET pack = NULL WHERE seq = ?", found.seq)
            self._do("DELETE FROM more_packs WHERE version = ?", found.seq)
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
        self._more_packs(found.seq, op.packs)
        said = [("metric", key, metric_of(value), False) for key, value in metrics.items()]
        said += [("label", key, (None, label), label is None) for key, label in labels.items()]
        said += [(MEASURED_ON, key, (None, name), not name) for key, name in self._measured_on(found, op)]
        for space, key, fact, removed in said:
            number, filled = self._key(space, key, found.model)
            if filled:
                row = (number, found.seq, *fact, removed, moment.n, moment.at)
                self._waiting.rows["facts"].append(row)

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
        at = (name_key(op.model), name_key(op.name), op.kind, op.name)
        said = dumps(op.evidence) if op.evidence else "{}"
        rows = self._waiting.rows
        rows["pointers"].append((*at, target.raw, moment.n))
        rows["moves"].append((*at, moment.n, moment.at, moment.by, target.raw, op.why, said, moment.txn))
        self._waiting.note(at[:2], (op.kind, target))

    def delete_ref(self, moment: Moment, op: ops.RefDelete) -> None:
        model, key = name_key(op.model), name_key(op.name)
        self._waiting.settle()
        self._do("DELETE FROM pointers WHERE model = ? AND key = ?", model, key)
        self._waiting.note((model, key), _ABSENT)
        self._waiting.rows["moves"].append(
            (model, key, op.kind, op.name, moment.n, moment.at, moment.by, None, op.why, "{}", moment.txn)
        )

    def configure(self, moment: Moment, op: ops.ModelConfigure) -> None:
        model = name_key(op.model)
        self._add_model(moment, op.model, model)
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

    def _add_model(self, moment: Moment, name: str, key: str) -> None:
        if not self._waiting.known(("model", key, "")):
            self._waiting.rows["models"].append((key, name, moment.n))
            self._waiting.note(("model", key, ""), True)

    def _add_packs(self, seq: int, packs: list[str]) -> bytes:
        """The first of the packs; rows for the others."""
        if len(packs) > 1:
            self._more_packs(seq, [pack for pack in packs[1:] if pack != packs[0]])
        return bytes.fromhex(packs[0])

    def _more_packs(self, seq: int, packs: Iterable[str]) -> None:
        # The fold has found them to be names.
        self._waiting.rows["more_packs"] += [(seq, bytes.fromhex(pack)) for pack in packs]

    def _add_parents(self, seq: int, parents: list[str]) -> bytes | None:
        """The first of the parents; rows for the others."""
        first: bytes | None = None
        for position, text in enumerate(parents):
            if not is_hex(text, 64):
                continue  # a record may say anything; what is no id has no parent
            if position == 0:
                first = bytes.fromhex(text)
            else:
                self._waiting.rows["more_parents"].append((seq, bytes.fromhex(text), position))
        return first

    def _base_name(self, record: Outline) -> int | None:
        """The number of the base's name, new or known."""
        name = record.base.name_or_path if record.base is not None else ""
        if not name:
            return None
        place = ("base", name)
        found: int | None = self._waiting.known(place)
        if found is None:
            sql = "SELECT id FROM base_names WHERE name = ?"
            row = None if self._waiting.is_all else self._one(sql, name)
            found = int(row[0]) if row is not None else self._waiting.number("base_names")
            if row is None:
                self._waiting.rows["base_names"].append((found, name))
            self._waiting.note(place, found)
        return found

    def _add_metrics(self, moment: Moment, seq: int, model: str, metrics: Mapping[str, float | str]) -> None:
        place = ("metrics", model, tuple(metrics))
        filled: list[tuple[int, str]] | None = self._waiting.known(place)
        if filled is None:
            keys = [(*self._key("metric", key, model), key) for key in metrics]
            filled = [(number, key) for number, is_filled, key in keys if is_filled]
            self._waiting.note(place, filled)
        if filled:
            self._waiting.rows["facts"] += [
                (number, seq, *metric_of(metrics[key]), False, moment.n, None) for number, key in filled
            ]

    def _is_key(self, space: str, key: str, model: str) -> bool:
        place = (space, key, model)
        sql = "SELECT id FROM keys WHERE space = ? AND key = ? AND model = ?"
        known = self._waiting.known(place) is not None
        return known or (not self._waiting.is_all and self._one(sql, *place) is not None)

    def _key(self, space: str, key: str, model: str = "") -> tuple[int, bool]:
        """The number of a key, new or known, and whether its facts stand in the tables."""
        place = (space, key, model)
        found: tuple[int, bool] | None = self._waiting.known(place)
        if found is None:
            sql = "SELECT id, filled FROM keys WHERE space = ? AND key = ? AND model = ?"
            row = None if self._waiting.is_all else self._one(sql, *place)
            if row is not None:
                found = int(row[0]), bool(row[1])
            else:
                # So far nothing has this key: its facts stand as long as each is added.
                found = self._waiting.number("keys"), not self._bare
                self._waiting.rows["keys"].append((found[0], *place, found[1]))
            self._waiting.note(place, found)
        return found

    def _share(self, space: str, text: bytes) -> int:
        """The number of a config or of what is said of data, new or known; `text` is how it was written."""
        if text == _NOTHING:
            return 0
        last = self._waiting.known(space)
        if last is not None and last[0] == text:
            return int(last[1])  # of the same run, most likely
        digest = Digest.of(text).raw
        place = (space, digest)
        found = self._waiting.known(place)
        if found is None:
            sql = "SELECT id FROM shared WHERE space = ? AND digest = ?"
            row = None if self._waiting.is_all else self._one(sql, *place)
            found = int(row[0]) if row is not None else self._waiting.number("shared")
            if row is None:
                rows = self._waiting.rows
                rows["shared"].append((found, *place, text))
                for key, value in stored_values(text).items():
                    number, filled = self._key(space, key)
                    if filled:
                        rows["shared_facts"].append((number, found, *fact_of(value)))
            self._waiting.note(place, found)
        self._waiting.note(space, (text, found))
        return int(found)


def _base_of(record: Outline) -> bytes | None:
    """The version that a record names as what it is loaded on."""
    text = record.base.version if record.base is not None else None
    return bytes.fromhex(text) if text is not None and is_hex(text, 64) else None


def _missing() -> NoReturn:
    raise sqlite3.InternalError("a version that the fold has seen is not there")
