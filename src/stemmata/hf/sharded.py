"""Sharded: models of which each process holds a part (FSDP, ZeRO-3, tensor parallel).

Nobody can snapshot such a model alone, so its versions are the checkpoints that the Trainer gathers and
writes. Owns under which settings those hold the whole model, and what whole means: every tensor that the
library would write, in its full shape.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from stemmata.errors import TrainingSetup
from stemmata.hf import filesets
from stemmata.hf.distributed import held_in_part
from stemmata.hf.wrappers import clean_name

Shape = tuple[int, ...]
_log = logging.getLogger("stemmata")


@dataclass(frozen=True, slots=True)
class Sharding:
    """A model that is held in parts: what a checkpoint must hold to be all of it."""

    wanted: Mapping[str, Shape]
    """Full shapes by tensor name; those of adapters begin with the adapter's folder."""
    ties: Mapping[str, frozenset[str]]
    """Names of the same tensor: one of them in a file is enough."""
    weights: int
    """Bytes of all that, tied ones once."""

    def problem(self, folder: Path) -> str | None:
        """Why the weights in `folder` are not the whole model; None if they are.

        Shapes and names are compared, no values. Names that the library changes as it writes are matched
        by the number of their elements.
        """
        found = _shapes_in(folder)
        if not found:
            return "it holds no weights as safetensors"
        for name, shape in found.items():
            if 0 in shape and 0 not in self.wanted.get(name, ()):
                return f"{name} has no elements"
            if shape != self.wanted.get(name, shape):
                return f"{name} is of shape {list(shape)}, not {list(self.wanted[name])}"
        lacking = [name for name in self.wanted if not self.ties.get(name, {name}) & found.keys()]
        changed = _elements(shape for name, shape in found.items() if name not in self.wanted)
        one_each = {self.ties.get(name, frozenset((name,))): self.wanted[name] for name in lacking}
        if lacking and _elements(one_each.values()) != changed:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            return f"it lacks {lacking[0]}{more}"
        return None


def sharding_of(live: Any, arguments: Any, state: Any, every: str | int) -> Sharding | None:
    """How a model that is about to be trained is sharded; None if this process holds it whole.

    Reads no weights and waits for no other process; every process comes to the same answer.
    Raises TrainingSetup where the Trainer's checkpoints will not hold it whole, or not when `every` asks.
    """
    model = filesets.unwrap(live)
    _hold_no_hidden_parts(model)
    reason = held_in_part(live)
    if reason is None and any(hasattr(parameter, "ds_shape") for parameter in model.parameters()):
        reason = "ZeRO-3 shards the model"  # small parameters are whole at times
    if reason is None:
        return None
    _hold_gathered(live, reason)
    _hold_saves(arguments, state, every)
    return _sharding(model)


# --- settings -------------------------------------------------------------------------------------------


def _hold_gathered(model: Any, reason: str) -> None:
    """Raise TrainingSetup unless the Trainer writes the whole model into its checkpoints."""
    fsdp, deepspeed = _plugin("fsdp_plugin"), _plugin("deepspeed_plugin")
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise TrainingSetup(
            reason="FSDP in its version 1 shards the model, and does not tell the full shapes of its weights",
            hint="set fsdp_config={'version': 2, 'state_dict_type': 'FULL_STATE_DICT'} (in accelerate's "
            "file fsdp_version: 2 and fsdp_state_dict_type: FULL_STATE_DICT)",
        )
    if getattr(model, "is_distributed_loading_by_transformers", False):
        return  # its save_pretrained gathers
    if deepspeed is not None:
        key = "stage3_gather_16bit_weights_on_model_save"
        if not deepspeed.get_value(f"zero_optimization.{key}", False):
            raise TrainingSetup(
                reason="ZeRO-3 shards the model, and its checkpoints hold the shards",
                hint=f"set zero_optimization.{key} to true in DeepSpeed's configuration (in accelerate's "
                "file zero3_save_16bit_model: true)",
            )
    elif fsdp is not None:
        kind = str(getattr(fsdp.state_dict_type, "name", fsdp.state_dict_type))
        if kind != "FULL_STATE_DICT":
            raise TrainingSetup(
                reason=f"FSDP shards the model, and checkpoints with state_dict_type={kind} hold the shards",
                hint="set fsdp_config={'state_dict_type': 'FULL_STATE_DICT'} (in accelerate's file "
                "fsdp_state_dict_type: FULL_STATE_DICT)",
            )
    else:
        raise TrainingSetup(
            reason=f"{reason}, and not by the Trainer, which would not write it whole",
            hint="let the Trainer shard it (fsdp=True with fsdp_config={'state_dict_type': "
            "'FULL_STATE_DICT'}, or ZeRO-3), or from_pretrained (distributed_config=); if nothing shards it, "
            "take the parameters without elements out of it (a buffer may be empty)",
        )


def _hold_no_hidden_parts(model: Any) -> None:
    """Refuse parts that look whole in every process. Raises TrainingSetup."""
    deepspeed = _plugin("deepspeed_plugin")
    if deepspeed is not None and int(deepspeed.get_value("tensor_parallel.autotp_size", 0) or 0) > 1:
        raise TrainingSetup(
            reason="DeepSpeed's tensor parallel splits weights without a trace in the model",
            hint="set tensor_parallel.autotp_size to 1 in DeepSpeed's configuration; ZeRO-3 also shards",
        )
    layout = getattr(getattr(model, "config", None), "distributed_config", None)
    for size in ("pp_size", "ep_size"):
        if int(getattr(layout, size, None) or 1) > 1:
            raise TrainingSetup(
                reason=f"{size}={getattr(layout, size)} leaves layers or experts to other processes, and "
                "none can tell that a checkpoint holds them all",
                hint=f"set {size}=1 in the model's distributed_config; tp_size and fsdp_size may stay",
            )


def _hold_saves(arguments: Any, state: Any, every: str | int) -> None:
    """Raise TrainingSetup unless the Trainer saves whenever `every` asks for a version."""
    saves, evaluates = (
        str(getattr(found, "value", found)) for found in (arguments.save_strategy, arguments.eval_strategy)
    )
    whose = "the versions of a sharded model are the Trainer's checkpoints"
    if saves == "no":
        raise TrainingSetup(
            reason=f"{whose}, and save_strategy='no' makes none",
            hint="set save_strategy='epoch' (or 'steps')",
        )
    if every == "epoch" and saves != "epoch" and arguments.process_index == 0:
        _log.warning("%s: there is one of each epoch only with save_strategy='epoch'", whose)
    if isinstance(every, int) and (saves != "steps" or every % int(state.save_steps)):
        raise TrainingSetup(
            reason=f"{whose}, and those do not come every {every} steps",
            hint=f"set save_strategy='steps' and save_steps={every}, or the callback's every='save'",
        )
    steps = saves == "steps" and int(state.eval_steps or 0) % int(state.save_steps)
    if every == "eval" and (saves != evaluates or steps):
        raise TrainingSetup(
            reason=f"{whose}, and those do not come with every evaluation",
            hint="set save_strategy to what eval_strategy is, and save_steps to eval_steps, or every='save' "
            "of the callback",
        )


def _plugin(name: str) -> Any:
    """What accelerate shards with, as the Trainer or a launcher set it up; None if it does not."""
    from accelerate.state import AcceleratorState

    return getattr(AcceleratorState(), name, None) if AcceleratorState._shared_state else None


# --- what is whole --------------------------------------------------------------------------------------


def _sharding(model: Any) -> Sharding:
    state = {clean_name(n): t for n, t in model.state_dict(keep_vars=True).items() if torch.is_tensor(t)}
    # Tensors without memory, in the shapes of the whole.
    full = {name: torch.empty(_shape(t), dtype=t.dtype, device="meta") for name, t in state.items()}
    if filesets.is_adapter(model):
        wanted = _of_adapters(model, full)
        return Sharding({n: tuple(t.shape) for n, t in wanted.items()}, {}, _bytes(wanted.values()))
    for name in getattr(model, "_keys_to_ignore_on_save", None) or ():
        full.pop(name, None)
    ties = _ties(model, state)
    firsts = {ties.get(name, frozenset((name,))): tensor for name, tensor in full.items()}
    return Sharding({n: tuple(t.shape) for n, t in full.items()}, ties, _bytes(firsts.values()))


def _shape(tensor: Any) -> Shape:
    # A DTensor's own shape is the whole's; DeepSpeed notes it.
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _of_adapters(model: Any, full: Mapping[str, Any]) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    found: dict[str, Any] = {}
    for adapter in model.peft_config:
        above = "" if adapter == "default" else f"{adapter}/"
        state = get_peft_model_state_dict(model, state_dict=dict(full), adapter_name=adapter)
        found |= {above + name: tensor for name, tensor in state.items()}
    return found


def _ties(model: Any, state: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Each tied name with all names of its tensor: the same object, or tied by the model's own word."""
    groups: dict[int, set[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), set()).add(name)
    of = {name: group for group in groups.values() for name in group}
    said = getattr(model, "all_tied_weights_keys", None)
    for one, other in (said if isinstance(said, dict) else {}).items():
        if one in of and other in of and of[one] is not of[other]:
            of[one] |= of[other]
            of |= dict.fromkeys(of[one], of[one])
    return {name: frozenset(group) for name, group in of.items() if len(group) > 1}


def _shapes_in(folder: Path) -> dict[str, Shape]:
    """Shapes by tensor name of what a loader would read in `folder`; adapters of its folders too."""
    found: dict[str, Shape] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        inside = path.parent.relative_to(folder).as_posix()
        above = "" if inside == "." else f"{inside}/"
        with safe_open(str(path), framework="pt") as file:
            found |= {above + name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


def _elements(shapes: Iterable[Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes)
