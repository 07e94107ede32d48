"""Chosen: what of a LightningModule a version holds, and the tokenizer beside it.

A library's model inside it is saved by its own `save_pretrained`, so that the version loads without
Lightning. Owns when that is taken by itself: where nothing that is trained would be left out.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from stemmata.errors import TrainingSetup
from stemmata.hf.filesets import is_adapter, unwrap

Choice = str | Callable[[Any], Any] | None
_TOKENIZERS = ("processing_class", "processor", "tokenizer")
_log = logging.getLogger("stemmata")


def chosen(module: Any, choice: Choice) -> Any:
    """The part of a LightningModule that becomes a version. `choice`: an attribute's name, with dots for
    one further in, or a function of the LightningModule; None: see `_by_itself`.

    Raises TrainingSetup if the choice is no module.
    """
    if choice is None:
        return _by_itself(module)
    try:
        found = operator.attrgetter(choice)(module) if isinstance(choice, str) else choice(module)
    except AttributeError as error:
        raise _no_module(choice, str(error)) from error
    if not isinstance(found, torch.nn.Module):
        raise _no_module(choice, f"it is a {type(found).__name__}")
    return found


def tokenizer_of(module: Any, datamodule: Any) -> Any:
    """The tokenizer or processor that a LightningModule or its data hold under a usual name; None: none."""
    for owner in (module, datamodule):
        for name in _TOKENIZERS:
            found = getattr(owner, name, None)
            if hasattr(found, "save_pretrained") and not isinstance(found, torch.nn.Module):
                return found
    return None


def _by_itself(module: Any) -> Any:
    """The only model of a library in it, if everything that is trained lies in that; else all of it.

    Of several, one that is trained beside frozen ones (a teacher, a reference) is the only one.
    """
    held = {name: child for name, child in module.named_children() if _is_of_library(child)}
    if len(held) > 1:
        held = {name: child for name, child in held.items() if _trained(child)} or held
    if len(held) == 1:
        ((name, model),) = held.items()
        inside = _trained(model)
        outside = [parameter for key, parameter in _trained(module).items() if key not in inside]
        if not outside:
            return model
        _log.warning(
            "%s trains more than its %s (%s): versions hold all of it, and load() will not know its class; "
            "pass module=%r to save that part alone",
            type(module).__name__,
            name,
            outside[0],
            name,
        )
    elif held:
        _log.warning(
            "%s holds several models (%s): versions hold all of it, and load() will not know its class; "
            "pass module=... to save one of them",
            type(module).__name__,
            ", ".join(held),
        )
    return module


def _is_of_library(module: Any) -> bool:
    inner = unwrap(module)
    return isinstance(inner, PreTrainedModel) or is_adapter(inner)


def _trained(module: Any) -> Mapping[int, str]:
    """Identity -> name of the parameters that a training changes."""
    return {id(p): name for name, p in module.named_parameters() if p.requires_grad}


def _no_module(choice: object, reason: str) -> TrainingSetup:
    return TrainingSetup(
        reason=f"module={choice!r} names no part of the LightningModule that could be saved: {reason}",
        hint="name an attribute that is a torch.nn.Module, or leave module out",
    )
