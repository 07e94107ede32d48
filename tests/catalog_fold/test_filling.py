"""A long log's facts are left out and made when they are asked for; nobody can tell."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ledger import Ledger, add_pack, add_version, alias, every_row, record, version_of
from stemmata.catalog import asking, filling, lines, selecting
from stemmata.catalog import catalog as module
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.connection import connect
from stemmata.catalog.schema import INDEX_NAMES
from stemmata.ids import VersionId
from stemmata.log import ops
from stemmata.records import Run
from stemmata.storage.local import LocalStorage

LOSSES = [3.0, 1.0, "~nan", 2.0, 5.0, 4.0]
AT = "2026-03-01T00:30:00.000000Z"


def said(i: int) -> dict[str, object]:
    return {
        "metrics": {"loss": LOSSES[i], f"own{i}": 1.0},
        "config": {"lora.r": 4 * (i % 2), "seed": i},
        "data": {"rows": i},
        "run": Run("id", "run"),
    }


@pytest.fixture
def ledger() -> Ledger:
    return written(Ledger())


def written(ledger: Ledger) -> Ledger:
    ledger.append(add_pack(1))
    for i in range(len(LOSSES)):
        ledger.append(add_version(i, model="ab"[i % 2], **said(i)))
    for i in (0, 1, 0):
        version = version_of(record(i, **said(i)))
        metrics = {"loss": 0.5 + i, "late": 7.0}
        ledger.append(ops.VersionAnnotate(version=version, metrics=metrics, labels={"stage": f"s{i}"}))
    ledger.append(ops.VersionAnnotate(version=version_of(record(1, **said(1))), labels={"stage": None}))
    ledger.append(alias("prod", version_of(record(0, **said(0))), model="a"))
    return ledger


def whole(ledger: Ledger) -> Catalog:
    """A catalog that never left anything out."""
    made = Catalog(ledger.storage, ledger.identity, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LONG", 1000)
        made.refresh()
    return made


@pytest.fixture
def short(ledger: Ledger) -> Iterator[Catalog]:
    with closing(whole(ledger)) as made:
        yield made


@pytest.fixture
def long(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setattr(module, "_LONG", 5)
    with closing(Catalog(ledger.storage, ledger.identity, [])) as made:
        made.refresh()
        yield made


def filled(catalog: Catalog) -> set[tuple[str, str, str]]:
    rows = catalog.connection.execute("SELECT space, key, model FROM keys WHERE filled").fetchall()
    return set(rows)


def test_a_long_log_leaves_no_facts_and_all_indexes(long: Catalog, short: Catalog) -> None:
    assert filled(long) == set()
    assert short.connection.execute("SELECT COUNT(*) FROM keys WHERE NOT filled").fetchone() == (0,)
    assert long.connection.execute("SELECT COUNT(*) FROM facts").fetchone() == (0,)
    found = long.connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
    assert {name for (name,) in found} >= set(INDEX_NAMES)
    assert [*asking.every_record(long.connection)] == [*asking.every_record(short.connection)]


QUESTIONS = [
    {"sort": "loss"},
    {"sort": "loss", "descending": True, "limit": 2},
    {"sort": "late", "model": "a"},
    {"sort": "lora.r", "limit": 3},
    {"sort": "seed", "at": AT},
    {"sort": "loss", "at": AT},
    {"expressions": ["loss < 3"]},
    {"expressions": ["loss is nan"]},
    {"expressions": ["lora.r == 4", "rows > 1"]},
    {"expressions": ["label.stage == 's0' or metrics.own3 == 1"]},
    {"expressions": ["stage is none"], "model": "b"},
    {"expressions": ["loss < 3 and stage is not none"], "at": AT},
    {"expressions": ["data.rows == 4 or config.`seed` == 2"]},
    {"expressions": ["metrics.`loss` < 3 and config.`loss` is none"]},
    {"expressions": ["alias == 'prod' or name == 'v3'"], "at": AT},
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_are_answered_alike(long: Catalog, short: Catalog, question: dict[str, object]) -> None:
    asked = [selecting.numbers(c.connection, **question) for c in (long, short)]  # type: ignore[arg-type]
    assert asked[0] == asked[1]


@pytest.mark.parametrize("at", [None, AT, "2026-03-01T00:08:00.000000Z"])
@pytest.mark.parametrize("model", ["a", "b"])
def test_what_is_asked_of_metrics_is_answered_alike(
    long: Catalog, short: Catalog, model: str, at: str | None
) -> None:
    def answers(catalog: Catalog) -> list[object]:
        ask = catalog.connection
        return [
            selecting.best(ask, model, "loss", "min", at=at),
            selecting.best(ask, model, "late", "max", run="run", at=at),
            selecting.metric_names(ask, model, at=at),
            str(lines.metric(ask, model, Run("id", "run"), "loss")),
            lines.label(ask, model, Run("id", "run"), "stage"),
        ]

    assert answers(long) == answers(short)


@pytest.mark.parametrize("model", ["a", "b"])
def test_a_runs_curve_is_told_without_facts_as_they_tell_it(
    long: Catalog, short: Catalog, model: str
) -> None:
    keys = ("loss", "late", "own2", "nobody's")
    found = lines.curve(long.connection, model, Run("id", "run"), keys)
    assert filled(long) == set()
    values = [lines.metric(short.connection, model, Run("id", "run"), key) for key in keys]
    told = [[of.get(VersionId(row[0]), math.nan) for of in values] for row in found]
    assert [[None if math.isnan(v) else v for v in row] for row in told] == [list(row[4:]) for row in found]
    assert len(found) == 3


@pytest.mark.parametrize(
    "damage", ["UPDATE versions SET metrics = x'7b'", "UPDATE annotations SET metrics = '['"]
)
def test_i8_a_curve_is_not_made_of_damaged_rows(ledger: Ledger, tmp_path: Path, damage: str) -> None:
    with closing(Catalog(ledger.storage, ledger.identity, [tmp_path / "catalog"])) as made:
        made.refresh()
        expected = lines.curve(made.connection, "a", Run("id", "run"), ["loss"])
        made.connection.execute(damage)
        assert lines.curve(made.connection, "a", Run("id", "run"), ["loss"]) == expected


def test_only_what_is_asked_for_is_made(long: Catalog) -> None:
    selecting.numbers(long.connection, "a", sort="loss")
    assert filled(long) == {("metric", "loss", "a")}
    selecting.numbers(long.connection, expressions=["lora.r == 4"])
    assert filled(long) == {("metric", "loss", "a"), ("config", "lora.r", "")}


def test_what_is_committed_later_is_found_with_what_was_made_before(
    long: Catalog, short: Catalog, ledger: Ledger
) -> None:
    selecting.numbers(long.connection, sort="loss")
    fields = {"metrics": {"loss": 0.1, "new": 1.0}, "config": {"lora.r": 64}}
    ledger.append(add_version(50, model="a", **fields))
    ledger.append(ops.VersionAnnotate(version=version_of(record(50, **fields)), metrics={"loss": 0.7}))
    for catalog in (long, short):
        catalog.refresh()
    assert ("metric", "new", "a") in filled(long)
    for question in (*QUESTIONS, {"sort": "new"}):
        asked = [selecting.numbers(c.connection, **question) for c in (long, short)]  # type: ignore[arg-type]
        assert asked[0] == asked[1]
    keys = short.connection.execute("SELECT space, key, model FROM keys").fetchall()
    filling.fill(long.connection, keys)
    ours, theirs = every_row(long.connection), every_row(short.connection)
    for rows in (ours, theirs):
        rows["fact_moves"] = sorted((row[1:] for row in rows["fact_moves"]), key=repr)
    assert ours == theirs


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE versions SET metrics = x'7b'",
        "UPDATE versions SET metrics = CAST('[]' AS BLOB)",
        "UPDATE shared SET text = x'7b'",
        "UPDATE annotations SET metrics = '[]'",
        "UPDATE annotations SET labels = '{'",
    ],
)
def test_i8_facts_are_not_made_of_damaged_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(module, "_LONG", 5)
    ledger = written(Ledger(LocalStorage(tmp_path / "repo")))
    with closing(Catalog.open(ledger.storage, ledger.identity)) as catalog:
        catalog.refresh()
        assert catalog.file is not None
        catalog.connection.execute(damage)
        with closing(whole(ledger)) as sound:
            for question in QUESTIONS:
                asked = [selecting.numbers(c.connection, **question) for c in (catalog, sound)]  # type: ignore[arg-type]
                assert asked[0] == asked[1]


def test_a_change_that_fails_leaves_nothing() -> None:
    with closing(connect(None, threading.RLock())) as connection:
        connection.execute("CREATE TABLE t (a)")

        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute("INSERT INTO t VALUES (1)")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            connection.change(work)
        assert not connection.in_transaction
        assert connection.execute("SELECT * FROM t").fetchall() == []
