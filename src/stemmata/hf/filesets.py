"""Filesets: the files that a Trainer's own save writes, made in two halves.

On the training thread everything that may change is copied: tensors, configs, and the small files
are written. Off it, the library's own `save_pretrained` writes the weights from the copies: so a
version holds, byte for byte, what `Trainer.save_model` would have written (training_args.bin aside).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from stemmata.hf.distributed import hold_whole
from stemmata.hf.snapshot import clone_state
from stemmata.hf.wrappers import clean_files, clean_state

_WEIGHTS = "model.safetensors"


@dataclass(slots=True)
class FileSet:
    """A folder that is complete once `finish` has run, which any thread may do, and again if it failed."""

    folder: Path
    finish: Callable[[], None]


def begin(model: Any, processing_class: Any, folder: Path) -> FileSet:
    """Take everything that the files need from the live objects; `folder` is empty and one's own.

    On return the model may train on. `processing_class` may be None.
    """
    inner = unwrap(model)
    hold_whole(inner)
    with _without_bars():
        finish = _begin_model(inner, folder)
        if processing_class is not None:
            # Small, and as live as the model: written here.
            processing_class.save_pretrained(str(folder))

    def quietly() -> None:
        with _without_bars():
            finish()
        clean_files(folder)

    return FileSet(folder=folder, finish=quietly)


_this_thread = threading.local()


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers in this thread: they would tear the bar of the training."""
    _hush()
    _this_thread.quiet = True
    try:
        yield
    finally:
        _this_thread.quiet = False


@lru_cache(maxsize=1)
def _hush() -> None:
    from transformers.utils import logging

    def bar(factory: Any, arguments: Any, named: Any) -> Any:
        if getattr(_this_thread, "quiet", False):
            return logging.EmptyTqdm(*arguments, **named)
        return before(factory, arguments, named) if before is not None else factory(*arguments, **named)

    before = logging.set_tqdm_hook(bar) if hasattr(logging, "set_tqdm_hook") else None


def unwrap(model: Any) -> Any:
    """The model itself, without the wrappers of accelerate and torch.compile."""
    from accelerate.utils import extract_model_from_parallel

    return extract_model_from_parallel(model, keep_torch_compile=False)


def is_adapter(model: Any) -> bool:
    """Whether `model` is a PEFT model, of which only the adapter is saved."""
    try:
        from peft import PeftModel
    except ModuleNotFoundError:
        return False
    return isinstance(model, PeftModel)


def weight_bytes(model: Any) -> int:
    """Bytes of the tensors that a version of `model` holds; tied ones count once."""
    state = _adapter_state(model) if is_adapter(model) else model.state_dict()
    sizes: dict[Any, int] = {}
    for value in state.values():
        if isinstance(value, torch.Tensor):
            # A slice of a large storage counts as itself, tied tensors as one.
            place = (_place(value), value.storage_offset() if value.numel() else 0)
            sizes[place] = max(sizes.get(place, 0), value.numel() * value.element_size())
    return sum(sizes.values())


def _begin_model(model: Any, folder: Path) -> Callable[[], None]:
    target = str(folder)
    if is_adapter(model):
        state = clone_state(_adapter_state(model))
        if _must_be_written_now(model.get_base_model()) or not _made_of(model, state):
            model.save_pretrained(target)
            return _nothing
        stand_in = _adapter_stand_in(model)
        return lambda: stand_in.save_pretrained(target, state_dict=dict(state))
    if isinstance(model, PreTrainedModel):
        if _must_be_written_now(model):
            model.save_pretrained(target)
            return _nothing
        stand_in, state = _stand_in(model), clean_state(clone_state(model.state_dict()))
        return lambda: stand_in.save_pretrained(target, state_dict=dict(state))
    state = clean_state(clone_state(model.state_dict()))
    return lambda: _write_plain(state, folder / _WEIGHTS)


def _nothing() -> None:
    """All was written on the training thread."""


def _write_plain(state: dict[str, Any], path: Path) -> None:
    """What Trainer does with a model that is no PreTrainedModel."""
    from safetensors.torch import save_file

    save_file(state, str(path), metadata={"format": "pt"})


def _must_be_written_now(model: Any) -> bool:
    """Whether the library takes weights from the live model whatever it is handed: quantised,
    offloaded and sharded models."""
    if getattr(model, "hf_quantizer", None) is not None:
        return True
    if {"cpu", "disk"} & set(map(str, (getattr(model, "hf_device_map", None) or {}).values())):
        return True
    plain = (torch.Tensor, torch.nn.Parameter)
    return any(type(p) not in plain or p.device.type == "meta" for p in model.parameters())


def _stand_in(model: Any) -> Any:
    """A shallow copy for `save_pretrained`: same class and modules, configs of its own."""
    stand_in = copy.copy(model)
    for name in ("config", "generation_config"):
        if getattr(model, name, None) is not None:
            setattr(stand_in, name, copy.deepcopy(getattr(model, name)))
    if "peft_config" in vars(model):
        stand_in.peft_config = copy.deepcopy(model.peft_config)
    return stand_in


def _adapter_stand_in(model: Any) -> Any:
    """As `_stand_in` for a PEFT model, whose adapter configs live in the tuner below it.

    peft flips `inference_mode` in its config while it saves: that must not be the live config.
    """
    stand_in = copy.copy(model)
    # Not a deep copy: only the mapping of modules is one's own, so that a child can be replaced.
    stand_in._modules = dict(model._modules)
    tuner = copy.copy(model.base_model)
    tuner.peft_config = copy.deepcopy(model.peft_config)
    stand_in._modules["base_model"] = tuner
    return stand_in


def _adapter_state(model: Any) -> dict[str, Any]:
    """The entries of the live state that the adapter's files are made of, under their full names.

    peft picks and renames them again when it saves; the base's weights are not copied.
    """
    from peft import get_peft_model_state_dict

    wanted: set[Any] = set()
    for adapter in model.peft_config:
        kept = get_peft_model_state_dict(model, adapter_name=adapter)
        wanted |= {_place(value) for value in kept.values()}
    return {name: value for name, value in model.state_dict().items() if _place(value) in wanted}


def _made_of(model: Any, state: dict[str, Any]) -> bool:
    """Whether peft makes its files from the state it is handed alone: prompt learning reads the live
    model whatever that is."""
    from peft import get_peft_model_state_dict

    if model._is_prompt_learning:
        return False
    ours = {_place(value) for value in state.values()}
    return all(
        _place(value) in ours
        for adapter in model.peft_config
        for value in get_peft_model_state_dict(model, state_dict=dict(state), adapter_name=adapter).values()
    )


def _place(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.numel() == 0:
        return id(value)
    return (value.device, value.untyped_storage().data_ptr())
