"""How PEFT writes LoRA down: names of factors, and adapter_config.json. Owns the reading of both; no weights.

In PEFT's files `<module>.lora_A.weight` is (rank, inputs) and `<module>.lora_B.weight` (outputs, rank),
with further axes for convolutions; `lora_embedding_A` and `_B` likewise, without `.weight`. Adapters
saved from a state dict also carry the adapter's name (`lora_A.default.weight`). alpha is in no tensor: it
comes from the config.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

CONFIG = "adapter_config.json"
MAX_NAME = 4096
_MAX_CONFIG = 1 << 20
_GREATEST = 1 << 53
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.weight)?"
)
# Vectors beside the factors: AdaLoRA's and KaSA's values between them, DoRA's magnitudes, biases.
_BESIDE = re.compile(
    r"(?P<module>.+)\.lora_(?P<what>E|diag|magnitude_vector|B)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?P<leaf>\.weight|\.bias)?"
)
_WRAPPERS = ("base_model.model.", "base_model.")


def factor(name: str) -> re.Match[str] | None:
    """The parts of a factor's name: module, side, adapter, embedding; None for any other tensor."""
    return _FACTOR.fullmatch(name) if len(name) <= MAX_NAME else None


def beside(name: str) -> re.Match[str] | None:
    """The parts of the name of a vector beside the factors; `what` is B for a bias."""
    found = _BESIDE.fullmatch(name) if len(name) <= MAX_NAME else None
    return None if found is None or (found["what"] == "B") != (found["leaf"] == ".bias") else found


def module_name(name: str) -> str:
    """A module's name in the base model: PEFT's wrappers around it left out."""
    for wrapper in _WRAPPERS:
        if name.startswith(wrapper):
            return name.removeprefix(wrapper)
    return name


def leaf_of(module: str) -> str:
    return module.rpartition(".")[2]


def in_folder(folder: str) -> str:
    """The path of a folder's adapter_config.json."""
    return f"{folder}/{CONFIG}" if folder else CONFIG


def read_config(path: str, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> dict[str, Any] | None:
    """The adapter's config; {} if it is no sound JSON object, None if it is not there."""
    if path not in sizes:
        return None
    if sizes[path] > _MAX_CONFIG:
        return {}
    try:
        found = msgspec.json.decode(read(path))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_plain(name: object) -> bool:
    """No regular expression: those of a foreign config are not run, for they may never end."""
    return isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) is not None


def matches(module: str, name: str) -> bool:
    return module == name or module.endswith("." + name)


def pattern_of(value: object) -> dict[str, int]:
    """A rank_pattern; empty where it is none."""
    if not isinstance(value, dict):
        return {}
    return {str(k): rank for k, v in value.items() if (rank := whole(v)) is not None}


def declared_rank(module: str, pattern: Mapping[str, int], declared: int) -> int:
    return next((rank for name, rank in pattern.items() if matches(module, name)), declared)


def whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _GREATEST:
        return None
    return float(value)


# --- the scale ----------------------------------------------------------------------------------


class Scale(msgspec.Struct, frozen=True):
    """What B A is multiplied with; None where nothing tells it, and then `unknown` says why."""

    value: float | None
    unknown: str = ""


def scale_of(config: Mapping[str, Any] | None, module: str, rank: int) -> Scale:
    """As PEFT computes it for a module of this rank (peft 0.21, tuners/lora/layer.py, `update_layer`).

    alpha / r, alpha / sqrt(r) with use_rslora; alpha is that of the first key of alpha_pattern which the
    module's name ends with, else lora_alpha. The rank is the factors' own.
    """
    if config is None:
        return Scale(None, f"no {CONFIG}")
    if not config:
        return Scale(None, f"{CONFIG} cannot be read as JSON")
    try:
        alpha = _alpha(config, module)
    except _Regex as key:
        return Scale(None, f"alpha_pattern has a regular expression, which is not run: {key}")
    if alpha is None:
        return Scale(None, f"{CONFIG} names no lora_alpha")
    if config.get("peft_type") == "ADALORA":
        # tuners/adalora/layer.py, `get_delta_weight`
        return Scale((alpha if alpha > 0 else float(rank)) / (rank + 1e-5))
    return Scale(alpha / (math.sqrt(rank) if config.get("use_rslora") is True else rank))


class _Regex(Exception):
    """A key of a pattern that would have to be run."""


def _alpha(config: Mapping[str, Any], module: str) -> float | None:
    pattern = config.get("alpha_pattern")
    for key, value in (pattern if isinstance(pattern, dict) else {}).items():
        # PEFT takes keys for regular expressions; names with a caret or escaped dots are read as names.
        name = str(key).removeprefix("^").replace("\\.", ".")
        if not is_plain(name):
            raise _Regex(str(key)[:80])
        if module == name or (not str(key).startswith("^") and matches(module, name)):
            return number(value)
    return number(config.get("lora_alpha"))
