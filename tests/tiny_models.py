"""Tiny models, tokenizers and trainings for the tests of hf/; nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

SENTENCES = [
    "the capital of france is paris",
    "a version is a tree of files and a record",
    "every epoch can be brought back",
    "the scribe copied the text by lamp light",
    "two hands wrote the last leaf",
    "the older reading is the harder one",
]


def tokenizer() -> PreTrainedTokenizerFast:
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(SENTENCES, vocab_size=290, show_progress=False, special_tokens=["<end>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, eos_token="<end>", pad_token="<end>", model_max_length=32
    )


def gpt2(*, tied: bool = True, seed: int = 0, vocabulary: int = 290) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_layer=2,
            n_embd=32,
            n_head=2,
            n_positions=32,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=tied,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )


def saved_base(folder: Path, *, seed: int = 0, tied: bool = True) -> Path:
    gpt2(seed=seed, tied=tied).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def with_lora(model: Any, rank: int = 4, **more: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    settings = {"target_modules": ["c_attn"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True, **more}
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, **settings))


def dataset(rows: int = 8) -> Dataset:
    made = tokenizer()
    ids = [made(SENTENCES[i % len(SENTENCES)])["input_ids"][:8] for i in range(rows)]
    ids = [(row * 8)[:8] for row in ids]
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": [],
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_strategy": "epoch",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 7,
        **more,
    }
    return TrainingArguments(**settings)


def trainer(model: Any, folder: Path, callbacks: list[Any], *, rows: int = 8, **more: Any) -> Trainer:
    """A Trainer over 8 rows: 2 steps an epoch; evaluates on 4 rows where it is asked to."""
    made = {k: more.pop(k) for k in ("eval_dataset", "processing_class") if k in more}
    if more.get("eval_strategy", "no") != "no":
        made.setdefault("eval_dataset", dataset(4))
    made.setdefault("processing_class", tokenizer())
    return Trainer(
        model=model,
        args=arguments(folder, **more),
        train_dataset=dataset(rows),
        callbacks=callbacks,
        **made,
    )


def files_of(folder: Path) -> dict[str, str]:
    """Relative path -> digest of every file, `training_args.bin` aside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "training_args.bin"
    }
