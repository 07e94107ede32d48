"""A cached catalog with wrong rows has no say in what is retired, dropped or deleted (I7, I8)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import stemmata
from shop import Epochs, planted, require_sound, stored_text
from stemmata.collecting import dropping
from stemmata.collecting.clocks import StoreClock
from stemmata.session import Session
from stemmata.storage.local import LocalStorage

FORGOTTEN = [
    "DELETE FROM more_packs WHERE version IN (SELECT seq FROM versions WHERE key = 'e1')",
    "UPDATE versions SET state = 'forgotten', pack = NULL WHERE key = 'e1'",
]
RETIRED = ["UPDATE packs SET state = 'retired', n = 1"]
DROPPED = ["UPDATE packs SET state = 'dropped', n = 1"]
UNKNOWN = ["DELETE FROM pack_bases", "DELETE FROM packs"]
WRONG = {"forgotten": FORGOTTEN, "retired": RETIRED, "dropped": DROPPED, "unknown": UNKNOWN}


@pytest.fixture
def root(tmp_path: Path, epochs: Epochs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three versions, each saved for itself; afterwards all are whole, for a reader without a cache."""
    monkeypatch.setenv("STEMMATA_MERGE", "off")
    folder = tmp_path / "repository"
    with stemmata.open(folder, create=True) as repo:
        for k in range(3):
            epochs.save(repo, k)
    yield folder
    shutil.rmtree(folder / "cache")
    with stemmata.open(folder) as repo:
        for k in range(3):
            epochs.require(repo, k)
    require_sound(LocalStorage(folder))


def change(root: Path, statements: list[str]) -> None:
    (file,) = (root / "cache").glob("catalog-v*.sqlite")
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def packs(root: Path) -> set[Path]:
    return {path for path in (root / "packs").rglob("*") if path.is_file()}


@pytest.mark.parametrize("wrong", WRONG)
def test_i8_a_collection_goes_by_the_log_alone(root: Path, wrong: str) -> None:
    before = packs(root)
    change(root, WRONG[wrong])
    with stemmata.open(root) as repo:
        told = repo.gc(dry_run=True, undo_window=0, grace=0)
        done = repo.gc(undo_window=0, grace=0)
    assert (told.packs_retired, told.orphans, told.deleted) == (0, 0, 0)
    assert (done.packs_retired, done.orphans, done.deleted) == (0, 0, 0)
    assert packs(root) == before


@pytest.mark.parametrize("wrong", [RETIRED, DROPPED], ids=["retired", "dropped"])
def test_i8_nothing_is_dropped_or_deleted_because_a_cache_says_so(root: Path, wrong: list[str]) -> None:
    """As every merge of the second tier asks for, which looks with the catalog at hand."""
    before, entries = packs(root), len(list((root / "log").iterdir()))
    change(root, wrong)
    with stemmata.open(root) as repo:
        session = repo.session
        found = dropping.look(session, StoreClock(session.storage), readers=0, writers=float("inf"))
        assert found.due or found.dropped
        assert dropping.drop(session, found) == 0
    assert packs(root) == before
    assert len(list((root / "log").iterdir())) == entries


def test_i8_a_grace_begins_where_the_log_says(root: Path, epochs: Epochs) -> None:
    with stemmata.open(root) as repo:
        extra = epochs.save(repo, 3)
        repo.delete(extra)
        assert repo.gc(undo_window=0).waiting
        before = packs(root)
        change(root, ["UPDATE packs SET n = 1 WHERE state = 'retired'"])
        session = repo.session
        clock = StoreClock(session.storage)
        found = dropping.look(session, clock, readers=0, writers=float("inf"))
        assert dropping.drop(session, found) == 0
        assert packs(root) == before
        with session.afresh() as sure:
            found = dropping.look(sure, clock, readers=0, writers=float("inf"))
        assert dropping.drop(session, found) > 0


def test_i8_what_a_cache_still_calls_visible_is_erased(root: Path, epochs: Epochs) -> None:
    with stemmata.open(root) as repo:
        repo.delete(epochs.save(repo, 3))
        change(root, ["UPDATE versions SET state = 'visible' WHERE key = 'e3'"])
        (gone,) = repo.gc(undo_window=0, grace=0).forgotten
    assert gone.name == "e3"
    assert planted("provenance", 3).encode() not in stored_text(LocalStorage(root))


def test_the_cache_knows_what_a_collection_has_done(root: Path, epochs: Epochs) -> None:
    with stemmata.open(root) as repo:
        repo.delete(epochs.save(repo, 3))
        assert repo.gc(undo_window=0, grace=0).packs_retired
        assert not repo.session.catalog.unremembered_packs()
        assert repo.session.catalog.file is not None
        (state,) = repo.session.catalog.connection.execute(
            "SELECT state FROM versions WHERE key = 'e3'"
        ).fetchone()
    assert state == "forgotten"


def test_where_nothing_is_due_the_log_is_not_folded_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of saves that have merged packs most have nothing to delete, and none is to wait for that."""
    with stemmata.open(root) as repo:
        session = repo.session
        session.refresh()
        monkeypatch.delattr(Session, "afresh")
        found = dropping.look(session, StoreClock(session.storage), readers=0, writers=float("inf"))
        assert dropping.drop(session, found) == 0
