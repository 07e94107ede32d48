"""A repository that was brought back from a backup is read, and not written before somebody says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import stemmata
from makers import model_folder
from stemmata import heads
from stemmata.cli.main import run
from stemmata.errors import Damage, DamagedLog, OlderCopy
from stemmata.ids import Digest
from stemmata.log.entries import Position, log_key


@pytest.fixture
def restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one version, brought back after a second one was saved."""
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "cache"))
    with stemmata.open(tmp_path / "repo", create=True) as repo:
        repo.save(model_folder(tmp_path / "out", 1), "m", name="first")
    shutil.copytree(tmp_path / "repo", tmp_path / "backup")
    save(tmp_path, "second", 2)
    shutil.rmtree(tmp_path / "repo")
    shutil.copytree(tmp_path / "backup", tmp_path / "repo")
    return tmp_path


def save(root: Path, name: str, seed: int) -> None:
    with stemmata.open(root / "repo") as repo:
        repo.save(model_folder(root / "out", seed), "m", name=name)


def names(root: Path) -> list[str]:
    with stemmata.open(root / "repo") as repo:
        return [version.name for version in repo.versions("m")]


def test_an_older_copy_is_read_and_not_written(restored: Path) -> None:
    with pytest.raises(OlderCopy, match="accept-older"):
        save(restored, "third", 3)
    assert names(restored) == ["first"]
    with stemmata.open(restored / "repo") as repo:
        assert [(p.kind, "this machine has seen it" in p.reason) for p in repo.check().problems] == [
            ("log", True)
        ]
        with pytest.raises(OlderCopy):
            repo.alias("m", "production", "m@first")


def test_whoever_means_it_goes_on_from_the_older_copy(restored: Path) -> None:
    with stemmata.open(restored / "repo") as repo:
        repo.accept_older()
    save(restored, "third", 3)
    assert names(restored) == ["third", "first"]


def test_nothing_is_saved_while_the_newer_files_are_brought_back_in_any_order(
    restored: Path, tmp_path: Path
) -> None:
    """The last entry that was seen here may arrive before those between."""
    with stemmata.open(tmp_path / "backup") as newer:
        for seed in range(3, 7):
            newer.save(model_folder(tmp_path / "out", seed), "m", name=f"v{seed}")
    logs = {n: (tmp_path / "backup" / log_key(n)).read_bytes() for n in range(1, 6)}
    with stemmata.open(restored / "repo") as repo:
        heads.remember(repo.session.storage, repo.session.identity, Position(5, Digest.of(logs[5]), ""))
        with pytest.raises(OlderCopy):
            repo.alias("m", "production", "m@first")
        for n, missing in ((5, 2), (2, 3), (4, 3)):
            (restored / "repo" / log_key(n)).write_bytes(logs[n])
            with pytest.raises(DamagedLog, match=f"entry {missing} .*missing"):
                repo.alias("m", "production", "m@first")
        (restored / "repo" / log_key(3)).write_bytes(logs[3])
        repo.alias("m", "production", "m@first")
        assert len(list(repo.versions("m"))) == 5


def test_a_log_that_went_on_elsewhere_is_told_by_its_entry(
    restored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another computer, which has not seen the second version, writes into the restored copy."""
    monkeypatch.setenv("STEMMATA_CACHE", str(restored / "another computer's"))
    save(restored, "elsewhere", 4)
    monkeypatch.setenv("STEMMATA_CACHE", str(restored / "cache"))
    with pytest.raises(OlderCopy, match="another one"):
        save(restored, "third", 3)


def test_another_repository_in_that_place_has_its_own_memory(tmp_path: Path, restored: Path) -> None:
    shutil.rmtree(restored / "repo")
    with stemmata.open(restored / "repo", create=True) as repo:
        repo.save(model_folder(tmp_path / "out", 5), "m", name="fresh")
    assert names(restored) == ["fresh"]


def test_i8_the_memory_may_vanish_or_hold_rubbish(restored: Path) -> None:
    (kept,) = (restored / "cache" / "heads").iterdir()
    kept.write_text("rubbish")
    save(restored, "third", 3)
    assert names(restored) == ["third", "first"]


def test_a_copy_in_another_place_is_a_repository_of_its_own(restored: Path) -> None:
    with stemmata.open(restored / "backup") as repo:
        repo.save(model_folder(restored / "out", 6), "m", name="there")
        assert [version.name for version in repo.versions("m")] == ["there", "first"]


def test_the_memory_of_many_repositories_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(heads, "_MOST", 3)
    for number in range(6):
        with stemmata.open(tmp_path / f"repo{number}", create=True) as repo:
            repo.save(model_folder(tmp_path / "out", number), "m")
    assert len(list((tmp_path / "cache" / "heads").iterdir())) == 3


def test_whoever_looks_is_told_how_to_go_on_from_the_older_copy(
    restored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(restored / "repo")
    for words in (["check"], ["check", "--repair"], ["check", "--repair", "--dry-run"]):
        assert run(["-R", where, *words]) == Damage.exit_code
        said = " ".join(capsys.readouterr().err.split())
        assert "go on from it with: stemmata check --accept-older" in said
        assert "stemmata check --repair takes" not in said
    assert run(["-R", where, "doctor"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "problem log" in told
    assert "is not what was written there last" in told
    assert "go on from this copy: stemmata check --accept-older" in told
    with stemmata.open(where) as repo:
        repo.accept_older()
    assert run(["-R", where, "check"]) == 0
    assert "accept-older" not in capsys.readouterr().err
    run(["-R", where, "doctor"])
    assert "problem log" not in " ".join(capsys.readouterr().out.split())


def test_the_command_line_takes_the_older_copy_as_it_is(
    restored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(restored / "repo")
    words = ["-R", where, "save", str(restored / "out"), "m"]
    assert run(words) == OlderCopy.exit_code
    assert "stemmata check --accept-older" in " ".join(capsys.readouterr().err.split())
    assert run(["-R", where, "check", "--accept-older"]) == 0
    assert run(words) == 0
