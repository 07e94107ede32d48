"""QLoRA: a base in 4 or 8 bits is rounded again as it was in training, and nothing is merged into it.

bitsandbytes computes on a CPU too, so the real thing is tested, not a stand-in.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

import tiny_models as tiny
from stemmata.errors import BaseMismatch, NotLoadable
from stemmata.hf import VersionCallback, libraries
from stemmata.repository import Repository
from stemmata.version import Version

PROMPT = torch.tensor([[1, 2, 3, 4]])
FOUR = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": torch.float32,
}
EIGHT = {"load_in_8bit": True}

pytestmark = [
    pytest.mark.filterwarnings("ignore:MatMul8bitLt"),
    pytest.mark.filterwarnings("ignore:Merge lora module to"),
]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(PROMPT).logits
    return found


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A tiny Llama in a folder: its layers are those that bitsandbytes rounds."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=290,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "full")
    return tmp_path / "full"


def rounded(folder: Path, settings: dict[str, Any]) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**settings))


def trained(repo: Repository, tmp_path: Path, base: Any) -> tuple[Any, Version]:
    from peft import prepare_model_for_kbit_training

    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    model = tiny.with_lora(base, target_modules=["q_proj", "v_proj"], fan_in_fan_out=False)
    callback = VersionCallback(repo, "q", run_name="r")
    tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1).train()
    return model, repo["q@r/final"]


@pytest.mark.parametrize("settings", [FOUR, EIGHT], ids=["4bit", "8bit"])
def test_the_base_is_rounded_again_as_it_was(
    repo: Repository, tmp_path: Path, full: Path, settings: dict[str, Any]
) -> None:
    model, version = trained(repo, tmp_path, rounded(full, settings))
    prefix = "model.quantization_config"
    assert version.config[f"{prefix}.quant_method"] == "bitsandbytes"
    assert version.config[f"{prefix}.load_in_4bit"] is ("load_in_4bit" in settings)
    assert version.config[f"{prefix}.load_in_8bit"] is ("load_in_8bit" in settings)
    stored = repo.save(full, "full")
    from stemmata.bases import weights_of_tree

    assert version.base is not None
    assert version.base.digest == weights_of_tree(stored.tree()).digest, (
        "of the files, not of what was rounded"
    )
    loaded = version.load()
    given = loaded.config.quantization_config
    assert given.load_in_4bit == ("load_in_4bit" in settings)
    if "load_in_4bit" in settings:
        assert (given.bnb_4bit_quant_type, given.bnb_4bit_use_double_quant) == ("nf4", True)
        assert given.bnb_4bit_compute_dtype == torch.float32
    assert torch.equal(logits(loaded), logits(model))
    in_full = version.load(quantization_config=None)
    assert getattr(in_full.config, "quantization_config", None) is None


def test_nothing_is_merged_into_a_rounded_base(repo: Repository, tmp_path: Path, full: Path) -> None:
    _, version = trained(repo, tmp_path, rounded(full, FOUR))
    with pytest.raises(NotLoadable, match=r"quantised \(4 bits\).*base="):
        version.load(merge=True)
    with pytest.raises(NotLoadable, match="quantised"):
        version.load(merge=True, base=rounded(full, FOUR))
    merged = version.load(merge=True, base=full)
    assert type(merged) is LlamaForCausalLM
    assert torch.equal(logits(merged), logits(version.load(merge=True, quantization_config=None)))
    expected = version.load(quantization_config=None)
    assert torch.allclose(logits(merged), logits(expected), atol=1e-5)
    assert not torch.equal(logits(merged), logits(AutoModelForCausalLM.from_pretrained(full)))
    shutil.rmtree(full)
    LlamaForCausalLM(merged.config).save_pretrained(full)
    with pytest.raises(BaseMismatch):
        version.load(merge=True, base=full)


def test_a_base_whose_files_are_rounded_themselves(repo: Repository, tmp_path: Path, full: Path) -> None:
    packed = tmp_path / "packed"
    rounded(full, FOUR).save_pretrained(packed)
    model, version = trained(repo, tmp_path, AutoModelForCausalLM.from_pretrained(packed))
    assert version.base is not None
    assert version.base.name_or_path == str(packed)
    assert torch.equal(logits(version.load()), logits(model))
    for given in ({}, {"base": packed}, {"base": repo.save(packed, "packed")}):
        with pytest.raises(NotLoadable, match="quantised"):
            version.load(merge=True, **given)


def test_a_rounded_model_is_a_version_itself(repo: Repository, tmp_path: Path, full: Path) -> None:
    model = rounded(full, FOUR)
    model.save_pretrained(tmp_path / "packed")
    version = repo.save(tmp_path / "packed", "packed")
    assert version.config["model.quantization_config.load_in_4bit"] is True
    loaded = version.load()
    assert loaded.is_loaded_in_4bit
    assert torch.equal(logits(loaded), logits(model))


def test_without_the_package_it_is_named(
    repo: Repository, tmp_path: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, adapter = trained(repo, tmp_path, rounded(full, FOUR))
    rounded(full, FOUR).save_pretrained(tmp_path / "packed")
    packed = repo.save(tmp_path / "packed", "packed")
    real = libraries.find_spec
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    for version in (adapter, packed):
        with pytest.raises(NotLoadable, match="pip install bitsandbytes"):
            version.load()
    assert adapter.load(merge=True, base=full) is not None
