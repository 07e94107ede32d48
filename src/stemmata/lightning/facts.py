"""Facts: what is recorded of a Lightning training: hyperparameters, the trainer's settings, data, seed.

Owns also which strategies are refused. Nothing else here fails a training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from stemmata.capturing import Capturing
from stemmata.errors import TrainingSetup
from stemmata.hf import captured, facts
from stemmata.hf.distributed import is_part
from stemmata.metricnames import Direction
from stemmata.training_args import sanitise_arguments

_SETTINGS = (
    "max_epochs",
    "max_steps",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "world_size",
)
_SHARDED = ("FSDPStrategy", "ModelParallelStrategy")


@dataclass(frozen=True, slots=True)
class Place:
    """Which process of a training this is, in the words of `stemmata.hf.distributed`."""

    process_index: int
    world_size: int


def hold_strategy(trainer: Any) -> None:
    """Refuse, before anything is set up, strategies under which no process holds the whole model.
    Raises TrainingSetup."""
    strategy = trainer.strategy
    kinds = {kind.__name__ for kind in type(strategy).__mro__}
    zero = "DeepSpeedStrategy" in kinds and getattr(strategy, "zero_stage_3", False)
    if not zero and kinds.isdisjoint(_SHARDED):
        return
    raise TrainingSetup(
        reason=f"strategy={type(strategy).__name__}{' at stage 3' if zero else ''} shards the model over "
        "processes, and the callback saves whole models",
        hint="train with strategy='ddp' (or DeepSpeed at stage 2 or less), or leave the callback out and "
        "save a consolidated checkpoint with repo.save(...) afterwards",
    )


def config(trainer: Any, module: Any) -> dict[str, object]:
    """Hyperparameters of the LightningModule and its data under their own names, the trainer's settings
    under `trainer.`; secrets masked."""
    given: dict[str, Any] = {}
    for owner in (trainer.datamodule, module):
        hparams = getattr(owner, "hparams", None)
        if isinstance(hparams, Mapping):
            given.update({k: v for k, v in hparams.items() if not isinstance(v, torch.nn.Module)})
    settings: dict[str, object] = {
        f"trainer.{name}": value for name in _SETTINGS if (value := getattr(trainer, name, None)) is not None
    }
    settings["trainer.strategy"] = type(trainer.strategy).__name__
    settings["trainer.accelerator"] = type(trainer.accelerator).__name__
    for optimizer in trainer.optimizers[:1]:
        settings["trainer.optimizer"] = type(optimizer).__name__
        rate = optimizer.param_groups[0].get("lr")
        settings["trainer.learning_rate"] = rate.item() if isinstance(rate, torch.Tensor) else rate
    return {**sanitise_arguments(settings), **sanitise_arguments(given)}


def capture_run(config: Mapping[str, object], trainer: Any, module: Any) -> Capturing:
    """The capture of a run that begins now, with the training's settings and the seed that Lightning set."""
    seed = os.environ.get("PL_GLOBAL_SEED", "")
    loaders = {"train": _first(trainer.train_dataloader), "eval": _first(trainer.val_dataloaders)}
    return captured.begin(
        arguments=dict(config),
        seeds_said={"seed": int(seed) if seed.isdecimal() else None},
        classes={
            "trainer": trainer,
            "model": module,
            "optimizer": next(iter(trainer.optimizers), None),
            "collator": getattr(loaders["train"], "collate_fn", None),
            "processing": getattr(module, "tokenizer", None),
        },
        callbacks=trainer.callbacks,
        datasets={part: getattr(loader, "dataset", None) for part, loader in loaders.items()},
        model=module,
    )


def data(trainer: Any) -> dict[str, object]:
    """Rows, columns and fingerprint of the datasets, where they can tell."""
    return facts.data(_first(trainer.train_dataloader), _first(trainer.val_dataloaders))


def monitored(trainer: Any) -> tuple[str, Direction] | None:
    """The metric by which a checkpoint callback of the trainer, else early stopping, tells the best model."""
    callbacks: Iterable[Any] = [*trainer.checkpoint_callbacks, *trainer.early_stopping_callbacks]
    for callback in callbacks:
        metric, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        if metric and mode in ("min", "max"):
            return str(metric), mode
    return None


def _first(loaders: Any) -> Any:
    """The first of some loaders: one of them, a list or a dict of them, or Lightning's own collection."""
    while loaders is not None and not hasattr(loaders, "dataset"):
        inside = getattr(loaders, "iterables", loaders)
        if isinstance(inside, Mapping):
            inside = list(inside.values())
        if not isinstance(inside, list | tuple) or not inside:
            return inside if hasattr(inside, "dataset") else None
        loaders = inside[0]
    return loaders


def sample(module: Any) -> list[Any]:
    """A number of each weight, to tell other weights by: what copies averaged ones in does so past the count
    that torch keeps of writes."""
    whole = (w.detach() for w in module.parameters() if not is_lazy(w) and not is_part(w))
    return [weight.reshape(-1)[weight.numel() // 2].clone() for weight in whole]


def differ(before: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether any number of two samples is another one; NaN is the same as NaN."""
    pairs = ((a.to(b.device), b) for a, b in zip(before, now, strict=False))
    return any(bool(a.ne(b)) and not (bool(a.ne(a)) and bool(b.ne(b))) for a, b in pairs)
