"""What the plan says can be cloned is cloned: of a shallow clone too, and from any folder of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from projects import TRAIN, Project


@pytest.fixture
def shallow(project: Project, tmp_path: Path) -> Project:
    """A run in a shallow clone of a project."""
    project.git("init", "-q", "-b", "main")
    project.write(train__py=TRAIN, helper__py="SCALE = 1.0\n", data__csv="1\n")
    (project.folder / ".gitignore").write_text("out\nmodels\n__pycache__\n")
    for number in range(3):
        (project.folder / "notes.txt").write_text(f"{number}\n")
        project.commit()
    clone = tmp_path / "clone"
    project.git("clone", "-q", "--depth", "2", f"file://{project.folder}", str(clone))
    found = Project(clone)
    found.run("train.py")
    return found


def test_a_run_in_a_shallow_clone(shallow: Project, tmp_path: Path) -> None:
    made = shallow.reproduce(work=tmp_path / "work")
    assert made.verdict.kind == "bit-identical"
    code = tmp_path / "work" / "code"
    assert shallow.git("rev-parse", "HEAD", at=code) == shallow.git("rev-parse", "HEAD")
    assert shallow.git("status", "--porcelain", at=code) == ""
    assert shallow.git("config", "remote.origin.url", at=code) == f"file://{tmp_path / 'project'}"


def test_a_commit_that_a_shallow_clone_has_left_behind(
    shallow: Project, project: Project, tmp_path: Path
) -> None:
    commit = shallow.git("rev-parse", "HEAD")
    project.write(train__py=TRAIN.replace("(3)", "(4)"))
    project.commit()
    shallow.git("fetch", "-q", "--depth", "1")
    shallow.git("reset", "-q", "--hard", "origin/main")
    made = shallow.reproduce(work=tmp_path / "work")
    assert made.verdict.kind == "bit-identical"
    assert shallow.git("log", "--format=%H", at=tmp_path / "work" / "code") == commit


def test_a_clone_is_named_by_any_folder_of_it(project: Project, tmp_path: Path) -> None:
    project.git("init", "-q", "-b", "main")
    project.write(train__py=TRAIN, helper__py="SCALE = 1.0\n", data__csv="1\n")
    (project.folder / "sub").mkdir()
    (project.folder / "sub" / "a.txt").write_text("1\n")
    (project.folder / ".gitignore").write_text("out\nmodels\n__pycache__\n")
    project.commit()
    project.run("train.py")
    moved, bare = tmp_path / "moved", tmp_path / "bare"
    project.git("clone", "-q", str(project.folder), str(moved))
    project.git("clone", "-q", "--bare", str(project.folder), str(bare))
    shutil.rmtree(project.folder / ".git")
    for name in ("train.py", "helper.py", "data.csv"):
        (project.folder / name).unlink()
    for code in (moved / "sub", bare):
        made = project.reproduce(code=code)
        assert made.verdict.kind == "bit-identical"
