"""Adapters on bases that are more than a folder: cast, trained on, merged. Their logits come back, or
loading says why they cannot."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

import tiny_models as tiny
from stemmata.errors import BaseMismatch, BaseMissing
from stemmata.hf import VersionCallback
from stemmata.hf.origin import _same_rounded
from stemmata.repository import Repository
from stemmata.version import Version

PROMPT = torch.tensor([[1, 2, 3, 4]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(PROMPT).logits
    return found


def trained(repo: Repository, model: Any, tmp_path: Path, run: str) -> Version:
    callback = VersionCallback(repo, "m", run_name=run)
    tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1).train()
    return repo[f"m@{run}/final"]


def spread(lora: Any, size: float) -> Any:
    with torch.no_grad():
        for name, weight in lora.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=size)
    return lora


def test_a_base_comes_back_in_the_precision_that_it_was_loaded_in(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16))
    version = trained(repo, model, tmp_path, "r")
    assert version.config["model.dtype"] == "bfloat16"
    loaded = version.load()
    assert loaded.get_base_model().dtype == torch.bfloat16
    assert torch.equal(logits(loaded), logits(model))
    assert version.load(dtype=torch.float32).get_base_model().dtype == torch.float32


def test_an_adapter_that_was_cast_comes_back_in_its_precision(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16))
    version = trained(repo, model.to(torch.bfloat16), tmp_path, "r")
    loaded = version.load()
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert torch.equal(logits(loaded), logits(model))


def test_a_base_that_was_trained_on_in_memory_is_the_version_of_that_training(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    full = trained(repo, model, tmp_path, "full")
    lora = tiny.with_lora(model)
    version = trained(repo, lora, tmp_path, "lora")
    assert version.base is not None
    assert version.base.version == full.id.hex
    assert version.base.name_or_path == "", "the folder holds what it was before"
    assert torch.equal(logits(version.load()), logits(lora))
    assert torch.equal(logits(version.load(base=full.checkout(tmp_path / "full"))), logits(lora))
    with pytest.raises(BaseMismatch):
        version.load(base=base)


def test_a_merged_adapters_version_is_a_base(repo: Repository, base: Path, tmp_path: Path) -> None:
    first = trained(repo, tiny.with_lora(AutoModelForCausalLM.from_pretrained(base)), tmp_path, "a")
    lora = tiny.with_lora(first.load(merge=True))
    version = trained(repo, lora, tmp_path, "b")
    assert version.parents == [first.id.hex]
    assert torch.equal(logits(version.load()), logits(lora))
    assert torch.equal(logits(version.load(base=first)), logits(lora))
    with pytest.raises(BaseMismatch):
        version.load(base=base)
    shutil.rmtree(base)
    with pytest.raises(BaseMissing):
        version.load()


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_an_adapter_merged_by_hand_leaves_no_base_to_load_from(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base))
    trained(repo, model, tmp_path, "a")
    lora = tiny.with_lora(model.merge_and_unload())
    with pytest.warns(UserWarning, match="no longer the one at"):
        version = trained(repo, lora, tmp_path, "b")
    with pytest.raises(BaseMissing):
        version.load()
    expected = logits(lora)
    inner = lora.unload()
    inner.save_pretrained(tmp_path / "merged")
    with pytest.warns(UserWarning, match="could not be checked"):
        loaded = version.load(base=tmp_path / "merged")
    assert torch.equal(logits(loaded), expected)


@pytest.mark.parametrize("beginning", [True, "gaussian", "pissa"])
def test_an_unchanged_base_is_never_taken_for_a_changed_one(
    repo: Repository, base: Path, tmp_path: Path, beginning: Any
) -> None:
    inner = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).float()
    lora = tiny.with_lora(inner, init_lora_weights=beginning, bias="all", modules_to_save=["ln_f"])
    version = trained(repo, lora, tmp_path, "r")
    assert version.base is not None
    assert version.base.name_or_path == str(base)


def given_adapter(model: Any) -> Any:
    """As transformers' own integration has it: the model stays what it is, the adapter goes into it."""
    model.add_adapter(LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)  # so that it makes a difference
    return model


def test_a_model_given_an_adapter_names_the_version_that_lies_under_it(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    full = trained(repo, model, tmp_path, "full")
    given_adapter(model)
    for run in ("first", "on"):  # on: what was saved last is no base of itself
        version = trained(repo, model, tmp_path, run)
        assert version.kind == "adapter"
        assert version.base is not None
        assert (version.base.version, version.base.name_or_path) == (full.id.hex, "")
        assert torch.equal(logits(version.load()), logits(model))


def test_an_adapter_given_to_a_model_of_a_folder_stays_on_that(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model = given_adapter(AutoModelForCausalLM.from_pretrained(base))
    versions = [repo.save(model, "m"), trained(repo, model, tmp_path, "a")]
    versions += [trained(repo, model, tmp_path, "b"), repo.save(model, "m")]
    for version in versions:
        assert version.base is not None
        assert (version.base.version, version.base.name_or_path) == (None, str(base))
    assert torch.equal(logits(versions[-1].load()), logits(model))


def test_an_adapter_given_to_a_loaded_version_loads_again(repo: Repository, base: Path) -> None:
    stored = repo.save(base, "base")
    model = given_adapter(stored.load())
    version = repo.save(model, "m")
    assert version.base is not None
    assert version.base.version == stored.id.hex
    assert version.base.digest is not None
    assert version.parents == [stored.id.hex]
    assert torch.equal(logits(version.load()), logits(model))


def test_weights_that_changed_under_a_given_adapter_are_told(repo: Repository, base: Path) -> None:
    model = given_adapter(AutoModelForCausalLM.from_pretrained(base))
    with torch.no_grad():
        model.transformer.wte.weight.add_(1.0)
    with pytest.warns(UserWarning, match="wte"):
        version = repo.save(model, "m")
    assert version.base is not None
    assert (version.base.version, version.base.name_or_path) == (None, "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("from_version", [False, True])
def test_an_adapter_that_was_merged_and_taken_out_again_leaves_its_base(
    repo: Repository, base: Path, dtype: torch.dtype, from_version: bool
) -> None:
    """TRL does so before each generation of a training by rewards."""
    stored = repo.save(base, "base") if from_version else None
    inner = AutoModelForCausalLM.from_pretrained(base, dtype=dtype) if stored is None else stored.load()
    lora = spread(tiny.with_lora(inner.to(dtype)), 0.02)
    before = {name: weight.clone() for name, weight in lora.named_parameters()}
    for _ in range(2):
        lora.merge_adapter()
        lora.unmerge_adapter()
    assert any(not torch.equal(before[name], weight) for name, weight in lora.named_parameters())
    version = repo.save(lora, "m")
    assert version.base is not None
    assert version.base.digest is not None
    assert torch.allclose(logits(version.load(dtype=dtype)), logits(lora), atol=0.1)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-3), (torch.bfloat16, 0.02)])
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_an_adapter_that_was_merged_is_no_rounding(
    repo: Repository, base: Path, dtype: torch.dtype, size: float
) -> None:
    inner = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    merged = spread(tiny.with_lora(inner), size).merge_and_unload()
    with pytest.warns(UserWarning, match="no longer the one at"):
        version = repo.save(tiny.with_lora(merged), "m")
    assert version.base is not None
    assert (version.base.version, version.base.name_or_path) == (None, "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_small_change_of_a_whole_row_is_found_in_every_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    row = (torch.randn(1, 768) * 0.02).to(dtype)
    delta = (torch.randn(1, 8) @ torch.randn(8, 768) / 8**0.5 * 2e-4).to(dtype)
    assert _same_rounded(row, row + delta - delta)
    assert not _same_rounded(row, row + delta), "a merge of a hundredth"
    assert not _same_rounded(row, row + 1e-4 * row.sign()), "a few steps of Adam"
    assert not _same_rounded(torch.zeros(1, 4, dtype=dtype), torch.full((1, 4), 1e-7, dtype=dtype))
    assert not _same_rounded(row, torch.full_like(row, float("nan")))
