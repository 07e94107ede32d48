"""A project whose runs are made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from projects import TRAIN, Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty one; stemmata itself is found by PYTHONPATH, as the tests have it."""
    monkeypatch.delenv("STEMMATA_REPO", raising=False)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return Project(tmp_path / "project")


@pytest.fixture
def dirty(project: Project) -> Project:
    """The run of a dirty work tree: `helper.py` was never committed, `other.py` was changed, `data.csv` is
    ignored."""
    project.git("init", "-q", "-b", "main", at=project.folder)
    project.write(train__py=TRAIN, other__py="x = 0\n", gone__py="y = 0\n")
    (project.folder / ".gitignore").write_text("out\nmodels\ndata.csv\n__pycache__\n")
    project.commit("begin")
    project.write(helper__py="SCALE = 2.0\n", other__py="x = 1\n", data__csv="1,2,3\n")
    (project.folder / "gone.py").unlink()
    project.run("train.py")
    return project


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder."""

    def read(folder: Path) -> dict[str, bytes]:
        found = [p for p in folder.rglob("*") if p.is_file()]
        return {str(p.relative_to(folder)): p.read_bytes() for p in found}

    return read
