"""What may have been an input is copied, or it is said that it is not."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

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


def test_what_the_code_names_outside_of_its_folders_is_told(project: Project, tmp_path: Path) -> None:
    inner = Project(project.folder / "scripts")
    written(project.folder / "data/rows.json", '{"scale": 2}')
    script = TRAIN.replace("exp/config.json", "../data/rows.json").replace('"models"', '"../models"')
    inner.write(train__py=script.replace("import json", "import json; '../data/gone'"))
    (inner.folder / "exp").mkdir()
    inner.run("train.py")
    plan = plan_of(project)
    told = {m.what: m.why for m in plan.missing if str(tmp_path) in m.what}
    assert list(told) == [f"file {project.folder}/data/rows.json"]
    assert "outside of the run's folders nothing is restored" in next(iter(told.values()))


BASE = """
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import stemmata

if "--make" in sys.argv:
    Path("base").mkdir(exist_ok=True)
    save_file({"w": np.ones((4, 4), "float32")}, "base/model.safetensors")
weights = load_file("base/model.safetensors")["w"]
Path("out").mkdir(exist_ok=True)
save_file({"w": weights * 2}, "out/adapter_model.safetensors")
Path("out/adapter_config.json").write_text('{"base_model_name_or_path": "base", "peft_type": "LORA", "r": 8}')
stemmata.open("models", create=True).save("out", "plain", name="one")
"""


def test_a_base_that_was_copied_since_is_none_that_the_run_made(project: Project) -> None:
    written(project.folder / "base/config.json")
    save_file({"w": np.full((4, 4), 3, "float32")}, project.folder / "base/model.safetensors")
    project.write(train__py=BASE)
    time.sleep(0.05)
    project.run("train.py")
    shutil.move(project.folder / "base", project.folder / "kept")
    for path in (project.folder / "kept").iterdir():
        written(project.folder / "base" / path.name)
        shutil.copyfile(path, project.folder / "base" / path.name)
    made = project.reproduce()
    assert (made.plan.base.how, made.verdict.kind) == ("copy", "bit-identical")


def test_a_base_that_a_later_run_made_anew_is_made_anew_again(project: Project) -> None:
    project.write(train__py=BASE)
    project.run("train.py", "--make")
    assert plan_of(project).base.how == "made"
    (project.folder / "train.py").write_text(BASE.replace('"one"', '"two"'))
    project.run("train.py", "--make")
    (project.folder / "train.py").write_text(BASE)
    made = project.reproduce()
    assert (made.plan.base.how, made.verdict.kind) == ("copy", "bit-identical")
