"""What may have been an input is copied, or it is said that it is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from projects import Project
from stemmata.reproducing.planning import Plan

TRAIN = """
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import stemmata

scale = json.loads(Path("exp/config.json").read_text())["scale"]
save_file({"w": np.full((4, 4), scale, "float32")}, "exp/model.safetensors")
Path("exp/log.json").write_text("{}")
stemmata.open("models", create=True).save("exp/model.safetensors", "plain", name="one")
"""


def plan_of(project: Project) -> Plan:
    with project.open() as repository:
        return repository.plan_reproduction("plain@one")


def written(path: Path, text: str = "{}", *, older: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if older:
        os.utime(path, (time.time() - older,) * 2)


def test_what_lay_where_the_run_writes_weights_is_an_input(project: Project) -> None:
    written(project.folder / "exp/config.json", '{"scale": 3}')
    written(project.folder / "exp/sub/rows.csv", "1")
    for name in ("old/model.safetensors", "old/config.json", "events.out.tfevents.1"):
        written(project.folder / "exp" / name, older=3600)
    project.write(train__py=TRAIN)
    time.sleep(0.05)
    project.run("train.py")
    made = project.reproduce()
    assert made.verdict.kind == "bit-identical"
    copied = {str(each.there.relative_to(project.folder)) for each in made.plan.beside}
    assert copied == {"exp/config.json", "exp/sub/rows.csv", "exp/old/config.json"}
    told = {m.what: m.why for m in made.plan.missing}
    assert told[f"folder {project.folder}/exp/old"].startswith("weights in it are older than the run")
    assert f"folder {project.folder}/exp" not in told


def test_files_beside_a_script_in_a_home_are_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    written(project.folder / "exp/config.json", '{"scale": 3}')
    project.write(train__py=TRAIN)
    project.run("train.py")
    what = f"files in {project.folder}"
    assert what not in {m.what for m in plan_of(project).missing}
    monkeypatch.setenv("HOME", str(project.folder))
    plan = plan_of(project)
    assert not plan.beside
    assert "nothing of it is copied unasked" in next(m.why for m in plan.missing if m.what == what)
    assert project.reproduce(link=["exp/config.json"]).verdict.kind == "bit-identical"
