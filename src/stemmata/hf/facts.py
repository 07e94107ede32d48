"""Facts: what is recorded of a training run beside its weights: config, data, seeds.

Nothing here fails a training: what cannot be told is left out.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from stemmata.arguments import is_key
from stemmata.hf.filesets import base_under, holds_adapters
from stemmata.hf.quantised import quantization_of
from stemmata.training_args import sanitise_arguments

_log = logging.getLogger("stemmata")
OF_HEADS = ("pad_token_id", "problem_type")
LABELS = "model.labels"
_MODEL_FACTS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_labels",
    "problem_type",
)
SPEEDS = ("_runtime", "_per_second")
_NO_METRICS = frozenset({"epoch", "step", "total_flos"})


def trial_config(state: Any) -> dict[str, object]:
    """The parameters that a search chose for this trial."""
    chosen = state.trial_params if state.is_hyper_param_search else None
    return {f"trial.{name}": value for name, value in (chosen or {}).items()}


def config(arguments: Any, model: Any) -> dict[str, object]:
    """Training arguments, and what an adapter's own files do not say of its base. Secrets masked."""
    arguments_said = {k: v for k, v in sanitise_arguments(arguments).items() if v is not None}
    return {**arguments_said, **model_config(model)}


def model_config(model: Any) -> dict[str, object]:
    """What a model says of itself: class, precision, sizes."""
    found: dict[str, object] = {}
    inner = base_under(model)
    # FSDP puts a class of its own above the model's.
    found["model.architecture"] = type(inner).__name__.removeprefix("FSDP")
    # An adapter's files do not say in which precision its base was loaded.
    dtype = getattr(inner, "dtype", None)
    if dtype is not None:
        found["model.dtype"] = str(dtype).removeprefix("torch.")
    settings = getattr(inner, "config", None)
    for fact in _MODEL_FACTS:
        value = getattr(settings, fact, None)
        if value is not None and isinstance(value, str | int | float):
            found[f"model.{fact}"] = value
    if holds_adapters(model):
        found |= _of_head(settings)
    rounded = quantization_of(inner)
    if rounded is not None:
        found["model.quantization_config"] = rounded
    parameters = list(model.parameters())
    found["model.parameters"] = sum(map(_elements, parameters))
    found["model.trainable_parameters"] = sum(_elements(p) for p in parameters if p.requires_grad)
    return found


def _of_head(settings: Any) -> dict[str, object]:
    """What an adapter's outputs hang on and its base's files need not have: scripts set it after loading."""
    values = {f"model.{key}": getattr(settings, key, None) for key in OF_HEADS}
    found: dict[str, object] = {k: v for k, v in values.items() if isinstance(v, str | int)}
    labels = getattr(settings, "id2label", None)
    if isinstance(labels, dict) and [*labels] == [*range(len(labels))]:
        named = [str(label) for label in labels.values()]
        if named != [f"LABEL_{number}" for number in range(len(named))]:
            found[LABELS] = named
    return found


def _elements(parameter: Any) -> int:
    # ZeRO leaves none in the process, and notes how many there are.
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def data(train_dataloader: Any, eval_dataloader: Any) -> dict[str, object]:
    """Rows, columns and fingerprint of the datasets, where they can tell."""
    found: dict[str, object] = {}
    for part, loader in (("train", train_dataloader), ("eval", eval_dataloader)):
        dataset = getattr(loader, "dataset", None)
        if dataset is None:
            continue
        rows = row_count(dataset)
        if rows is not None:
            found[f"{part}.rows"] = rows
        fingerprint = getattr(dataset, "_fingerprint", None)
        if isinstance(fingerprint, str):
            found[f"{part}.fingerprint"] = fingerprint
        columns = getattr(dataset, "column_names", None)
        if isinstance(columns, list):
            found[f"{part}.columns"] = list(map(str, columns))
    return found


def row_count(dataset: Any) -> int | None:
    """Rows of a dataset; None for one that streams."""
    try:
        return len(dataset)
    except Exception:  # noqa: BLE001 - of whoever wrote it; the training itself need not ask
        return None


def metrics(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """The numbers of a log or evaluation under their own names; `epoch` is no metric.

    One that no version could have is left out and told once: it is not to cost the others, or the training.
    """
    found: dict[str, float] = {}
    for key, value in (logs or {}).items():
        number = _number(value)
        if number is None or key in _NO_METRICS:
            continue
        try:
            kept = float(number) if is_key(key) else None
        except OverflowError:
            kept = None
        if kept is None:
            leave_out(repr(key)[:80])
        else:
            found[str(key)] = kept
    return found


def numbers(logs: Mapping[str, Any] | None) -> dict[str, int | float]:
    """All numbers of a log as they were logged, integers as such: rows keep speeds and sums too."""
    found: dict[str, int | float] = {}
    for key, value in (logs or {}).items():
        number = _number(value)
        if number is not None and is_key(key):
            with contextlib.suppress(OverflowError):
                found[str(key)] = int(number) if isinstance(number, Integral) else float(number)
    return found


def _number(value: Any) -> Any:
    """A real number, or the one that a tensor without dimensions holds; None for anything else."""
    if not isinstance(value, Real) and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # on a device: waits for it, as whoever prints it does
    return None if isinstance(value, bool) or not isinstance(value, Real) else value


@functools.cache
def leave_out(key: str) -> None:
    """Tell, once for each key, of a metric that no version could have."""
    _log.warning("the metric %s is left out of the versions: its name or number cannot be kept", key)


def training_metrics(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """As `metrics`, of what the training itself logs: no speeds, nothing of an evaluation."""
    return {
        key: value
        for key, value in metrics(logs).items()
        if not key.endswith(SPEEDS) and not key.startswith(("eval_", "test_"))
    }


def processing_class(live: Mapping[str, Any]) -> Any:
    """What the Trainer saves beside the weights: its processing class, else the collator's tokenizer, unless
    that is an object of one's own, which cannot save itself."""
    if live.get("processing_class") is not None:
        return live["processing_class"]
    collator = getattr(live.get("train_dataloader"), "collate_fn", None)
    for owner in (collator, getattr(collator, "data_collator", None)):
        tokenizer = getattr(owner, "tokenizer", None)
        if hasattr(tokenizer, "save_pretrained"):
            return tokenizer
    return None


def warn_of_empty(dataloader: Any) -> None:
    """Tell of an evaluation that has nothing to evaluate."""
    dataset = getattr(dataloader, "dataset", None)
    if dataset is not None and row_count(dataset) == 0:
        warnings.warn("the evaluation dataset has no rows: its metrics mean nothing", stacklevel=2)
