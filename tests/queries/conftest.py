"""A catalog's tables filled by hand: what queries see, without log or packs."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping

import pytest

from stemmata.catalog.schema import SCHEMA
from stemmata.ids import VersionId
from stemmata.names import name_key


class Shelf:
    """Rows as the fold writes them; every call is one log entry, one minute after the last."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        self.connection.executescript(SCHEMA)
        self.n = 0

    def tick(self) -> str:
        self.n += 1
        return self.time(self.n)

    @staticmethod
    def time(n: int) -> str:
        return f"2026-01-01T{n // 60:02}:{n % 60:02}:00.000000Z"

    def put(self, sql: str, *values: object) -> None:
        self.connection.execute(sql, values)

    def save(
        self,
        model: str,
        name: str,
        *,
        metrics: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        labels: Mapping[str, object] | None = None,
        data: Mapping[str, object] | None = None,
        parents: tuple[VersionId, ...] = (),
        run: str | None = None,
        step: int | None = None,
        epoch: float | None = None,
        message: str = "",
        content: str = "0" * 64,
        version: VersionId | None = None,
        size: int = 100,
    ) -> VersionId:
        at = self.tick()
        key, found = name_key(model), version or VersionId.of(f"{model} {name} {self.n}".encode())
        self.put("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", key, model, self.n)
        columns = (
            "id, model, name, n, at, state, state_n, record, tree, created_at, run, run_id, step, epoch,"
            " event, kind, author, message, bytes, files, content"
        )
        values = (
            *(found.raw, key, name, self.n, at, "visible", self.n, b"{}", json.dumps(["1" * 64])),
            *(at, run, f"id-of-{run}" if run else None, step, epoch, "manual", "files", "me", message),
            *(size, 1, content),
        )
        marks = ", ".join("?" * len(values))
        self.put(f"INSERT INTO versions ({columns}) VALUES ({marks})", *values)
        seq = self.seq(found)
        self.put("INSERT INTO version_states VALUES (?, ?, ?, 'visible')", seq, self.n, at)
        for position, parent in enumerate(parents):
            self.put("INSERT INTO parents VALUES (?, ?, ?)", seq, parent.raw, position)
        spaces = {"metric": metrics, "config": config, "label": labels, "data": data}
        for space, facts in spaces.items():
            for fact, value in (facts or {}).items():
                self.fact(found, space, fact, value)
        self._ref(model, "name", name, found)
        return found

    def seq(self, version: VersionId) -> int:
        row = self.connection.execute("SELECT seq FROM versions WHERE id = ?", (version.raw,)).fetchone()
        return int(row[0])

    def fact(self, version: VersionId, space: str, key: str, value: object) -> None:
        number: float | None = None
        text: str | None = None
        if isinstance(value, bool):
            number, text = float(value), str(value).lower()
        elif isinstance(value, float) and math.isnan(value):
            text = "nan"
        elif isinstance(value, int | float):
            number = float(value)
        elif isinstance(value, list):
            text = json.dumps(value)
        elif value is not None:
            text = str(value)
        seq = self.seq(version)
        self.put(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)", seq, space, key, number, text, self.n
        )
        if space in ("metric", "label"):
            at = self.time(self.n)
            self.put(
                "INSERT INTO fact_moves VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
                seq,
                space,
                key,
                number,
                text,
                self.n,
                at,
            )

    def annotate(self, version: VersionId, **metrics: float) -> str:
        at = self.tick()
        for key, value in metrics.items():
            self.fact(version, "metric", key, value)
        self.put(
            "INSERT INTO annotations VALUES (?, ?, ?, 'me', ?, '{}', '', '', '')",
            *(self.seq(version), self.n, at, json.dumps(metrics)),
        )
        return at

    def unlabel(self, version: VersionId, key: str) -> None:
        at, seq = self.tick(), self.seq(version)
        self.put("DELETE FROM facts WHERE version = ? AND space = 'label' AND key = ?", seq, key)
        self.put("INSERT INTO fact_moves VALUES (?, 'label', ?, NULL, NULL, 1, ?, ?)", seq, key, self.n, at)

    def _ref(self, model: str, kind: str, name: str, to: VersionId | None) -> None:
        key, at = (name_key(model), name_key(name)), self.time(self.n)
        self.put("DELETE FROM refs WHERE model = ? AND key = ?", *key)
        if to is not None:
            self.put("INSERT INTO refs VALUES (?, ?, ?, ?, ?, ?)", *key, kind, name, to.raw, self.n)
        raw = to.raw if to is not None else None
        self.put(
            "INSERT INTO ref_moves VALUES (?, ?, ?, ?, ?, ?, 'me', ?, 'why', '{}', 't')",
            *(*key, kind, name, self.n, at, raw),
        )

    def ref(self, model: str, kind: str, name: str, to: VersionId | None) -> str:
        at = self.tick()
        self._ref(model, kind, name, to)
        return at

    def state(self, version: VersionId, state: str) -> str:
        at, seq = self.tick(), self.seq(version)
        self.put("UPDATE versions SET state = ?, state_n = ? WHERE seq = ?", state, self.n, seq)
        self.put("INSERT INTO version_states VALUES (?, ?, ?, ?)", seq, self.n, at, state)
        return at

    def configure(self, model: str, **settings: str) -> None:
        self.tick()
        self.put("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", name_key(model), model, self.n)
        for key, value in settings.items():
            self.put(
                "INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", name_key(model), key, json.dumps(value)
            )


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    made.connection.close()
