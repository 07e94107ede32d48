"""What happens beside a training, or after it, takes nothing from its versions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

import tiny_models as tiny
from stemmata.errors import InvalidArgument
from stemmata.hf import VersionCallback
from stemmata.repository import Repository
from stemmata.repository import open as open_repository


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return open_repository(tmp_path / "models", create=True)


def steps(repo: Repository, deleted: int) -> dict[str, list[str]]:
    """A loop of four versions, one of which is deleted as soon as it is there: each one's parents."""
    with repo.run("m", "r", on_error="raise") as run:
        for epoch in range(1, 5):
            run.save(torch.nn.Linear(4, 1), epoch=epoch)
            run._recorder.drain()
            if epoch == deleted:
                repo.delete(f"m@r/epoch-{epoch}")
    return {v.name: [repo[f"id:{p}"].name for p in v.parents] for v in repo.versions("m")}


@pytest.mark.parametrize("deleted", [1, 2, 3])
def test_a_version_that_is_deleted_meanwhile_costs_no_other(repo: Repository, deleted: int) -> None:
    found = steps(repo, deleted)
    left = [f"r/epoch-{k}" for k in range(1, 5) if k != deleted]
    assert found == {name: left[:k][-1:] for k, name in enumerate(left)}


def test_a_deleted_origin_costs_no_version(
    repo: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = repo.save(tiny.saved_base(tmp_path / "base"), "base", name="b")
    with repo.run("m", "r", parents=[first], on_error="raise") as run:
        repo.delete("base@b")
        run.save(torch.nn.Linear(4, 1), epoch=1)
    (only,) = repo.versions("m")
    assert (only.name, list(only.parents)) == ("r/epoch-1", [])
    assert caplog.text.count(f"do not name {first.id.short} as a parent") == 1


def test_a_folder_is_saved_though_its_parent_is_deleted(repo: Repository, tmp_path: Path) -> None:
    folder = tiny.saved_base(tmp_path / "base")
    with repo.run("m", "r", on_error="raise") as run:
        run.save(torch.nn.Linear(4, 1), epoch=1)
        run._recorder.drain()
        repo.delete("m@r/epoch-1")
        run.save(folder, epoch=2)
    assert [v.name for v in repo.versions("m")] == ["r/epoch-2"]


def test_a_run_may_be_called_as_its_folder(repo: Repository, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    keeps = VersionCallback(repo, "m", resume=True)
    tiny.trainer(tiny.gpt2(), Path("job"), [keeps], run_name="job", save_strategy="epoch").train()
    assert keeps.run_name == "job"
    assert repo.resume("m", run="job") is not None


def first_is_best(kind: type[Trainer], tmp_path: Path, callbacks: list[Any]) -> Trainer:
    """A training of three epochs, the first of which is the best and is loaded at the end."""
    scores = iter([0.1, 0.5, 0.9, 0.1])
    args = tiny.arguments(
        tmp_path / "out",
        eval_strategy="epoch",
        save_strategy="epoch",
        num_train_epochs=3,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=False,
    )
    return kind(
        model=tiny.gpt2(),
        args=args,
        train_dataset=tiny.dataset(8),
        eval_dataset=tiny.dataset(4),
        compute_metrics=lambda _: {"score": next(scores)},
        callbacks=callbacks,
    )


class OwnFiles(Trainer):  # type: ignore[misc]
    """Its checkpoints hold files that the Trainer itself cannot load."""

    def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), Path(output_dir) / "own.pt")


def test_the_last_weights_are_not_called_best_where_no_others_were_loaded(
    repo: Repository, tmp_path: Path
) -> None:
    first_is_best(OwnFiles, tmp_path, [VersionCallback(repo, "m", run_name="r")]).train()
    assert repo["m@r/best"].id == repo["m@r/epoch-1"].id
    assert repo["m@r/final"].id == repo["m@r/epoch-3"].id


@pytest.mark.parametrize("how", ["other data", "no adapter"])
def test_what_is_evaluated_after_the_end_replaces_nothing(
    repo: Repository, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    keeps = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(tiny.with_lora(tiny.gpt2()), tmp_path / "out", [keeps], eval_strategy="epoch")
    trainer.train()
    before, best = repo["m@r/final"].metrics, repo["m@best"].id
    with caplog.at_level(logging.WARNING, "stemmata"):
        if how == "other data":
            trainer.evaluate(tiny.dataset(3))
            assert "keeps the eval_loss that it has" in caplog.text
        else:
            with trainer.model.disable_adapter():
                trainer.evaluate(metric_key_prefix="base")
    assert repo["m@r/final"].metrics == before
    assert repo["m@best"].id == best
    if how == "other data":
        trainer.evaluate(tiny.dataset(3), metric_key_prefix="test")
        assert "test_loss" in repo["m@r/final"].metrics


class OwnPrefix(Trainer):  # type: ignore[misc]
    def evaluate(self, *given: Any, **more: Any) -> Any:
        return super().evaluate(*given, **{**more, "metric_key_prefix": "valid"})


def test_an_evaluation_with_a_prefix_of_its_own_is_of_its_own_step(repo: Repository, tmp_path: Path) -> None:
    OwnPrefix(
        model=tiny.gpt2(),
        args=tiny.arguments(tmp_path / "out", eval_strategy="steps", eval_steps=3),
        train_dataset=tiny.dataset(16),
        eval_dataset=tiny.dataset(4),
        callbacks=[VersionCallback(repo, "m", run_name="r")],
    ).train()
    first = repo["m@r/epoch-1"]
    assert first.step % 3
    assert "valid_loss" not in first.metrics


def test_labels_that_no_version_can_have_are_refused_before_the_training(repo: Repository) -> None:
    with pytest.raises(InvalidArgument, match="label"):
        VersionCallback(repo, "m", labels={"stage ": "sft"})
    with pytest.raises(InvalidArgument, match="label"):
        repo.run("m", labels={"stage ": "sft"})


def test_what_is_missing_is_told_at_the_end_though_somebody_waited(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with repo.run("m", "r") as run:
        run.save(torch.nn.Linear(4, 1), epoch=1)
        run._recorder.leave()
        monkeypatch.setattr(Repository, "save", _fails)
        run.save(torch.nn.Linear(4, 1), epoch=2)
        caplog.clear()
    assert "r/epoch-2" in run.missing
    assert "run r of m ended; not written" in caplog.text


def _fails(*_: Any, **__: Any) -> None:
    raise OSError("no such disk")


class Streamed(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Its length is asked of what it does not have."""

    def __len__(self) -> int:
        return len(self.rows)  # type: ignore[attr-defined]

    def __iter__(self) -> Any:
        yield from tiny.dataset(8)


def test_a_dataset_whose_length_fails_trains(repo: Repository, tmp_path: Path) -> None:
    args = tiny.arguments(tmp_path / "out", max_steps=2)
    keeps = VersionCallback(repo, "m", run_name="r")
    Trainer(model=tiny.gpt2(), args=args, train_dataset=Streamed(), callbacks=[keeps]).train()
    assert repo["m@r/final"].step == 2


@pytest.mark.parametrize("every", ["epoch", "eval"])
def test_an_evaluation_tells_what_it_was_measured_on(repo: Repository, tmp_path: Path, every: str) -> None:
    """Else a gate would hold values of different data against each other, or refuse those of the same."""
    keeps = VersionCallback(repo, "m", run_name="r", every=every)
    settings = {"eval_strategy": "epoch", "logging_steps": 1}
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [keeps], **settings)
    trainer.train()
    last = repo["m@r/final"]
    known = trainer.get_eval_dataloader().dataset._fingerprint
    assert last.measurements["eval_loss"].dataset.fingerprint == known
    assert last.record.data["eval.fingerprint"] == known
    assert not last.measurements["grad_norm"].dataset
    trainer.evaluate(tiny.dataset(3), metric_key_prefix="test")
    other = repo["m@r/final"].measurements["test_loss"].dataset.fingerprint
    assert other
    assert other != known


class AtTheEnd(TrainerCallback):  # type: ignore[misc]
    """Evaluates once more when the training is over."""

    trainer: Any = None

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.trainer.evaluate(metric_key_prefix="test")


def test_the_best_weights_are_best_though_somebody_evaluates_them_at_the_end(
    repo: Repository, tmp_path: Path
) -> None:
    ends = AtTheEnd()
    trainer = first_is_best(Trainer, tmp_path, [ends, VersionCallback(repo, "m", run_name="r")])
    ends.trainer = trainer
    trainer.train()
    assert repo["m@r/best"].id == repo["m@r/epoch-1"].id
    assert repo["m@r/final"].id == repo["m@r/epoch-3"].id


def test_each_of_several_sets_tells_what_it_is(repo: Repository, tmp_path: Path) -> None:
    keeps = VersionCallback(repo, "m", run_name="r")
    sets = {"a": tiny.dataset(4), "b": tiny.dataset(3)}
    args = tiny.arguments(tmp_path / "out", eval_strategy="epoch")
    Trainer(
        model=tiny.gpt2(), args=args, train_dataset=tiny.dataset(8), eval_dataset=sets, callbacks=[keeps]
    ).train()
    found = repo["m@r/epoch-1"].measurements
    a, b = (found[f"eval_{name}_loss"].dataset.fingerprint for name in sets)
    assert a
    assert b
    assert a != b
