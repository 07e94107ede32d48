"""Exported scripts are run: what they train is a model of the same shape, from the same base."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import tiny_models as tiny
from stemmata.hf import VersionCallback
from stemmata.repository import Repository

pytestmark = pytest.mark.slow


def rows(folder: Path) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny.SENTENCES))
    return file


def ran(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(script)
    environment = {**os.environ, "STEMMATA_REPO": str(folder.parent / "models"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def exec_script(script: str) -> dict[str, Any]:
    """What the script defines, without a second import of everything."""
    defined: dict[str, Any] = {"__name__": "exported"}
    exec(compile(script, "train.py", "exec"), defined)
    return defined


def tensors(file: Path) -> dict[str, list[int]]:
    with safe_open(str(file), framework="pt") as opened:
        return {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def test_a_trainers_version_trains_again_from_the_base_in_the_repository(
    repo: Repository,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started_from = repo.save(base, "tiny-gpt2")
    model = AutoModelForCausalLM.from_pretrained(base)
    tiny.trainer(model, tmp_path / "out", [VersionCallback(repo, "full")], lr_scheduler_type="cosine").train()
    version = repo["full@latest"]
    script = version.script()
    assert '"lr_scheduler_type": "cosine"' in script
    assert f'stored("{started_from.id.hex}")' in script

    found = ran(script, tmp_path / "again", "--data", str(rows(tmp_path)), "--max-steps", "2")
    assert found.returncode == 0, found.stderr
    assert "the run had 8 rows (train)" in found.stderr
    made = tmp_path / "again" / "out" / "model.safetensors"
    version.checkout(tmp_path / "kept")
    assert tensors(made) == tensors(tmp_path / "kept" / "model.safetensors")
    assert made.read_bytes() != (base / "model.safetensors").read_bytes()

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as asked:
        exec_script(script)["parse_options"]()
    assert asked.value.code == 2
    assert "required: --data" in capsys.readouterr().err


def test_an_adapter_of_trl_trains_again(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    SFTTrainer(
        model=str(base),
        args=SFTConfig(
            str(tmp_path / "out"),
            run_name="r4",
            max_steps=1,
            max_length=16,
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"text": text} for text in tiny.SENTENCES]),
        peft_config=LoraConfig(r=4, task_type="CAUSAL_LM", fan_in_fan_out=True),
        callbacks=[VersionCallback(repo, "sft")],
    ).train()
    version = repo["sft@latest"]
    data = str(rows(tmp_path))
    more = ("--data", data, "--eval-data", data, "--max-steps", "1", "--output", "adapter")
    (tmp_path / "again").mkdir()
    monkeypatch.chdir(tmp_path / "again")
    monkeypatch.setattr(sys, "argv", ["train.py", *more])
    exec_script(version.script())["main"]()
    version.checkout(tmp_path / "kept")
    again = tmp_path / "again" / "adapter"
    assert tensors(again / "adapter_model.safetensors") == tensors(
        tmp_path / "kept" / "adapter_model.safetensors"
    )
    configs = [json.loads((f / "adapter_config.json").read_text()) for f in (again, tmp_path / "kept")]
    assert [c["r"] for c in configs] == [4, 4]
    assert [c["fan_in_fan_out"] for c in configs] == [True, True]
