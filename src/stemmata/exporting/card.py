"""Card: a version as a Hugging Face model card. Owns its text; `header` has the YAML above it.

Every name and value in it is escaped: a message or a label shows as what was typed, and does nothing.
Of a path of the machine the last name alone is in it: cards are made to be shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from stemmata.exporting.arguments import telling, trainer_class
from stemmata.exporting.header import base_names, header, library, relation
from stemmata.exporting.public import last_name, public, public_text
from stemmata.exporting.requirements import FIRST, canonical, version_and_url
from stemmata.exporting.subject import Relative, Subject, hub_name
from stemmata.exporting.writing import code, number, python, table, words
from stemmata.metricnames import by_interest, is_aside

_COLUMNS = 6
"""Metrics that the table of epochs shows."""
_FRAMEWORKS = ("stemmata", "transformers", "peft", "trl", "lightning", "torch", "datasets", "tokenizers")
_MAKES = {"adapter": "an adapter of", "merge": "merged from", "quantized": "a quantized copy of"}
AUTO_CLASSES = {
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForImageClassification": "AutoModelForImageClassification",
    "ForAudioClassification": "AutoModelForAudioClassification",
    "ForCTC": "AutoModelForCTC",
}
_OF_TASKS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""By PEFT's name of what an adapter is for."""


def card(subject: Subject) -> str:
    """The whole README.md."""
    trainer = trainer_class(subject.arguments, subject.config.get("trainer_class"))
    parts = [
        header(subject, trainer),
        [f"# {words(subject.model)}"],
        _introduction(subject),
        _loading(subject),
        _training(subject, trainer),
        _results(subject),
        _epochs(subject),
        _versions(subject),
        _origin(subject),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def auto_class(subject: Subject) -> str:
    """The class of transformers that loads such a model by its configuration; its own where none is known."""
    for ending, found in AUTO_CLASSES.items():
        if subject.architecture.endswith(ending):
            return found
    # An adapter's own config says what it is for, not on which class.
    said = subject.adapter.get("task_type") or subject.config.get("lora.task_type")
    of_task = _OF_TASKS.get(said, "") if isinstance(said, str) else ""
    return subject.architecture or of_task or "AutoModel"


def _introduction(subject: Subject) -> list[str]:
    bases = base_names(subject)
    kind = _MAKES.get(relation(subject), "fine-tuned from")
    if bases:
        said = f"{kind} {', '.join(map(code, bases))}"
    elif subject.base is not None and subject.base.name_or_path:
        # A folder of somebody's machine: its last name tells people there which it was.
        said = f"{kind} the model in a local folder named {code(last_name(subject.base.name_or_path))}"
    elif subject.is_merge:
        said = "merged from the versions below"
    elif subject.origin is not None and subject.origin.name:
        said = f"{kind} {code(subject.origin.name)} of the same repository"
    else:
        said = "made from a model that was not recorded"
    lines = [f"Version {code(subject.name)} of {code(subject.model)}: {said}."]
    if subject.message.strip():
        lines += ["", f"> {words(subject.message)}"]
    return lines


def _loading(subject: Subject) -> list[str]:
    lines = ["## How to load it", "", "From the stemmata repository that has it:", "", "```python"]
    lines += ["import stemmata", "", f"version = stemmata.open()[{python(subject.id)}]"]
    lines += ["model, tokenizer = version.load(), version.load_tokenizer()", "```"]
    plain = _plain_loading(subject)
    if plain:
        where = f"stemmata checkout {subject.short} -o model"
        lines += ["", f"From its files, in a folder as {code(where)} writes it:", "", "```python"]
        lines += [*plain, "```"]
    return lines


def _plain_loading(subject: Subject) -> list[str]:
    loader = library(subject)
    if loader == "sentence-transformers":
        return ["from sentence_transformers import SentenceTransformer", "", 'SentenceTransformer("model")']
    name = auto_class(subject)
    if loader == "transformers":
        return [f"from transformers import {name}", "", f'model = {name}.from_pretrained("model")']
    if loader != "peft":
        return []
    base = next(iter(base_names(subject)), "base")
    revision = subject.base.revision if subject.base is not None else None
    more = f", revision={python(revision)}" if revision and base != "base" else ""
    note = [] if base != "base" else ["# the base model's files, in a folder named base"]
    imports = ["from peft import PeftModel", f"from transformers import {name}", "", *note]
    loaded = f"base = {name}.from_pretrained({python(base)}{more})"
    return [*imports, loaded, 'model = PeftModel.from_pretrained(base, "model")']


def _training(subject: Subject, trainer: str) -> list[str]:
    rows = []
    if subject.arguments:
        rows.append(("trainer", code(trainer)))
    said = telling(subject.arguments, trainer)
    rows += [(code(key), code(_shown(value))) for key, value in said.items()]
    lora = {k.removeprefix("lora."): v for k, v in subject.config.items() if k.startswith("lora.")}
    kept = {k: v for k, v in lora.items() if v not in (None, False, "", []) and k != "peft_type"}
    rows += [(code(f"lora.{key}"), code(_shown(value))) for key, value in kept.items()]
    sizes = ("model.dtype", "model.parameters", "model.trainable_parameters")
    rows += [(code(k), code(_shown(subject.config[k]))) for k in sizes if k in subject.config]
    if not rows:
        return ["## Training", "", "Nothing was recorded of how it was trained."]
    lines = ["## Training", "", "What differs from the trainer's defaults:", ""]
    if not subject.all_arguments:
        lines[2] = "What is recorded and differs from the trainer's defaults:"
    lines += table(("setting", "value"), rows)
    return [*lines, "", *_data(subject)]


def _data(subject: Subject) -> list[str]:
    if not subject.data and not subject.datasets():
        return ["Nothing was recorded of the data."]
    named = subject.datasets()
    lines = [f"Trained on {', '.join(code(public_text(each)) for each in named)}.", ""] if named else []
    rows = [(code(key), code(_shown(value))) for key, value in sorted(subject.data.items())]
    return [*lines, *table(("data", ""), rows)] if rows else lines[:1]


def _results(subject: Subject) -> list[str]:
    rows = []
    for key in by_interest(subject.metrics):
        measured = subject.measurements.get(key)
        on = str(measured.dataset) if measured is not None and measured.dataset else ""
        source = measured.source if measured is not None else ""
        rows.append(
            (code(key), number(subject.metrics[key]), words(public_text(on)), words(public_text(source)))
        )
    if not rows:
        return []
    head = ("metric", "value", "measured on", "with")
    if not any(row[3] for row in rows):
        return ["## Results", "", *table(head[:3], (row[:3] for row in rows))]
    return ["## Results", "", *table(head, rows)]


def _epochs(subject: Subject) -> list[str]:
    """The run's metrics as they went."""
    if len(subject.history) < 2:
        return []
    there = {key for moment in subject.history for key in moment.metrics}
    # A number that one version alone has, such as the whole training's loss, is in the results above.
    often = [k for k in there if sum(k in m.metrics for m in subject.history) > 1 and not is_aside(k)]
    shown = by_interest(often)[:_COLUMNS]
    if not shown:
        return []
    rows = []
    for moment in subject.history:
        epoch = "" if moment.epoch is None else f"{moment.epoch:.4g}"
        values = [number(moment.metrics[key]) if key in moment.metrics else "" for key in shown]
        rows.append((epoch, "" if moment.step is None else f"{moment.step:,}", *values))
    lines = ["## The run, version by version", "", *table(("epoch", "step", *map(code, shown)), rows)]
    if len(subject.history) < subject.moments:
        lines += ["", f"{len(subject.history)} of {subject.moments:,} versions."]
    return lines


def _versions(subject: Subject) -> list[str]:
    said: Mapping[str, object] = {canonical(str(k)): v for k, v in subject.packages.items()}
    rows = []
    python_version = subject.environment.get("python")
    if isinstance(python_version, str):
        rows.append(("Python", code(python_version)))
    for name in dict.fromkeys((*_FRAMEWORKS, *FIRST[:12])):
        version, _ = version_and_url(said.get(name))
        if version:
            rows.append((code(name), code(version)))
    return ["## Framework versions", "", *table(("package", "version"), rows)] if rows else []


def _origin(subject: Subject) -> list[str]:
    rows = [("version", code(subject.id)), ("saved", code(subject.created_at))]
    if subject.run is not None:
        rows.append(("run", f"{code(subject.run.name)} ({code(subject.run.id[:12])})"))
    rows += [("parent", _relative(parent)) for parent in subject.parents]
    if subject.origin is not None and subject.origin not in subject.parents:
        rows.append(("the run began from", _relative(subject.origin)))
    base = subject.base
    if subject.base_version is not None:
        rows.append(("base", _relative(subject.base_version)))
    elif base is not None and hub_name(base.name_or_path):
        at = f" at revision {code(base.revision)}" if base.revision else ""
        rows.append(("base", f"{code(base.name_or_path)}{at}"))
    if base is not None and base.digest:
        rows.append(("digest of the base's weights", code(base.digest)))
    lines = ["## Where it comes from", "", *table(("", ""), rows)]
    if subject.missing:
        lines += ["", *(f"- {words(each)}" for each in subject.missing)]
    return lines


def _relative(other: Relative) -> str:
    if not other.name:
        return f"{code(other.id[:12])}, elsewhere"
    return f"{code(other.id[:12])} {code(other.name)}{'' if other.is_here else ', deleted'}"


def _shown(value: object) -> str:
    value = public(value)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return python(value) if not isinstance(value, list) else ", ".join(map(str, value))
