"""How the history L of corpus.py is trained: the encoder of H from its base, epochs of an ordinary length.

Owns two ways: all in fp32, and mixed precision as most people train, whose weights stay in fp32 and are
saved in bf16.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from finetuning import contrastive, contrastive_training, encoder, encoder_base, epochs, saver
from manifests import Line, Shelf
from recipes import LONG_STEPS

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


HISTORIES: dict[str, list[Line]] = {"L": [("base", encoder_base), ("fp32", fp32), ("mixed", mixed)]}
