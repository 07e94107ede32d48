"""Plain modules: the weight file of a model that is none of a library. Owns which of its tensors are one.

The Trainer takes safetensors' `save_file` for such a model, which refuses tied tensors; `save_model` writes
those and refuses a slice of a larger storage. Here either is written, and slices that overlap, each whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.nn.parameter import is_lazy

from stemmata.errors import InvalidArgument, TrainingSetup

# The package exports no list of them; where it has none, what it lacks is told when it writes.
_KEPT = frozenset(getattr(safetensors.torch, "_SIZE", ()))


def save(model: Any, path: Path) -> None:
    """Write the file, byte for byte what `save_file` or `save_model` would, where they can.

    Raises as `hold`.
    """
    hold(model)
    state = model.state_dict()
    ties = _ties(state)
    kept = _apart({name: value.contiguous() for name, value in state.items() if name not in ties})
    safetensors.torch.save_file(kept, str(path), metadata={**ties, "format": "pt"})


def hold(model: Any, *, training: bool = True) -> None:
    """Refuse a model whose state is more than safetensors keeps; best before the first step.

    Raises TrainingSetup, or InvalidArgument outside of a training.
    """
    _refuse(next(_unkept(model), None), training)


def hold_real(model: Any, parameters: Iterable[tuple[str, Any]], *, training: bool) -> None:
    """As `hold`, of these of its parameters alone, and of their numbers alone: that they are there."""
    _refuse(next((_no_numbers(model, n) for n, p in parameters if p.device.type == "meta"), None), training)


def _refuse(found: tuple[str, str] | None, training: bool) -> None:
    if found is None:
        return
    reason, hint = found
    if training:
        raise TrainingSetup(reason=reason, hint=hint)
    raise InvalidArgument(argument="source", reason=f"{reason}; {hint}")


def _no_numbers(model: Any, name: str) -> tuple[str, str]:
    reason = f"{name} of {type(model).__name__} is on the meta device and has no numbers"
    return reason, "load the model's weights first"


def _unkept(model: Any) -> Iterator[tuple[str, str]]:
    """What of the state safetensors does not keep, and what to do."""
    lazy = (n for n, v in (*model.named_parameters(), *model.named_buffers()) if is_lazy(v))
    for name in lazy:
        hint = "call the model once on a batch, which makes its lazy parameters"
        yield f"{name} of {type(model).__name__} has no shape yet", hint
    for name, value in model.state_dict().items():
        of = f"{name} of {type(model).__name__}"
        apart = "or out of the state (register_buffer with persistent=False)"
        if not isinstance(value, torch.Tensor):
            reason = f"safetensors keeps tensors alone, and {of} is none"
            yield reason, "keep it as a tensor (register_buffer), or out of get_extra_state"
        elif value.is_nested or value.layout != torch.strided:
            kind = "nested" if value.is_nested else "sparse"
            yield f"safetensors keeps dense tensors alone, and {of} is {kind}", f"keep it dense, {apart}"
        elif value.device.type == "meta":
            yield _no_numbers(model, name)
        elif _KEPT and value.dtype not in _KEPT:
            dtype = str(value.dtype).removeprefix("torch.")
            yield f"safetensors has no {dtype}, which {of} is", f"keep it in another dtype, {apart}"


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
