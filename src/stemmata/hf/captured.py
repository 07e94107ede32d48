"""Captured: what of a training by transformers (or Lightning) goes into its run's capture.

Owns the classes, the base and the datasets; what is the same for every process is `stemmata.capturing`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from stemmata.capture import mask, to_json
from stemmata.capturing import Capturing, Missing, rows, seeds
from stemmata.capturing.missing import told
from stemmata.hf.facts import processing_class
from stemmata.hf.filesets import holds_adapters
from stemmata.hf.origin import local_folder, revision_of
from stemmata.training_args import sanitise_arguments
from stemmata.versions import folder_weights

_SEEDS = ("seed", "data_seed", "full_determinism")
_FRAMES = 40
_CLASSES = ("trainer", "arguments", "model", "optimizer", "scheduler", "collator", "processing")


def of_trainer(arguments: Any, model: Any, live: Mapping[str, Any]) -> Capturing:
    """The capture of a Trainer's run that begins now. `live`: what callbacks are given."""
    trainer = find_trainer()
    loader = live.get("train_dataloader")
    return begin(
        arguments=sanitise_arguments(arguments),
        seeds_said={name: getattr(arguments, name, None) for name in _SEEDS},
        classes={
            "trainer": trainer,
            "arguments": arguments,
            "model": model,
            "optimizer": _bare(live.get("optimizer"), "optimizer"),
            "scheduler": _bare(live.get("lr_scheduler"), "scheduler"),
            "collator": getattr(trainer, "data_collator", None) or getattr(loader, "collate_fn", None),
            "processing": processing_class(live),
        },
        callbacks=getattr(getattr(trainer, "callback_handler", None), "callbacks", []),
        datasets=datasets_of(live),
        model=model,
    )


def datasets_of(live: Mapping[str, Any]) -> dict[str, Any]:
    """What a Trainer trains on and what it evaluates on, by part."""
    return {
        "train": getattr(live.get("train_dataloader"), "dataset", None),
        "eval": getattr(find_trainer(), "eval_dataset", None),
    }


def begin(
    *,
    arguments: Mapping[str, object],
    seeds_said: Mapping[str, object],
    classes: Mapping[str, Any],
    callbacks: Iterable[Any],
    datasets: Mapping[str, Any],
    model: Any,
) -> Capturing:
    """Begin a capture with what a trainer says; rows and files are hashed in the background."""
    at_once = {
        "training_arguments": to_json(dict(arguments)),
        "seeds": to_json({**seeds.collect(begin=True), **seeds_said}),
        "trainer": _classes(classes, callbacks),
    }
    later = {"data": lambda: rows.collect(datasets)}
    if not holds_adapters(model):  # the record names an adapter's base
        later["base"] = lambda: {"base": _base(model)}
    return Capturing.begin(at_once, later)


def find_trainer() -> Any:
    """The Trainer whose callback this is: callbacks are not given it, but they are called from its method."""
    kind = getattr(sys.modules.get("transformers.trainer"), "Trainer", None)
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if kind is None or frame.f_back is None:
            return None
        frame = frame.f_back
        if "self" in frame.f_code.co_varnames and isinstance(frame.f_locals.get("self"), kind):
            return frame.f_locals["self"]
    return None


def resumed_from() -> str | None:
    """The checkpoint that the Trainer whose callback this is goes on from: an argument of its methods."""
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame.f_back is None:
            return None
        frame = frame.f_back
        if frame.f_code.co_name in ("_inner_training_loop", "train"):
            given = frame.f_locals.get("resume_from_checkpoint")
            if isinstance(given, str | os.PathLike):
                return os.fspath(given)
    return None


def _bare(wrapped: Any, name: str) -> Any:
    """What accelerate wraps."""
    return getattr(wrapped, name, wrapped) if type(wrapped).__module__.startswith("accelerate.") else wrapped


def _classes(classes: Mapping[str, Any], callbacks: Iterable[Any]) -> bytes:
    found: dict[str, object] = {name: _full_name(classes.get(name)) for name in _CLASSES}
    found["callbacks"] = [name for each in callbacks if (name := _full_name(each)) is not None]
    missing = [] if found["trainer"] else [Missing("trainer", "its class could not be found out")]
    return to_json({**found, "missing": told(missing)})


def _full_name(value: Any) -> str | None:
    if value is None:
        return None
    kind = value if isinstance(value, type) or hasattr(value, "__code__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _base(model: Any) -> bytes:
    """Where the model was loaded from, and the digest of the files there."""
    name = getattr(model, "name_or_path", None) or ""
    revision = revision_of(model)
    missing = []
    digest, files = None, []
    folder = local_folder(name, revision)
    weights = folder_weights(folder) if folder is not None else None
    if weights is not None and weights.rows:
        digest, files = weights.digest, [list(row) for row in weights.rows]
    elif name:
        missing.append(Missing("digest of the base", "no files of it are on this machine"))
    else:
        missing.append(Missing("base", "the model was made in memory; no place is known"))
    said = {"name_or_path": mask(name), "revision": revision, "digest": digest, "files": files}
    return to_json({**said, "missing": told(missing)})
