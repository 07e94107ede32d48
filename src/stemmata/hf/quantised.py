"""Quantised models: what is recorded of a base's quantisation, given back at load, and never merged into.

A base in 4 or 8 bits is the files of a full model and a rule that rounds them at load. The digest of a
base is that of its files; the rule is recorded beside it, as `model.quantization_config.*`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stemmata.errors import NotLoadable
from stemmata.hf.libraries import require_quantiser
from stemmata.version import Version

_PREFIX = "model.quantization_config."


def quantization_of(model: Any) -> dict[str, object] | None:
    """The settings by which a model in memory is quantised, JSON-safe; None for a full one."""
    settings = getattr(getattr(model, "config", None), "quantization_config", None)
    if settings is None:
        return None
    found = dict(settings) if isinstance(settings, Mapping) else settings.to_dict()
    # Its own bookkeeping, and what says nothing; through JSON, for its names are enumerations.
    said = {k: v for k, v in found.items() if not k.startswith("_") and v is not None}
    plain: dict[str, object] = json.loads(json.dumps(said, default=str))
    return plain


def recorded_quantization(version: Version) -> dict[str, Any] | None:
    """The settings that a version recorded of its base; None where that was a full one."""
    found: dict[str, Any] = {}
    for key, value in version.config.items():
        if not key.startswith(_PREFIX):
            continue
        *path, last = key.removeprefix(_PREFIX).split(".")
        inner = found
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return found or None


def quantized_again(version: Version, own: object) -> dict[str, Any]:
    """The argument of `from_pretrained` that quantises a base as it was in training.

    Nothing where it was not, or where the files are quantised themselves (`own`, of their config.json).
    Raises NotLoadable if the package that does it is not here.
    """
    settings = recorded_quantization(version)
    if settings is None or own is not None:
        return {}
    require_quantiser(version, settings)
    from transformers.quantizers.auto import AutoQuantizationConfig

    return {"quantization_config": AutoQuantizationConfig.from_dict(settings)}


def refuse_merge(version: Version, settings: Mapping[str, Any]) -> NotLoadable:
    """The refusal to fold an adapter into rounded weights: what came out would be neither model."""
    bits = next((f"{n} bits" for n in (4, 8) if settings.get(f"load_in_{n}bit")), None)
    how = bits or settings.get("quant_method", "by an unknown method")
    reason = f"its base is quantised ({how}), and merging would round again"
    hint = (
        "pass base= the full model's folder or version, or quantization_config=None to take the recorded "
        "one in full; or load it without merge=True"
    )
    return NotLoadable(version=version.short, reason=reason, hint=hint)
