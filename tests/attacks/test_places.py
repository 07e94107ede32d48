"""Paths and moments that no system call takes, and repositories where sources or others are."""

from __future__ import annotations

import errno
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import stemmata
from makers import model_folder
from stemmata.errors import (
    InvalidArgument,
    RepositoryExists,
    RepositoryNotFound,
    StemmataError,
    UnsupportedFile,
)
from stemmata.repository import Repository
from stemmata.storage import publish


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    repo = stemmata.open(tmp_path / "repo", create=True)
    repo.save(model_folder(tmp_path / "src"), "m", metrics={"x": 1}, provenance={})
    return repo


@pytest.mark.parametrize("path", ["a\0b", "a" * 5000])
def test_a_path_that_no_system_takes_is_a_named_error(repo: Repository, path: str) -> None:
    for use in (
        lambda: stemmata.open(path),
        lambda: stemmata.open(path, create=True),
        lambda: stemmata.init(path),
        lambda: repo["m"].checkout(path),
        lambda: repo.save(path, "m"),
    ):
        with pytest.raises(StemmataError):
            use()


def test_the_repository_itself_is_no_source(repo: Repository) -> None:
    with pytest.raises(UnsupportedFile, match="repository"):
        repo.save(repo.where, "m")


def test_a_source_around_the_repository_leaves_it_out(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(tmp_path, "m", provenance={})
    assert [f.path for f in version.files] == ["src/config.json", "src/model.safetensors"]


@pytest.mark.parametrize("moment", [datetime.min, datetime.min.replace(tzinfo=UTC), datetime(2020, 1, 1)])
def test_moments_at_the_calendars_end_and_without_a_zone(repo: Repository, moment: datetime) -> None:
    for use in (lambda: repo.get("m", at=moment), lambda: repo.versions("m", at=moment)[0]):
        with pytest.raises((StemmataError, IndexError)):
            use()


@pytest.mark.parametrize(
    "use",
    [
        lambda repo: repo.best("m", "\udc80"),
        lambda repo: repo.best("m", "x", run="\udc80"),
        lambda repo: repo.history("m", "\udc80"),
        lambda repo: repo.versions("m").limit(2**70),
        lambda repo: repo.versions("m").limit(-1),
    ],
)
def test_what_no_query_can_ask_is_a_named_error(repo: Repository, use: Any) -> None:
    with pytest.raises(InvalidArgument):
        use(repo)


def test_a_folder_that_becomes_a_repository_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repo"
    real = Path.is_dir

    def made_meanwhile(path: Path) -> bool:
        monkeypatch.setattr(Path, "is_dir", real)
        if path == folder:
            stemmata.init(folder).configure("m", metric="x")
        return real(path)

    monkeypatch.setattr(Path, "is_dir", made_meanwhile)
    assert stemmata.open(folder, create=True).models() == ["m"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(RepositoryExists):
        stemmata.open(tmp_path, create=True)
    with pytest.raises(RepositoryNotFound):
        stemmata.open(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_eight_savers_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I6, where only the rename that refuses to replace is there."""

    def none(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(publish.os, "link", none)
    repo = stemmata.open(tmp_path / "repo", create=True)
    source = model_folder(tmp_path / "src")
    repo.save(source, "m", name="first", provenance={})
    context = multiprocessing.get_context("fork")

    def work(me: int) -> None:
        with stemmata.open(tmp_path / "repo") as mine:
            for i in range(4):
                mine.save(source, "m", name=f"{me}/{i}", provenance={})

    savers = [context.Process(target=work, args=(me,)) for me in range(8)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join(300)
    saved = {v.name for v in repo.versions("m")}
    assert saved == {"first"} | {f"{me}/{i}" for me in range(8) for i in range(4)}
    assert len(repo.versions("m")) == 1 + 8 * 4
    assert repo.check().sound
