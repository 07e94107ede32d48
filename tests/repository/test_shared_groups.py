"""A repository of a group: real users write into one folder, and the umask decides who else may."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import stemmata
from makers import model_folder
from stemmata import doctor
from stemmata.catalog.catalog import FILE
from stemmata.checkouts import cached
from stemmata.errors import StorageFailed, StorageReadOnly
from trees_by_hand import contents_of
from users import member

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may act as several users"
)
GROUP, ANN, BEN, EVE = 45000, 45001, 45002, 45003


def ann(umask: int) -> AbstractContextManager[None]:
    return member(ANN, GROUP, umask)


def ben(umask: int) -> AbstractContextManager[None]:
    return member(BEN, GROUP, umask)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as an administrator makes it for a group: chgrp, and chmod g+rwxs."""
    # Not pytest's tmp_path: that is its owner's alone.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        everybody = Path(name, "caches")
        everybody.mkdir()
        everybody.chmod(0o1777)
        monkeypatch.setenv("STEMMATA_CACHE", str(everybody))
        for seed, user in enumerate(("ann", "ben")):
            model_folder(Path(name, user), seed)
        _use_everything(Path(name, "before"), Path(name, "ann"))
        folder = Path(name, "group")
        folder.mkdir()
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2775)
        yield folder


def _use_everything(folder: Path, source: Path) -> None:
    with stemmata.open(folder, create=True) as repo:
        version = repo.save(source, "m", name="first", metrics={"loss": 1.0}, provenance={})
        repo.alias("m", "production", version)
        version.path()
        repo.check()
    doctor.examine(folder)


def _save(root: Path, user: str, name: str) -> None:
    with stemmata.open(root, create=True) as repo:
        repo.save(root.parent.parent / user, "m", name=name, metrics={"loss": 1.0}, provenance={})


def _findings(root: Path) -> dict[str, doctor.Finding]:
    return {each.name: each for each in doctor.examine(root)}


def test_two_users_of_a_group_write_into_one_repository(shared: Path) -> None:
    root = shared / "models"
    for turn in range(3):
        for who in (ann, ben):
            with who(0o002):
                _save(root, who.__name__, f"{who.__name__}-{turn}")
    with ben(0o002), stemmata.open(root) as repo:
        assert len(repo.versions("m")) == 6
        repo.alias("m", "production", repo["m@ann-0"])
        assert repo.check().sound
        assert repo.session.catalog.file == root / "cache" / FILE
        assert repo["m@ann-1"].checkout(shared / "restored").stat().st_uid == BEN
    for path in [root, *root.rglob("*")]:
        about = path.stat()
        assert about.st_gid == GROUP, path
        assert about.st_mode & stat.S_IRGRP, path
        if path.is_dir():
            assert about.st_mode & stat.S_IWGRP, path
    with ann(0o002):
        assert "shared" not in _findings(root)


def test_a_catalog_is_for_the_group_though_its_maker_keeps_files_to_himself(shared: Path) -> None:
    root = shared / "models"
    with ann(0o002):
        _save(root, "ann", "first")
    for file in (root / "cache").glob("catalog*"):
        file.unlink()
    with ann(0o022), stemmata.open(root) as repo:
        assert len(repo.versions("m")) == 1
    assert (root / "cache" / FILE).stat().st_mode & stat.S_IWGRP
    with ben(0o022), stemmata.open(root) as repo:
        repo.alias("m", "production", repo["m@first"])
        assert repo.session.catalog.file == root / "cache" / FILE


def test_a_umask_that_shuts_the_others_out_is_respected_and_said(shared: Path) -> None:
    root = shared / "models"
    with ann(0o022):
        _save(root, "ann", "hers")
    with ben(0o002):
        with pytest.raises(StorageReadOnly, match="Permission denied"):
            _save(root, "ben", "his")
        with stemmata.open(root) as repo:
            assert repo["m@hers"].metrics["loss"] == 1.0
            assert repo.check().sound
        assert _findings(root)["writable"].state == "warning"
        assert "umask 002" in _findings(root)["shared"].advice
    with member(EVE, EVE, 0o022), stemmata.open(root) as repo:
        assert repo["m@hers"].metrics["loss"] == 1.0


def test_a_member_with_a_strict_umask_locks_nobody_out(shared: Path) -> None:
    """The log is read whole: one entry that is closed to the others would cost them every version."""
    root = shared / "models"
    with ann(0o002):
        _save(root, "ann", "hers")
    with ben(0o077):
        _save(root, "ben", "his")
    with ann(0o002), stemmata.open(root) as repo:
        assert repo.check().sound
        assert {v.name for v in repo.versions("m")} == {"hers", "his"}
        assert "shared" not in _findings(root)
    with member(EVE, EVE, 0o022), stemmata.open(root) as repo:
        assert repo["m@his"].metrics["loss"] == 1.0


def test_a_repository_of_one_user_stays_theirs(shared: Path) -> None:
    root = shared / "models"
    with ann(0o077):
        _save(root, "ann", "hers")
    for path in root.rglob("*"):
        assert not path.stat().st_mode & 0o077, path


def test_an_entry_that_is_closed_is_named(shared: Path) -> None:
    root = shared / "models"
    with ann(0o002):
        _save(root, "ann", "hers")
    (root / "log/00000000000000000001.json").chmod(0o600)
    with ben(0o002), pytest.raises(StorageFailed, match=r"log/0+1\.json is closed to this user.*chmod"):
        stemmata.open(root)


def test_a_folder_that_only_its_maker_may_write_is_found(shared: Path) -> None:
    root = shared / "models"
    with ann(0o002):
        _save(root, "ann", "hers")
    with ben(0o022):
        _save(root, "ben", "his")
        closed = [path for path in root.glob("packs/*") if path.stat().st_uid == BEN]
        assert closed, "his pack fell into a folder of hers: one chance in 256, and then this shows nothing"
        closed[0].chmod(0o2755)
    with ann(0o002):
        found = _findings(root)
    assert found["writable"].state == "ok"
    assert found["shared"].state == "warning"
    assert str(closed[0].relative_to(root)) in found["shared"].found
    assert f"chmod -R g+rwX {root}" in found["shared"].advice


@pytest.mark.parametrize("checkouts", [0o022, 0o002], ids=["the-folder-too", "the-checkout-alone"])
def test_a_checkout_that_another_member_made_locks_nobody_out(
    shared: Path, monkeypatch: pytest.MonkeyPatch, checkouts: int
) -> None:
    root = shared / "models"
    with ann(0o002), stemmata.open(root, create=True) as repo:
        saved = repo.save(shared.parent / "ann", "m", name="hers", provenance={})
        os.umask(checkouts)
        (root / "cache/checkouts").mkdir()
        os.umask(0o022)
        light = saved.path(weights=False)
        inode = light.stat().st_ino
    with ben(0o002), stemmata.open(root) as repo:
        version = repo["m@hers"]
        assert version.path(weights=False) == light
        whole = version.path()
        assert contents_of(whole) == contents_of(shared.parent / "ann")
        assert whole.is_relative_to(Path(os.environ["STEMMATA_CACHE"]))
        assert version.path() == whole == version.cached()
        assert repo.version_of_path(whole) == version.id
    assert light.stat().st_ino == inode, "hers is as it was"
    monkeypatch.setenv("STEMMATA_CACHE", str(shared.parent / "of-ann"))
    with ann(0o022), stemmata.open(root) as repo:
        assert repo["m@hers"].path() == light


@pytest.mark.parametrize("change", ["closed", "unsound"])
def test_beside_a_checkout_that_is_no_use_to_a_member_theirs_is_made_once(
    shared: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    root = shared / "models"
    with ann(0o002), stemmata.open(root, create=True) as repo:
        saved = repo.save(shared.parent / "ann", "m", name="hers", provenance={})
        (root / "cache/checkouts").mkdir()
        os.umask(0o022)
        hers = saved.path()
    inode = hers.stat().st_ino
    if change == "closed":
        hers.parent.chmod(0o700)
    else:
        (hers / "config.json").unlink()
    decoded: list[Path] = []
    fill = cached._fill

    def counted(folder: Path, *rest: Any) -> None:
        decoded.append(folder)
        fill(folder, *rest)

    monkeypatch.setattr(cached, "_fill", counted)
    with ben(0o002), stemmata.open(root) as repo:
        version = repo["m@hers"]
        light = version.path(weights=False)
        assert len(decoded) == 1
        whole = version.path()
        assert whole == light != hers
        assert len(decoded) == 2
        assert version.path() == version.path(weights=False) == whole
        assert contents_of(whole) == contents_of(shared.parent / "ann")
    assert len(decoded) == 2
    assert hers.stat().st_ino == inode, "hers is where it was"
