"""What the tests of the Lightning callback train: modules of a few weights, and a Trainer that is quiet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import pytorch as pl
from torch.utils.data import DataLoader

import tiny_models as tiny

SECRET = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"


class Line(pl.LightningModule):
    """A linear layer; logs its loss by step and epoch, and a metric at the very end of each epoch."""

    def __init__(self, lr: float = 0.1, optimizer: object = None, token: str = SECRET) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(3, 1)

    def training_step(self, batch: Any, _number: int) -> Any:
        loss = self.net(batch).pow(2).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("late", float(self.current_epoch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Validated(Line):
    def validation_step(self, batch: Any, _number: int) -> None:
        self.log("val_loss", self.net(batch).pow(2).mean())


class Wrapped(pl.LightningModule):
    """A library's model, as most people have it in a LightningModule; whatever else is given beside it."""

    def __init__(self, model: Any, **beside: Any) -> None:
        super().__init__()
        self.model = model
        for name, value in beside.items():
            setattr(self, name, value)

    def training_step(self, batch: Any, _number: int) -> Any:
        return self.model(input_ids=batch, labels=batch).loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def numbers(rows: int = 8) -> DataLoader[Any]:
    """Two batches."""
    torch.manual_seed(1)
    return DataLoader(torch.randn(rows, 3), batch_size=4)


def tokens() -> DataLoader[Any]:
    return DataLoader(torch.tensor(tiny.dataset(4)["input_ids"]), batch_size=4)


def trainer(folder: Path, *callbacks: Any, kind: Any = pl, **settings: Any) -> Any:
    made = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "default_root_dir": str(folder),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        "logger": False,
        **settings,
    }
    return kind.Trainer(callbacks=list(callbacks), **made)
