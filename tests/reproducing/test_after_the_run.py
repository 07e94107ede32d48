"""What came of days of running is not thrown away by what others did to the repository meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder
from projects import TRAIN, Project
from stemmata.errors import CommitContention
from stemmata.reproducing import counterparts, storing
from stemmata.reproducing.problems import ReproductionFailed

TWO = TRAIN.replace(
    "    repo.save(",
    """    with repo.run("plain", "r") as run:
        run.save(out, epoch=1)
        run.save(out, epoch=2)
    repo.save(""",
)


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
