"""Adapters: a PEFT model on its base. Owns the check that the base is the one it was trained on.

The base is found by what the version recorded of its files, not by the path in adapter_config.json:
that path may have moved, may be relative to another folder, or may hold other weights by now.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stemmata.bases import weights_of_tree
from stemmata.describe import is_of_training
from stemmata.errors import BaseMismatch, BaseMissing, InvalidArgument, NotLoadable, StemmataError
from stemmata.hf.facts import LABELS, OF_HEADS
from stemmata.hf.loading import load_full
from stemmata.hf.origin import local_folder, remember_origin
from stemmata.hf.quantised import quantization_of, quantized_again, recorded_quantization, refuse_merge
from stemmata.hf.sidefiles import dict_in, object_in, object_of
from stemmata.ids import SHORT, VersionId
from stemmata.records import Base
from stemmata.version import Version
from stemmata.versions import folder_weights, version_with_weights

_CONFIG = "adapter_config.json"
_DEFAULT = "default"
_UNCHECKED = (
    "nothing was recorded of the files of {version}'s base when it was saved, so {folder} could not be "
    "checked to be the one it was trained on"
)
_PREFIX = "base_model.model."
_HUB_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.py")
_DTYPES = ("float32", "bfloat16", "float16", "float64")
_AUTO = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


def load_adapter(
    version: Version,
    *,
    base: Any = None,
    adapter: str | None = None,
    allow_other_base: bool = False,
    merge: bool = False,
    allow_pickle: bool = False,
    is_trainable: bool = False,
    **kwargs: Any,
) -> Any:
    """The PEFT model of an adapter version on its base; with `merge`, one plain model.

    All adapters of the version are loaded; `adapter` is the active one, else "default". A base that was
    quantised in training is so again, unless `quantization_config` says otherwise; nothing is merged
    into one.

    Raises BaseMismatch, BaseMissing, NotLoadable, InvalidArgument.
    """
    from peft import PeftModel

    folder = version.path()
    names = _adapter_names(version, adapter)
    settings = object_in(version, f"{names[0]}/{_CONFIG}" if names[0] else _CONFIG) or {}
    if base is None or isinstance(base, Version | str | os.PathLike):
        found = _find_base(version, base, allow_other_base, allow_download=not kwargs.get("local_files_only"))
        given = _base_arguments(version, settings, {"allow_pickle": allow_pickle, **kwargs})
        if "quantization_config" not in kwargs:
            given |= _quantization(version, found, merge=merge, full=base is not None)
        inner = _load_base(version, found, given)
        _settle(version, inner, kwargs)
    else:
        inner = base
        rounded = quantization_of(inner)
        if merge and rounded is not None:
            raise refuse_merge(version, rounded)
    _fit_vocabulary(version, inner)
    precision = {"autocast_adapter_dtype": _in_full_precision(version)}
    model = PeftModel.from_pretrained(
        inner,
        str(folder / names[0]),
        adapter_name=names[0] or _DEFAULT,
        is_trainable=is_trainable,
        **precision,
    )
    for other in names[1:]:
        model.load_adapter(str(folder / other), adapter_name=other or _DEFAULT, **precision)
    if merge and not hasattr(model.base_model, "merge_and_unload"):
        reason = f"a {settings.get('peft_type')} adapter cannot be folded into a base"
        raise NotLoadable(version=version.short, reason=reason, hint="load it without merge=True")
    return model.merge_and_unload() if merge else model


def _load_base(version: Version, found: Path | Version, given: dict[str, Any]) -> Any:
    if isinstance(found, Path):
        return load_full(version, found, **given)
    if found.kind == "adapter":
        # Merged it is the full model that was trained on: class and precision are the same.
        given.pop("model_class", None)
        inner = load_adapter(found, merge=True, **given)
    else:
        inner = load_full(version, found, **given)
    remember_origin(inner, version.source, found.id)
    return inner


def _quantization(version: Version, found: Path | Version, *, merge: bool, full: bool) -> dict[str, Any]:
    """How the base is rounded; `full`: it was given, to be merged into as it is. Raises NotLoadable."""
    own = None
    if isinstance(found, Path) or found.kind != "adapter":
        own = (object_of(version, found, "config.json") or {}).get("quantization_config")
    if not merge:
        return quantized_again(version, own)
    rounded = own if own is not None or full else recorded_quantization(version)
    if rounded is not None:
        raise refuse_merge(version, rounded)
    return {}


def _adapter_names(version: Version, active: str | None) -> list[str]:
    """Folders of the adapters in a version: the `active` one first, else '' (the default one)."""
    found = [f.path for f in version.files if f.path.rpartition("/")[2] == _CONFIG]
    folders = [path.rpartition("/")[0] for path in found if path.count("/") <= 1]
    if not folders:
        hint = "load it with its base's own tools; v.path() gives its folder"
        raise NotLoadable(version=version.short, reason=f"it has no {_CONFIG}", hint=hint)
    names = {folder or _DEFAULT: folder for folder in sorted(folders)}
    if active is not None and active not in names:
        reason = f"version {version.short} has no adapter {active!r}, but {', '.join(names)}"
        raise InvalidArgument(argument="adapter", reason=reason)
    # peft makes the first one active, and those after it stay frozen.
    return sorted(names.values(), key=lambda folder: (folder or _DEFAULT) != active)


# --- where the base is ------------------------------------------------------------------------------


def _find_base(version: Version, given: Any, allow_other: bool, *, allow_download: bool) -> Path | Version:
    """The right base: a folder with it, or its version; that of an adapter is merged when it is loaded."""
    recorded = version.base or Base(name_or_path="")
    if isinstance(given, Version):
        if not allow_other and given.id.hex != recorded.version:
            _hold(version, recorded, weights_of_tree(given.tree()).digest, f"version {given.short}")
        return given
    if given is not None:
        folder = local_folder(os.fspath(given), None)
        if folder is None:
            raise BaseMissing(version=version.short, where=os.fspath(given))
        if not allow_other:
            _hold_folder(version, recorded, folder)
        return folder
    stored = _stored_base(version, recorded)
    if stored is not None:
        return stored
    folder = local_folder(recorded.name_or_path, recorded.revision)
    if folder is None and allow_download:
        folder = _download(recorded)
    if folder is None:
        raise BaseMissing(version=version.short, where=recorded.name_or_path or "any recorded place")
    _hold_folder(version, recorded, folder)
    return folder


def _stored_base(version: Version, recorded: Base) -> Version | None:
    """The recorded base version, or any version with the same weight files."""
    session = version.source
    if recorded.version is not None:
        try:
            return Version(session, session.row(VersionId.parse(recorded.version)))
        except (StemmataError, ValueError):
            pass  # deleted since, or from another repository: its files may be elsewhere
    return version_with_weights(session, recorded.digest, recorded.files) if recorded.digest else None


def _download(recorded: Base) -> Path | None:
    """From the hub, at the revision that was recorded of the *base*; the adapter's own never counts."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = recorded.name_or_path
    if not name or Path(name).is_absolute() or constants.HF_HUB_OFFLINE:
        return None
    try:
        return Path(snapshot_download(name, revision=recorded.revision, allow_patterns=list(_HUB_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None


def _hold_folder(version: Version, recorded: Base, folder: Path) -> None:
    if recorded.digest is not None or recorded.version is not None:
        _hold(version, recorded, folder_weights(folder).digest, str(folder))
    else:
        warnings.warn(_UNCHECKED.format(version=version.short, folder=folder), stacklevel=2)


def _hold(version: Version, recorded: Base, found: str, where: str) -> None:
    """Same-shaped other weights load without a word everywhere else: not here."""
    # Without a digest, the base is an adapter's version merged: no files are known to hold it.
    expected = recorded.digest or recorded.version
    if expected is not None and found != expected:
        raise BaseMismatch(version=version.short, where=where, expected=expected[:SHORT], found=found[:SHORT])


# --- what the base is -------------------------------------------------------------------------------


def _base_arguments(version: Version, settings: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `load_full`: the class, as recorded or by its task, and what its head needs."""
    model_class, extra = _base_class(version, settings)
    if "torch_dtype" in given:
        extra.pop("dtype", None)
    return {"model_class": model_class, **extra, **given}


def _base_class(version: Version, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import transformers

    extra: dict[str, Any] = {}
    task = settings.get("task_type")
    dtype = version.config.get("model.dtype")
    if dtype in _DTYPES:
        extra["dtype"] = dtype
    labels = version.config.get("model.num_labels")
    if task in ("SEQ_CLS", "TOKEN_CLS") and isinstance(labels, int):
        extra["num_labels"] = labels
    mapped = dict_in(settings, "auto_mapping").get("base_model_class")
    for name in (version.config.get("model.architecture"), mapped, _AUTO.get(str(task))):
        found = getattr(transformers, str(name), None) if name else None
        if found is not None:
            return found, extra
    return None, extra


def _in_full_precision(version: Version) -> bool:
    """Whether an adapter's weights are kept as float32: peft makes them so unless it is told not to."""
    weights = [f for f in version.files if not is_of_training(f.path)]
    return any(s.dtype == "F32" for f in weights for s in f.segments)


def _settle(version: Version, base: Any, given: dict[str, Any]) -> None:
    """What scripts set on a base after loading it, and its own files do not have: by the padding token a
    classifier finds the end of each row."""
    settings = getattr(base, "config", None)
    if settings is None:
        return
    for key in OF_HEADS:
        value = version.config.get(f"model.{key}")
        if value is not None and key not in given and "config" not in given:
            setattr(settings, key, value)
    labels = version.config.get(LABELS)
    if isinstance(labels, list) and not {"config", "id2label"} & given.keys():
        settings.id2label = {number: str(label) for number, label in enumerate(labels)}
        settings.label2id = {str(label): number for number, label in enumerate(labels)}


def _fit_vocabulary(version: Version, base: Any) -> None:
    """Resize the base's embeddings where the adapter brings embeddings of another size."""
    rows = _embedding_rows(version, base)
    if rows and rows != base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(rows, mean_resizing=False)


def _embedding_rows(version: Version, base: Any) -> int | None:
    if not hasattr(base, "get_input_embeddings"):
        return None
    table = base.get_input_embeddings().weight
    names = {n for n, p in base.named_parameters(remove_duplicate=False) if p is table}
    for file in version.files:
        for segment in file.segments:
            shape: Sequence[int] | None = segment.shape
            name = (segment.name or "").removeprefix(_PREFIX)
            name = name.replace(".token_adapter.", ".").replace(".base_layer.", ".")
            if name in names and shape:
                return int(shape[0])
    return None
