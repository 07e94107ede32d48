"""Two states, one in dictionaries and one in SQLite, fold the same random entries and must agree."""

from __future__ import annotations

import sqlite3

import msgspec
from hypothesis import given, settings

from campaigns import cases
from ledger import DictState, every_row, fold_ops
from random_ops import SETUP, logs
from stemmata.catalog import filling
from stemmata.catalog.facts import NAN
from stemmata.catalog.schema import SCHEMA
from stemmata.catalog.state import SqliteState
from stemmata.ids import Digest
from stemmata.log import ops
from stemmata.log.entries import Position
from stemmata.log.fold import Pointer


def told(connection: sqlite3.Connection) -> dict[str, object]:
    """What the tables say, in the dictionary state's words."""

    def rows(sql: str) -> list[tuple]:  # type: ignore[type-arg]
        return connection.execute(sql).fetchall()

    ids = dict(rows("SELECT seq, id FROM versions"))
    bases: dict[bytes, set[bytes]] = {}
    for upon, base in rows("SELECT pack, base FROM pack_bases"):
        bases.setdefault(upon, set()).add(base)
    needs: dict[int, set[bytes]] = {seq: set() for seq in ids}
    for seq, name in rows("SELECT version, pack FROM version_packs"):
        needs[seq].add(name)
    moves: dict[tuple[str, str], list[tuple[int, bytes | None]]] = {}
    for model, key, n, target in rows("SELECT model, key, n, target FROM ref_moves ORDER BY n, id"):
        moves.setdefault((model, key), []).append((n, target))
    return {
        "packs": dict(rows("SELECT name, state FROM packs")),
        "bases": bases,
        "versions": {
            id: (model, state, msgspec.json.decode(tree), needs[seq])
            for seq, id, model, state, tree in rows("SELECT seq, id, model, state, tree FROM versions")
        },
        "refs": {
            (model, key): (kind, target)
            for model, key, kind, target in rows("SELECT model, key, kind, target FROM refs")
        },
        "facts": {
            (ids[seq], space, key): (num, text)
            for seq, space, key, num, text in rows(
                "SELECT f.version, k.space, k.key, f.num, f.text FROM facts f JOIN keys k ON k.id = f.key"
            )
        },
        "settings": {
            (model, key): msgspec.json.decode(value)
            for model, key, value in rows("SELECT model, key, value FROM settings")
        },
        "moves": moves,
        "redacted": {(ids[seq], item) for seq, item in rows("SELECT version, item FROM redactions")},
    }


def expected(state: DictState) -> dict[str, object]:
    def pointer(found: Pointer) -> tuple[str, bytes]:
        return found.kind, found.target.raw

    def fact(space: str, value: object) -> tuple[object, object]:
        if space in ("label", "measured_on"):
            return None, value
        return {"~nan": (None, NAN), "~inf": (float("inf"), None)}.get(str(value), (value, None))

    of = state.of
    return {
        "packs": of["packs"],
        "bases": {upon: bases for upon, bases in of["bases"].items() if bases},
        "versions": {k: (v["model"], v["state"], v["tree"], v["packs"]) for k, v in of["versions"].items()},
        "refs": {at: pointer(found) for at, found in of["refs"].items()},
        "facts": {key: fact(key[1], value) for key, value in of["facts"].items()},
        "settings": {(m, k): v for m, settings in of["settings"].items() for k, v in settings.items()},
        "moves": of["moves"],
        "redacted": {(version, item) for version, items in of["redacted"].items() for item in items},
    }


def new_tables() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    connection.execute("BEGIN")
    return connection


@settings(max_examples=cases(40, 100))
@given(logs)
def test_a_long_log_leaves_the_same_rows_as_entries_one_by_one(log: list[list[ops.Op]]) -> None:
    once, each = new_tables(), new_tables()
    try:
        at_the_end, as_they_come = SqliteState(once, long=True), SqliteState(each)
        fold_both(at_the_end, as_they_come, log)
        at_the_end.flush()
        assert every_row(once) == every_row(each)
    finally:
        once.close()
        each.close()


@settings(max_examples=cases(40, 100))
@given(logs, logs)
def test_facts_made_when_they_are_asked_for_are_those_that_the_fold_makes(
    log: list[list[ops.Op]], more: list[list[ops.Op]]
) -> None:
    later, each = new_tables(), new_tables()
    try:
        bare, as_they_come = SqliteState(later, long=True, bare=True), SqliteState(each)
        heres = fold_both(bare, as_they_come, log)
        bare.flush()
        keys = later.execute("SELECT space, key, model FROM keys ORDER BY id").fetchall()
        assert not later.execute("SELECT * FROM facts").fetchall()
        filling.make(later.cursor(), keys[::2])
        # What is committed from now on adds to the facts that stand, and is found by those made later.
        fold_both(SqliteState(later), SqliteState(each), more, heres)
        filling.make(later.cursor(), keys)
        assert facts_of(later) == facts_of(each)
        assert told(later) == told(each)
    finally:
        later.close()
        each.close()


def fold_both(
    one: SqliteState,
    other: SqliteState,
    log: list[list[ops.Op]],
    heres: tuple[Position, Position] = (Position(0, Digest.of(b"genesis"), ""),) * 2,
) -> tuple[Position, Position]:
    here, also = heres
    for changes in [*SETUP, *log]:
        here, reason = fold_ops(one, here, *changes)
        also, why = fold_ops(other, also, *changes)
        assert reason == why
    return here, also


def facts_of(connection: sqlite3.Connection) -> list[list[tuple]]:  # type: ignore[type-arg]
    """Facts, and those that moved in the order in which each version's did."""
    moves = connection.execute(
        "SELECT key, version, num, text, removed, n, at FROM fact_moves ORDER BY key, version, id"
    )
    return [connection.execute(f"SELECT * FROM {t}").fetchall() for t in ("facts", "shared_facts")] + [
        moves.fetchall()
    ]


@settings(max_examples=cases(60, 150))
@given(logs)
def test_the_two_states_agree_after_every_entry(log: list[list[ops.Op]]) -> None:
    connection = new_tables()
    kept, tables = DictState(), SqliteState(connection)
    here = Position(0, Digest.of(b"genesis"), "")
    try:
        for changes in [*SETUP, *log]:
            after, reason = fold_ops(kept, here, *changes)
            assert fold_ops(tables, here, *changes) == (after, reason)
            here = after
            assert told(connection) == expected(kept)
    finally:
        connection.close()
