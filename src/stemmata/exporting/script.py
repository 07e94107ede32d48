"""Script: a version's training as a script that runs. Owns what it takes from the record and what it asks.

Nothing is guessed in silence: what was not recorded is an option that the script demands, or a sentence at
its head. It needs no stemmata but where a model comes out of the repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stemmata.capture import MASK
from stemmata.exporting.arguments import telling, trainer_class
from stemmata.exporting.card import AUTO_CLASSES, auto_class
from stemmata.exporting.header import base_names
from stemmata.exporting.subject import Relative, Subject, hub_name
from stemmata.exporting.templates import DATA, MAIN, OPTIONS, RAW, REPOSITORY, TOKENS
from stemmata.exporting.writing import python, remark

_TRL = ("SFTTrainer", "DPOTrainer", "RewardTrainer")
"""Trainers of TRL that are made of a model, arguments and rows alone; they make tokens of the rows."""
_ALIKE = ("Trainer", "Seq2SeqTrainer", *_TRL)
_COLLATORS = {
    "ForCausalLM": "DataCollatorForLanguageModeling(tokenizer, mlm=False)",
    "LMHeadModel": "DataCollatorForLanguageModeling(tokenizer, mlm=False)",
    "ForMaskedLM": "DataCollatorForLanguageModeling(tokenizer)",
    "ForSequenceClassification": "DataCollatorWithPadding(tokenizer)",
}
"""By what a class ends in: how rows of tokens become a batch where the rows have no labels of their own."""
_NOT_OF_AN_ADAPTER = frozenset(
    [
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "peft_version",
        "parent_library",
        "runtime_config",
        "megatron_config",
        "megatron_core",
    ]
)
_LIKE_DEFAULT: tuple[object, ...] = (None, False, {}, [])


@dataclass(slots=True)
class _Plan:
    """What goes into the script."""

    trainer: str
    arguments: dict[str, object] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    """What was not recorded, or is not done as it was."""


def script(subject: Subject) -> str:
    """A training script; its head says what the record does not tell."""
    plan = _Plan(trainer_class(subject.arguments, subject.config.get("trainer_class")))
    _say_arguments(subject, plan)
    _say_rest(subject, plan)
    if plan.trainer not in _ALIKE:
        return _head(subject, plan, ()) + _refusal(plan.trainer)
    of_trl = plan.trainer in _TRL
    imports = _imports(subject, plan)
    parts = [
        _head(subject, plan, imports),
        _constants(subject),
        OPTIONS.format(base=_base_option(subject), data=_data_option(subject)),
        DATA,
        "" if of_trl else _tokens(subject),
        REPOSITORY if _from_repository(subject) else "",
        _model(subject),
        _configuration(subject, plan),
        _main(subject, plan),
    ]
    return "\n\n".join(part.strip("\n") + "\n" for part in parts if part)


# --- what is said -----------------------------------------------------------------------------------


def _say_arguments(subject: Subject, plan: _Plan) -> None:
    for name, value in telling(subject.arguments, plan.trainer).items():
        if _holds(value, MASK):
            plan.statements.append(f"{name} was masked when it was recorded, and is left out")
        elif _holds(value, "…"):
            plan.statements.append(f"{name} was too large to be recorded whole, and is left out")
        elif not name.isidentifier():
            continue
        else:
            plan.arguments[name] = value
    best = str(plan.arguments.get("metric_for_best_model") or "loss").removeprefix("eval_")
    plateau = plan.arguments.get("lr_scheduler_type") == "reduce_lr_on_plateau"
    if best != "loss":
        # The trainer asks for the metric by name at the first evaluation, and there is none.
        plan.arguments.pop("metric_for_best_model")
        plan.arguments.pop("greater_is_better", None)
        if plateau:
            plan.statements.append(
                f"the learning rate followed {best}; here it follows the evaluation's loss"
            )
        if plan.arguments.get("save_strategy") == "best":
            plan.arguments.pop("save_strategy")
            plan.statements.append(f"the best by {best} alone was saved; here each save_steps is")
    if plan.arguments.get("load_best_model_at_end") and best != "loss":
        plan.statements.append(
            f"the best model by {best} is not loaded at the end: what computed it is unknown"
        )
        plan.arguments.pop("load_best_model_at_end")
    if not subject.all_arguments:
        plan.statements.append(
            "the trainer's arguments were not recorded whole: what is not below is its default"
        )


def _say_rest(subject: Subject, plan: _Plan) -> None:
    said = [each for each in subject.missing if "arguments" not in each]
    known = any(hub_name(name, owned=True) for name in subject.datasets())
    if not known:
        said.append("where the data lies was not recorded: --data names it")
    lost = _gone(subject)
    if lost is not None and lost.kind == "adapter":
        said.append(f"the adapter that it went on from, {_named(lost)}, is not here: a new one is trained")
    elif lost is not None:
        said.append(f"{_named(lost)}, that it began from, is not here: --base names the model")
    if "required=True" in _base_option(subject) and lost is None:
        said.append("the model that it began from was not recorded: --base names it")
    if plan.trainer not in _TRL:
        said.append("how rows became tokens was not recorded: rows with input_ids are taken as they are")
    own = [key for key in subject.metrics if key.startswith("eval_") and not _of_trainer(key)]
    if own and plan.trainer in ("Trainer", "Seq2SeqTrainer"):
        said.append(
            f"what computed {', '.join(sorted(own)[:5])} was not recorded: the loss alone is evaluated"
        )
    if any(key.startswith("model.quantization_config") for key in subject.config):
        said.append("the base was loaded quantized; here it is loaded as its own files say")
    if subject.kind not in ("model", "adapter"):
        said.append(f"it was saved as {subject.kind}, not as a model that from_pretrained loads")
    plan.statements += said


def _of_trainer(metric: str) -> bool:
    return metric in ("eval_loss", "eval_runtime") or metric.endswith("_per_second")


def _holds(value: object, text: str) -> bool:
    if isinstance(value, Mapping):
        return any(_holds(each, text) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_holds(each, text) for each in value)
    return value == text or (isinstance(value, str) and text == MASK and MASK in value)


def _head(subject: Subject, plan: _Plan, imports: tuple[str, ...]) -> str:
    run = f" of run {remark(subject.run.name)}" if subject.run is not None else ""
    lines = [f'"""Trains {remark(subject.reference)} again, as far as the record tells.', ""]
    lines += [f"Version {subject.id}{run},", f"saved {remark(subject.created_at)}."]
    if plan.statements:
        lines += ["", "What the record does not tell:", ""]
        lines += [f"- {remark(each)}" for each in plan.statements]
    lines += ['"""', "", *imports]
    return "\n".join(lines) + "\n"


def _refusal(trainer: str) -> str:
    message = (
        f"this version was made by {remark(trainer)}, which takes functions that were not recorded (rewards, "
        "say): write the lines that make it here, with the settings that `stemmata show REF --config` lists"
    )
    return f"\nimport sys\n\nsys.exit(\n    {python(message)}\n)\n"


# --- what is done -----------------------------------------------------------------------------------


def _imports(subject: Subject, plan: _Plan) -> tuple[str, ...]:
    config = {"Trainer": "TrainingArguments", "Seq2SeqTrainer": "Seq2SeqTrainingArguments"}
    names = {auto_class(subject), "AutoTokenizer", "set_seed"}
    lines = ["import argparse", "import sys", "from pathlib import Path", ""]
    lines += ["from datasets import DatasetDict, load_dataset, load_from_disk"]
    if _trains_adapter(subject):
        lines.append(
            "from peft import PeftModel" if _adapter_origin(subject) else "from peft import get_peft_config"
        )
        if plan.trainer not in _TRL and not _adapter_origin(subject):
            lines[-1] = "from peft import get_peft_config, get_peft_model"
    if plan.trainer not in _TRL:
        collator = _collator(subject).partition("(")[0] or "default_data_collator"
        names |= {plan.trainer, config[plan.trainer], "DataCollatorForSeq2Seq", collator}
    lines.append(f"from transformers import {', '.join(sorted(names))}")
    if plan.trainer in _TRL:
        lines.append(f"from trl import {plan.trainer.removesuffix('Trainer')}Config, {plan.trainer}")
    return tuple(lines)


def _constants(subject: Subject) -> str:
    rows = {part: subject.data.get(f"{part}.rows") for part in ("train", "eval")}
    columns = subject.data.get("train.columns")
    lines = [f"ROWS = {python(rows)}  # of the data, as it was"]
    lines.append(f"COLUMNS = {python(columns if isinstance(columns, list) else [])}  # as the model got them")
    seed = subject.arguments.get("seed", 42)
    lines.append(f"SEED = {python(seed if isinstance(seed, int) else 42)}")
    return "\n".join(lines)


def _trains_adapter(subject: Subject) -> bool:
    return subject.kind == "adapter" and bool(subject.adapter)


def _adapter_origin(subject: Subject) -> str:
    """The id of the adapter that the run went on from, if it is here."""
    found = subject.origin
    return found.id if found is not None and found.is_here and found.kind == "adapter" else ""


def _base_here(subject: Subject) -> str:
    """The id of the version of this repository whose files the base was."""
    if subject.base_version is not None and subject.base_version.is_here:
        return subject.base_version.id
    found = subject.origin
    return found.id if found is not None and found.is_here and found.kind == "model" else ""


def _gone(subject: Subject) -> Relative | None:
    """The version that it began from, if it cannot be loaded and nothing else stands for it."""
    found = subject.origin
    if found is not None and not found.is_here and found.kind == "adapter":
        return found
    if _base_here(subject) or _adapter_origin(subject):
        return None
    return next(
        (each for each in (subject.base_version, found) if each is not None and not each.is_here), None
    )


def _named(other: Relative) -> str:
    return f"version {other.id[:12]}" + (f" ({other.name}, deleted)" if other.name else "")


def _from_repository(subject: Subject) -> bool:
    return bool(_base_here(subject) or (_trains_adapter(subject) and _adapter_origin(subject)))


def _base_option(subject: Subject) -> str:
    said = "the model to begin from: a folder, or a name on the hub"
    base = subject.base
    if _base_here(subject):
        found = _base_here(subject)
        return f'help="{said}; else version {found[:12]} of the repository"'
    recorded = base.name_or_path if base is not None else ""
    recorded = recorded or next(iter(base_names(subject)), "")
    if recorded and MASK not in recorded:
        return f'default={python(recorded)}, help="{said}"'
    return f'required=True, help="{said}; it was not recorded"'


def _data_option(subject: Subject) -> str:
    known = [name for name in subject.datasets() if hub_name(name, owned=True)]
    return f"default={python(known[0])}" if known else "required=True"


def _collator(subject: Subject) -> str:
    for ending, found in _COLLATORS.items():
        if subject.architecture.endswith(ending):
            return found
    return ""


def _tokens(subject: Subject) -> str:
    collator = _collator(subject)
    if not collator:
        return RAW.format(architecture=remark(subject.architecture or "a model of unknown class"))
    return TOKENS.format(collator=collator)


def _model(subject: Subject) -> str:
    name = auto_class(subject)
    more: list[str] = []
    dtype, labels = subject.config.get("model.dtype"), subject.config.get("model.num_labels")
    if isinstance(dtype, str) and dtype.isidentifier():
        more.append(f"dtype={python(dtype)}")
    if name in (AUTO_CLASSES["ForSequenceClassification"], AUTO_CLASSES["ForTokenClassification"]):
        more += [f"num_labels={python(labels)}"] if isinstance(labels, int) else []
    revision = subject.base.revision if subject.base is not None else None
    if revision and not _base_here(subject):
        more.append(f"revision={python(revision)} if options.base == {python(_recorded(subject))} else None")
    base = f"options.base or stored({python(_base_here(subject))})" if _base_here(subject) else "options.base"
    lines = ["def load_model(options):", f"    base = {base}"]
    lines += ["    tokenizer = AutoTokenizer.from_pretrained(base)"]
    lines += ["    if tokenizer.pad_token is None:", "        tokenizer.pad_token = tokenizer.eos_token"]
    lines += [f"    model = {name}.from_pretrained({', '.join(['base', *more])})"]
    if _trains_adapter(subject) and (origin := _adapter_origin(subject)):
        lines.append(
            f"    model = PeftModel.from_pretrained(model, stored({python(origin)}), is_trainable=True)"
        )
    return "\n".join([*lines, "    return model, tokenizer"])


def _recorded(subject: Subject) -> str:
    return subject.base.name_or_path if subject.base is not None else ""


def _adapter_settings(subject: Subject) -> dict[str, object]:
    found = {
        key: value
        for key, value in subject.adapter.items()
        if key not in _NOT_OF_AN_ADAPTER and (value not in _LIKE_DEFAULT or key == "init_lora_weights")
    }
    return {key: value for key, value in found.items() if not (key == "init_lora_weights" and value is True)}


def _configuration(subject: Subject, plan: _Plan) -> str:
    lines = ["def training_arguments(options):", "    return {", '        "output_dir": options.output,']
    lines += ['        "report_to": "none",']
    lines += [f"        {python(name)}: {python(value)}," for name, value in plan.arguments.items()]
    lines += ["    }"]
    if _trains_adapter(subject) and not _adapter_origin(subject):
        lines += ["", "", "ADAPTER = {"]
        lines += [f"    {python(k)}: {python(v)}," for k, v in _adapter_settings(subject).items()]
        lines += ["}"]
    return "\n".join(lines)


def _main(subject: Subject, plan: _Plan) -> str:
    adapter, of_trl = _trains_adapter(subject) and not _adapter_origin(subject), plan.trainer in _TRL
    config = {"Trainer": "TrainingArguments", "Seq2SeqTrainer": "Seq2SeqTrainingArguments"}.get(
        plan.trainer, plan.trainer.removesuffix("Trainer") + "Config"
    )
    given = ["model=model", f"args={config}(**arguments)", "train_dataset=train", "eval_dataset=evaluation"]
    given.append("processing_class=tokenizer")
    if of_trl and adapter:
        given.append("peft_config=get_peft_config(ADAPTER)")
    if not of_trl:
        given.append("data_collator=collator(train, tokenizer)")
    wrapped = (
        "    model = get_peft_model(model, get_peft_config(ADAPTER))\n" if adapter and not of_trl else ""
    )
    ready = (
        "" if of_trl else "    train, evaluation = tokens(train, tokenizer), tokens(evaluation, tokenizer)\n"
    )
    lines = "\n".join(f"        {each}," for each in given)
    return MAIN.format(adapter=wrapped, ready=ready, trainer=plan.trainer, given=lines)
