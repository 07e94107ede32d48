"""What a save and a move tell, where the catalog's file refuses or the log cannot be read (I8)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import stemmata
from faults import FaultyStorage
from makers import model_folder
from stemmata import transaction
from stemmata.catalog import connection
from stemmata.catalog.catalog import FILE
from stemmata.errors import CommitUnknown, StorageFailed
from stemmata.log.entries import log_key
from stemmata.log.identity import create_identity
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.storage.memory import MemoryStorage

RUN = Run(id="1" * 32, name="r")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transaction.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(connection, "_FOLD_BUSY_SECONDS", 0.05)
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "user"))


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[Path]:
    """A repository of a run with two versions, whose catalog knows no pack's objects and takes no hint."""
    root = tmp_path / "models"
    with stemmata.open(root, create=True) as repo:
        for seed in (1, 2):
            repo.save(model_folder(tmp_path / f"m{seed}", seed), "m", name=f"e{seed}", run=RUN)
    for file in (root / "cache").glob("catalog*"):
        file.unlink()
    # A reader makes it anew: another process, so that no connection of this one is in the way.
    reading = f"import stemmata; stemmata.open({str(root)!r}).versions('m')"
    subprocess.run([sys.executable, "-c", reading], check=True)
    with closing(sqlite3.connect(root / "cache" / FILE, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield root
        holder.execute("ROLLBACK")


def test_i8_a_save_keeps_its_parent_where_no_hint_can_be_kept(refused: Path, tmp_path: Path) -> None:
    with stemmata.open(refused) as repo:
        before = repo["m@e2"]
        saved = repo.save(model_folder(tmp_path / "m3", 3), "m", name="e3", run=RUN)
        assert saved.parents == [before.id.hex]


def test_i8_what_is_there_is_found_where_no_hint_can_be_kept(refused: Path, tmp_path: Path) -> None:
    with stemmata.open(refused) as repo:
        repo.save(model_folder(tmp_path / "again", 2), "m", name="e3", run=RUN)
        packs = {pack for v in repo.versions("m") for pack in repo.session.packs(repo.session.row(v.id))}
        of_before = repo.session.packs(repo.session.row(repo["m@e2"].id))
        largest = max(of_before, key=lambda pack: repo.session.catalog.pack_size(pack) or 0)
        assert largest in repo.session.packs(repo.session.row(repo["m@e3"].id)), packs


class _Unread(FaultyStorage):
    """Fails the first `times` reads of what is committed."""

    times = 0
    of = ""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key == self.of and self.times:
            self.times -= 1
            raise StorageFailed(where=self.where, reason="Input/output error")
        return super().get(key, start, length)

    def fail(self, n: int, times: int) -> None:
        self.of, self.times = log_key(n), times


@pytest.fixture
def unread(tmp_path: Path) -> _Unread:
    inner = MemoryStorage()
    create_identity(inner)
    storage = _Unread(inner)
    repo = Repository(storage)
    for seed in (1, 2):
        repo.save(model_folder(tmp_path / f"m{seed}", seed), "m", name=f"e{seed}")
    repo.alias("m", "prod", repo["m@e1"])
    return storage


def _next(repo: Repository) -> int:
    return repo.session.catalog.refresh().n + 1


def test_a_save_whose_entry_cannot_be_read_at_once_is_told_as_saved(unread: _Unread, tmp_path: Path) -> None:
    repo = Repository(unread)
    unread.fail(_next(repo), 1)
    saved = repo.save(model_folder(tmp_path / "m3", 3), "m", name="e3")
    assert unread.times == 0
    assert saved.id == repo["m@e3"].id


@pytest.mark.parametrize("alias", ["prod", "fresh"])
def test_the_move_that_is_told_is_the_one_that_was_made(unread: _Unread, alias: str) -> None:
    repo = Repository(unread)
    unread.fail(_next(repo), 1)
    move = repo.alias("m", alias, repo["m@e2"])
    assert unread.times == 0
    assert move.after == repo["m@e2"].id


@pytest.mark.parametrize("alias", ["prod", "fresh"])
def test_a_move_that_cannot_be_read_back_is_not_told_as_another(unread: _Unread, alias: str) -> None:
    repo = Repository(unread)
    to = repo["m@e2"]
    unread.fail(_next(repo), 1000)
    with pytest.raises(CommitUnknown):
        repo.alias("m", alias, to)
    unread.times = 0
    assert repo[f"m@{alias}"].id == to.id
