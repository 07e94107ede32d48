"""Folders and files of any name: repositories, sources and checkouts lie wherever people put them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder

Cli = Callable[..., Any]

NAMES = {
    "spaces": " my  models ",
    "cyrillic": "модели",
    "chinese": "情感模型",
    "emoji": "🚀👩‍🔬",
    "combining": unicodedata.normalize("NFD", "é ñ ü"),
    "leading dash": "-rf",
    "quotes": "a'b\"c`$HOME",
    "brackets": "[bold]x {0} %s *?",
    "backslash": "a\\b",
    "newline": "two\nlines",
    "longest": "x" * 255,
    "longest of wide letters": "模" * 85,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_place_may_have_any_name(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = tmp_path / name
    home.mkdir()
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    monkeypatch.chdir(home)
    source = model_folder(home / name)
    inside = "file" if "\n" in name else name  # a name of two lines is refused within a version: below
    (source / inside).write_bytes(b"what it is called changes nothing")
    # As a shell hands them over: "./" before a name that begins with a dash.
    here = os.path.join(".", name)
    repository = os.path.join(".", name[:80] + ".repo")
    assert cli("init", repository).code == 0
    saved = cli("-R", repository, "save", here, "m", "--name", "first", "--json")
    assert saved.code == 0, saved.err
    back = os.path.join("back", name)
    assert cli("-R", repository, "checkout", "m@first", "-o", back).code == 0
    wanted = {p.relative_to(source): p.read_bytes() for p in source.rglob("*")}
    assert {p.relative_to(back): p.read_bytes() for p in Path(back).rglob("*")} == wanted
    assert sorted(os.listdir("back")) == [name], "nothing temporary is left beside it"
    assert cli("-R", repository, "check").code == 0
    assert cli("-R", repository, "doctor", "--json").code == 0
    assert inside in [
        file["path"] for file in cli("-R", repository, "show", "m@first", "--json").json["files"]
    ]


def test_two_spellings_of_one_letter_are_two_files(tmp_path: Path, cli: Cli) -> None:
    """As on Linux, byte by byte; where a file system folds them, a checkout says so."""
    source = model_folder(tmp_path / "out")
    spellings = [unicodedata.normalize(form, "é.txt") for form in ("NFC", "NFD")]
    for spelling in spellings:
        (source / spelling).write_text(unicodedata.name(spelling[0]))
    repository = str(tmp_path / "r")
    assert cli("init", repository).code == 0
    assert cli("-R", repository, "save", str(source), "m", "--name", "first").code == 0
    assert cli("-R", repository, "checkout", "m@first", "-o", str(tmp_path / "back")).code == 0
    for spelling in spellings:
        assert (tmp_path / "back" / spelling).read_text() == unicodedata.name(spelling[0])


def test_a_file_name_of_two_lines_is_refused_by_its_name(tmp_path: Path, cli: Cli) -> None:
    source = model_folder(tmp_path / "out")
    (source / "two\nlines").write_bytes(b"")
    assert cli("init", str(tmp_path / "r")).code == 0
    said = cli("-R", str(tmp_path / "r"), "save", str(source), "m")
    assert said.code == 8
    assert "two" in said.err
    assert "lines" in said.err
    assert "--exclude" in said.err
