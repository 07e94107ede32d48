"""What is installed: the same as Python's own `importlib.metadata` finds, which is not asked for it."""

from __future__ import annotations

import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from stemmata.capturing import packages


@pytest.fixture(autouse=True)
def anew() -> None:
    packages._collect.cache_clear()


def installed(folder: Path, name: str, head: str, kind: str = "METADATA") -> None:
    told = folder / name
    told.mkdir(parents=True)
    (told / kind).write_text(head)


def test_it_is_what_python_finds() -> None:
    found = packages.collect()
    first: dict[str, str] = {}
    for each in distributions():
        first.setdefault(each.metadata["Name"], each.version)
    assert {k: v if isinstance(v, str) else v["version"] for k, v in found.items()} == first


def test_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "a", "one-1.dist-info", "Metadata-Version: 2\nName: one\nVersion: 1\n\nName: no\n")
    installed(tmp_path / "b", "one-2.dist-info", "Name: one\r\nVersion: 2\r\n")
    installed(tmp_path / "b", "two.egg-info", "Name: two\nVersion:   3 \n", "PKG-INFO")
    installed(tmp_path / "b", "none.dist-info", "Version: 3\n\nName: late\n")
    (tmp_path / "b/file.egg-info").write_text("Name: file\nVersion: 1\n")
    (tmp_path / "b/empty.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / p) for p in ("a", "gone", "b")])
    assert packages.collect() == {"one": "1", "two": "3"}
    assert [str(d.metadata["Name"]) for d in distributions() if d.metadata["Name"]][:1] == ["one"]


class _Backport:
    """As the package of that name puts one there: a finder that knows of distributions, too."""

    @staticmethod
    def find_distributions(_context: object = None) -> list[object]:
        return []


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_installed_meanwhile_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    if not alone:
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, _Backport])
    installed(tmp_path, "one-1.dist-info", "Name: one\nVersion: 1\n")
    assert packages.collect() == {"one": "1"}
    (tmp_path / "output.txt").write_text("no package")
    (tmp_path / "one-1.dist-info").rename(tmp_path / "one-2.dist-info")
    (tmp_path / "one-2.dist-info/METADATA").write_text("Name: one\nVersion: 2\n")
    installed(tmp_path, "two-1.dist-info", "Name: two\nVersion: 1\n")
    assert packages.collect() == {"one": "2", "two": "1"}
    read = packages._collect.cache_info().misses
    assert packages.collect() == {"one": "2", "two": "1"}
    assert packages._collect.cache_info().misses == read, "once"


def test_a_long_head_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extras = "".join(f"Provides-Extra: extra-number-{n}\n" for n in range(4000))
    installed(tmp_path, "one-1.dist-info", f"{extras}Name: one\nVersion: 1\n\n{extras}")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert packages.collect() == {"one": "1"}


def test_what_lies_in_an_archive_is_found_by_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("one-1.dist-info/METADATA", "Name: one\nVersion: 1\n")
    installed(tmp_path, "two-2.dist-info", "Name: two\nVersion: 2\n")
    monkeypatch.setattr(sys, "path", [str(archive), str(tmp_path)])
    assert packages.collect() == {"one": "1", "two": "2"}


def test_what_another_finder_knows_of_is_found_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        asked = False

        def find_spec(self, *_: object) -> None:
            return None

        def find_distributions(self, *_: object) -> list[object]:
            type(self).asked = True
            return []

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert packages.collect()
    assert Finder.asked
