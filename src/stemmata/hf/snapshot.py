"""Snapshot: a model's tensors as they are now, in host memory of their own.

`state_dict()` aliases the live parameters, also on a CPU: what is written later must be a clone.
Tensors that share a storage (tied weights, views) share one in the clone too, so that what saves
them afterwards sees the same ties.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch


def clone_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Clone every tensor of `state` into host memory; order, dtypes, shapes and ties are kept.

    On CUDA the copies run beside each other into pinned memory where that can be had; they are
    complete on return. What is no tensor is deep-copied.
    """
    shared = _shared_storages(state)
    copied: dict[Any, torch.UntypedStorage] = {}
    clone: dict[str, Any] = {}
    devices: set[torch.device] = set()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            clone[name] = copy.deepcopy(value)
            continue
        tensor = value.detach()
        if tensor.device.type == "cuda":
            devices.add(tensor.device)
        key = _storage_key(tensor)
        if key is None or key not in shared:
            clone[name] = _to_host(tensor)
            continue
        if key not in copied:
            whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
            copied[key] = _to_host(whole).untyped_storage()
        clone[name] = torch.empty(0, dtype=tensor.dtype).set_(
            copied[key], tensor.storage_offset(), tensor.shape, tensor.stride()
        )
    for device in devices:
        torch.cuda.current_stream(device).synchronize()
    return clone


def _shared_storages(state: Mapping[str, Any]) -> set[Any]:
    seen: set[Any] = set()
    shared: set[Any] = set()
    for value in state.values():
        key = _storage_key(value) if isinstance(value, torch.Tensor) else None
        if key is not None:
            (shared if key in seen else seen).add(key)
    return shared


def _storage_key(tensor: torch.Tensor) -> Any:
    """What two tensors of one storage have in common; None for a tensor without bytes."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return None
    storage = tensor.untyped_storage()
    return (tensor.device, storage.data_ptr(), storage.nbytes())


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in host memory; from CUDA it may still be under way."""
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True)
    try:
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    except RuntimeError:
        # Pinned memory is scarce on some machines; a plain copy is slower, no worse.
        return tensor.to("cpu", copy=True)
    return host.copy_(tensor, non_blocking=True)
