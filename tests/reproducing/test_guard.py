"""What a command that is run again changes: nothing of the first run, and nothing that was there before."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from projects import SOURCE
from stemmata.attach import programs

RUN = """
import json, os, shutil, subprocess, sys
from stemmata.attach.guard import Guard

told = json.loads(sys.argv[1])
Guard(told["guarded"], told["free"], told["since"], told["report"]).install()
import sqlite3

def database(path):
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("select * from t").fetchall() == []
        connection.execute("insert into t values (1)")
        connection.commit()
    finally:
        connection.close()

def new_database(path):
    connection = sqlite3.connect(path)
    connection.execute("create table t (a)")
    connection.close()

def below(path):
    folder, name = os.path.split(path)
    at = os.open(folder, os.O_RDONLY)
    try:
        os.unlink(name, dir_fd=at)
    finally:
        os.close(at)

def again(path):
    open(path, "w").close()
    open(path, "a").close()
    os.chmod(path, 0o600)
    os.remove(path)

ways = {
    "write": lambda p: open(p, "w"), "append": lambda p: open(p, "ab"), "read": lambda p: open(p).read(),
    "os.open": lambda p: os.open(p, os.O_RDWR), "truncate": lambda p: os.truncate(p, 0),
    "remove": os.remove, "below": below, "rmtree": shutil.rmtree, "rmdir": os.rmdir,
    "chmod": lambda p: os.chmod(p, 0o777), "utime": lambda p: os.utime(p, (1, 1)),
    "from": lambda p: os.rename(p, p + ".moved"), "onto": lambda p: os.replace(told["other"], p),
    "link": lambda p: os.link(p, told["other"] + ".link"),
    "points": lambda p: os.symlink(p, told["other"] + ".at"),
    "symlink": lambda p: os.symlink("x", p), "makedirs": lambda p: os.makedirs(p, exist_ok=True),
    "rm": lambda p: subprocess.run(["rm", "-rf", p], check=True),
    "system": lambda p: os.system(f"ls; rm -rf {p}"),
    "shell": lambda p: subprocess.run(f"cd / && echo 1 >> '{p}'", shell=True, check=True),
    "cp": lambda p: subprocess.run(["cp", told["other"], p], check=True),
    "cp from": lambda p: subprocess.run(["cp", p, told["other"]], check=True),
    "folder": lambda p: subprocess.run(["rm", os.path.basename(p)], cwd=os.path.dirname(p), check=True),
    "again": again, "database": database, "new database": new_database,
}
came = []
for way, path in told["steps"]:
    try:
        ways[way](path)
    except (PermissionError, sqlite3.OperationalError):
        came.append("refused")
    except OSError as error:
        came.append(type(error).__name__)
    else:
        came.append("done")
print(json.dumps(came))
"""


class Places:
    """Folders of a first run, of somebody else, and to work in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("first", "theirs", "work", "first/work", "cache"):
            (root / name / "deep").mkdir(parents=True)
            for file in ("a", "b", "deep/c"):
                (root / name / file).write_text("old\n")
            (root / name / "link").symlink_to(root / "work" / "a")

    def run(self, *steps: tuple[str, str], **variables: str) -> list[str]:
        told: dict[str, Any] = {
            "guarded": [str(self.root / "first")],
            "free": [str(self.root / name) for name in ("work", "first/work", "cache")],
            "since": time.time() + 3600,
            "report": str(self.root / "work" / "report"),
            "other": str(self.root / "work" / "b"),
            "steps": [(way, str(self.root / path)) for way, path in steps],
        }
        environment = {**os.environ, "PYTHONPATH": SOURCE, **variables}
        command = [sys.executable, "-c", RUN, json.dumps(told)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found: list[str] = json.loads(done.stdout)
        return found

    def state(self, name: str) -> dict[str, tuple[int, int, str]]:
        found = {}
        for path in (self.root / name).rglob("*"):
            if not path.is_relative_to(self.root / "first" / "work"):
                about = path.lstat()
                text = path.read_text() if path.is_file() and not path.is_symlink() else ""
                found[str(path)] = (about.st_mode, about.st_mtime_ns, text)
        return found


CHANGES = (
    "write append os.open truncate remove below chmod utime from onto link".split()  # noqa: SIM905
)


@pytest.mark.parametrize(
    ("command", "paths"),
    [
        ("rm -rf /a '/b c' && ls /d", ["/a", "/b c"]),
        ("cat /a | tee /b >/c 2>&1; cp -r /d /e", ["/c", "/b", "/e"]),
        ("cd /x\nFOO=1 sudo rm /a", ["/a"]),
        (["bash", "-c", "rm /a"], ["/a"]),
        ([b"/bin/mv", b"/a", b"/b"], ["/a", "/b"]),
        (["python", "rm", "/a"], []),
        (["cp", "/a"], []),
        ("rm 'unfinished", []),
        ("", []),
        ([], []),
        (None, []),
    ],
)
def test_what_programs_for_files_would_change(command: Any, paths: list[str]) -> None:
    assert list(programs.changed(command)) == paths


@pytest.mark.parametrize("place", ["first", "theirs"])
def test_what_was_there_stays_as_it_is(tmp_path: Path, place: str) -> None:
    places = Places(tmp_path)
    before = places.state(place)
    steps = [(way, f"{place}/a") for way in CHANGES]
    steps += [(way, f"{place}/a") for way in ("rm", "system", "shell", "cp", "folder")]
    # An entry may be a link that leads to where writing is free.
    steps += [("remove", f"{place}/link"), ("from", f"{place}/link"), ("onto", f"{place}/link")]
    steps += [("rmtree", f"{place}/deep"), ("rmdir", f"{place}/deep")]
    assert places.run(*steps) == ["refused"] * len(steps)
    assert places.state(place) == before
    assert (
        places.run(("read", f"{place}/a"), ("makedirs", f"{place}/deep"), ("points", f"{place}/a"))
        == ["done"] * 3
    )


def test_what_is_new_may_be_made_but_where_the_first_run_was(tmp_path: Path) -> None:
    places = Places(tmp_path)
    steps = [
        ("again", "{}/new"),
        ("symlink", "{}/new"),
        ("makedirs", "{}/x/y"),
        ("new database", "{}/new.db"),
    ]
    for place, came in (("theirs", "done"), ("work", "done"), ("first/work", "done"), ("first", "refused")):
        assert places.run(*[(way, path.format(place)) for way, path in steps]) == [came] * 4, place


def test_what_lies_in_a_cache_or_the_work_folder_is_written_over(tmp_path: Path) -> None:
    places = Places(tmp_path)
    ways = ["write", "chmod", "from"]
    for place in ("work", "cache", "first/work"):
        assert places.run(*[(way, f"{place}/a") for way in ways]) == ["done"] * 3
        assert places.run(("rmtree", f"{place}/deep")) == ["done"]


def test_the_innermost_folder_decides_and_temporary_files_are_no_exception(tmp_path: Path) -> None:
    places = Places(tmp_path)
    (tmp_path / "torchinductor_ada").mkdir()
    (tmp_path / "torchinductor_ada" / "lock").write_text("")
    steps = [("write", "first/a"), ("write", "theirs/a"), ("write", "torchinductor_ada/lock")]
    assert places.run(*steps, TMPDIR=str(tmp_path)) == ["refused", "refused", "done"]


def test_a_database_is_read_and_not_written(tmp_path: Path) -> None:
    places = Places(tmp_path)
    for name in ("first", "theirs"):
        connection = sqlite3.connect(tmp_path / name / "t.db")
        connection.execute("create table t (a)")
        connection.close()
    before = [(tmp_path / name / "t.db").read_bytes() for name in ("first", "theirs")]
    assert places.run(("database", "first/t.db"), ("database", "theirs/t.db")) == ["refused"] * 2
    assert [(tmp_path / name / "t.db").read_bytes() for name in ("first", "theirs")] == before
