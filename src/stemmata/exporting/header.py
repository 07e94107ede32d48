"""Header: the YAML at the head of a model card, as the Hugging Face hub reads it.

Keys and values: https://huggingface.co/docs/hub/model-cards and the client's `ModelCardData`. What is not
known stays out, and a comment says so: the hub shows a wrong licence as readily as a right one.
"""

from __future__ import annotations

import math
import re

from stemmata.exporting.public import public_text
from stemmata.exporting.subject import Subject, hub_name
from stemmata.exporting.writing import one_line, yaml_lines
from stemmata.metricnames import by_interest, is_aside

LICENSES = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bigscience-openrail-m",
        "creativeml-openrail-m",
        "bigscience-bloom-rail-1.0",
        "bigcode-openrail-m",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "c-uda",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "etalab-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "agpl-3.0",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "h-research",
        "intel-research",
        "lppl-1.3c",
        "ms-pl",
        "apple-ascl",
        "apple-amlr",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "openrail++",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "lgpl-lr",
        "deepfloyd-if-license",
        "fair-noncommercial-research-license",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "llama4",
        "gemma",
        "unknown",
        "other",
    ]
)
_TASKS = (
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForMaskedLM", "fill-mask"),
    ("ForImageClassification", "image-classification"),
    ("ForObjectDetection", "object-detection"),
    ("ForSemanticSegmentation", "image-segmentation"),
    ("ForAudioClassification", "audio-classification"),
    ("ForSequenceClassificationWithAudio", "audio-classification"),
    ("ForCTC", "automatic-speech-recognition"),
    ("ForSpeechSeq2Seq", "automatic-speech-recognition"),
    ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
)
_TASKS_OF_PEFT = {
    "CAUSAL_LM": "text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}
_TRL = {"SFTTrainer": "sft", "DPOTrainer": "dpo", "GRPOTrainer": "grpo", "RewardTrainer": "reward-trainer"}


def library(subject: Subject) -> str:
    """The library that loads it; "" if none is known to."""
    names = {path.rpartition("/")[2] for path in subject.paths}
    if subject.kind == "adapter":
        return "peft"
    if "modules.json" in names and "config_sentence_transformers.json" in names:
        return "sentence-transformers"
    return "transformers" if subject.kind in ("model", "checkpoint") and "config.json" in names else ""


def task(subject: Subject) -> str:
    """The hub's name of what the model does, by its class; "" where that tells nothing."""
    if library(subject) == "sentence-transformers":
        return "sentence-similarity"
    for ending, found in _TASKS:
        if subject.architecture.endswith(ending):
            return found
    said = subject.adapter.get("task_type") or subject.config.get("lora.task_type")
    return _TASKS_OF_PEFT.get(said, "") if isinstance(said, str) else ""


def base_names(subject: Subject) -> list[str]:
    """The models of the hub that it was made from; what is a folder of some machine is not among them."""
    said = [subject.base.name_or_path if subject.base is not None else ""]
    labelled = subject.setting("base_model")
    said += [labelled, subject.setting("base_model_name_or_path", "model_name_or_path")]
    said += subject.header.get("base_model", [])
    folder = said[0].replace("\\", "/") if said[0] and not hub_name(said[0]) else ""
    # PEFT writes the path that it was given, which may look like a name on the hub. What somebody says of
    # a mirror (a label, a README of their own) is its name there.
    given = subject.adapter.get("base_model_name_or_path")
    path = given if isinstance(given, str) and f"/{folder}".endswith(f"/{given}") else None
    return [n for n in dict.fromkeys(said) if hub_name(n) and (n != path or n == labelled)][:10]


def relation(subject: Subject) -> str:
    """What it is to its base: adapter, merge, quantized or finetune."""
    if subject.kind == "adapter":
        return "adapter"
    if subject.is_merge:
        return "merge"
    rounded = any(key.startswith("model.quantization_config") for key in subject.config)
    return "quantized" if rounded and subject.run is None else "finetune"


def header(subject: Subject, trainer: str) -> list[str]:
    """The lines between the two `---`, both included."""
    entries: dict[str, object] = {}
    remarks: list[str] = []
    if found := library(subject):
        entries["library_name"] = found
    bases = base_names(subject)
    if bases:
        entries["base_model"] = bases[0] if len(bases) == 1 else bases
        entries["base_model_relation"] = relation(subject)
    else:
        remarks.append("base_model: no name on the hub was recorded")
    trained_on = [name for name in subject.datasets() if hub_name(name, owned=True)]
    if trained_on:
        entries["datasets"] = trained_on
    else:
        remarks.append("datasets: none is recorded under its name on the hub")
    _license(subject, entries, remarks)
    if language := subject.header.get("language"):
        entries["language"] = language
    if found := task(subject):
        entries["pipeline_tag"] = found
    entries["tags"] = _tags(subject, trainer)
    measured = _measured(subject)
    if measured:
        entries["metrics"] = measured
    results = _results(subject)
    if results:
        entries["model-index"] = [{"name": one_line(subject.model) or "model", "results": results}]
    lines = [line for key, value in entries.items() for line in yaml_lines(key, value)]
    return ["---", *lines, *(f"# {each}" for each in remarks), "---"]


def _license(subject: Subject, entries: dict[str, object], remarks: list[str]) -> None:
    said = subject.setting("license") or next(iter(subject.header.get("license", [])), "")
    if not said:
        remarks.append("license: not recorded; `stemmata label REF license=apache-2.0` makes it known")
    elif _slug(said) in LICENSES - {"other"}:
        entries["license"] = _slug(said)
    else:
        name = "" if said.lower() == "other" else said
        name = (
            name or subject.setting("license_name") or next(iter(subject.header.get("license_name", [])), "")
        )
        entries["license"] = "other"
        if name:
            # The hub wants a name there like one of its own.
            entries["license_name"] = _slug(name)
        if link := next(iter(subject.header.get("license_link", [])), ""):
            entries["license_link"] = link


def _tags(subject: Subject, trainer: str) -> list[str]:
    said = subject.adapter.get("peft_type") or subject.config.get("lora.peft_type")
    found = [said.lower()] if isinstance(said, str) and said.isascii() and said.isalnum() else []
    if trainer in _TRL:
        found += ["trl", _TRL[trainer]]
    return [*found, "stemmata"]


def _bare(metric: str) -> str:
    return metric.removeprefix("eval_").removeprefix("test_")


def _measured(subject: Subject) -> list[str]:
    """Names of what was measured, as the hub knows metrics."""
    shown = [m for m in by_interest(subject.metrics) if not is_aside(m) and not m.startswith("train")]
    names = [_bare(m) for m in shown if m != "loss"]
    return [name for name in dict.fromkeys(names) if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name)][:20]


def _results(subject: Subject) -> list[dict[str, object]]:
    """Values of which the data they were measured on has a name, by that name."""
    does = task(subject)
    if not does:
        return []
    by_dataset: dict[str, list[dict[str, object]]] = {}
    for metric in by_interest(subject.metrics):
        value, measured = subject.metrics[metric], subject.measurements.get(metric)
        name = one_line(public_text(measured.dataset.name)) if measured is not None else ""
        if not name or not math.isfinite(value) or is_aside(metric):
            continue
        entry = {"type": one_line(_bare(metric)), "value": value, "name": one_line(metric)}
        by_dataset.setdefault(name, []).append(entry)
    return [
        {
            "task": {"type": does},
            "dataset": {"name": name, "type": name if hub_name(name) else _slug(name)},
            "metrics": metrics,
        }
        for name, metrics in by_dataset.items()
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._+-]+", "-", text.lower()).strip("-.") or "unnamed"
