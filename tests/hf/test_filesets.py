"""A version's files are, byte for byte, what the Trainer's own save writes (training_args.bin aside)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models as tiny
from stemmata.hf import filesets
from stemmata.hf.snapshot import clone_state


def disturb(model: Any) -> None:
    """What training and evaluation do to a live model after the snapshot."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    inner = model.get_base_model() if filesets.is_adapter(model) else model
    inner.config.use_cache = not inner.config.use_cache
    inner.generation_config.max_new_tokens = 77


def full(folder: Path) -> Any:
    return tiny.gpt2()


def untied(folder: Path) -> Any:
    return tiny.gpt2(tied=False)


def resized(folder: Path) -> Any:
    model = tiny.gpt2()
    model.resize_token_embeddings(301, mean_resizing=False)
    return model


def half(folder: Path) -> Any:
    return tiny.gpt2().to(torch.bfloat16)


def base(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny.saved_base(folder / "base"))


def lora(folder: Path) -> Any:
    return tiny.with_lora(base(folder))


def lora_with_resized_vocabulary(folder: Path) -> Any:
    model = base(folder)
    model.resize_token_embeddings(301, mean_resizing=False)
    return tiny.with_lora(model)


def lora_with_modules_to_save(folder: Path) -> Any:
    return tiny.with_lora(base(folder), modules_to_save=["ln_f"])


def two_adapters(folder: Path) -> Any:
    from peft import LoraConfig

    model = lora(folder)
    model.add_adapter("other", LoraConfig(r=2, target_modules=["c_proj"], fan_in_fan_out=True))
    return model


def prompt_tuning(folder: Path) -> Any:
    from peft import PromptTuningConfig, get_peft_model

    return get_peft_model(base(folder), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))


KINDS = [
    full,
    untied,
    resized,
    half,
    lora,
    lora_with_resized_vocabulary,
    lora_with_modules_to_save,
    two_adapters,
    prompt_tuning,
]


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`")
@pytest.mark.parametrize("make", KINDS)
def test_the_files_are_those_of_the_trainers_own_save(tmp_path: Path, make: Any) -> None:
    model = make(tmp_path)
    trainer = tiny.trainer(model, tmp_path / "out", [])
    trainer.save_model(str(tmp_path / "theirs"))
    ours = tmp_path / "ours"
    ours.mkdir()
    files = filesets.begin(model, trainer.processing_class, ours)
    disturb(model)
    files.finish()
    assert tiny.files_of(ours) == tiny.files_of(tmp_path / "theirs")


def test_a_model_that_is_no_pretrained_one(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    trainer = tiny.trainer(model, tmp_path / "out", [])
    trainer.save_model(str(tmp_path / "theirs"))
    ours = tmp_path / "ours"
    ours.mkdir()
    files = filesets.begin(model, trainer.processing_class, ours)
    with torch.no_grad():
        model[0].weight.zero_()
    files.finish()
    assert tiny.files_of(ours) == tiny.files_of(tmp_path / "theirs")


def test_saving_leaves_the_live_model_as_it_was(tmp_path: Path) -> None:
    model = lora(tmp_path)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    files = filesets.begin(model, None, tmp_path / "ours")
    seen: list[bool] = []
    config = model.peft_config["default"]
    original = type(config).save_pretrained

    def watch(self: Any, *a: Any, **k: Any) -> None:
        seen.append(model.peft_config["default"].inference_mode)
        original(self, *a, **k)

    config.__class__.save_pretrained, restore = watch, original
    try:
        files.finish()
    finally:
        config.__class__.save_pretrained = restore
    assert seen == [False], "peft flips the flag while it saves, but not on the live config"
    assert json.loads((tmp_path / "ours/adapter_config.json").read_text())["inference_mode"] is True
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.base_model.peft_config["default"] is config


def test_only_the_adapter_is_copied(tmp_path: Path) -> None:
    model = lora(tmp_path)
    kept = filesets._adapter_state(model)
    assert kept
    assert all("lora_" in name for name in kept)


# --- snapshots --------------------------------------------------------------------------------------


def places(state: dict[str, torch.Tensor]) -> dict[str, int]:
    return {k: v.untyped_storage().data_ptr() for k, v in state.items()}


def test_a_clone_shares_nothing_with_the_live_tensors_and_keeps_their_ties() -> None:
    state = tiny.gpt2().state_dict()
    clone = clone_state(state)
    assert list(clone) == list(state)
    assert not set(places(clone).values()) & set(places(state).values())
    assert places(state)["lm_head.weight"] == places(state)["transformer.wte.weight"]
    assert places(clone)["lm_head.weight"] == places(clone)["transformer.wte.weight"]
    for name, tensor in state.items():
        assert torch.equal(clone[name], tensor)
        assert clone[name].stride() == tensor.stride()


def test_views_of_one_storage_stay_views() -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    state = {
        "whole": whole,
        "row": whole[1],
        "column": whole[:, 2],
        "other": torch.ones(3),
        "turned": whole.T,
    }
    clone = clone_state(state)
    for name, tensor in state.items():
        assert torch.equal(clone[name], tensor)
    clone["whole"].zero_()
    assert clone["row"].sum() == clone["column"].sum() == clone["turned"].sum() == 0
    assert clone["other"].sum() == 3
    assert whole.sum() == 276


def test_odd_entries_of_a_state_survive() -> None:
    state = {
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(5, dtype=torch.int64),
        "bits": torch.tensor([True, False]),
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "extra": {"a": [1, 2]},
    }
    clone = clone_state(state)
    assert clone["extra"] == state["extra"]
    assert clone["extra"] is not state["extra"]
    for name in ("empty", "scalar", "bits"):
        assert torch.equal(clone[name], state[name])
    assert torch.equal(clone["half"].view(torch.int16), state["half"].view(torch.int16))
    assert clone["empty"].shape == (0, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_clone_from_cuda_is_whole_and_pinned() -> None:
    model = tiny.gpt2().to("cuda")
    state = model.state_dict()
    expected = {k: v.cpu().clone() for k, v in state.items()}
    clone = clone_state(state)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for name, tensor in clone.items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, expected[name])
    assert clone["transformer.wpe.weight"].is_pinned()
    assert places(clone)["lm_head.weight"] == places(clone)["transformer.wte.weight"]
