"""Plain modules: the weight file of a model that is none of a library. Owns which of its tensors are one.

The Trainer takes safetensors' `save_file` for such a model, which refuses tied tensors; `save_model` writes
those and refuses a slice of a larger storage. Here either is written, and slices that overlap, each whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from stemmata.errors import TrainingSetup


def save(model: Any, path: Path) -> None:
    """Write the file, byte for byte what `save_file` or `save_model` would, where they can.

    Raises as `hold`.
    """
    hold(model)
    state = model.state_dict()
    ties = _ties(state)
    kept = _apart({name: value.contiguous() for name, value in state.items() if name not in ties})
    safetensors.torch.save_file(kept, str(path), metadata={**ties, "format": "pt"})


def hold(model: Any) -> None:
    """Refuse a model whose state is more than tensors; best before the first step. Raises TrainingSetup."""
    odd = [name for name, value in model.state_dict().items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise TrainingSetup(
            reason=f"safetensors keeps tensors alone, and {odd[0]} of {type(model).__name__} is none",
            hint="keep it as a tensor (register_buffer), or out of get_extra_state",
        )


def _ties(state: Mapping[str, Any]) -> dict[str, str]:
    """Names of tensors that another one holds, and that one's name, as safetensors chooses it."""
    places: dict[Any, list[str]] = defaultdict(list)
    for name in sorted(state):
        value = state[name]
        if _has_storage(value):
            places[value.device, value.untyped_storage().data_ptr()].append(name)
    ties: dict[str, str] = {}
    for names in places.values():
        whole = next((name for name in names if _is_whole(state[name])), None)
        views: dict[Any, str] = {}
        for name in names:
            value = state[name]
            # Of slices that are none's whole, those are one that are the very same view.
            view = (value.dtype, value.data_ptr(), value.shape, value.stride())
            holder = whole or views.setdefault(view, name)
            if holder != name:
                ties[name] = holder
    return ties


def _apart(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Contiguous tensors; of each that shares bytes with one before it a copy: safetensors refuses both."""
    apart, ends = dict(tensors), defaultdict[Any, int](int)
    stored = [name for name in tensors if _has_storage(tensors[name])]
    for name in sorted(stored, key=lambda each: (tensors[each].data_ptr(), each)):
        value = tensors[name]
        if value.data_ptr() < ends[value.device]:
            apart[name] = value.clone()
        else:
            ends[value.device] = value.data_ptr() + value.numel() * value.element_size()
    return apart


def _has_storage(value: Any) -> bool:
    plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_nested
    return plain and value.device.type != "meta" and value.untyped_storage().nbytes() > 0


def _is_whole(value: Any) -> bool:
    return bool(value.numel() * value.element_size() == value.untyped_storage().nbytes())
