"""Trainings whose folders have one name, and folders that saw several: a line for each."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from makers import model_folder
from stemmata.intake import Outcome, Watcher, import_folders
from stemmata.logrows import KIND, Kept
from stemmata.records import Run
from stemmata.repository import Repository


def statuses(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(o.found.name, o.status) for o in outcomes]


def lines(repo: Repository) -> dict[str, list[str]]:
    """The names of each run's versions, first to last; each is checked to follow the one before."""
    found: dict[str, list[str]] = {}
    for version in reversed(repo.versions("m")):
        assert version.run is not None
        before = found.setdefault(version.run.name, [])
        assert version.parents == ([repo[f"m@{before[-1]}"].id.hex] if before else [])
        before.append(version.name)
    assert len({v.run.id for v in repo.versions("m") if v.run}) == len(found)
    return found


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("every", [2, 100], ids=["logged", "not logged"])
def test_folders_of_one_name_are_runs_of_their_own(
    repo: Repository, tmp_path: Path, checkpoint: Any, together: bool, every: int
) -> None:
    one, two = tmp_path / "exp1" / "output", tmp_path / "exp2" / "output"
    for out, step, by in ((one, 4, 1.0), (one, 8, 1.0), (two, 6, 3.0), (two, 8, 3.0)):
        checkpoint(out, step, by=by, every=every)
    model_folder(two, 3)
    for folders in [[one, two]] if together else [[one], [two]]:
        done = import_folders(repo, folders, model="m")
    warnings = [o.found.warning for o in done[-3:]]
    assert warnings == ["output is the run of another training; that of this one is output-2", "", ""]
    assert lines(repo) == {
        "output": ["output/step-4", "output/step-8"],
        "output-2": ["output-2/step-6", "output-2/step-8", "output-2/final"],
    }
    again = import_folders(repo, [two, one], model="m")
    assert [o.status for o in again] == ["known"] * 5
    assert all(not o.found.warning for o in again)
    checkpoint(two, 10, by=3.0, every=every)
    assert ("output-2/step-10", "new") in statuses(import_folders(repo, [two], model="m"))


def test_a_dry_run_tells_the_same_runs(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    for name in ("lr=1e-4", "lr 1e-4"):
        checkpoint(tmp_path / "shelf" / name, 2)
    found = [import_folders(repo, [tmp_path / "shelf"], model="m", dry_run=dry) for dry in (True, False)]
    assert (
        statuses(found[0])
        == statuses(found[1])
        == [
            ("lr-1e-4/step-2", "new"),
            ("lr-1e-4-2/step-2", "new"),
        ]
    )


def test_a_run_that_the_user_named_takes_all(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    checkpoint(tmp_path / "a", 2)
    checkpoint(tmp_path / "b", 4, by=3.0)
    import_folders(repo, [tmp_path / "a", tmp_path / "b"], model="m", run="r")
    assert lines(repo) == {"r": ["r/step-2", "r/step-4"]}


@pytest.mark.parametrize("every", [2, 100], ids=["logged", "not logged"])
def test_a_second_training_in_a_folder_has_its_own_run(
    repo: Repository, tmp_path: Path, checkpoint: Any, every: int
) -> None:
    out = tmp_path / "out"
    told: list[Outcome] = []

    def look(watcher: Watcher) -> list[tuple[str, str]]:
        before = len(told)
        watcher.look()
        watcher.look()
        return statuses(told[before:])

    watcher = Watcher(repo, out, "m", tell=told.append)
    for step in (4, 8):
        checkpoint(out, step, every=every)
    model_folder(out, 3)
    look(watcher)
    shutil.rmtree(out)
    checkpoint(out, 4, by=3.0, every=every)
    assert look(watcher) == [("out-2/step-4", "new")]
    assert "of another training" in told[-1].found.warning
    for step in (8, 12):
        checkpoint(out, step, by=3.0, every=every)
    model_folder(out, 4)
    if every == 2:
        shutil.rmtree(out / "checkpoint-4")
    watcher = Watcher(repo, out, "m", tell=told.append)
    assert look(watcher)[-3:] == [("out-2/step-8", "new"), ("out-2/step-12", "new"), ("out-2/final", "new")]
    assert lines(repo) == {
        "out": ["out/step-4", "out/step-8", "out/final"],
        "out-2": ["out-2/step-4", "out-2/step-8", "out-2/step-12", "out-2/final"],
    }


def test_what_an_earlier_training_left_beside_stays_of_its_run(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    """The later training has come to a step below the last of the one before."""
    out = tmp_path / "out"
    for step, by, at in ((8, 1.0, 1.5e9), (4, 3.0, 1.6e9)):
        for file in checkpoint(out, step, by=by).iterdir():
            os.utime(file, (at, at))
    model_folder(out, 3)
    import_folders(repo, [out], model="m")
    assert lines(repo) == {"out": ["out/step-4", "out/final"], "out-2": ["out-2/step-8"]}


def test_a_moved_folder_and_a_resumed_training_go_on_with_their_run(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    out, moved = tmp_path / "out", tmp_path / "elsewhere" / "out"
    checkpoint(out, 4)
    checkpoint(out, 8)
    import_folders(repo, [out], model="m")
    moved.parent.mkdir()
    out.rename(moved)
    assert statuses(import_folders(repo, [moved], model="m")) == [
        ("out/step-4", "known"),
        ("out/step-8", "known"),
    ]
    shutil.rmtree(moved / "checkpoint-8")
    checkpoint(moved, 12)
    state = json.loads((moved / "checkpoint-12/trainer_state.json").read_text())
    state["log_history"].insert(4, {"step": 8, "train_runtime": 1.0})  # logged after the save
    (moved / "checkpoint-12/trainer_state.json").write_text(json.dumps(state))
    assert import_folders(repo, [moved], model="m")[1].found.name == "out/step-12"
    checkpoint(moved, 6)
    import_folders(repo, [moved], model="m")
    assert {v.run.name for v in repo.versions("m") if v.run} == {"out"}
    assert repo["m@out/step-6"].parents == [repo["m@out/step-4"].id.hex]


def test_a_plain_folder_that_was_written_over_is_another_training(repo: Repository, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "adapter", 1)
    import_folders(repo, [folder], model="m")
    model_folder(folder, 2)
    assert statuses(import_folders(repo, [folder], model="m")) == [("adapter-2/final", "new")]
    assert repo["m@adapter-2/final"].parents == []
    (folder / "README.md").write_text("of the same weights")
    assert statuses(import_folders(repo, [folder], model="m")) == [("adapter-2/final", "failed")]


def test_what_was_deleted_stays_deleted_and_is_of_no_other_training(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    one, two = tmp_path / "1" / "out", tmp_path / "2" / "out"
    checkpoint(one, 4)
    checkpoint(two, 4, by=3.0)
    import_folders(repo, [one], model="m")
    repo.delete("m@out/step-4")
    assert statuses(import_folders(repo, [one, two], model="m")) == [
        ("out/step-4", "known"),
        ("out-2/step-4", "new"),
    ]


@pytest.mark.parametrize(("loss", "name"), [(0.25, "out/step-8"), (0.75, "out-2/step-8")])
def test_a_run_that_no_import_made_is_told_by_what_it_logged(
    repo: Repository, tmp_path: Path, checkpoint: Any, loss: float, name: str
) -> None:
    source = model_folder(tmp_path / "saved", 9)
    run = Run(id="a" * 32, name="out")
    log = {KIND: Kept(({"step": 4, "loss": loss},)).encoded()}
    repo.save(source, "m", name="out/epoch-1", run=run, step=4, provenance=log)
    checkpoint(tmp_path / "out", 8)
    assert statuses(import_folders(repo, [tmp_path / "out"], model="m")) == [(name, "new")]


@pytest.mark.parametrize("rows", [[{"train_runtime": 1.0}], [{"train_runtime": 1.0}, {"eval_loss": 0.125}]])
@pytest.mark.parametrize("every", [2, 100], ids=["logged", "not logged"])
def test_a_training_resumed_after_its_end_goes_on_with_its_run(
    repo: Repository, tmp_path: Path, checkpoint: Any, rows: list[dict[str, float]], every: int
) -> None:
    """The end was logged after checkpoint-8 was saved, and the resumed training has that one's log."""
    out = tmp_path / "out"
    for step in (4, 8):
        checkpoint(out, step, every=every)
    model_folder(out, 8)
    state = json.loads((out / "checkpoint-8/trainer_state.json").read_text())
    state["log_history"] = [r for r in state["log_history"] if r["step"] <= 8]
    state["log_history"] += [{"step": 8, **row} for row in rows]
    (out / "trainer_state.json").write_text(json.dumps(state))
    (out / "README.md").write_text("a version of its own")
    import_folders(repo, [out], model="m")
    checkpoint(out, 12, every=every)
    assert ("out/step-12", "new") in statuses(import_folders(repo, [out], model="m"))
    assert lines(repo) == {"out": ["out/step-4", "out/step-8", "out/final", "out/step-12"]}


@pytest.mark.parametrize(("every", "name"), [(100, "out/step-8"), (2, "out-2/step-8")])
def test_a_run_that_was_saved_while_it_trained_and_logged_nothing_is_joined(
    repo: Repository, tmp_path: Path, checkpoint: Any, every: int, name: str
) -> None:
    repo.save(model_folder(tmp_path / "saved", 9), "m", name="out/step-4", run=Run("a" * 32, "out"), step=4)
    checkpoint(tmp_path / "out", 8, every=every)
    assert statuses(import_folders(repo, [tmp_path / "out"], model="m")) == [(name, "new")]
    assert {o.found.warning for o in import_folders(repo, [tmp_path / "out"], model="m")} == {""}


def test_a_silent_run_whose_name_other_content_has_is_not_joined(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    repo.save(model_folder(tmp_path / "saved", 9), "m", name="out/step-8", run=Run("a" * 32, "out"), step=8)
    checkpoint(tmp_path / "out", 8, every=100)
    assert statuses(import_folders(repo, [tmp_path / "out"], model="m")) == [("out-2/step-8", "new")]


def test_the_end_that_a_silent_run_logged_keeps_no_resumed_training_out(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    log = {KIND: Kept(({"step": 8, "train_runtime": 1.0},)).encoded()}
    source = model_folder(tmp_path / "saved", 9)
    repo.save(source, "m", name="out/final", run=Run("a" * 32, "out"), step=8, provenance=log)
    checkpoint(tmp_path / "out", 12, every=100)
    assert statuses(import_folders(repo, [tmp_path / "out"], model="m")) == [("out/step-12", "new")]
