"""Libraries: folders that another library than transformers wrote, and processors.

Owns telling whose a folder is by its files. A library that is not installed is named, with the command
that installs it; none is required.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from stemmata.errors import NotLoadable
from stemmata.hf.sidefiles import object_in
from stemmata.version import Version

_SENTENCES = "modules.json"
_PIPELINE = "model_index.json"
_QUANTISERS = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "torchao": "torchao",
    "compressed-tensors": "compressed-tensors",
    "aqlm": "aqlm",
    "eetq": "eetq",
}
_MODULES = {"optimum-quanto": "optimum.quanto"}


def library_of(version: Version, names: list[str]) -> str | None:
    """The library whose files these are, where it is not transformers: its module's name.

    Raises NotLoadable.
    """
    if _SENTENCES in names:
        return "sentence_transformers"
    if _PIPELINE in names:
        return "diffusers"
    if "_diffusers_version" in (object_in(version, "config.json") or {}):
        return "diffusers"
    return None


def load_foreign(version: Version, library: str, **kwargs: Any) -> Any:
    """A model of another library, by the class that its own files name. Raises NotLoadable."""
    module = _require(version, library, library.replace("_", "-"))
    folder = str(version.path())
    if library == "sentence_transformers":
        name = "config_sentence_transformers.json"
        settings = object_in(version, name) or {}
        kind = getattr(module, str(settings.get("model_type")), module.SentenceTransformer)
        kwargs.setdefault("local_files_only", True)
        # False, not absent: its modules may be code of the folder's own.
        kwargs.setdefault("trust_remote_code", False)
        kwargs.setdefault("device", "cpu")
        return kind(folder, **kwargs)
    whole = _PIPELINE in {f.path for f in version.files}
    settings = object_in(version, _PIPELINE if whole else "config.json") or {}
    named = str(settings.get("_class_name"))
    found = module.DiffusionPipeline if whole else getattr(module, named, None)
    if found is None:
        reason = f"the installed diffusers has no {named}"
        raise NotLoadable(version=version.short, reason=reason, hint="install the release it was made with")
    kwargs.setdefault("local_files_only", True)
    kwargs.pop("trust_remote_code", None)
    return found.from_pretrained(folder, **kwargs)


def require_quantiser(version: Version, settings: object) -> None:
    """Refuse weights whose quantisation needs a package that is not here, by the package's name."""
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    package = _QUANTISERS.get(str(method))
    if package is not None:
        _require(version, _MODULES.get(package, package), package)


def load_processor(version: Version, **kwargs: Any) -> Any:
    """The processor of a vision, audio or multimodal model; where a tokenizer is all there is, that.

    Raises NotLoadable.
    """
    import transformers

    names = {f.path for f in version.files}
    kwargs.setdefault("local_files_only", True)
    kwargs.setdefault("trust_remote_code", False)
    tokenizer = bool(names & {"tokenizer_config.json", "tokenizer.json"})
    if "processor_config.json" in names or (tokenizer and "preprocessor_config.json" in names):
        loader = transformers.AutoProcessor
    elif "preprocessor_config.json" in names:
        # Not AutoProcessor: it would make up a tokenizer with no words beside the extractor.
        settings = object_in(version, "preprocessor_config.json") or {}
        image = "image_processor_type" in settings
        loader = transformers.AutoImageProcessor if image else transformers.AutoFeatureExtractor
    elif tokenizer:
        loader = transformers.AutoTokenizer
    else:
        hint = "save versions with processing_class= given to the Trainer, or load the processor of its base"
        raise NotLoadable(version=version.short, reason="it holds no processor", hint=hint)
    try:
        return loader.from_pretrained(str(version.path(weights=False)), **kwargs)
    except ImportError as error:
        reason = f"its processor needs a library: {str(error).strip().splitlines()[0]}"
        raise NotLoadable(version=version.short, reason=reason, hint="install that library") from error


def _require(version: Version, module: str, package: str) -> Any:
    if find_spec(module.partition(".")[0]) is None:
        hint = f"pip install {package}; without it checkout() gives its files and state_dict() its weights"
        raise NotLoadable(version=version.short, reason=f"it is a model of {package}", hint=hint)
    return import_module(module)
