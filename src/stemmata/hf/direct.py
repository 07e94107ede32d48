"""Direct: a model of transformers from a version's tensors, without a checkout of its weights.

Owns in which cases that gives exactly what `from_pretrained` gives on a checkout. In all others the loader
takes the checkout: quantised weights, code of strangers, classes other than the saved one, pickles, and
every argument that is not known to mean the same both ways.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from stemmata.errors import NotLoadable
from stemmata.hf.shards import shards_of
from stemmata.hf.sidefiles import list_in
from stemmata.hf.tensors import read_tensors
from stemmata.version import Version

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_NEEDED = ("dtype", "torch_dtype")
"""One of these is in the config: else the precision is that of whichever tensor comes first in a file."""
_KEPT_OUT = ("auto_map", "quantization_config", "transformers_weights")
_ARGUMENTS = frozenset(
    {
        "dtype",
        "torch_dtype",
        "attn_implementation",
        "local_files_only",
        "use_safetensors",
        "trust_remote_code",
    }
)
_UNNAMED = "None"
"""What transformers calls the place of a model that was loaded from no place."""


def weight_files(
    version: Version, model_class: Any, settings: dict[str, Any], arguments: dict[str, Any]
) -> list[str] | None:
    """The files to read, if `load_directly` does what `from_pretrained` would; else None."""
    names = {file.path for file in version.files}
    config_class = getattr(model_class, "config_class", None)
    same = (
        isinstance(model_class, type)
        and PreTrainedModel in model_class.__mro__
        and model_class.__name__ in list_in(settings, "architectures")
        and config_class is not None
        and not getattr(config_class, "extra_files", ())
        and arguments.keys() <= _ARGUMENTS
        and not arguments.get("trust_remote_code")
        and arguments.get("use_safetensors") is not False
        and any(isinstance(settings.get(word), str) for word in _NEEDED)
        and not any(settings.get(word) for word in _KEPT_OUT)
        and not any(name.startswith("shard-") or name == _ADAPTER for name in names)
        and torch.get_default_device().type == "cpu"
    )
    if not same:
        return None
    if _WHOLE in names:
        return [_WHOLE]
    if _INDEX not in names:
        return None
    try:
        shards = shards_of(version, _INDEX)
    except NotLoadable:
        return None
    return sorted(shards) if shards <= names else None


def load_directly(
    version: Version, folder: Path, model_class: Any, files: list[str], **arguments: Any
) -> Any:
    """The model, its small files read from `folder`. Raises as reading a version's tensors does."""
    given = {k: arguments[k] for k in ("attn_implementation",) if k in arguments}
    config = model_class.config_class.from_pretrained(str(folder), local_files_only=True, **given)
    state = read_tensors(version, files, {})
    model = model_class.from_pretrained(None, config=config, state_dict=state, **arguments)
    _name(model, str(folder))
    if model.can_generate():
        model.generation_config = _generation(folder)
    return model


def _name(model: Any, place: str) -> None:
    """Say of the model and its parts where they come from, as `from_pretrained` says it."""
    for module in model.modules():
        if getattr(module, "name_or_path", None) == _UNNAMED:
            module.name_or_path = place
        config: Any = getattr(module, "config", None)
        if getattr(config, "_name_or_path", None) == _UNNAMED:
            config._name_or_path = place


def _generation(folder: Path) -> Any:
    try:
        return GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    except OSError:
        # As `from_pretrained` does where a model was saved without one.
        return GenerationConfig.from_pretrained(
            str(folder), config_file_name="config.json", _from_model_config=True, local_files_only=True
        )
