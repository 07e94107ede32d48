"""Trainings by a Trainer, made again: the cause of what differs, stopped early, repeated with a change."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from huggingface_hub import HfApi

import tiny_models as tiny
from projects import Project
from stemmata.attach import again
from stemmata.attach.settings import read_report
from stemmata.hf import VersionCallback
from stemmata.hf.datastore import _write as with_rows
from stemmata.repository import open as open_repository

TESTS = str(Path(__file__).parents[1])
HELPER = """
import json
import tiny_models as tiny

def trainer(out, callbacks, **more):
    # What the run reads beside its code, and no capture holds: rows.dat has the seed and the rows.
    said = json.loads(open("rows.dat").read())
    made = tiny.trainer(tiny.gpt2(), out, callbacks, seed=said["seed"], **more)
    columns = {name: said["rows"] for name in ("input_ids", "labels")}
    made.train_dataset = type(made.train_dataset).from_dict(columns)
    return made
"""
TRAIN = """
import os
from helper import trainer
from stemmata.hf import VersionCallback

out = os.path.abspath("out")  # a place that it makes whole itself
made = trainer(out, [VersionCallback("models", "m", run_name="r")], logging_strategy="steps", logging_steps=1)
made.train()
made.save_model({saved!r})
"""
ATTACHED = """
from helper import trainer
trainer("out", []).train()
"""
ROWS = [[k, k + 1, k + 2, k + 3, 4, 5, 6, 7] for k in range(8, 16)]


def rows(seed: int = 7, **changed: int) -> str:
    """The run's data as text; `changed` puts another value first in the row of that number."""
    kept = [list(row) for row in ROWS]
    for place, value in changed.items():
        kept[int(place[1:])][0] = value
    return json.dumps({"seed": seed, "rows": kept})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A dirty tree with a helper that was never committed. Trained once, with a callback of its own."""
    made = Project(tmp_path_factory.mktemp("again") / "project")
    (made.folder / ".gitignore").write_text("out\nmodels\nrows.dat\n__pycache__\nsaved\n")
    made.git("init", "-q", "-b", "main")
    made.write(train__py=TRAIN.format(saved=str(made.folder / "saved")), rows__dat=rows())
    made.commit("begin", "train.py", ".gitignore")
    made.write(helper__py=HELPER)
    with pytest.MonkeyPatch.context() as patched:
        _within(patched)
        made.run("train.py", PYTHONPATH=os.environ["PYTHONPATH"])
    (made.folder / "helper.py").unlink()
    return made


def _within(patched: pytest.MonkeyPatch) -> None:
    """The helpers of these tests within reach, also of what is run again."""
    before = os.environ.get("PYTHONPATH", "")
    patched.setenv("PYTHONPATH", os.pathsep.join(p for p in (TESTS, before) if p))
    patched.setenv("PYTHONDONTWRITEBYTECODE", "1")
    patched.setenv("HF_HUB_OFFLINE", "1")
    patched.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def within(monkeypatch: pytest.MonkeyPatch) -> None:
    _within(monkeypatch)


def causes(made: Any) -> list[str]:
    return [cause.kind for cause in made.verdict.causes]


@pytest.mark.slow
def test_another_row_is_named_and_nothing_written_where_the_first_run_wrote(project: Project) -> None:
    """That the same bits come out is in tests/docs, of the quickstart."""
    saved = project.folder / "saved/model.safetensors"
    before = saved.stat().st_mtime_ns
    project.write(rows__dat=rows(_3=99))
    made = project.reproduce("m@r/epoch-1", steps=2)
    assert made.verdict.kind == "diverged"
    assert made.verdict.steps == 2
    assert "data" in causes(made)[0]
    assert made.verdict.again is not None
    assert made.verdict.again.step == 2
    assert saved.stat().st_mtime_ns == before
    moved = f"what it writes to {saved.parent} went to "
    assert any(note.startswith(moved) for note in made.notes)
    with project.open() as repo:
        assert {v.run.name for v in repo.versions("m") if v.run is not None} == {"r"}


@pytest.mark.slow
def test_a_repetition_with_another_rate_is_a_run_of_its_own(project: Project) -> None:
    project.write(rows__dat=rows())
    with project.open() as repo:
        source = repo["m@r/final"]
        made = repo.repeat(source, {"learning_rate": "1e-3"})
        assert made.changed == "learning_rate=0.001"
        names = [v.name for v in made.versions]
        assert names == ["r-2/epoch-1", "r-2/epoch-2"]
        fork = made.versions[-1]
        assert fork.labels["repeats"] == source.short
        assert (source.config["learning_rate"], fork.config["learning_rate"]) == (1e-2, 1e-3)
        assert not [note for note in made.notes if "was not changed" in note]


def test_stored_rows_are_what_a_trainer_gets(tmp_path: Path) -> None:
    stored = Dataset.from_dict({"x": [1, 2]})
    with_rows(stored, tmp_path / "train.arrow")
    told = again.Again(
        str(tmp_path / "report"),
        str(tmp_path),
        [],
        [],
        0.0,
        None,
        {},
        {"train": str(tmp_path / "train.arrow")},
    )
    given = {"train_dataset": Dataset.from_dict({"x": [1, 3]}), "eval_dataset": {"a": 1}, "args": None}
    found = again._with_rows(given, told)
    assert found["train_dataset"].to_dict() == {"x": [1, 2]}
    assert (found["eval_dataset"], found["args"]) == ({"a": 1}, None)
    assert again._with_rows({"train_dataset": None}, told) == {"train_dataset": None}


def test_nothing_is_sent_to_a_hub(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.touch()
    told = again.Again(str(report), str(tmp_path), [], [], 0.0, None, {}, {})

    class Client(HfApi):
        """One of its own: that of these tests stays as it is."""

    module: Any = ModuleType("hf_api")
    module.HfApi, module.upload_file = Client, Client().upload_file
    again._hub(module, told)
    ways = (
        lambda: Client().create_repo("ada/tiny"),
        lambda: Client().upload_folder(repo_id="ada/tiny", folder_path=tmp_path),
        lambda: module.upload_file(path_or_fileobj=b"", path_in_repo="a", repo_id="ada/tiny"),
    )
    for way in ways:
        with pytest.raises(PermissionError, match="sends nothing to a hub"):
            way()
    assert Client.list_models is HfApi.list_models
    arguments = SimpleNamespace(push_to_hub=True, output_dir=str(tmp_path / "out"))
    again._change(arguments, told)
    assert not arguments.push_to_hub
    unsent = [text for kind, text in read_report(report) if kind == "unsent"]
    assert unsent == [f"huggingface_hub's {n}" for n in ("create_repo", "upload_folder", "upload_file")] + [
        "push_to_hub"
    ]


def test_rows_that_were_stored_are_planned_unless_the_process_trained_more_than_once(tmp_path: Path) -> None:
    repo = open_repository(tmp_path / "models", create=True)
    for name in ("a", "b"):
        callback = VersionCallback(repo, "m", run_name=name, data="store")
        tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=1).train()
        plan = repo.plan_reproduction("m@latest")
        assert plan.attached is None
        if name == "a":
            rows_then = Dataset.from_file(plan.rows["train"]).to_dict()
            assert rows_then == tiny.dataset().to_dict()
    assert not plan.rows
    assert next(m.why for m in plan.missing if m.what == "stored rows").startswith(
        "the process trained 2 times"
    )


@pytest.mark.slow
def test_another_seed_is_named_of_a_run_that_stemmata_run_began(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.write(train__py=ATTACHED, helper__py=HELPER, rows__dat=rows())
    command = ["-m", "stemmata", "-R", "models", "run", "m", "--every", "1", "--run-name", "r", "--"]
    project.run(*command, sys.executable, "train.py", PYTHONPATH=os.environ["PYTHONPATH"])
    project.write(rows__dat=rows(seed=8))
    with open_repository(project.repository) as repo:
        captured = repo["m@r/step-3"].captured()
        assert captured.command is not None
        assert captured.command.attached is not None
        assert captured.command.attached.every == 1
        made = repo.reproduce("m@r/step-3", steps=3)
        assert len({v.run for v in repo.versions("m")}) == 1
    assert made.verdict.again is not None
    assert (made.verdict.again.name, made.verdict.again.step) == ("r/step-3", 3)
    assert made.verdict.kind == "diverged"
    assert "seed" in causes(made)[0]
