"""`stemmata doctor`: each thing that may be wrong is named, with what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from stemmata import doctor, transaction
from stemmata.codecs import native, payloads
from stemmata.storage import mounts
from stemmata.storage.publish import NoMeans

Cli = Callable[..., Any]


def findings(cli: Cli, *arguments: str) -> dict[str, Any]:
    said = cli("doctor", "--json", *arguments)
    assert said.code == (0 if said.json["healthy"] else 1)
    return {each["name"]: each for each in said.json["findings"]}


def test_a_sound_place_is_healthy(shop: Path, cli: Cli) -> None:
    found = findings(cli)
    assert {
        "python",
        "torch",
        "repository",
        "catalog",
        "writable",
        "hard links",
        "free space",
        "cache",
    } <= set(found)
    assert not [each for each in found.values() if each["state"] == "problem"]
    assert str(shop / ".stemmata") in found["repository"]["found"]
    shown = cli("doctor").out
    assert shown.splitlines()[0].startswith("ok       python")


def test_every_package_that_is_always_needed_is_told_with_what_is_supported(cli: Cli) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [re.split(r"[\[>]", each)[0] for each in project["project"]["dependencies"]]
    assert "zstandard" in needed
    for name in needed:
        assert "supported: " in findings(cli)[name]["found"]


def test_what_the_codecs_run_on_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(cli)["codecs"]["state"] == ("warning" if payloads.why_not else "ok")
    monkeypatch.setattr(native, "library", object())
    monkeypatch.setattr(payloads, "why_not", "zstandard's functions are out of reach")
    found = findings(cli)["codecs"]
    assert found["state"] == "warning"
    assert "compiled, but zstandard's functions are out of reach" in found["found"]
    assert "zstandard[cffi]" in found["advice"]
    monkeypatch.setattr(native, "library", None)
    monkeypatch.setattr(native, "why_not", "nothing was compiled")
    found = findings(cli)["codecs"]
    assert (found["state"], found["found"]) == (
        "warning",
        "their inner loops run in numpy: nothing was compiled",
    )
    assert "C compiler" in found["advice"]


def test_no_repository_is_said_with_the_next_step(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    found = findings(cli)
    assert "stemmata init" in found["repository"]["advice"]
    assert "catalog" not in found
    monkeypatch.setenv("STEMMATA_REPO", str(tmp_path / "wrong"))
    assert "correct STEMMATA_REPO" in findings(cli)["repository"]["advice"]
    assert not (tmp_path / "wrong").exists()


def test_a_damaged_repository_is_a_problem(shop: Path, cli: Cli) -> None:
    (shop / ".stemmata" / "stemmata.json").write_text("{")
    found = findings(cli)
    assert found["repository"]["state"] == "problem"
    assert "stemmata check" in found["repository"]["advice"]


@pytest.mark.parametrize("left", ["log", "packs"])
def test_a_repository_without_its_identity_is_not_taken_for_none(shop: Path, cli: Cli, left: str) -> None:
    root = shop / ".stemmata"
    (root / "stemmata.json").unlink()
    shutil.rmtree(root / ("packs" if left == "log" else "log"))
    found = findings(cli)["repository"]
    assert found["state"] == "problem"
    assert "stemmata.json is missing, but the rest of a repository is there" in found["found"]
    assert found["advice"] == "put it right: stemmata check --repair"


def test_missing_and_old_packages_are_told_apart(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("trl", "rich"):
            raise metadata.PackageNotFoundError(name)
        return {"torch": "2.5.1+cu121", "transformers": "5.0.0"}.get(name) or real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = findings(cli)
    assert (found["trl"]["state"], found["rich"]["state"]) == ("warning", "problem")
    assert found["torch"]["state"] == "problem"
    assert "pip install 'torch>=" in found["torch"]["advice"]
    assert found["transformers"]["state"] == "ok"


def test_a_file_system_without_safe_names_is_a_problem(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_folder: Path) -> None:
        raise NoMeans

    monkeypatch.setattr(doctor, "probe", nothing)
    assert findings(cli)["hard links"]["state"] == "problem"


def test_a_place_that_cannot_be_written_is_said(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_folder: Path) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(doctor, "probe", refused)
    found = findings(cli)
    assert "Permission denied" in found["writable"]["found"]
    assert "hard links" not in found


def test_little_space_and_a_cache_without_limit_are_said(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEMMATA_CACHE_SIZE", raising=False)
    monkeypatch.setattr(doctor, "_LOW", 1 << 80)
    (shop / ".stemmata" / "cache" / "checkouts" / ("ab" * 32)).mkdir(parents=True)
    (shop / ".stemmata" / "cache" / "checkouts" / ("ab" * 32) / "manifest.json").write_text(
        '{"files": {"a": [7000000, 1, 1, 1]}}'
    )
    found = findings(cli)
    assert "make room" in found["free space"]["advice"]
    assert "STEMMATA_CACHE_SIZE" in found["cache"]["advice"]
    assert "7.0 MB" in found["cache"]["found"]
    monkeypatch.setenv("STEMMATA_CACHE_SIZE", "50GB")
    assert "limit 50.0 GB" in findings(cli)["cache"]["found"]
    monkeypatch.setenv("STEMMATA_CACHE_SIZE", "lots")
    assert findings(cli)["cache"]["state"] == "problem"


def test_a_network_drive_and_locks_that_are_local_are_said(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"server:/x {shop} nfs rw,vers=3,nolock,local_lock=all 0 0"
    monkeypatch.setattr(mounts, "mounts", lambda: [line])
    monkeypatch.setenv("STEMMATA_CACHE", str(shop / "home"))
    found = findings(cli)
    assert found["file system"]["found"].startswith("nfs, a network drive")
    assert found["catalog"]["state"] == "warning"
    assert "set STEMMATA_CACHE" in found["catalog"]["advice"]
    monkeypatch.setattr(mounts, "mounts", lambda: [line, f"/dev/sdb {shop / 'home'} ext4 rw 0 0"])
    assert findings(cli)["catalog"]["found"].startswith(str(shop / "home"))


def test_a_quota_that_a_save_would_meet_is_said(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_LOW", 1)
    monkeypatch.setattr(mounts, "mounts", lambda: [f"/dev/sda {shop} ext4 rw 0 0"])
    assert "quota" not in findings(cli)

    class NoRoom:
        def __init__(self, **_where: Any) -> None:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", NoRoom)
    assert "quota -s" in findings(cli)["quota"]["advice"]


def test_an_entry_of_a_clock_that_is_ahead_is_told(
    shop: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "clock" not in findings(cli)
    with monkeypatch.context() as ahead:
        later = datetime.now(UTC) + timedelta(days=40, minutes=1)
        ahead.setattr(transaction, "_utc_now", lambda: later)
        assert cli("label", "sentiment", "stage=gold").code == 0
    # What is written after it, by a clock that is right, does not bring the time back.
    assert cli("label", "sentiment", "stage=silver").code == 0
    found = findings(cli)["clock"]
    assert (found["state"], found["found"][-13:]) == ("warning", "40 days ahead")
    assert f"{later:%Y-%m-%d}" in found["found"]
