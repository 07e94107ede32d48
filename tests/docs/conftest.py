"""A folder as a newcomer has it: a model named gpt2, some sentences, train.py, a trained model in out/."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

SENTENCES = [
    "The capital of France is Paris. Paris is beautiful.",
    "Machine learning is about learning patterns from data.",
    "Python is a popular programming language for AI.",
    "A version is immutable; an alias moves, and its history stays.",
    "Nothing is overwritten, so nothing is lost.",
]

SCRIPT = """
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling
from transformers import Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("gpt2")
rows = load_dataset("json", data_files="sentences.jsonl", split="train")
rows = rows.map(lambda row: tokenizer(row["text"]), remove_columns=["text"])
Trainer(
    model=AutoModelForCausalLM.from_pretrained("gpt2"),
    args=TrainingArguments("other", num_train_epochs=1, use_cpu=True, report_to="none"),
    train_dataset=rows,
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
).train()
"""


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of one layer with a byte-level tokenizer, saved as transformers saves it."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base") / "gpt2"
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        SENTENCES, vocab_size=300, show_progress=False, special_tokens=["<|endoftext|>"]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|endoftext|>")
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=128)
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, tiny_gpt2: Path) -> Path:
    shutil.copytree(tiny_gpt2, tmp_path / "gpt2")
    shutil.copytree(tiny_gpt2, tmp_path / "out")
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    rows = "".join(json.dumps({"text": text}) + "\n" for text in SENTENCES * 4)
    (tmp_path / "sentences.jsonl").write_text(rows, encoding="utf-8")
    return tmp_path
