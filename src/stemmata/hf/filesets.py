"""Filesets: the files that a Trainer's own save writes, without its weights being written.

On the training thread the library's own save runs: it writes configs and other small files, and what it
would write of weights is copied. Off it, the store reads the weight files from the copies: so a version
holds, byte for byte, what `Trainer.save_model` would have written (training_args.bin and tokens aside), or
what a model's own `save_pretrained` writes. Where there is no memory for copies, the store reads from the
live weights, and the training waits for that.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from stemmata.hf import plainmodules
from stemmata.hf.distributed import hold_whole
from stemmata.hf.snapshot import spare_pinned
from stemmata.hf.space import Room
from stemmata.hf.tokens import drop_tokens
from stemmata.hf.weightfiles import WeightFile, capture
from stemmata.hf.wrappers import clean_files, clean_state, is_wrapped
from stemmata.sources import MemoryFile, MemoryFolder

_log = logging.getLogger("stemmata")
_WEIGHTS = "model.safetensors"


@dataclass(slots=True)
class FileSet:
    """The files of one save: small ones in a folder, those of weights in memory."""

    folder: Path
    weights: list[WeightFile] = field(default_factory=list)
    live: bool = False
    """Whether the weights are read from the model itself, which must not change until they are stored."""

    @property
    def source(self) -> MemoryFolder:
        """What is saved."""
        files = [
            MemoryFile(file.path.relative_to(self.folder).as_posix(), file.size, file)
            for file in self.weights
        ]
        return MemoryFolder(self.folder, tuple(files))

    @property
    def nbytes(self) -> int:
        """Of the weights, which the store may need at most."""
        return sum(file.size for file in self.weights)

    def drop(self) -> None:
        """Let go of the weights; a save that still reads them fails."""
        for file in self.weights:
            file.drop()


def begin(
    model: Any,
    processing_class: Any,
    folder: Path,
    room: Room | None = None,
    *,
    live: bool = False,
    whole: bool = True,
) -> FileSet:
    """Take everything that the files need from the live objects; `folder` is empty and one's own.

    On return the model may train on, unless the files are `live`: by wish, or for lack of memory.
    `processing_class` may be None; unless the files are to be `whole`, one that cannot be saved is told and
    left out: it is not to cost the weights.
    """
    inner = unwrap(model)
    hold_whole(inner)
    room = room or Room(type(inner).__name__)
    with _without_bars(), _configs_kept(inner):
        if _is_offloaded(inner):
            # Its weights come from elsewhere, a shard at a time: noted, all of them would be in memory.
            files = []
            _save(inner, folder)
        else:
            files = capture(lambda: _save(inner, folder))
        if processing_class is not None:
            _save_beside(processing_class, folder, whole=whole)
    clean_files(folder)
    drop_tokens(folder)
    if live or not room.is_in_memory(sum(file.weights for file in files), spare=spare_pinned()):
        return FileSet(folder, files, live=True)
    for file in files:
        file.hold()
    return FileSet(folder, files, live=False)


def _save_beside(processing_class: Any, folder: Path, *, whole: bool) -> None:
    before = set(folder.rglob("*"))
    try:
        processing_class.save_pretrained(str(folder))
    except Exception as error:
        if whole or isinstance(error, OSError):  # a full disk says nothing of the tokenizer
            raise
        for path in set(folder.rglob("*")) - before:
            if not path.is_dir():
                path.unlink()
        _tell_left_out(type(processing_class).__name__, f"{type(error).__name__}: {error}")


@lru_cache(maxsize=64)
def _tell_left_out(name: str, why: str) -> None:
    """Once for each reason."""
    _log.warning("%s cannot be saved, and versions hold the weights without it: %s", name, why)


def hold_savable(model: Any, *, training: bool = True) -> None:
    """Refuse, before the first step, a model of which no version can be made.

    Raises TrainingSetup, or InvalidArgument outside of a training.
    """
    inner = unwrap(model)
    if not _saves_itself(inner):
        plainmodules.hold(inner, training=training)
    elif not _is_offloaded(inner):
        # Under adapters there may be a base without numbers: only what is trained is saved.
        only_trained = holds_adapters(inner)
        saved = ((n, p) for n, p in inner.named_parameters() if p.requires_grad or not only_trained)
        plainmodules.hold_real(inner, saved, training=training)


def _save(model: Any, folder: Path) -> None:
    """What the Trainer does with a model; but one of another library writes itself: the weights, all that the
    Trainer would write of it, do not say what to build for them."""
    if isinstance(model, PreTrainedModel):
        # What is tied is told by name.
        wrapped = is_wrapped(name for name, _ in model.named_parameters())
        model.save_pretrained(str(folder), state_dict=clean_state(model.state_dict()) if wrapped else None)
    elif _saves_itself(model):
        model.save_pretrained(str(folder))
    else:
        plainmodules.save(model, folder / _WEIGHTS)


@contextmanager
def _configs_kept(model: Any) -> Iterator[None]:
    """Undo what a save leaves in the live model's configs: dtype, architectures, peft's `inference_mode`."""
    base = base_under(model)
    configs = [getattr(base, name, None) for name in ("config", "generation_config")]
    adapters = getattr(model, "peft_config", None)
    configs += adapters.values() if isinstance(adapters, dict) else []
    before = [(config, dict(vars(config))) for config in configs if hasattr(config, "__dict__")]
    try:
        yield
    finally:
        for config, values in before:
            now = vars(config)
            for name in now.keys() - values.keys():
                del now[name]
            now.update(values)


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
    """The model itself, without the wrappers of accelerate and torch.compile, whichever is around which."""
    from accelerate.utils import extract_model_from_parallel

    while (inner := extract_model_from_parallel(model, keep_torch_compile=False)) is not model:
        model = inner
    return inner


def is_adapter(model: Any) -> bool:
    """Whether `model` is a PEFT model, of which only the adapter is saved."""
    # Not imported for it: that takes longer than loading a model, and one there is has imported it.
    known = getattr(sys.modules.get("peft.peft_model"), "PeftModel", None)
    return known is not None and isinstance(model, known)


def holds_adapters(model: Any) -> bool:
    """Whether only adapters are saved of `model`: of a PEFT model, and of one of transformers that was given
    some itself (`model.add_adapter`)."""
    return is_adapter(model) or bool(getattr(model, "_hf_peft_config_loaded", False))


def base_under(model: Any) -> Any:
    """The model that adapters are upon: itself, where it has none or was given them itself."""
    return model.get_base_model() if is_adapter(model) else model


def weight_bytes(model: Any) -> int:
    """Bytes of the tensors that a version of `model` holds; tied ones count once."""
    sizes: dict[Any, int] = {}
    for state in _adapter_states(model) if holds_adapters(model) else [model.state_dict()]:
        for value in state.values():
            if isinstance(value, torch.Tensor):
                # A slice of a large storage counts as itself, tied tensors as one.
                place = _place(value)
                sizes[place] = max(sizes.get(place, 0), value.numel() * value.element_size())
    return sum(sizes.values())


def _adapter_states(model: Any) -> list[Any]:
    from peft import get_peft_model_state_dict

    return [get_peft_model_state_dict(model, adapter_name=adapter) for adapter in model.peft_config]


def _place(value: Any) -> Any:
    # Sparse and nested tensors have no storage of their own, nor can any library write them.
    plain = value.layout == torch.strided and not value.is_nested and value.device.type != "meta"
    if not plain or value.numel() == 0:
        return id(value)
    return (value.device, value.untyped_storage().data_ptr(), value.storage_offset())


def _saves_itself(model: Any) -> bool:
    """Whether `model` is of a library whose models write themselves: transformers, peft, diffusers,
    sentence-transformers, huggingface_hub's mixin."""
    # Asked of its class: a wrapper may hand out attributes of what it holds, and has weights beside that.
    return callable(getattr(type(model), "save_pretrained", None))


def _is_offloaded(model: Any) -> bool:
    base = base_under(model)
    devices = (getattr(base, "hf_device_map", None) or {}).values()
    return bool({"cpu", "disk"} & {str(device) for device in devices})
