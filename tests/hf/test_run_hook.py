"""The hook of `stemmata run` in one process: what it adds, what it leaves, what it swallows."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

import tiny_models as tiny
from stemmata.attach import hook
from stemmata.attach.settings import Settings, encode, read_report, report
from stemmata.hf import VersionCallback, attached
from stemmata.hf.attached import AttachedCallback
from stemmata.repository import Repository
from stemmata.repository import open as open_repository


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "report").touch()
    return Settings(str(tmp_path / "models"), "m", "epoch", None, str(tmp_path / "report"))


@pytest.fixture
def wrapped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(Trainer, "__init__", Trainer.__init__)
    before = inspect.signature(Trainer.__init__)
    hook.wrap(sys.modules["transformers.trainer"], settings)
    assert inspect.signature(Trainer.__init__) == before
    return settings


def found(settings: Settings, kind: str) -> list[str]:
    return [text for k, text in read_report(Path(settings.report)) if k == kind]


def mine(trainer: Any) -> list[VersionCallback]:
    return [c for c in trainer.callback_handler.callbacks if isinstance(c, VersionCallback)]


def test_every_trainer_gets_one_callback_and_a_run_of_its_own(wrapped: Settings, tmp_path: Path) -> None:
    class Derived(Trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.after = len(mine(self))

    first = tiny.trainer(tiny.gpt2(), tmp_path / "a", [], run_name="r")
    second = Derived(tiny.gpt2(), tiny.arguments(tmp_path / "b", run_name="r"), train_dataset=tiny.dataset())
    assert second.after == 1
    for trainer in (first, second):
        assert [type(c) for c in mine(trainer)] == [AttachedCallback]
        trainer.train()
    with open_repository(wrapped.repository) as repo:
        assert {v.run.name for v in repo.versions("m") if v.run} == {"r", "r-2"}
    assert len(found(wrapped, "trainer")) == 2
    assert set(found(wrapped, "run")) == {"r", "r-2"}
    assert found(wrapped, "warning") == []


class Rival(TrainerCallback):
    """Another training under the same name, which commits first."""

    def __init__(self, repository: str) -> None:
        self.repository = repository

    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == 1:
            with open_repository(self.repository) as repo, repo.run("m", "r") as run:
                run.save(torch.nn.Linear(1, 1), epoch=1)


class Die(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if state.global_step == self.step:
            raise RuntimeError("died")


@pytest.mark.parametrize("step", [3, 100])
def test_the_name_that_a_run_got_is_told_and_not_the_one_it_asked_for(
    wrapped: Settings, tmp_path: Path, step: int
) -> None:
    """Of one that dies after its first version, and one that comes to its end."""
    rival = Rival(wrapped.repository)
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [rival, Die(step)], run_name="r")
    with contextlib.suppress(RuntimeError):
        trainer.train()
    (callback,) = mine(trainer)
    callback.wait()
    attached._tell_rest()
    assert set(found(wrapped, "run")) == {"r-2"}


def test_a_run_without_a_version_is_told_when_its_process_ends(wrapped: Settings, tmp_path: Path) -> None:
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [Die(1)], run_name="r")
    with pytest.raises(RuntimeError, match="died"):
        trainer.train()
    assert found(wrapped, "run") == []
    attached._tell_rest()
    assert found(wrapped, "run") == ["r"]


def test_a_trainer_with_a_callback_keeps_that_one(
    wrapped: Settings, repo: Repository, tmp_path: Path
) -> None:
    own = VersionCallback(repo, "theirs")
    assert mine(tiny.trainer(tiny.gpt2(), tmp_path / "out", [own])) == [own]
    assert found(wrapped, "own") == [""]


def test_a_callback_that_is_given_afterwards_is_the_one(wrapped: Settings, tmp_path: Path) -> None:
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [], num_train_epochs=1)
    trainer.add_callback(VersionCallback(tmp_path / "own", "m", run_name="own"))
    trainer.train()
    assert found(wrapped, "own") == [""]
    assert not (tmp_path / "models").exists()
    with open_repository(tmp_path / "own") as repo:
        assert [v.name for v in repo.versions("m")] == ["own/epoch-1"]


def test_a_training_that_cannot_be_kept_goes_on(
    wrapped: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(wrapped.repository).write_text("a file where the repository should be")
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [])
    assert trainer.train().global_step == 4
    (words,) = found(wrapped, "warning")
    assert "no versions of this training" in words
    assert f"stemmata: {words}\n" in capsys.readouterr().err


def test_a_save_that_fails_costs_only_itself(
    wrapped: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [], run_name="r")
    theirs, calls = VersionCallback._save, []

    def once(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise MemoryError("no room for a snapshot")
        return theirs(self, *args, **kwargs)

    monkeypatch.setattr(VersionCallback, "_save", once)
    assert trainer.train().global_step == 4
    assert any("no room for a snapshot" in words for words in found(wrapped, "warning"))
    with open_repository(wrapped.repository) as repo:
        assert repo["m@r/final"].names == ["r/epoch-2", "r/final"]


def test_a_hook_that_fails_is_a_line_and_no_error(
    wrapped: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hook, "_CALLBACK_MODULE", "stemmata.hf.no_such_module")
    assert mine(tiny.trainer(tiny.gpt2(), tmp_path / "out", [])) == []
    assert "no versions of this Trainer: ModuleNotFoundError" in capsys.readouterr().err


def test_a_module_without_a_trainer_is_told_of(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    hook.wrap(ModuleType("transformers.trainer"), settings)
    assert "has no Trainer" in capsys.readouterr().err


def test_an_error_of_the_trainer_stays_the_trainers(wrapped: Settings, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no_such_argument"):
        Trainer(no_such_argument=1)
    assert found(wrapped, "trainer") == []


@pytest.mark.parametrize("trial", [(), (None,), (None, ["logits"])])
def test_what_a_script_gives_train_by_its_place_stays_in_its_place(
    monkeypatch: pytest.MonkeyPatch, trial: tuple[Any, ...]
) -> None:
    went: list[tuple[Any, ...]] = []

    def train(_self: Any, resume_from_checkpoint: Any = None, *rest: Any) -> None:
        went.append((resume_from_checkpoint, *rest))

    monkeypatch.setitem(sys.modules, hook._CALLBACK_MODULE, SimpleNamespace(begin=lambda *_: "state"))
    again: Any = hook._going_on(train)
    again(object(), None, *trial)
    again(object(), resume_from_checkpoint=None)
    again(object())
    assert went == [("state", *trial), ("state",), ("state",)]


def test_the_hook_waits_for_its_module_and_goes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks whether the module is there, without importing it, takes nothing away."""
    (tmp_path / "awaited_trainer.py").write_text("class Trainer:\n    def __init__(self): self.made = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(hook, "_TRAINER_MODULE", "awaited_trainer")
    for name, value in encode(settings, {}).items():
        monkeypatch.setenv(name, value)
    before = list(sys.meta_path)
    attached: list[Any] = []
    monkeypatch.setattr(hook, "attach", lambda trainer, given: attached.append((trainer, given)))
    hook.install()
    hook.install()
    assert len(sys.meta_path) == len(before) + 1
    assert importlib.util.find_spec("awaited_trainer") is not None
    module = importlib.import_module("awaited_trainer")
    assert sys.meta_path == before
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    made = module.Trainer()
    assert made.made
    assert attached == [(made, settings)]
    del sys.modules["awaited_trainer"]


def test_a_report_cut_off_by_a_kill_is_read_as_far_as_it_goes(settings: Settings) -> None:
    report(settings, "run", "один")
    with open(settings.report, "ab") as file:
        file.write(b'[1]\n"x"\n\xff\n{"kind": "run", "te')
    assert list(read_report(Path(settings.report))) == [("run", "один")]
    assert list(read_report(Path(settings.report + "-gone"))) == []
    report(settings._replace(report=settings.report + "-gone"), "run", "nobody listens")
