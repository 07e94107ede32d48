"""Which settings of a version `show` prints. A Trainer has a hundred, of which a dozen tell the training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stemmata.errors import StemmataError

if TYPE_CHECKING:
    from stemmata.version import Version

_ARGUMENTS = "training_arguments"
_TELLING_WORDS = (
    "learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
    "seed data_seed optim optim_args lr_scheduler_type warmup_steps warmup_ratio weight_decay max_grad_norm "
    "label_smoothing_factor neftune_noise_alpha bf16 fp16 max_length max_seq_length packing loss_type beta "
    "epsilon temperature num_generations num_iterations max_completion_length max_prompt_length "
    "completion_only_loss assistant_only_loss load_best_model_at_end metric_for_best_model"
)
_TELLING = frozenset(_TELLING_WORDS.split())


def telling(version: Version) -> tuple[Mapping[str, object], int]:
    """The settings to print, and how many of the Trainer's are left out: those that are off, and its
    housekeeping. What the model, the adapter and people say is always in."""
    try:
        arguments = json.loads(version.provenance(_ARGUMENTS)) if has_arguments(version) else {}
    except (StemmataError, ValueError):
        arguments = {}  # Erased or damaged: then nothing can be told apart.
    shown = {
        key: value
        for key, value in sorted(version.config.items())
        if key.partition(".")[0] not in arguments or (key in _TELLING and _on(key, value))
    }
    return shown, len(version.config) - len(shown)


def has_arguments(version: Version) -> bool:
    """Whether a Trainer's arguments were kept with it."""
    return _ARGUMENTS in version.record.provenance


def _on(key: str, value: object) -> bool:
    return "seed" in key or (bool(value) and value != -1)
