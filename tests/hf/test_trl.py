"""Every trainer of trl is a Trainer: two of them, as people use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig

import tiny_models as tiny
from stemmata.hf import VersionCallback
from stemmata.repository import Repository

LORA = {
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["c_attn"],
    "task_type": "CAUSAL_LM",
    "fan_in_fan_out": True,
}


def settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "num_train_epochs": 2,
        "per_device_train_batch_size": 2,
        "logging_strategy": "epoch",
        "save_strategy": "no",
        "disable_tqdm": True,
        "max_length": 24,
        **more,
    }


@pytest.fixture(autouse=True)
def quiet_datasets() -> None:
    import datasets

    datasets.disable_progress_bars()


def check(repo: Repository, trainer: Any, tmp_path: Path, **metrics: str) -> None:
    trainer.train()
    trainer.save_model(str(tmp_path / "theirs"))
    final = repo["m@r/final"]
    assert final.names == ["r/epoch-2", "r/final"]
    assert final.kind == "adapter"
    assert final.config["lora.r"] == 4
    final.checkout(tmp_path / "ours")
    assert tiny.files_of(tmp_path / "ours") == tiny.files_of(tmp_path / "theirs")
    for metric in metrics.values():
        assert metric in final.metrics, sorted(final.metrics)
    assert final.load() is not None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_supervised_fine_tuning(repo: Repository, base: Path, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"text": text} for text in tiny.SENTENCES])
    trainer = SFTTrainer(
        model=str(base),
        args=SFTConfig(**settings(tmp_path, eval_strategy="epoch")),
        train_dataset=rows,
        eval_dataset=rows.select(range(2)),
        peft_config=LoraConfig(**LORA),
        callbacks=[VersionCallback(repo, "m", run_name="r")],
    )
    check(repo, trainer, tmp_path, a="eval_loss", b="mean_token_accuracy", c="eval_mean_token_accuracy")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_preference_training(repo: Repository, base: Path, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list(
        [{"prompt": t[:9], "chosen": t[9:], "rejected": t[9:][::-1]} for t in tiny.SENTENCES]
    )
    trainer = DPOTrainer(
        model=str(base),
        args=DPOConfig(**settings(tmp_path)),
        train_dataset=rows,
        processing_class=tiny.tokenizer(),
        peft_config=LoraConfig(**LORA),
        callbacks=[VersionCallback(repo, "m", run_name="r")],
    )
    check(repo, trainer, tmp_path, a="loss", b="rewards/margins")
