"""Loading: from a version to a model, a tokenizer or tensors in memory.

Owns what a version's files mean to transformers and peft. Pickles are opened and remote code is run
on an explicit word alone; a base that is not the one an adapter was trained on is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from stemmata.bases import weight_paths
from stemmata.describe import is_of_training
from stemmata.errors import InvalidArgument, NotLoadable, PickleRefused
from stemmata.hf.direct import load_directly, weight_files
from stemmata.hf.libraries import library_of, load_foreign, load_processor, require_quantiser
from stemmata.hf.origin import remember_origin
from stemmata.hf.shards import without_old_shards
from stemmata.hf.sidefiles import dict_in, list_in, object_of
from stemmata.hf.tensors import read_tensors
from stemmata.hf.wrappers import clean_files, clean_name, is_wrapped
from stemmata.version import Version

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_CONFIG = "config.json"
_CODE = "its code is not in transformers; pass trust_remote_code=True if you trust whoever wrote it"


def load_version(version: Version, what: str = "model", **kwargs: Any) -> Any:
    """Load a version: `what` is "model", "tokenizer", "processor" or "state_dict".

    Keyword arguments go to `from_pretrained`, but for these: `base` (a folder, a version or a model
    in memory) and `allow_other_base` (skip the check of a base given by folder), `adapter` (which of
    several adapters is active), `merge` (fold an adapter into its base), `allow_pickle` (open `.bin` and
    `.pt` weights), `trust_remote_code`.

    Raises NotLoadable, PickleRefused, BaseMismatch, BaseMissing, Damage.
    """
    if what == "model":
        return load_model(version, **kwargs)
    if what == "tokenizer":
        return load_tokenizer(version, **kwargs)
    if what == "processor":
        return load_processor(version, **kwargs)
    if what == "state_dict":
        return load_state(version, **kwargs)
    words = "'model', 'tokenizer', 'processor' or 'state_dict'"
    raise InvalidArgument(argument="what", reason=f"{what!r} is no {words}")


def load_model(version: Version, *, allow_pickle: bool = False, **kwargs: Any) -> Any:
    """The model: a full one by its own class, an adapter on its base."""
    names = [f.path for f in version.files]
    _refuse_pickles(version, names, allow_pickle)
    if _ADAPTER in names or version.kind == "adapter":
        from stemmata.hf.adapters import load_adapter

        model = load_adapter(version, allow_pickle=allow_pickle, **kwargs)
    else:
        for word in ("base", "merge", "allow_other_base", "adapter"):
            if kwargs.pop(word, None):
                raise InvalidArgument(argument=word, reason=f"version {version.short} is no adapter")
        library = library_of(version, names)
        if library is not None:
            model = load_foreign(version, library, **kwargs)
            if hasattr(model, "state_dict"):  # a pipeline has none
                remember_origin(model, version.source, version.id)
            return model
        if "config.json" not in names:
            raise _no_model(version, names)
        _refuse_two_sets(version, names)
        _refuse_wrapped(version)
        model = load_full(version, version, allow_pickle=allow_pickle, **kwargs)
    remember_origin(model, version.source, version.id)
    return model


def load_full(
    version: Version,
    source: Path | Version,
    *,
    allow_pickle: bool = False,
    model_class: Any = None,
    **kwargs: Any,
) -> Any:
    """A full model from a folder on this machine or from a version, by `model_class` or the class that
    its config names."""
    folder = source if isinstance(source, Path) else source.path(weights=False)
    kwargs.setdefault("local_files_only", True)
    kwargs.setdefault("use_safetensors", None if allow_pickle else True)
    # False, not absent: transformers would ask at the terminal whether to run the code.
    trusted = bool(kwargs.setdefault("trust_remote_code", False))
    if model_class is not None and not trusted:
        _refuse_code(version, source)
    found = model_class or _class_of(version, source, trusted)
    settings = object_of(version, source, _CONFIG) or {}
    require_quantiser(version, settings.get("quantization_config"))
    if isinstance(source, Version) and source.cached() is None:
        files = weight_files(source, found, settings, kwargs)
        if files is not None:
            return load_directly(source, folder, found, files, **kwargs)
        source.path()
    with _with_clean_names(version, folder) as clean:
        model = found.from_pretrained(str(clean), **kwargs)
    if clean != folder:
        # Where it came from is where it is found again: the copy is gone.
        model.name_or_path = model.config._name_or_path = str(folder)
    return model


def _has_wrapped_names(folder: Path) -> bool:
    """Whether a wrapper's names are in a folder's weights: `from_pretrained` would take none of them,
    and make weights anew."""
    from safetensors import safe_open

    for path in weight_paths(file.name for file in folder.iterdir()):
        if path.endswith(".safetensors"):
            with safe_open(str(folder / path), framework="pt") as file:
                if is_wrapped(file.keys()):
                    return True
    return False


@contextmanager
def _with_clean_names(version: Version, folder: Path) -> Iterator[Path]:
    """`folder`, or a copy of it for as long as this lasts, in which the tensors have clean names."""
    if not _has_wrapped_names(folder):
        yield folder
        return
    cache = version.source.cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix="clean-") as name:
        copy = Path(name) / folder.name
        shutil.copytree(folder, copy, copy_function=shutil.copyfile)
        clean_files(copy)
        yield copy


def _class_of(version: Version, source: Path | Version, trusted: bool) -> Any:
    """The class that `config.json` names; where it names none, AutoModel's choice."""
    import transformers

    settings = object_of(version, source, _CONFIG)
    if settings is None:
        hint = "look at it with checkout(); state_dict() gives its weights"
        raise NotLoadable(version=version.short, reason=f"there is no {_CONFIG} in {source}", hint=hint)
    automatic = dict_in(settings, "auto_map")
    for name in list_in(settings, "architectures"):
        known = getattr(transformers, str(name), None)
        if known is not None:
            return known
        if automatic:
            if not trusted:
                raise NotLoadable(version=version.short, reason=f"it is a {name}", hint=_CODE)
            written = [k for k, v in automatic.items() if str(v).rpartition(".")[2] == name]
            return getattr(transformers, written[0] if written else "AutoModel")
        reason = f"this release of transformers has no {name}"
        hint = (
            f"install the release that it was made with (transformers {settings.get('transformers_version')})"
        )
        raise NotLoadable(version=version.short, reason=reason, hint=hint)
    if not automatic and "model_type" not in settings:
        reason = f"its {_CONFIG} is not one of transformers"
        hint = "give path() to from_pretrained of its own class; state_dict() gives its weights"
        raise NotLoadable(version=version.short, reason=reason, hint=hint)
    return transformers.AutoModel


def _refuse_code(version: Version, source: Path | Version) -> None:
    """A base whose class is in its own folder, under an adapter that says which class to take."""
    import transformers

    settings = object_of(version, source, _CONFIG) or {}
    names = [str(name) for name in list_in(settings, "architectures")]
    if settings.get("auto_map") and not any(hasattr(transformers, name) for name in names):
        reason = f"its base is a {', '.join(names) or 'model'}"
        raise NotLoadable(version=version.short, reason=reason, hint=_CODE)


def load_tokenizer(version: Version, **kwargs: Any) -> Any:
    """The tokenizer, or the processor, that was saved beside the weights."""
    from transformers import AutoProcessor, AutoTokenizer

    names = {f.path for f in version.files}
    kwargs.setdefault("local_files_only", True)
    kwargs.setdefault("trust_remote_code", False)
    if "tokenizer_config.json" not in names and "tokenizer.json" not in names:
        if names & {"processor_config.json", "preprocessor_config.json"}:
            return AutoProcessor.from_pretrained(str(version.path(weights=False)), **kwargs)
        hint = "load the tokenizer of its base, or save versions with processing_class= given to the Trainer"
        raise NotLoadable(version=version.short, reason="it holds no tokenizer", hint=hint)
    loader = AutoProcessor if "processor_config.json" in names else AutoTokenizer
    try:
        return loader.from_pretrained(str(version.path(weights=False)), **kwargs)
    except ValueError as error:
        if kwargs["trust_remote_code"] or "trust_remote_code" not in str(error):
            raise
        reason = "its tokenizer comes with code of its own"
        raise NotLoadable(version=version.short, reason=reason, hint=_CODE) from error


def load_state(
    version: Version, *, tensors: Sequence[str] | None = None, allow_pickle: bool = False, device: Any = "cpu"
) -> dict[str, Any]:
    """Tensors by name from all weight files, or those named; each in memory of its own. A text is one name.

    Where weights lie in several folders (the parts of a pipeline, several adapters), a name begins with
    its folder: `unet/conv_in.weight`. What torch.compile and FSDP put into names is left out. Shards that
    an index does not name are of an earlier save and left out; a name in two files is refused. In a pickle
    of nested dictionaries dots join the keys to a name: `state_dict.conv_in.weight`.

    Raises TensorNotInVersion, PickleRefused, NotLoadable.
    """
    names = [f.path for f in version.files]
    files = [n for n in names if n.endswith(".safetensors")]
    if not files:
        _refuse_pickles(version, names, allow_pickle)
        files = [n for n in names if _is_pickle(n)]
    if not files:
        raise _no_model(version, names)
    _refuse_two_sets(version, names)
    files = without_old_shards(version, files)
    several = len({name.rpartition("/")[0] for name in files}) > 1
    prefixes = {name: name.rpartition("/")[0] + "/" for name in files if several and "/" in name}
    chosen = [tensors] if isinstance(tensors, str) else tensors
    state = read_tensors(version, files, prefixes, chosen)
    ordered = state if chosen is None else {name: state[name] for name in chosen}
    return {name: tensor.to(device) for name, tensor in ordered.items()}


def _refuse_two_sets(version: Version, names: list[str]) -> None:
    """Such a folder loads without a word, and gives the weights of whichever save came first."""
    if _WHOLE in names and _INDEX in names:
        reason = f"it holds two sets of weights, {_WHOLE} and the shards of {_INDEX}"
        hint = "one of them is left from an earlier save: save again from an empty folder"
        raise NotLoadable(version=version.short, reason=reason, hint=hint)


def _refuse_wrapped(version: Version) -> None:
    """A base saved with an adapter around it has other names for its weights: most would be made anew."""
    tensors = (clean_name(s.name or "") for f in version.files for s in f.segments)
    wrapped = next((t for t in tensors if ".base_layer." in t or ".lora_A." in t), None)
    if wrapped is not None:
        reason = f"it is a base that was saved with an adapter around it ({wrapped})"
        hint = "save the PEFT model instead, or the base after unload() or merge_and_unload()"
        raise NotLoadable(version=version.short, reason=reason, hint=hint)


def _refuse_pickles(version: Version, names: list[str], allowed: bool) -> None:
    """Where the only weights are pickles, they are opened on an explicit word alone."""
    if allowed:
        return
    # An adapter's weights are looked for by name: other safetensors beside them do not stand for them.
    adapters = [n.removesuffix(_ADAPTER) for n in names if n.endswith(_ADAPTER)]
    for folder in adapters:
        if f"{folder}adapter_model.bin" in names and f"{folder}adapter_model.safetensors" not in names:
            raise PickleRefused(path=f"{folder}adapter_model.bin", version=version.short)
    if any(n.endswith(".safetensors") for n in names):
        return
    for name in names:
        if _is_pickle(name):
            raise PickleRefused(path=name, version=version.short)


def _is_pickle(name: str) -> bool:
    return PurePosixPath(name).suffix in _PICKLES and not is_of_training(name)


def _no_model(version: Version, names: list[str]) -> NotLoadable:
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    hint = f"it holds {shown}; look at it with checkout(), or read weights with state_dict()"
    return NotLoadable(version=version.short, reason="it has no config.json of a model", hint=hint)
