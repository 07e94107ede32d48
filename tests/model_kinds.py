"""Kinds of models, one tiny one of each: what a save and a load have to bring through bit for bit."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import transformers

import tiny_models as tiny


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


def sharded(folder: Path) -> Any:
    model = tiny.gpt2(tied=False)
    model.save_pretrained = functools.partial(model.save_pretrained, max_shard_size="40KB")
    return model


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


LISTED = [full, untied, sharded, half, lora, resized, encoder_decoder]
"""`full` is tied and in float32."""
ALL = [
    *LISTED,
    mixed,
    channels_last,
    experts,
    dora,
    ia3,
    lora_with_resized_vocabulary,
    lora_with_modules_to_save,
    two_adapters,
    prompt_tuning,
    qlora,
]
