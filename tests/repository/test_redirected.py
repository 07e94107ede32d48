"""A script below STEMMATA_REPRODUCE opens another repository than it asks for, which goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stemmata
from makers import adapter_folder
from stemmata import redirecting
from stemmata.errors import KeyMissing, ModelNotFound
from stemmata.repository import Repository


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return adapter_folder(tmp_path / "out", seed=1)


@pytest.fixture
def users(tmp_path: Path, folder: Path) -> Repository:
    """Two entries: a version, and another one that came later."""
    repository = stemmata.open(tmp_path / "users/models", create=True)
    repository.save(folder, "base", name="one", provenance={})
    repository.save(folder, "later", name="two", provenance={})
    return repository


def redirect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **changed: Any) -> None:
    told = {
        "source": str(tmp_path / "users/models"),
        "scratch": str(tmp_path / "work/store"),
        "upto": 1,
        "others": str(tmp_path / "work/others"),
        "places": [[str(tmp_path / "users"), str(tmp_path / "work/code")]],
        "labels": {"reproduces": "1234"},
    }
    monkeypatch.setenv(redirecting.VARIABLE, json.dumps({"store": {**told, **changed}}))


def test_it_reads_what_was_there_then_and_writes_elsewhere(
    users: Repository, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(monkeypatch, tmp_path)
    # By the path that the script has, by the path in the work folder, and by none at all.
    for path in (tmp_path / "users/models", tmp_path / "work/code/models", None):
        again = stemmata.open(path, create=True)
        assert again.models()[0] == "base"
        assert "later" not in again.models()
    with pytest.raises(ModelNotFound):
        again.versions("later")
    saved = again.save(folder, "mine", name="x", provenance={}, labels={"own": "1"})
    assert saved.labels == {"reproduces": "1234", "own": "1"}
    assert stemmata.init(tmp_path / "anything").models() == ["base", "mine"]
    assert again["base@one"].path().is_dir()
    assert users.models() == ["base", "later"]
    assert redirecting.end_of(tmp_path / "users/models") == 2
    with pytest.raises(KeyMissing):
        users.session.storage.size("log/00000000000000000003.json")


def test_other_repositories_are_read_and_not_written(
    users: Repository, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stemmata.open(tmp_path / "shared", create=True).save(folder, "teacher", name="t", provenance={})
    stemmata.open(tmp_path / "users/beside", create=True).save(folder, "beside", name="b", provenance={})
    redirect(monkeypatch, tmp_path)
    shared = stemmata.open(tmp_path / "shared")
    assert shared.models() == ["teacher"]
    assert stemmata.open(tmp_path / "work/code/beside").models() == ["beside"]
    shared.save(folder, "mine", name="x", provenance={})
    assert stemmata.open(tmp_path / "shared").models() == ["mine", "teacher"]
    assert redirecting.end_of(tmp_path / "shared") == 1
    assert users.models() == ["base", "later"]


def test_without_a_scratch_versions_go_to_the_repository_itself(
    users: Repository, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect(monkeypatch, tmp_path, scratch=None)
    stemmata.open(tmp_path / "work/code/models", create=True).save(folder, "fork", name="x", provenance={})
    assert users["fork@x"].labels == {"reproduces": "1234"}
