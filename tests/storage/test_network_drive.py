"""A network drive that remembers names which were absent, as NFS does: nobody is misled by that.

What the system calls of this process answer is changed as Linux' NFS client changes it: a name that was
found absent stays so until its folder is opened, or until the name is given to something. The other
computer writes past that. Seen on real NFS 4.2 with two clients.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder
from stemmata.errors import KeyExists, KeyMissing
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.storage.local import LocalStorage


class Client:
    """This computer's memory of absent names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.absent: set[str] = set()
        self.misled = 0
        """How often a name that is there was said to be absent."""
        self._away = False
        for name in ("open", "stat", "mkdir", "link"):
            monkeypatch.setattr(os, name, self._remembering(name, getattr(os, name)))

    @contextmanager
    def away(self) -> Iterator[None]:
        """What is done here is done on another computer."""
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def _remembering(self, call: str, real: Any) -> Any:
        def answer(path: Any, *given: Any, **named: Any) -> Any:
            if self._away or isinstance(path, int):
                return real(path, *given, **named)
            flags = given[0] if call == "open" else 0
            if call in ("mkdir", "link") or flags & os.O_CREAT:
                # To make a name the server is asked.
                self.absent.discard(os.fspath(given[0] if call == "link" else path))
                return real(path, *given, **named)
            name = os.fspath(path)
            if name in self.absent:
                self.misled += os.path.lexists(name)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            try:
                found = real(path, *given, **named)
            except FileNotFoundError:
                self.absent.add(name)
                raise
            if flags & os.O_DIRECTORY:
                self.absent = {each for each in self.absent if os.path.dirname(each) != name}
            return found

        return answer


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(monkeypatch)


def test_a_key_that_another_computer_wrote_meanwhile_is_found(tmp_path: Path, client: Client) -> None:
    here = LocalStorage(tmp_path / "r")
    with client.away():
        here.put_new("packs/aa/none", b"")
    for look in (here.get, here.size):
        with pytest.raises(KeyMissing):
            look("packs/aa/one")
    with client.away():
        LocalStorage(tmp_path / "r").put_new("packs/aa/one", b"theirs")
    assert here.get("packs/aa/one") == b"theirs"
    assert client.misled, "the drive did not remember: this test shows nothing"
    with pytest.raises(KeyMissing):
        here.size("packs/aa/two")
    with client.away():
        LocalStorage(tmp_path / "r").put_new("packs/aa/two", b"theirs")
    assert here.size("packs/aa/two") == 6
    with pytest.raises(KeyExists):
        here.put_new("packs/aa/two", b"mine")


def test_writers_on_two_computers_see_no_hole_where_the_other_wrote(tmp_path: Path, client: Client) -> None:
    open_repository(tmp_path / "r", create=True).close()
    computers = []
    for name in ("here", "there"):
        storage = LocalStorage(tmp_path / "r")
        storage.cache_folder = tmp_path / f"cache of {name}"  # one catalog for both would hide what is shown
        computers.append(Repository(storage))
    here, there = computers
    source = model_folder(tmp_path / "out")

    def save(repo: Repository, name: str) -> None:
        (source / "name").write_text(name)
        repo.save(source, "m", name=name, provenance={})

    for turn in range(3):
        save(here, f"here-{turn}")  # and looks for the entry after it
        with client.away():
            for more in range(2):
                save(there, f"there-{turn}-{more}")
    assert len(here.versions("m")) == 9
    assert client.misled, "the drive did not remember: this test shows nothing"
    assert here.check().sound


def test_a_link_that_was_made_counts_though_the_drive_remembers_the_count_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = LocalStorage(tmp_path / "r")
    here.require_writable()
    link, lstat = os.link, Path.lstat

    def lossy(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)  # the repetition of a client that saw no answer

    def remembered(path: Path) -> os.stat_result:
        found = list(lstat(path))
        found[3] = 1
        return os.stat_result(found)

    monkeypatch.setattr(os, "link", lossy)
    monkeypatch.setattr(Path, "lstat", remembered)
    here.put_new("a", b"1")
    assert here.get("a") == b"1"
