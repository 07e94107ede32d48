"""A catalog that SQLite finds sound, with rows that no fold wrote: rebuilt, never handed out (I8)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import stemmata
from makers import model_folder
from stemmata.errors import InvalidArgument
from stemmata.repository import Repository


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with stemmata.open(tmp_path / "repo", create=True) as repo:
        version = repo.save(model_folder(tmp_path / "src"), "m", name="v", provenance={})
        repo.annotate(version, notes="a note")
        repo.alias("m", "p", version)
        yield repo


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE versions SET tree = '[\"ab'",
        "UPDATE versions SET tree = CAST(x'ff' AS TEXT)",
        "UPDATE versions SET id = x'00'",
        "UPDATE annotations SET labels = '{'",
        "UPDATE annotations SET metrics = CAST(x'ff' AS TEXT)",
        "UPDATE moves SET evidence = '{'",
        "UPDATE moves SET target = x'00'",
        "UPDATE records SET data = x'7b'",
        "UPDATE records SET data = x'28b52ffd' || CAST(zeroblob(60) AS BLOB)",
        "DELETE FROM records",
    ],
)
def test_damaged_rows_are_read_from_the_log_again(repo: Repository, damage: str) -> None:
    catalog = repo.session.catalog.file
    assert catalog is not None
    with closing(sqlite3.connect(catalog)) as connection, connection:
        connection.execute(damage)
    (version,) = repo.versions("m")
    assert version.record.content.files == 2
    assert version.notes == ["a note"]
    assert [move.after for move in repo.history("m", "p")] == [version.id]
    assert version.read("config.json")


@pytest.mark.parametrize("what", ["TABLE pointers", "VIEW refs"])
def test_a_catalog_without_one_of_its_tables_is_built_anew(
    repo: Repository, tmp_path: Path, what: str
) -> None:
    catalog = repo.session.catalog.file
    assert catalog is not None
    repo.close()
    with closing(sqlite3.connect(catalog)) as connection, connection:
        connection.execute(f"DROP {what}")
    with stemmata.open(tmp_path / "repo") as again:
        assert again["m@p"].name == "v"


def test_a_closed_repository_says_so(repo: Repository, tmp_path: Path) -> None:
    version = repo["m"]
    repo.close()
    repo.close()
    for use in (repo.models, version.tree, lambda: version.aliases, lambda: repo["m"]):
        with pytest.raises(InvalidArgument, match="closed"):
            use()
