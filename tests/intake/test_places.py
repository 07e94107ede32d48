"""Trees of outputs, as sweeps leave them, and what lies beside checkpoints: taken, or named as left out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from makers import adapter_folder, model_folder
from stemmata.intake import Outcome, Watcher, import_folders
from stemmata.intake.places import places_in
from stemmata.repository import Repository


def statuses(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(o.found.name, o.status) for o in outcomes]


def names(outcomes: list[Outcome]) -> list[str]:
    assert {o.status for o in outcomes} <= {"new"}
    return [o.found.name for o in outcomes]


def test_outputs_two_and_more_folders_deep_are_a_run_each(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    outputs = tmp_path / "outputs"
    for run in ("2024-01-01/10-00-00", "2024-01-01/11-30-00", "2024-01-02/lr=1e-4,bs=8/seed 1"):
        (outputs / run / ".hydra").mkdir(parents=True)
        (outputs / run / "train.log").write_text("")
        for step in (2, 4):
            checkpoint(outputs / run, step, by=len(run))
    (outputs / "2024-01-01" / "multirun.yaml").write_text("")
    done = import_folders(repo, [outputs], model="m")
    assert names(done) == [
        "2024-01-01/10-00-00/step-2",
        "2024-01-01/10-00-00/step-4",
        "2024-01-01/11-30-00/step-2",
        "2024-01-01/11-30-00/step-4",
        "2024-01-02/lr-1e-4-bs-8/seed-1/step-2",
        "2024-01-02/lr-1e-4-bs-8/seed-1/step-4",
    ]
    assert done[0].found.warning == "left out is what lies beside the runs: 2024-01-01/multirun.yaml"
    assert repo["m@2024-01-01/11-30-00/latest"].name == "2024-01-01/11-30-00/step-4"
    assert {f.path for f in repo["m@2024-01-01/10-00-00/step-2"].files} == {
        "config.json",
        "model.safetensors",
    }
    again = import_folders(repo, [outputs / "2024-01-01" / "10-00-00"], model="m", run="2024-01-01/10-00-00")
    assert [o.status for o in again] == ["known", "known"]


@pytest.mark.parametrize(
    "files",
    [
        ["2024/model/config.json", "2024/model/model.safetensors", "2024/tokenizer/tokenizer.json"],
        ["v_1/model/model.safetensors", "v_1/tokenizer/tokenizer.json", "metadata_1.json"],
        ["a/unet/w.safetensors", "a/vae/w.safetensors", "b/unet/w.safetensors", "b/vae/w.safetensors"],
        ["lr1/out/adapter_config.json", "lr1/out/adapter_model.safetensors", "lr2/out/notes.txt"],
    ],
)
def test_folders_of_weights_in_the_depth_are_parts_of_one_version(
    repo: Repository, tmp_path: Path, files: list[str]
) -> None:
    made = model_folder(tmp_path / "made") / "model.safetensors"
    for name in files:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, tmp_path / "tree" / name)
    (done,) = import_folders(repo, [tmp_path / "tree"], model="m")
    assert (done.found.name, done.status, done.found.warning) == ("tree/final", "new", "")
    assert {f.path for f in repo["m@tree/final"].files} == set(files)


def test_runs_stay_runs_whatever_lies_deeper(repo: Repository, tmp_path: Path) -> None:
    loras = tmp_path / "loras"
    for seed, name in enumerate(("a", "b", "c", "old/x")):
        adapter_folder(loras / name, seed)
    (loras / "old" / "notes.txt").write_text("of x")
    done = import_folders(repo, [loras], model="m")
    assert names(done) == ["a/final", "b/final", "c/final"]
    assert done[0].found.warning == (
        "left out are folders that hold weights: old/x; import them by themselves"
    )


def test_checkpoints_in_the_depth_are_never_swallowed(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    """Neither by a plain version of the tree nor by one run per folder."""
    tree = tmp_path / "tree"
    model_folder(tree / "2024" / "model")
    (tree / "notes.txt").write_text("")
    checkpoint(tree / "sweep" / "1", 2)
    done = import_folders(repo, [tree], model="m")
    assert names(done) == ["sweep/1/step-2"]
    assert done[0].found.warning == (
        "left out is what lies beside the runs: notes.txt; "
        "left out are folders that hold weights: 2024/model; import them by themselves"
    )
    adapter_folder(tree / "lora", 1)
    found = import_folders(repo, [tree], model="m")
    assert statuses(found) == [("lora/final", "new"), ("sweep/1/step-2", "known")]


def test_many_folders_of_data_hide_no_run(
    repo: Repository, tmp_path: Path, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The near ones are found first, and a look that ended early makes no plain version of what it found."""
    monkeypatch.setattr("stemmata.intake.places._FOLDERS", 5)
    tree = tmp_path / "tree"
    for number in range(9):
        (tree / "data" / str(number)).mkdir(parents=True)
        (tree / f"d{number}").mkdir()
    checkpoint(tree / "run1", 2)
    checkpoint(tree / "a" / "b", 4)
    model_folder(tree / "plain" / "model")
    done = import_folders(repo, [tree], model="m")
    assert names(done) == ["a/b/step-4", "run1/step-2"]
    more = "there are more folders than are looked into for checkpoints: import some of them by themselves"
    assert done[0].found.warning == more
    for name in ("a", "run1"):
        shutil.rmtree(tree / name)
    (done_plain,) = import_folders(repo, [tree], model="m")
    assert (done_plain.found.name, done_plain.found.warning) == ("tree/final", more)


def test_files_of_a_data_set_are_not_asked_for_one_by_one(
    tmp_path: Path, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path / "out", 2)
    (tmp_path / "out" / "images").mkdir()
    for number in range(50):
        (tmp_path / "out" / "images" / f"{number}.png").write_bytes(b"png")
    seen, asked = os.stat, list[str]()

    def stat(path: Any, *more: Any, **named: Any) -> os.stat_result:
        asked.append(str(path))
        return seen(path, *more, **named)

    monkeypatch.setattr(os, "stat", stat)
    places_in(tmp_path / "out")
    assert asked
    assert not [path for path in asked if path.endswith(".png")]


def test_beside_and_within_an_output_others_are_found_too(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    shelf = tmp_path / "shelf"
    checkpoint(shelf / "near", 2)
    checkpoint(shelf / "deep" / "er" / "out", 4)
    checkpoint(shelf / "near" / "second", 6)
    model_folder(shelf / "merged", 3)
    checkpoint(shelf / "merged" / "before", 8)
    (shelf / "deep" / "data").mkdir()
    (shelf / "deep" / "data" / "tokens.bin").write_bytes(b"data")
    done = import_folders(repo, [shelf], model="m")
    assert names(done) == [
        "deep/er/out/step-4",
        "merged/final",
        "merged/before/step-8",
        "near/step-2",
        "near/second/step-6",
    ]
    assert done[0].found.warning == (
        "left out are folders that hold weights: deep/data; import them by themselves"
    )
    assert {f.path for f in repo["m@merged/final"].files} == {"config.json", "model.safetensors"}


def test_neither_links_nor_depth_lead_astray(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    shelf, away = tmp_path / "shelf", tmp_path / "away"
    checkpoint(shelf / "a" / "b", 2)
    checkpoint(shelf / "1/2/3/4/5/6/7", 4)
    checkpoint(away, 6, by=3.0)
    (shelf / "latest").symlink_to("a")
    (shelf / "scratch").symlink_to(away)
    (shelf / "a" / "back").symlink_to(shelf)
    (shelf / "a" / "other").symlink_to(away)
    done = import_folders(repo, [shelf], model="m")
    assert names(done) == ["a/b/step-2", "scratch/step-6"]
    (shelf / "up").symlink_to(tmp_path)
    checkpoint(shelf / "z", 2)
    (shelf / "newest").symlink_to("z")
    found = statuses(import_folders(repo, [shelf], model="m"))
    assert found == [("a/b/step-2", "known"), ("scratch/step-6", "known"), ("z/step-2", "new")]


SAVES = ["final_model", "final_checkpoint", "best", "merged", "final"]


@pytest.mark.parametrize("name", SAVES)
def test_a_final_save_in_a_folder_beside_the_checkpoints_is_of_their_run(
    repo: Repository, tmp_path: Path, checkpoint: Any, name: str
) -> None:
    out = tmp_path / "out"
    for step in (2, 4):
        checkpoint(out, step)
    model_folder(out / name, 9)
    done = import_folders(repo, [out], model="m")
    assert names(done) == ["out/step-2", "out/step-4", f"out/{name}"]
    assert repo[f"m@out/{name}"].parents == [repo["m@out/step-4"].id.hex]
    assert [o.status for o in import_folders(repo, [out], model="m")] == ["known"] * 3
    shutil.copytree(out / "checkpoint-2", out / "copied")
    assert ("out/copied", "named") in statuses(import_folders(repo, [out], model="m"))


def test_what_may_be_data_or_lies_deeper_is_named(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    out = tmp_path / "out"
    checkpoint(out, 2)
    model_folder(out / "models" / "final", 3)
    for name in ("cache", "global_step2", "tmp-checkpoint-4"):
        (out / name).mkdir()
        (out / name / "tokens.bin").write_bytes(b"data")
    (done,) = import_folders(repo, [out], model="m")
    assert done.found.warning == (
        "left out are folders that hold weights: cache, models/final; import them by themselves"
    )


def test_beside_weights_folders_are_a_part_of_the_final_save(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    """As the second adapter of PEFT, or a part of a sentence-transformer."""
    out = tmp_path / "out"
    checkpoint(out, 2)
    adapter_folder(adapter_folder(out, 1) / "reference", 2)
    assert names(import_folders(repo, [out], model="m")) == ["out/step-2", "out/final"]
    assert "reference/adapter_model.safetensors" in {f.path for f in repo["m@out/final"].files}


def test_a_pipeline_beside_checkpoints_is_one_final_save(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    out = tmp_path / "out"
    checkpoint(out, 2)
    for top in (out, out / "pipeline"):
        for part in ("unet", "vae"):
            model_folder(top / part, 3)
        (top / "model_index.json").write_text("{}")
    assert names(import_folders(repo, [out], model="m")) == ["out/step-2", "out/final"]
    assert "unet/model.safetensors" in {f.path for f in repo["m@out/final"].files}
    (out / "model_index.json").unlink()
    for part in ("unet", "vae"):
        shutil.rmtree(out / part)
    assert ("out/pipeline", "new") in statuses(import_folders(repo, [out], model="m"))


def test_a_watcher_takes_such_a_save_once_it_is_whole_and_rests(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    out = tmp_path / "out"
    told: list[Outcome] = []
    watcher = Watcher(repo, out, "m", tell=told.append)

    def look() -> list[tuple[str, str]]:
        before = len(told)
        watcher.look()
        return statuses(told[before:])

    checkpoint(out, 2)
    assert [look(), look()] == [[], [("out/step-2", "new")]]
    weights = model_folder(out / "final_model", 9) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert [look(), look(), look()] == [[], [], []]
    weights.write_bytes(whole)
    os.utime(weights, (1.5e9, 1.5e9))
    assert look() == []
    (out / "final_model" / "tokenizer.json").write_text("{}")
    assert [look(), look()] == [[], [("out/final_model", "new")]]
    assert look() == []
    assert "tokenizer.json" in {f.path for f in repo["m@out/final_model"].files}
    checkpoint(out / "trial" / "1", 4)
    assert [look(), look()] == [[], [("trial/1/step-4", "new")]]


@pytest.mark.parametrize("run", [None, "r"])
@pytest.mark.parametrize("every", [2, 100], ids=["logged", "not logged"])
def test_a_best_save_that_is_written_again_is_a_further_version_of_its_run(
    repo: Repository, tmp_path: Path, checkpoint: Any, every: int, run: str | None
) -> None:
    out, name = tmp_path / "out", run or "out"
    for step, best in ((2, 5), (4, 6), (6, 7)):
        checkpoint(out, step, every=every)
        model_folder(out / "best_model", best)
        done = import_folders(repo, [out], model="m", run=run)
        number = f"-{step // 2}" if step > 2 else ""
        assert statuses(done)[-2:] == [
            (f"{name}/step-{step}", "new"),
            (f"{name}/best_model{number}", "new"),
        ]
        assert not done[-1].found.warning
        assert repo[f"m@{name}/best_model{number}"].parents == [repo[f"m@{name}/step-{step}"].id.hex]
    model_folder(out / "best_model", 6)
    assert statuses(import_folders(repo, [out], model="m", run=run))[-1] == (f"{name}/best_model-2", "known")
    for step in (2, 4, 6):
        (out / f"checkpoint-{step}" / "trainer_state.json").unlink()
    model_folder(out / "best_model", 8)
    again = import_folders(repo, [out], model="m", run=run)
    assert statuses(again)[-1] == (f"{name}/best_model-4", "new")


def test_a_final_save_after_a_folder_of_that_name_is_the_second(
    repo: Repository, tmp_path: Path, checkpoint: Any
) -> None:
    out = tmp_path / "out"
    checkpoint(out, 2)
    model_folder(out / "final", 3)
    assert names(import_folders(repo, [out], model="m")) == ["out/step-2", "out/final"]
    model_folder(out, 4)
    for status in ("new", "known"):
        found = statuses(import_folders(repo, [out], model="m"))
        assert found == [("out/step-2", "known"), ("out/final-2", status)]


def test_a_watcher_takes_each_best_save_once(repo: Repository, tmp_path: Path, checkpoint: Any) -> None:
    out = tmp_path / "out"
    told: list[Outcome] = []
    watcher = Watcher(repo, out, "m", tell=told.append)
    checkpoint(out, 2)
    for best in (5, 6, 7):
        model_folder(out / "best_model", best)
        os.utime(out / "best_model" / "model.safetensors", (1.5e9 + best, 1.5e9 + best))
        for _ in range(3):
            watcher.look()
    Watcher(repo, out, "m", tell=told.append).follow(interval=0, once=True)
    assert statuses(told) == [
        ("out/step-2", "new"),
        ("out/best_model", "new"),
        ("out/best_model-2", "new"),
        ("out/best_model-3", "new"),
        ("out/step-2", "known"),
        ("out/best_model-3", "known"),
    ]
