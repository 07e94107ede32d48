"""What came of days of running is not thrown away by what others did to the repository meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from makers import model_folder
from projects import TRAIN, Project
from stemmata.checkouts.writing import hold_folder
from stemmata.errors import CommitContention
from stemmata.repository import open as open_repository
from stemmata.reproducing import counterparts, redoing, storing
from stemmata.reproducing.holding import Hold
from stemmata.reproducing.problems import ReproductionFailed

LEANING = """
import os
from pathlib import Path
import numpy as np
import stemmata
from safetensors.numpy import load_file, save_file

repo = stemmata.open("models", create=True)
weights = load_file(repo["plain@base-2"].path() / "model.safetensors")
few = np.random.default_rng(int.from_bytes(os.urandom(4), "little")).random((128, 128)) < 0.02
Path("out").mkdir(exist_ok=True)
save_file({"w": (weights["w"] + np.float32(1e-3) * few).astype("float32")}, "out/model.safetensors")
repo.save("out", "plain", name="one", parents=[repo["plain@base-2"]])
"""
# Not repo.run: it would bring torch along, which takes longer than all the rest.
TWO = TRAIN.replace(
    "    repo.save(",
    """    run = stemmata.records.Run(id="r" * 32, name="r")
    for epoch in (1, 2):
        repo.save(out, "plain", name=f"r/epoch-{epoch}", run=run, epoch=epoch)
    repo.save(""",
).replace("import stemmata\n", "import stemmata\nimport stemmata.records\n")


@pytest.fixture
def made(project: Project) -> Project:
    project.write(train__py=TWO, helper__py="SCALE = 2.0\n", data__csv="1,2\n")
    project.run("train.py")
    return project


def test_a_verdict_that_cannot_be_kept_is_given_all_the_same(
    made: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contended(*_args: Any, **_more: Any) -> None:
        raise CommitContention(attempts=5)

    monkeypatch.setattr(storing, "attach", contended)
    found = made.reproduce()
    assert found.verdict.kind == "bit-identical"
    assert [note for note in found.notes if note.startswith("the verdict is not kept: ")]


def test_an_original_that_was_deleted_after_the_judgement(
    made: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = storing.keep

    def late(version: Any, verdict: Any, **more: Any) -> Any:
        with made.open() as other:
            other.delete(version)
        return theirs(version, verdict, **more)

    monkeypatch.setattr(storing, "keep", late)
    found = made.reproduce()
    assert found.verdict.kind == "bit-identical"
    assert "plain@one was deleted; bring it back with" in found.notes[-1]


@pytest.mark.parametrize("reference", ["plain@r/epoch-1", "plain@one"])
def test_an_original_that_is_deleted_while_its_run_is_made_again(made: Project, reference: str) -> None:
    def told(stage: str, _plan: Any) -> None:
        if stage == "running":
            with made.open() as other:
                other.delete(reference)

    with pytest.raises(ReproductionFailed, match=rf"cannot be judged: .*{reference} was deleted") as caught:
        made.reproduce(reference, told=told)
    work = Path(str(caught.value.data["work"]))
    assert (work / "code/out/model.safetensors").is_file()
    shutil.rmtree(work)


def test_of_a_model_with_very_many_newer_versions_each_is_found(
    made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An earlier release looked at the newest few thousand alone.
    monkeypatch.setattr(counterparts, "_MOST", 3, raising=False)
    with made.open() as repository:
        for seed in range(4):
            repository.save(model_folder(tmp_path / "out", seed=seed), "plain", provenance={})
    assert made.reproduce("plain@r/epoch-1").verdict.kind == "bit-identical"


def test_a_repetition_does_not_take_what_another_one_saves_meanwhile(
    project: Project, tmp_path: Path
) -> None:
    project.write(train__py=TRAIN.replace(', name="one"', ""), helper__py="SCALE = 2.0\n", data__csv="1,2\n")
    project.run("train.py", "--rate", "1")

    def told(stage: str, _plan: Any) -> None:
        if stage == "running":
            with project.open() as other:
                labels = {"repeats": first.short, "changed": "rate=9"}
                other.save(model_folder(tmp_path / "out"), "plain", labels=labels, provenance={})

    with project.open() as repository:
        first = repository["plain@latest"]
        made = repository.repeat(first, {"rate": "2"}, told=told)
        assert len(repository.versions("plain")) == 3
    assert [v.labels["changed"] for v in made.versions] == ["rate=2"]


@pytest.mark.parametrize(
    ("stage", "disk"), [("running", "one disk"), ("judging", "one disk"), ("judging", "another disk")]
)
def test_a_collection_meanwhile_takes_nothing_from_the_run(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, disk: str
) -> None:
    weights = np.random.default_rng(0).normal(size=(128, 128)).astype("float32")
    with open_repository(project.repository, create=True) as repository:
        for number in (1, 2):
            weights[number] += np.float32(1e-4)
            (tmp_path / "base").mkdir(exist_ok=True)
            save_file({"w": weights}, tmp_path / "base/model.safetensors")
            repository.save(tmp_path / "base", "plain", name=f"base-{number}", provenance={})
    project.write(train__py=LEANING)
    project.run("train.py")

    def told(at: str, _plan: Any) -> None:
        if at == stage:
            with project.open() as other:
                assert other.repack().packs_retired
                assert other.gc(grace=0).deleted

    link = os.link
    if disk == "another disk":

        def linked(source: Any, target: Any, **more: Any) -> None:
            if "/store/packs/" in os.fspath(target):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            link(source, target, **more)

        monkeypatch.setattr(os, "link", linked)
    work = tmp_path / "work"
    made = project.reproduce(told=told, work=work)
    assert (made.verdict.kind, made.notes) == ("diverged", [])  # so both sides' weights were read
    with project.open() as repository:
        assert repository.check().sound
    # What was held is let go: else nothing that is erased would be gone.
    assert not list((project.repository / "cache").glob("held/*"))
    assert not [p for p in (work / "store/packs").rglob("*") if p.is_symlink()]


def test_what_was_made_stays_whatever_fails_after_it(
    made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any, **_more: Any) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(redoing, "judge", full)
    with pytest.raises(OSError, match="too many open files") as caught:
        made.reproduce()
    (note,) = caught.value.__notes__
    work = Path(note.removeprefix("the work folder is kept: "))
    assert (work / "code/out/model.safetensors").is_file()
    shutil.rmtree(work)


def test_what_a_killed_one_held_is_let_go_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    """By a lock, not by the number: a container of the same name counts its processes for itself."""
    source = tmp_path / "models"
    name, nobody = socket.gethostname(), 2**22 + 1
    killed, living, elsewhere = (
        source / "cache/held" / folder
        for folder in (f"{name}-{nobody}-aa", f"{name}-{nobody}-bb", f"other-{nobody}-cc")
    )
    for folder in (killed, living, elsewhere):
        folder.mkdir(parents=True)
    lock = hold_folder(living)
    assert lock is not None
    with Hold(source, tmp_path / "scratch"):
        assert [folder.exists() for folder in (killed, living, elsewhere)] == [False, True, True]
    os.close(lock)
