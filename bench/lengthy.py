"""How the histories L and T of corpus.py are trained: the encoder of H from its base, over epochs of an
ordinary length, and over many in a line.

Owns two ways for L: all in fp32, and mixed precision as most people train, whose weights stay in fp32 and are
saved in bf16; for T one rate throughout, so that each version moves as far as the one before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from finetuning import (
    Training,
    adapted_by,
    constant,
    contrastive,
    contrastive_training,
    encoder,
    encoder_base,
    epochs,
    saver,
)
from manifests import Line, Shelf
from recipes import LONG_STEPS, LORA_EPOCHS, STEPS, TEN_EPOCHS

EPOCHS = 3


def fp32(shelf: Shelf) -> None:
    torch.manual_seed(51)
    model, tokenizer = encoder(shelf.folder("base"))
    training = contrastive_training(model, tokenizer, 51, 2e-5, EPOCHS, "L fp32", LONG_STEPS)
    what = f"all weights in fp32, {LONG_STEPS} steps, AdamW 2e-5 linear"
    epochs(shelf, training, "long", EPOCHS, LONG_STEPS, what, saver(model, tokenizer))


def mixed(shelf: Shelf) -> None:
    torch.manual_seed(52)
    model, tokenizer = encoder(shelf.folder("base"))
    write = rounding(model, tokenizer)
    shelf.put("rounded-base", ("base",), "model", "the base, rounded to bf16", write)
    training = contrastive_training(model, tokenizer, 52, 3e-5, EPOCHS, "L mixed", LONG_STEPS)
    training.loss, training.half = cast, True
    what = f"weights kept in fp32, saved as bf16, {LONG_STEPS} steps in bf16, AdamW 3e-5 linear"
    epochs(shelf, training, "rounded", EPOCHS, LONG_STEPS, what, write, start="rounded-base")


def cast(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss as a Trainer with `bf16=True` has it: products in bf16, the weights as they are."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return contrastive(model, batch)


def rounding(model: Any, tokenizer: Any) -> Callable[[Path], None]:
    """Writes a rounded copy: the model itself trains on with all its bits."""

    def write(folder: Path) -> None:
        saver(copy.deepcopy(model).to(torch.bfloat16), tokenizer)(folder)

    return write


def ten(shelf: Shelf) -> None:
    torch.manual_seed(61)
    model, tokenizer = encoder(shelf.folder("base"))
    training = at_one_rate(contrastive_training(model, tokenizer, 61, 2e-5, TEN_EPOCHS, "T fp32"))
    what = "all weights in fp32, AdamW 2e-5 constant"
    epochs(shelf, training, "ten", TEN_EPOCHS, STEPS, what, saver(model, tokenizer))


def one_lora(shelf: Shelf) -> None:
    torch.manual_seed(62)
    model, tokenizer = encoder(shelf.folder("base"))
    adapted = adapted_by(model, 8)
    training = at_one_rate(contrastive_training(adapted, tokenizer, 62, 2e-4, LORA_EPOCHS, "T LoRA"))
    what = "LoRA of rank 8 on query and value, AdamW 2e-4 constant"
    epochs(shelf, training, "lora", LORA_EPOCHS, STEPS, what, saver(adapted, tokenizer), kind="adapter")


def at_one_rate(training: Training) -> Training:
    """One step in ten of the first epoch warms up."""
    training.scheduler = constant(training.optimizer, STEPS)
    return training


HISTORIES: dict[str, list[Line]] = {
    "L": [("base", encoder_base), ("fp32", fp32), ("mixed", mixed)],
    "T": [("base", encoder_base), ("ten", ten), ("lora", one_lora)],
}
