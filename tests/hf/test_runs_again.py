"""Runs that repeat, resume or lose a checkpoint: names still go to the version that they speak of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, TrainerCallback

import tiny_models as tiny
from stemmata.hf import VersionCallback
from stemmata.repository import Repository


def with_best(tmp_path: Path, callbacks: list[Any], **more: Any) -> Any:
    """A training of three epochs whose second is the best."""
    trainer = tiny.trainer(
        tiny.gpt2(),
        tmp_path / "out",
        callbacks,
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
        **more,
    )
    scores = [0.3, 0.9, 0.5]
    trainer.compute_metrics = lambda prediction: {"score": scores.pop(0)}
    return trainer


def test_the_best_of_equal_bytes_is_the_one_that_was_measured(repo: Repository, tmp_path: Path) -> None:
    callback = VersionCallback(repo, "m", run_name="r")
    with_best(tmp_path, [callback], learning_rate=0.0).train()
    assert repo["m@r/best"].names == ["r/epoch-2", "r/best"]
    assert repo["m@r/best"].metrics["eval_score"] == 0.9
    assert repo["m@r/final"].names == ["r/epoch-3", "r/final"]


def test_a_run_that_repeats_another_has_versions_of_its_own(repo: Repository, tmp_path: Path) -> None:
    for run in ("one", "two"):
        callback = VersionCallback(repo, "m", every="end", run_name=run, message=run)
        with_best(tmp_path, [callback]).train()
    assert repo["m@one/best"].record.content == repo["m@two/best"].record.content
    assert [repo[f"m@two/{name}"].message for name in ("best", "final")] == ["two", "two"]


def test_weights_that_were_not_restored_are_not_called_the_best(repo: Repository, tmp_path: Path) -> None:
    class Remove(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **live: Any) -> None:
            if state.global_step == 6:
                shutil.rmtree(tmp_path / "out/checkpoint-4")

    with_best(tmp_path, [VersionCallback(repo, "m", run_name="r"), Remove()]).train()
    assert repo["m@r/best"].names == ["r/epoch-2", "r/best"]
    assert repo["m@r/final"].names == ["r/epoch-3", "r/final"]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_resumed_run_goes_on_from_the_version_of_its_checkpoint(
    repo: Repository, base: Path, tmp_path: Path, kind: str
) -> None:
    repo.save(base, "base")

    def training(epochs: int) -> Any:
        model = AutoModelForCausalLM.from_pretrained(base)
        callback = VersionCallback(repo, "m", run_name="r")
        return tiny.trainer(
            tiny.with_lora(model) if kind == "lora" else model,
            tmp_path / "out",
            [callback],
            num_train_epochs=epochs,
            save_strategy="epoch",
        )

    training(1).train()
    training(2).train(resume_from_checkpoint=True)
    assert repo["m@r-2/epoch-2"].parents == [repo["m@r/epoch-1"].id.hex]
