"""The benchmarks' own ground: what is told of a history is true, and what does not hold is told."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import keeping
import measuring
import scale
import simulated
from corpus import history
from doc_blocks import ROOT
from manifests import Entry, Line, Shelf
from walking import AGAIN, OUT, Walked, chosen, walk


def _line(name: str, *versions: str, fails: bool = False) -> Line:
    def train(shelf: Shelf) -> None:
        parents: tuple[str, ...] = ()
        for version in versions:
            text = f"{version} of {name}, " * 2000
            shelf.put(version, parents, "model", "text", lambda home, t=text: (home / "w").write_text(t))
            parents = (version,)
        if fails:
            raise KeyboardInterrupt

    return name, train


@pytest.fixture
def made(tmp_path: Path) -> list[Entry]:
    Shelf(tmp_path / "corpus" / "H").make([_line("one", "base", "epoch-1", "epoch-2")])
    return history("H", tmp_path / "corpus")


def test_a_history_that_was_interrupted_is_made_whole_and_what_is_complete_stays(tmp_path: Path) -> None:
    home = tmp_path / "H"
    with pytest.raises(KeyboardInterrupt):
        Shelf(home).make([_line("one", "base"), _line("two", "a", "b", fails=True)])
    with pytest.raises(SystemExit, match=r"corpus\.py H"):
        history("H", tmp_path)
    (home / "base" / "w").write_text("a training that is complete is not made again")
    Shelf(home).make([_line("one", "base"), _line("two", "a", "b")])
    found = history("H", tmp_path)
    assert [entry.name for entry in found] == ["base", "a", "b"]
    assert [entry.parents for entry in found] == [(), (), ("a",)]
    assert (home / "base" / "w").read_text().startswith("a training")
    assert found[2].bytes == (home / "b" / "w").stat().st_size


def test_a_machine_is_told_by_what_it_says_of_itself() -> None:
    cpu = "vendor_id\t: Abacus\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: Abacus 7\ncpu MHz\t\t: 2445.4\n"
    assert measuring.processor(cpu) == "Abacus 7 (family 25, model 1)"
    assert measuring.processor("") == platform.machine()
    assert measuring.disk("/dev/vda1").startswith("a virtual block device (vda)")
    assert measuring.disk("tmpfs") == "unknown"


def test_a_part_of_a_history_stands_alone(made: list[Entry]) -> None:
    part = chosen(made, "epoch-*")
    assert [(e.name, e.parents) for e in part] == [
        ("epoch-1", ()),
        ("epoch-2", ("epoch-1",)),
        (AGAIN, ("epoch-2",)),
    ]
    with pytest.raises(SystemExit, match="no version fits"):
        chosen(made, "step-*")


class Forgetful:
    """A tool that brings one version back with another byte."""

    title = "forgetful"

    def prepare(self, home: Path) -> None:
        self._home = home

    def stage(self, entry: Entry) -> None: ...

    def save(self, entry: Entry) -> None:
        (self._home / entry.name).write_bytes((entry.folder / "w").read_bytes())

    def restore(self, entry: Entry) -> Path:
        saved = (self._home / entry.name).read_bytes()
        (self._home / OUT).mkdir()
        (self._home / OUT / "w").write_bytes(saved[:-1] + b"!" if entry.name == "epoch-1" else saved)
        return self._home / OUT

    def store_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._home.iterdir() if path.is_file())

    def peak(self) -> int:
        return 0


class Copied(Forgetful):
    """A tool that says what it is, and forgets all the same."""

    how = "`copied`"

    def install(self) -> None: ...

    def version(self) -> str:
        return "1"

    def start(self) -> str:
        return "copied --version"


def test_a_version_that_comes_back_with_other_bytes_is_told(made: list[Entry], tmp_path: Path) -> None:
    missed: list[str] = []
    walked = Walked.of("forgetful", [walk(Forgetful(), made, tmp_path / "work")], missed)
    assert missed == ["forgetful: epoch-1 came back with other bytes"]
    assert walked.total("kept") == walked.total("bytes") == sum(entry.bytes for entry in made[:-1])


def test_histories_are_walked_as_whole_processes_and_in_one(made: list[Entry], tmp_path: Path) -> None:
    options = ["--corpus", tmp_path / "corpus", "--work", tmp_path / "work", "--repeat", "1"]
    ran = subprocess.run(
        [sys.executable, ROOT / "bench" / "history.py", "H", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Every version came back byte for byte." in ran.stdout
    rows = [line.split(" | ") for line in ran.stdout.splitlines() if line.startswith("| epoch-2")]
    whole, within = rows
    assert float(whole[9]) > 10, "a process with Python in it has more than 10 MiB"
    assert len(within) == len(whole) - 2


def _benchmarks(work: Path, *options: str) -> str:
    ran = subprocess.run(
        [sys.executable, ROOT / "bench" / "benchmarks.py", "--work", work, "--histories", "H", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_benchmarks_go_on_where_they_stopped_and_write_a_page(tmp_path: Path) -> None:
    Shelf(tmp_path / "corpus" / "H").make([_line("one", "base", "epoch-1")])
    told = _benchmarks(tmp_path, "--only-tools", "cp", "--repeat", "2")
    assert "[2/2] H, cp -r, walk 2" in told
    page = tmp_path / "benchmarks" / "docs" / "benchmarks.md"
    assert "the median of 2 walks" in page.read_text(), "a page of less than all does not go to docs/"
    (tmp_path / "benchmarks" / "walks" / "H-cp-1.json").unlink()
    told = _benchmarks(tmp_path, "--only-tools", "cp", "--repeat", "2")
    assert "[1/1] H, cp -r, walk 1" in told
    page.unlink()
    assert "walk" not in _benchmarks(tmp_path, "--only-tools", "cp", "--page").replace("/walk", "")
    assert "the median of 2 walks" in page.read_text()


def test_a_walk_under_other_conditions_is_measured_again(made: list[Entry], tmp_path: Path) -> None:
    shelf, machine = keeping.Shelf(tmp_path / "walks"), {"processor": "abacus"}
    tool = Copied()
    now = keeping.conditions("copied", tool, "H", made, machine)
    walked = keeping.measure(tool, made, tmp_path / "work", 1)
    shelf.put(now, walked)
    assert shelf.get(now, 1) == walked
    assert (walked.method, walked.starting) == (keeping.METHOD, "copied --version")
    assert [version["parents"] for version in now.versions] == [[], ["base"], ["epoch-1"]]
    assert shelf.get(now, 2) is None
    for other in (
        {"version": "2"},
        {"machine": {"processor": "other"}},
        {"versions": []},
        {"sources": "changed"},
    ):
        assert shelf.get(replace(now, **other), 1) is None, other
    shelf.put(replace(now, version="2"), replace(walked, number=2, began="3020-01-01 00:00:00"))
    assert [(kept.version, w.number) for kept, w in shelf.newest(["H"], ["copied"])] == [("2", 2)]


def test_many_versions_are_asked_for_again_after_a_measurement_has_saved_into_them(tmp_path: Path) -> None:
    """The newest are then versions of no run, and there are entries that are no versions."""
    folder = tmp_path / "repository"
    simulated.build(folder, 100)
    for _ in range(4):
        scale.job_commit(folder)
    assert scale.TOP in scale.job_ask(folder)["answers"]
