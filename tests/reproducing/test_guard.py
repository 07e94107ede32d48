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
    "text": lambda text: subprocess.run(["bash", "-c", text], check=True),
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
            "steps": [(way, path if way == "text" else str(self.root / path)) for way, path in steps],
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
        ("cd /x && rm -rf y; (cd z; rm a); rm b", ["/x/y", "/x/z/a", "/x/b"]),
        ("if [ -d /a ]; then rm -rf /a; else ! rm /b; fi", ["/a", "/b"]),
        ('for d in /a /b; do rm -r $d/x "${d}"; done', ["/a/x", "/b/x", "/a", "/b"]),
        ("for d in /a /b\ndo\n  rm $d\ndone", ["/a", "/b"]),
        ("OUT=/a; export ALL=$OUT/b; rm $ALL; OUT=/c true", ["/a/b"]),
        ("{ rm /a; } && f() { rm /b; }", ["/a", "/b"]),
        ("find /a /b -type f -delete; find -name x -exec rm {} \\;", ["/a", "/b", "."]),
        ("find /a | xargs -n 1 rm -f; echo /b | xargs rm; cat /c | xargs rm", ["/a", "/b"]),
        ("xargs rm -rf <<< /a", ["/a"]),
        ("sudo -u ada nice -n 10 timeout 5 rm /a", ["/a"]),
        ("eval 'rm /a'; rm /b/{c,d} # rm /e\nrm /f", ["/a", "/b/c", "/b/d", "/f"]),
        ("python -c 'print(1)\nprint(2)'; rm /a \\\n /b", ["/a", "/b"]),
        ("cat <<EOF >/a\nrm /b\nEOF\nrm /c; bash -s <<'X'\nrm /d\nX", ["/a", "/c", "/d"]),
        ("echo $(rm /a) 2>/dev/null &>/b", ["/a", "/dev/null", "/b"]),
        (["bash", "-c", "rm /a"], ["/a"]),
        (["bash", "-lc", "rm /a"], ["/a"]),
        (["env", "A=1", "bash", "-e", "-c", "rm /a"], ["/a"]),
        (["find", "/a", "-delete"], ["/a"]),
        (["find", "/a", "-name", "x"], []),
        (["rm", "/*"], ["/*"]),
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


def test_a_pattern_stands_for_what_is_there(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin", "c.txt"):
        (tmp_path / name).write_text("")
    whole = [str(tmp_path / name) for name in ("a.bin", "b.bin")]
    assert sorted(programs.changed("rm *.bin", str(tmp_path))) == whole
    assert sorted(programs.changed(f"cd {tmp_path}; for f in ?.bin; do rm $f; done")) == whole
    assert list(programs.changed("rm *.gone", str(tmp_path))) == [str(tmp_path / "*.gone")]


SHELLS = (
    "cd {first} && rm -rf deep",
    "if [ -d {first}/deep ]; then rm -rf {first}/deep; fi",
    "for d in {first}/deep; do rm -rf $d; done",
    "bash -lc 'rm -rf {first}/deep'",
    "{{ rm -rf {first}/deep; }}",
    "! rm -rf {first}/deep",
    "echo {first}/deep | xargs rm -rf",
    "find {first} -type f -delete",
    "rm -rf {theirs}/*",
    "cd {theirs}; rm -f deep/?",
)


def test_however_a_shell_is_told_to_remove_it_what_was_there_stays(tmp_path: Path) -> None:
    places = Places(tmp_path)
    before = [places.state(name) for name in ("first", "theirs")]
    texts = [text.format(first=tmp_path / "first", theirs=tmp_path / "theirs") for text in SHELLS]
    assert places.run(*[("text", text) for text in texts]) == ["refused"] * len(texts)
    assert [places.state(name) for name in ("first", "theirs")] == before
    free = (
        f"cd {tmp_path}/work && rm -rf deep && for f in a b; do rm $f; done; ls {tmp_path}/first/* >/dev/null"
    )
    assert places.run(("text", free)) == ["done"]
    assert not (tmp_path / "work" / "deep").exists()


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
