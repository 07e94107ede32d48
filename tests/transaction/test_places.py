"""A repository that is not where it was: nothing is committed into another one, or into nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import stemmata
from makers import model_folder
from stemmata import transaction
from stemmata.errors import DamagedRepository, RepositoryNotFound
from stemmata.repository import Repository


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a fresh machine: nobody remembers how far the log went."""
    monkeypatch.setattr(transaction.heads, "last_seen", lambda *_: None)


@pytest.mark.parametrize("entries", [0, 2])
def test_i1_nothing_is_committed_into_another_repository(tmp_path: Path, entries: int) -> None:
    root = tmp_path / "models"
    with stemmata.open(root, create=True) as old:
        for k in range(entries):
            old.configure("m", metric=f"metric-{k}")
        shutil.rmtree(root)
        with stemmata.open(root, create=True) as new:
            with pytest.raises(DamagedRepository, match="another repository has come in its place"):
                old.configure("m", metric="loss")
            assert list(new.session.storage.list("log/")) == []
    with stemmata.open(root) as again:
        assert again.models() == []
        assert again.check().sound


def test_i1_nothing_is_committed_where_nothing_is(tmp_path: Path) -> None:
    root = tmp_path / "models"
    with stemmata.open(root, create=True) as repo:
        shutil.rmtree(root)
        with pytest.raises(RepositoryNotFound):
            repo.configure("m", metric="loss")
    assert not (root / "log").exists()


def test_i1_a_drive_that_goes_away_in_a_save_has_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves its mount point, empty, between the pack and the entry."""
    root = tmp_path / "drive/models"
    commit = transaction.commit

    def unplugged(*given: object, **named: object) -> transaction.Committed:
        root.rename(tmp_path / "away")
        root.mkdir()
        return commit(*given, **named)  # type: ignore[arg-type]

    with stemmata.open(root, create=True) as repo:
        monkeypatch.setattr(transaction, "commit", unplugged)
        with pytest.raises(RepositoryNotFound):
            repo.save(model_folder(tmp_path / "out", seed=1), "m")
    assert not (root / "log").exists()
    monkeypatch.undo()
    with stemmata.open(tmp_path / "away") as back:
        assert back.models() == []
        back.save(tmp_path / "out", "m")


def test_i6_a_backup_by_links_makes_no_lost_race_a_won_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    with stemmata.open(tmp_path / "models", create=True) as one, Repository(one.session.storage) as other:
        version = one.save(model_folder(tmp_path / "out", seed=1), "m")
        link, met = os.link, []

        def met_by_a_backup(source: Path, target: Path) -> None:
            if not met and Path(target).parent.name == "log":
                met.append(target)
                other.annotate(version, notes="the other was faster")
                link(source, tmp_path / "backup")
            link(source, target)

        monkeypatch.setattr(os, "link", met_by_a_backup)
        one.tag("m", "v1", version)
        assert met
        assert one.get("m@v1") == version
        assert other.get("m@v1").notes
