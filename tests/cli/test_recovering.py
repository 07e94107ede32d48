"""What is said of a recovered log, whether or not the repository could be opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stemmata.cli.commands.recovering import recover_log
from stemmata.cli.output import Output
from stemmata.log.entries import log_key
from stemmata.recovering import RecoveryReport
from stemmata.storage.local import LocalStorage

Cli = Callable[..., Any]


def said(
    capsys: pytest.CaptureFixture[str], shop: Path, *sources: str, dry_run: bool = False
) -> tuple[RecoveryReport, str]:
    capsys.readouterr()
    storage = LocalStorage(shop / ".stemmata")
    report = recover_log(Output(), storage, [*sources], dry_run=dry_run)
    return report, " ".join("".join(capsys.readouterr()).split())


def test_of_a_sound_log_nothing_is_said(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, words = said(capsys, shop)
    assert report.complete
    assert words == ""


def test_what_the_catalog_has_is_recovered(shop: Path, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / ".stemmata" / log_key(3)).write_bytes(b"")
    (shop / ".stemmata" / "stemmata.json").unlink()
    _, words = said(capsys, shop, dry_run=True)
    assert "2 files of the log to be recovered" in words
    assert cli("-R", shop / ".stemmata", "log").code == 5
    _, words = said(capsys, shop)
    assert "2 files of the log recovered" in words
    assert f"{log_key(3)} its seal does not fit its content; from the catalog" in words
    assert cli("check").code == 0


def test_what_is_lost_is_named(
    shop: Path, pristine_shop: Path, cli: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for file in (shop / ".stemmata" / "cache").iterdir():
        file.unlink()
    (shop / ".stemmata" / log_key(2)).unlink()
    report, words = said(capsys, shop, str(tmp_path), str(shop))
    assert not report.complete
    assert "entry 2 lost it is missing; written from" in words
    assert "versions out of reach behind what is lost" in words
    assert "sentiment@r8/epoch-1" in words
    assert "entries 1 to 1 are whole" in words
    assert "add --from" in words
    report, words = said(capsys, shop, str(pristine_shop))
    assert report.complete
    assert f"from {pristine_shop / '.stemmata'}" in words
    assert cli("check").code == 0


def test_of_a_copied_file_that_was_put_aside_check_tells(
    shop: Path, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shop / ".stemmata" / log_key(2)
    file.write_bytes(file.read_bytes()[:100])
    said(capsys, shop)
    found = cli("check")
    assert found.code == 0
    assert "1 damaged file that was put aside" in found.out
    assert "it may be deleted" in found.out


def test_json_says_nothing_by_itself(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / ".stemmata" / log_key(3)).unlink()
    capsys.readouterr()
    report = recover_log(Output(json=True), LocalStorage(shop / ".stemmata"))
    assert capsys.readouterr().out == ""
    assert report.to_dict()["complete"] is True
    assert list(report.to_dict()) == [
        *("complete", "dry_run", "recovered", "lost", "breaks", "identity", "whole", "entries"),
        *("out_of_reach", "unnamed_packs", "notes"),
    ]
