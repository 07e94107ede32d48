"""What the world does to a training's saves: no permission, quotas, halves of files, names that are taken.
Each is a named error or a sensible result; the training is never harmed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import tiny_models as tiny
from stemmata.errors import TrainingSaveFailed, TrainingSetup
from stemmata.hf import VersionCallback
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from users import ordinary_user

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EDQUOT, "allowed to this user or group is used up"),
        (errno.EACCES, "cannot be written: Permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_the_system_refuses_a_write_for_costs_that_epoch_alone(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    """A quota that is reached, rights that were taken away, a disk that fails: while epoch 2 is written."""
    save, write = repo.save, os.write

    def refuse(fd: int, data: Any) -> int:
        if threading.current_thread().name.startswith("stemmata-writer"):
            raise OSError(code, os.strerror(code))
        return write(fd, data)

    def watched(*a: Any, **k: Any) -> Any:
        with monkeypatch.context() as patch:
            if k["name"] == "r/epoch-2":
                patch.setattr(os, "write", refuse)
            return save(*a, **k)

    monkeypatch.setattr(repo, "save", watched)
    callback = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=3)
    assert trainer.train().global_step == 6
    assert [v.names for v in reversed(repo.versions("m"))] == [["r/epoch-1"], ["r/epoch-3", "r/final"]]
    assert callback.missing.keys() == {"r/epoch-2"}
    assert words in callback.missing["r/epoch-2"]
    assert repo.check().sound


@pytest.fixture
def others() -> Iterator[Path]:
    """A folder that anybody may write to, with a repository in it that only its owner may."""
    # Not pytest's tmp_path: that is its owner's alone.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        open_repository(folder / "models", create=True).close()
        for inside in (folder / "models", *(folder / "models").rglob("*")):
            inside.chmod(0o755 if inside.is_dir() else 0o644)
        yield folder


def test_a_repository_that_one_may_not_write_to_harms_no_training(
    others: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(others / "cache"))
    monkeypatch.chdir(others)
    for on_error in ("warn", "raise"):
        callback = VersionCallback(others / "models", "m", run_name="r", on_error=on_error)  # type: ignore[arg-type]
        trainer = tiny.trainer(tiny.gpt2(), others / "out", [callback], num_train_epochs=1)
        with caplog.at_level(logging.ERROR, "stemmata"), ordinary_user():
            if on_error == "warn":
                assert trainer.train().global_step == 2
            else:
                with pytest.raises(TrainingSaveFailed, match="r/epoch-1 of m failed"):
                    trainer.train()
        callback.repository.close()
        assert "r/epoch-1" in callback.missing
        reason = callback.missing["r/epoch-1"]
        assert "Permission denied" in reason or "read-only" in reason


class Halve(TrainerCallback):
    """Cuts the state's own file in half before anybody sees the checkpoint."""

    def on_save(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 4:
            path = Path(args.output_dir) / "checkpoint-4/trainer_state.json"
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_trainer_state_cut_in_half_is_never_kept_as_a_state(repo: Repository, tmp_path: Path) -> None:
    callback = VersionCallback(repo, "m", run_name="r", resume=True)
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [Halve(), callback], save_strategy="epoch")
    trainer.train()
    assert [v.name for v in repo.versions("m.resume")] == ["r/step-2"]
    assert [v.name for v in repo.versions("m")] == ["r/epoch-2", "r/epoch-1"]
    assert "a readable trainer_state.json" in callback.missing["r/the state of step 4"]


def test_a_run_name_that_another_takes_after_the_training_began(repo: Repository, tmp_path: Path) -> None:
    class Rival(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
            if state.global_step == 1:
                with repo.run("m", "r") as run:
                    run.save(torch.nn.Linear(1, 1), epoch=1)

    callback = VersionCallback(repo, "m", run_name="r")
    tiny.trainer(tiny.gpt2(), tmp_path / "out", [Rival(), callback]).train()
    assert callback.run_name == "r-2"
    assert callback.missing == {}
    names = [v.name for v in reversed(repo.versions("m"))]
    assert names == ["r/epoch-1", "r-2/epoch-1", "r-2/epoch-2"]


def test_a_repository_that_is_removed_under_a_training(tmp_path: Path) -> None:
    callback = VersionCallback(tmp_path / "models", "m", run_name="r")

    class Remove(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
            if state.global_step == 3:
                assert callback._recorder is not None
                callback._recorder.wait()
                shutil.rmtree(tmp_path / "models")

    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [Remove(), callback], num_train_epochs=3)
    assert trainer.train().global_step == 6
    assert callback.missing.keys() == {"r/epoch-2", "r/epoch-3", "r/final", "r/what was logged last"}
    assert not (tmp_path / "models/packs").exists()
    assert f"no stemmata repository at {tmp_path / 'models'}" in callback.missing["r/epoch-2"]
    callback.repository.close()


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_tensor_that_no_file_can_hold_harms_no_training(repo: Repository, tmp_path: Path) -> None:
    model = tiny.gpt2()
    model.register_buffer("odd", torch.eye(3).to_sparse())
    callback = VersionCallback(repo, "m", run_name="r", every="end")
    trainer = tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1)
    assert trainer.train().global_step == 2
    assert "Sparse" in callback.missing["r/final"]


class Stateful(torch.nn.Module):
    """A module that safetensors cannot keep."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * input_ids).mean()}


def test_a_model_of_which_no_version_can_be_made_is_refused_before_the_first_step(
    repo: Repository, tmp_path: Path
) -> None:
    trainer = tiny.trainer(Stateful(), tmp_path / "out", [VersionCallback(repo, "m")])
    with pytest.raises(TrainingSetup, match=r"keeps tensors alone, and _extra_state of Stateful is none"):
        trainer.train()
    assert trainer.state.global_step == 0
    assert repo.models() == []


def test_a_collators_tokenizer_of_its_own_kind_costs_no_version(repo: Repository, tmp_path: Path) -> None:
    class Collator:
        def __init__(self) -> None:
            self.tokenizer = str.split

        def __call__(self, rows: list[Any]) -> dict[str, torch.Tensor]:
            return {key: torch.tensor([row[key] for row in rows]) for key in ("input_ids", "labels")}

    callback = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [callback], processing_class=None)
    trainer.data_collator = Collator()
    trainer.train()
    assert callback.missing == {}
    assert [v.name for v in repo.versions("m")] == ["r/epoch-2", "r/epoch-1"]
