"""A version's files are, byte for byte, what the Trainer's own save writes (training_args.bin aside)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tiny_models as tiny
from stemmata.hf import filesets


def disturb(model: Any) -> None:
    """What training and evaluation do to a live model after the snapshot."""
    disturb_all(model)
    inner = model.get_base_model() if filesets.is_adapter(model) else model
    inner.config.vocab_size = 7
    if inner.can_generate():
        inner.generation_config.max_new_tokens = 77


def disturb_all(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(1.0)
            else:
                parameter.bitwise_xor_(1)


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


def adapter(folder: Path, config: Any) -> Any:
    from peft import get_peft_model

    return get_peft_model(base(folder), config)


def dora(folder: Path) -> Any:
    return tiny.with_lora(base(folder), use_dora=True)


def ia3(folder: Path) -> Any:
    from peft import IA3Config

    targets = {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]}
    return adapter(folder, IA3Config(task_type="CAUSAL_LM", fan_in_fan_out=True, **targets))


def mixed(folder: Path) -> Any:
    """Layer norms in full precision, all else in half, and a table of integers."""
    model = tiny.gpt2().to(torch.float16)
    for block in model.transformer.h:
        block.ln_1.float()
        block.attn.register_buffer("seen", torch.arange(5))
    return model


def encoder_decoder(folder: Path) -> Any:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(vocab_size=300, decoder_start_token_id=0, **sizes)
    return transformers.T5ForConditionalGeneration(config)


def channels_last(folder: Path) -> Any:
    """Each of its convolutions' weights lies in memory in another order than in a file."""
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=2)
    return transformers.ResNetForImageClassification(config).to(memory_format=torch.channels_last)


def experts(folder: Path) -> Any:
    """In memory all experts of a layer are one tensor, in a file each has its own."""
    config = transformers.MixtralConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        tie_word_embeddings=False,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(folder / "experts")
    return transformers.MixtralForCausalLM.from_pretrained(folder / "experts")


def rounded(folder: Path, **how: Any) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "full")
    settings = transformers.BitsAndBytesConfig(**how)
    return transformers.LlamaForCausalLM.from_pretrained(folder / "full", quantization_config=settings)


def four_bits(folder: Path) -> Any:
    return rounded(folder, load_in_4bit=True, bnb_4bit_use_double_quant=True)


def eight_bits(folder: Path) -> Any:
    return rounded(folder, load_in_8bit=True)


def qlora(folder: Path) -> Any:
    return tiny.with_lora(four_bits(folder), target_modules=["q_proj"], fan_in_fan_out=False)


KINDS = [
    full,
    untied,
    resized,
    half,
    mixed,
    encoder_decoder,
    channels_last,
    experts,
    lora,
    dora,
    ia3,
    lora_with_resized_vocabulary,
    lora_with_modules_to_save,
    two_adapters,
    prompt_tuning,
    qlora,
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


@pytest.mark.parametrize("make", [four_bits, eight_bits])
def test_a_quantised_model_without_an_adapter(tmp_path: Path, make: Any) -> None:
    """The Trainer trains none, but a loop of one's own may save one."""
    model = make(tmp_path)
    model.save_pretrained(tmp_path / "theirs")
    files = filesets.begin(model, None, tmp_path / "ours")
    disturb(model)
    files.finish()
    assert tiny.files_of(tmp_path / "ours") == tiny.files_of(tmp_path / "theirs")


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


def test_a_model_that_is_no_pretrained_one_may_have_tied_and_turned_tensors(tmp_path: Path) -> None:
    """The Trainer cannot write one: safetensors' own `save_model` can, and `load_model` reads it."""
    from safetensors.torch import load_model, save_model

    def made() -> Any:
        torch.manual_seed(0)
        model = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in "abc"})
        model["b"].weight = model["a"].weight
        model["c"].weight.data = model["c"].weight.data.t()
        return model

    model = made()
    save_model(model, str(tmp_path / "theirs.safetensors"), metadata={"format": "pt"})
    ours = tmp_path / "ours"
    ours.mkdir()
    files = filesets.begin(model, None, ours)
    disturb_all(model)
    files.finish()
    data, expected = (ours / "model.safetensors").read_bytes(), (tmp_path / "theirs.safetensors").read_bytes()
    assert data[8:].partition(b"}}")[2] == expected[8:].partition(b"}}")[2]
    # Of the header only the order of the metadata may differ, which safetensors leaves to chance.
    back = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in "abc"})
    back["b"].weight = back["a"].weight
    assert load_model(back, str(ours / "model.safetensors")) == (set(), [])
    assert all(torch.equal(v, made().state_dict()[k]) for k, v in back.state_dict().items())


def test_saving_leaves_the_live_model_as_it_was(tmp_path: Path) -> None:
    model = lora(tmp_path)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    live = (model.get_base_model().config, model.get_base_model().generation_config)
    configs = (*live, model.peft_config["default"])
    before = [copy.deepcopy(vars(config)) for config in configs]
    filesets.begin(model, None, tmp_path / "ours").finish()
    assert json.loads((tmp_path / "ours/adapter_config.json").read_text())["inference_mode"] is True
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert [vars(config) for config in configs] == before
    assert model.base_model.peft_config["default"] is configs[2]


def test_a_save_that_fails_leaves_it_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """peft turns `inference_mode` on while it writes, and leaves it so if that fails."""
    from peft import LoraConfig

    model = lora(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(LoraConfig, "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        filesets.begin(model, None, tmp_path / "ours")
    assert model.peft_config["default"].inference_mode is False
