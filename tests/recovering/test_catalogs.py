"""A damaged catalog is made anew from the log, whenever its damage shows (I8)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import stemmata
from stemmata.catalog.catalog import FILE
from stemmata.repository import Repository
from stored import Stored, make

PAGE = 4096


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return make(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def warm(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository in a folder, with its catalog."""
    root = stored.lay_out(tmp_path_factory.mktemp("warm") / "repo")
    stemmata.open(root).close()
    return root


@pytest.fixture
def root(warm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(warm, tmp_path / "repo"))


def said(repo: Repository) -> list[object]:
    """What a catalog is asked for: lists, records, metrics, names and their histories."""
    versions = [(v.id.hex, v.name, v.message, dict(v.metrics), dict(v.labels)) for v in repo.versions()]
    moves = [repr(m) for m in repo.history("toy", "production")]
    found = [v.name for v in repo.search("toy", "loss < 0.75 and team == 'x'")]
    return [versions, moves, found, {n: v.id.hex for n, v in repo.aliases("toy").items()}, repo.models()]


def fresh(stored: Stored, tmp_path: Path) -> list[object]:
    with stemmata.open(stored.lay_out(tmp_path / "fresh")) as repo:
        return said(repo)


def test_rubbish_in_any_page_is_met_at_opening_or_by_a_query(
    stored: Stored, root: Path, tmp_path: Path
) -> None:
    expected = fresh(stored, tmp_path)
    file = root / "cache" / FILE
    data = file.read_bytes()
    assert len(data) > 20 * PAGE
    for at in range(0, len(data), 3 * PAGE):
        for old in file.parent.glob(f"{FILE}*"):
            old.unlink()
        file.write_bytes(data[:at] + b"\xee" * PAGE + data[at + PAGE :])
        with stemmata.open(root) as repo:
            assert said(repo) == expected, at


def test_a_page_that_breaks_under_an_open_repository_is_met_by_its_query(
    stored: Stored, root: Path, tmp_path: Path
) -> None:
    expected = fresh(stored, tmp_path)
    with stemmata.open(root) as repo, (root / "cache" / FILE).open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xee" * (file.seek(0, 2) - PAGE))
        file.flush()
        assert said(repo) == expected


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: 7 * PAGE])


def _another_program(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE versions (id)")


def _another_release(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
        db.execute("DELETE FROM pointers")
        db.commit()


def _text(file: Path) -> None:
    file.write_text("SQLite format 4, perhaps")


@pytest.mark.parametrize("spoil", [_truncate, _another_program, _another_release, _text])
def test_a_file_that_is_no_catalog_of_this_log_is_replaced(
    stored: Stored, root: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(root / "cache" / FILE)
    with stemmata.open(root) as repo:
        assert said(repo) == fresh(stored, tmp_path)


def test_what_reads_well_and_is_not_so_is_found_by_a_check(
    stored: Stored, root: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(root / "cache" / FILE)) as db:
        db.execute("UPDATE facts SET num = num + 1")
        db.commit()
    with stemmata.open(root) as repo:
        assert said(repo) != fresh(stored, tmp_path)
        assert [note.kind for note in repo.check().notes] == ["catalog"]
    with stemmata.open(root) as repo:
        assert said(repo) == fresh(stored, tmp_path)
