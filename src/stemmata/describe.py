"""What a saved folder says of itself: kind, flat config, base, step, metrics.

Owns reading the small JSON files that Trainer, PEFT and transformers leave; never opens weights,
never unpickles. What cannot be read is left out: a broken side file must not cost the weights.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

import msgspec

from stemmata.arguments import is_key
from stemmata.records import Base, Stored, flatten, store_value

_MAX_JSON = 16 << 20
_MAX_STATE = 64 << 20
"""Of trainer_state.json alone: a long training that logs each step has a log of tens of MiB."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".ckpt", ".h5", ".msgpack")
"""How the files end that libraries save weights in."""
_OF_TRAINING = ("training_args.bin", "optimizer.", "scheduler.", "rng_state", "scaler.")
"""How the files begin that only going on with a training needs: they may hold tensors, but no weights."""
_MODEL_FACTS = (
    "architectures",
    "model_type",
    "dtype",
    "torch_dtype",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "n_embd",
    "n_layer",
    "n_head",
    "num_labels",
    "max_position_embeddings",
    "tie_word_embeddings",
    "problem_type",
    "quantization_config",
)
_LORA_FACTS = (
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "target_modules",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
    "layers_to_transform",
    "num_virtual_tokens",
    "feedforward_modules",
    "alpha",
    "init_r",
    "target_r",
)
# Other methods' configs may have an `r` that means something else, or (AdaLoRA's) nothing.
_WITH_RANK = ("LORA", "LOHA", "LOKR", "VERA", "RANDLORA", None)
_CHECKPOINT = "checkpoint-"


class Description(msgspec.Struct, frozen=True):
    """Facts found in a folder; empty where it says nothing."""

    kind: str
    config: dict[str, Stored] = msgspec.field(default_factory=dict)
    base: Base | None = None
    step: int | None = None
    epoch: float | None = None
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


def describe(sizes: Mapping[str, int], read: Callable[[str], bytes]) -> Description:
    """Describe a folder from the `sizes` of its files, by their relative paths; `read` gives the bytes of one
    of them, and is not asked for what is too long."""
    names = set(sizes)

    def document(name: str) -> dict[str, object]:
        most = _MAX_STATE if name == "trainer_state.json" else _MAX_JSON
        if sizes.get(name, most + 1) > most:
            return {}
        data = read(name)
        try:
            # Not msgspec: the Trainer writes NaN and Infinity, which JSON proper does not have.
            found = json.loads(data)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    config: dict[str, Stored] = {}
    model = document("config.json")
    for fact in _MODEL_FACTS:
        if fact in model:
            flatten(f"model.{fact}", model[fact], config)
    adapter = document(_adapter_of(names) or "adapter_config.json")
    for fact in _LORA_FACTS:
        if fact == "r" and adapter.get("peft_type") not in _WITH_RANK:
            continue
        if adapter.get(fact) not in (None, {}, []):
            flatten(f"lora.{fact}", adapter[fact], config)
    if isinstance(config.get("lora.target_modules"), list):
        config["lora.target_modules"] = store_value(sorted(map(str, _as_list(adapter["target_modules"]))))
    state = document("trainer_state.json")
    step = state.get("global_step")
    epoch = state.get("epoch")
    return Description(
        kind=_kind(names),
        config=config,
        base=_base(adapter),
        step=step if isinstance(step, int) and abs(step) < 1 << 63 else None,
        epoch=_finite(epoch),
        metrics=_last_metrics(state),
    )


def is_of_training(path: str) -> bool:
    """Whether a file holds a training's state (optimizer, random generators, arguments) and no weights."""
    return PurePosixPath(path).name.startswith(_OF_TRAINING)


def _finite(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _adapter_of(names: set[str]) -> str | None:
    """The config of the version's adapter: at the top, else of one that peft saved under its own name."""
    if "adapter_config.json" in names:
        return "adapter_config.json"
    if "config.json" in names:
        return None
    named = (n for n in names if n.count("/") == 1 and n.endswith("/adapter_config.json"))
    # A Trainer's output folder holds such folders too: each is a version of its own, not an adapter.
    return min((n for n in named if not n.startswith(_CHECKPOINT)), default=None)


def _kind(names: set[str]) -> str:
    if _adapter_of(names) is not None:
        return "adapter"
    if "config.json" in names and any(PurePosixPath(n).suffix in WEIGHTS for n in names):
        return "model"
    if "trainer_state.json" in names:
        return "checkpoint"
    return "files"


def _base(adapter: dict[str, object]) -> Base | None:
    name = adapter.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return None
    revision = adapter.get("revision")
    return Base(name_or_path=name, revision=revision if isinstance(revision, str) else None)


def _last_metrics(state: dict[str, object]) -> dict[str, float]:
    """The latest value of each metric that the Trainer logged up to its last step, under names that metrics
    may have."""
    metrics: dict[str, float] = {}
    for row in _as_list(state.get("log_history")):
        if not isinstance(row, dict):
            continue
        for key, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and key not in ("step", "epoch"):
                with contextlib.suppress(OverflowError):
                    metrics[str(key)] = float(value)
    return {key: value for key, value in metrics.items() if is_key(key)}


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
