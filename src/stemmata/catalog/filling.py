"""Filling: facts that the fold of a long log left out, made when a question first needs their key.

A hundred thousand versions have a million facts, and most keys are never asked for. Once made, the facts of a
key are kept up to date by the fold (`keys.filled`).
"""

# ruff: noqa: S608 - statements are put together from fixed parts; every value is a parameter

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from stemmata.catalog.ancestry import KEYS_OF_DATA
from stemmata.catalog.conditions import MEASURED_ON, SHARED, SPACES, TRAINED_ON, Name
from stemmata.catalog.connection import Connection
from stemmata.catalog.facts import fact_of, metric_of
from stemmata.catalog.waiting import FactRow, write_facts
from stemmata.measurements import measured
from stemmata.records import stored_values

decode_metrics = msgspec.json.Decoder(dict[str, float | str]).decode
_details = msgspec.json.Decoder(dict[str, object])
_labels = msgspec.json.Decoder(dict[str, str | None])


def need(connection: sqlite3.Connection, names: Iterable[Name], model: str | None = None) -> None:
    """Have the facts of these names stand in the tables: of one model (by key), or of all."""
    asked = list(names)
    keys = [
        (space, name.key, model)
        for name in asked
        if not name.is_field
        for space in ([name.space] if name.space else SPACES)
    ]
    if any(name.is_lineage and name.key == TRAINED_ON for name in asked):
        keys += [(space, key, model) for _, space, key in connection.execute(KEYS_OF_DATA).fetchall()]
    fill(connection, keys)


def fill(connection: sqlite3.Connection, keys: Sequence[tuple[str, str, str | None]]) -> None:
    """Have the facts of these keys stand: space, key, and model or None."""
    if not any(_unfilled(connection, *key) for key in keys) or not isinstance(connection, Connection):
        return
    try:
        connection.change(lambda cursor: make(cursor, keys))
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        # A sound file with damaged rows: the log has what they should say (I8).
        connection.distrust(str(error))
        connection.change(lambda cursor: make(cursor, keys))


def _unfilled(
    connection: sqlite3.Connection | sqlite3.Cursor, space: str, key: str, model: str | None
) -> list[tuple[int, str]]:
    """Number and model of each such key that has no facts yet."""
    sql = "SELECT id, model FROM keys WHERE space = ? AND key = ? AND filled = 0"
    if model is None:
        return connection.execute(sql, (space, key)).fetchall()
    return connection.execute(f"{sql} AND model IN ('', ?)", (space, key, model)).fetchall()


def make(cursor: sqlite3.Cursor, keys: Iterable[tuple[str, str, str | None]]) -> None:
    """As `fill`, inside the caller's transaction."""
    for space, key, wanted in keys:
        for number, model in _unfilled(cursor, space, key, wanted):
            if space in SHARED:
                _fill_shared(cursor, number, space, key)
            else:
                made = _MADE[space]
                write_facts(cursor, list(made(cursor, number, key, model)), is_new=True)
            cursor.execute("UPDATE keys SET filled = 1 WHERE id = ?", (number,))


def _fill_shared(cursor: sqlite3.Cursor, number: int, space: str, key: str) -> None:
    found: list[tuple[int, int, float | int | None, str | bytes | None]] = []
    cursor.execute("SELECT id, text FROM shared WHERE space = ? ORDER BY id", (space,))
    for shared, text in cursor.fetchall():
        values = stored_values(text)
        if key in values:
            found.append((number, shared, *fact_of(values[key])))
    cursor.executemany("INSERT INTO shared_facts VALUES (?, ?, ?, ?)", found)


def _metric_facts(cursor: sqlite3.Cursor, number: int, key: str, model: str) -> Iterator[FactRow]:
    cursor.execute("SELECT seq, n, metrics FROM versions WHERE model = ? ORDER BY seq", (model,))
    for seq, n, text in cursor.fetchall():
        value = decode_metrics(text).get(key)
        if value is not None:
            yield number, seq, *metric_of(value), False, n, None
    for seq, n, at, text in _annotations(cursor, "metrics", model):
        value = decode_metrics(text).get(key)
        if value is not None:
            yield number, seq, *metric_of(value), False, n, at


def _label_facts(cursor: sqlite3.Cursor, number: int, key: str, model: str) -> Iterator[FactRow]:
    for seq, n, at, text in _annotations(cursor, "labels", model):
        labels = _labels.decode(text)
        if key in labels:
            yield number, seq, None, labels[key], labels[key] is None, n, at


def _measured_facts(cursor: sqlite3.Cursor, number: int, key: str, model: str) -> Iterator[FactRow]:
    """What a metric was measured on; "" where a value names nothing, once any of the model has."""
    known = False
    for seq, n, at, text, details in _annotations(cursor, "metrics", model, "details"):
        if key not in decode_metrics(text):
            continue
        dataset = measured(_details.decode(details))[0].name
        known = known or bool(dataset)
        if known:
            yield number, seq, None, dataset, not dataset, n, at


_MADE = {"metric": _metric_facts, "label": _label_facts, MEASURED_ON: _measured_facts}


def _annotations(cursor: sqlite3.Cursor, column: str, model: str, *more: str) -> list[tuple[Any, ...]]:
    columns = ", ".join(f"a.{each}" for each in ("version", "n", "at", column, *more))
    sql = (
        f"SELECT {columns} FROM annotations a JOIN versions v ON v.seq = a.version"
        f" WHERE v.model = ? AND a.{column} != '{{}}' ORDER BY a.n, a.rowid"
    )
    return cursor.execute(sql, (model,)).fetchall()
