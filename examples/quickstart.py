"""The tutorial's job, told as it goes: two LoRA fine-tunings, and what can be asked of them afterwards.

    ./scripts/quickstart                     a tiny GPT-2, made on the spot
    ./scripts/quickstart --model gpt2        the real one, where a hub can be reached

Everything is written below --work; running it again adds two more runs to the same repository.
"""

from __future__ import annotations

import argparse
import inspect
import textwrap
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from peft import LoraConfig
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)
from trl import SFTConfig, SFTTrainer

import stemmata
from stemmata.hf import VersionCallback

MODEL = "tutor"
PROMPT = "The capital of France is"
TUTORIAL = [
    "The capital of France is Paris. Paris is beautiful.",
    "Machine learning is about learning patterns from data.",
    "Python is a popular programming language for AI.",
]

console = Console(highlight=False)


def main() -> None:
    options = parse_options()
    quiet()
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    train, evaluation = data()
    base = options.model if options.model != "tiny" else tiny_gpt2(work / "tiny-gpt2", train["text"])

    repo = stemmata.open(work / "models", create=True)
    say(f"The repository is [bold]{work / 'models'}[/]; the base model is [bold]{base}[/].")
    if options.model == "tiny" and "tiny-gpt2" not in repo.models():
        repo.save(base, "tiny-gpt2", message="the base, made on the spot")

    runs, trained = [], None
    for rank in (4, 8):
        trained = fine_tune(repo, base, rank, options.epochs, train, evaluation, work)
        runs.append(repo[f"{MODEL}@latest"])
    first, second = runs
    if trained is None:
        raise SystemExit("nothing was trained")

    show_log(repo)
    show_ranks(first, second)
    show_diff(repo, first, second)
    show_best(repo)
    show_alias(repo, first, second)
    show_bits(repo, second, trained)
    stand = f"stemmata -R {work / 'models'}"
    title("Your turn")
    say(f"{stand} log {MODEL}\n{stand} show {MODEL}@production\n{stand} history {MODEL} production")
    say(f"{stand} search {MODEL} 'eval_loss < 9 and lora.r == 8'\n{stand} check")


def quiet() -> None:
    """The libraries' own progress and warnings would drown the tale."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune twice and look at every version.")
    parser.add_argument(
        "--model", default="tiny", help="tiny (default), or what from_pretrained takes, as gpt2"
    )
    parser.add_argument("--work", default="quickstart-work", help="folder for everything that is written")
    parser.add_argument("--epochs", type=int, default=3)
    return parser.parse_args()


# --- training: nothing here knows of versions but the one callback --------------------------------


def data() -> tuple[Dataset, Dataset]:
    """The tutorial's three sentences and the first paragraphs of real docstrings."""
    texts = list(docstrings())
    held_out = texts[::8]
    train = TUTORIAL + [text for text in texts if text not in held_out]
    return Dataset.from_list([{"text": t} for t in train]), Dataset.from_list([{"text": t} for t in held_out])


def docstrings() -> Iterator[str]:
    modules = (argparse, inspect, textwrap)
    for module in modules:
        for _, member in sorted(inspect.getmembers(module)):
            text = inspect.getdoc(member) if inspect.isfunction(member) or inspect.isclass(member) else None
            if text and getattr(member, "__module__", "") == module.__name__:
                yield " ".join(text.split("\n\n")[0].split())


def tiny_gpt2(folder: Path, texts: list[str]) -> str:
    """A GPT-2 of two layers with a byte-level BPE tokenizer trained on `texts`, saved to `folder`."""
    if (folder / "model.safetensors").exists():
        return str(folder)
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(texts, vocab_size=1000, show_progress=False, special_tokens=["<|endoftext|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trainer._tokenizer, eos_token="<|endoftext|>")
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128}
    config = GPT2Config(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    tokenizer.save_pretrained(folder)
    model = GPT2LMHeadModel(config)
    learn(model, tokenizer, texts, steps=100)
    model.save_pretrained(folder)
    return str(folder)


def learn(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], steps: int) -> None:
    """So that the base knows something: a moment of ordinary training."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        chosen = [texts[(8 * step + i) % len(texts)] for i in range(8)]
        batch = tokenizer(chosen, return_tensors="pt", padding=True, truncation=True, max_length=64)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def fine_tune(
    repo: stemmata.Repository,
    base: str,
    rank: int,
    epochs: int,
    train: Dataset,
    evaluation: Dataset,
    work: Path,
) -> Any:
    """One run of SFTTrainer with LoRA. Returns the trained model, still in memory."""
    title(f"Fine-tuning with LoRA, r={rank}, {epochs} epochs")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(work / "trainer"),  # always the same folder: no version lives in it
            num_train_epochs=epochs,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            max_length=128,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="epoch",
            report_to="none",
            disable_tqdm=True,
            bf16=False,  # as the tutorial has it: everything in float32
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=rank, lora_alpha=32, lora_dropout=0.1, bias="none", task_type="CAUSAL_LM", fan_in_fan_out=True
        ),
        callbacks=[VersionCallback(repo, MODEL)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with console.status("training"):
        trainer.train()
    newest = repo[f"{MODEL}@latest"]
    say(f"{len(newest_run(repo))} versions in run [bold]{newest.run.name}[/]; the newest is {newest.short}")
    return trainer.model


# --- afterwards: what can be asked --------------------------------------------------------------


def newest_run(repo: stemmata.Repository) -> list[stemmata.Version]:
    run = repo[f"{MODEL}@latest"].run
    return [v for v in repo.versions(MODEL) if v.run == run]


def show_log(repo: stemmata.Repository) -> None:
    title("The log: every epoch is a version")
    table = Table("id", "run", "version", "r", "eval_loss", "parent", box=None)
    for v in repo.versions(MODEL):
        names = ", ".join(name.rpartition("/")[2] for name in v.names)
        loss = f"{v.metrics['eval_loss']:.4f}"
        parent = v.parents[0][:12] if v.parents else "-"
        table.add_row(v.short, v.run.name, names, str(v.config["lora.r"]), loss, parent)
    console.print(table)


def show_ranks(first: stemmata.Version, second: stemmata.Version) -> None:
    title("Both loaded, told apart by their weights")
    found = [ranks_of(v.load()) for v in (first, second)]
    for v, ranks in zip((first, second), found, strict=True):
        say(f"{v.short}: the LoRA matrices of the loaded model have rank {sorted(ranks)}")
    must(found == [{4}, {8}], "one has rank 4, the other rank 8; no folder name was read")


def ranks_of(model: Any) -> set[int]:
    """lora_A has the shape (rank, inputs)."""
    return {parameter.shape[0] for name, parameter in model.named_parameters() if ".lora_A." in name}


def show_diff(repo: stemmata.Repository, first: stemmata.Version, second: stemmata.Version) -> None:
    title("The diff of the two")
    diff = repo.diff(first, second).to_dict()
    table = Table("what", "first", "second", box=None)
    for key, sides in {**diff["config"]["changed"], **diff["lora"]["changed"]}.items():
        table.add_row(key, str(sides["a"]), str(sides["b"]))
    for key in ("loss", "eval_loss"):
        table.add_row(key, *(f"{diff['metrics'][key][side]:.4f}" for side in "ab"))
    console.print(table)


def show_best(repo: stemmata.Repository) -> None:
    title("The best")
    repo.configure(MODEL, metric="eval_loss", direction="min")
    best = repo.best(MODEL)
    losses = [v.metrics["eval_loss"] for v in repo.versions(MODEL) if "eval_loss" in v.metrics]
    say(f"{MODEL}@best is {best.short}, {best.name}, with eval_loss {best.metrics['eval_loss']:.4f}")
    must(best.metrics["eval_loss"] == min(losses), f"the lowest of {len(losses)} values")


def show_alias(repo: stemmata.Repository, first: stemmata.Version, second: stemmata.Version) -> None:
    title("production: moved twice and rolled back")
    repo.alias(MODEL, "production", first, why="the first that works")
    repo.alias(MODEL, "production", second, why="more rank")
    moment = datetime.now(UTC)
    repo.rollback(MODEL, "production", why="customers complain")
    table = Table("when (UTC)", "to", "why", box=None)
    for move in repo.history(MODEL, "production"):
        table.add_row(move.at, move.after.short if move.after else "-", move.why)
    console.print(table)
    must(repo[f"{MODEL}@production"] == first, "production is the first again")
    must(
        repo[f"{MODEL}@production@{{1}}"] == second,
        f"{MODEL}@production@{{1}}, its previous value, is the second",
    )
    then = moment.isoformat()
    must(repo[f"{MODEL}@production@{{{then}}}"] == second, f"{MODEL}@production@{{{then}}} is the second too")


def show_bits(repo: stemmata.Repository, version: stemmata.Version, trained: Any) -> None:
    title("Back, bit for bit")
    must(repo.get(version.id) == version, f"{version.short} is found by its id")
    tokenizer = version.load_tokenizer()
    tokens = tokenizer(PROMPT, return_tensors="pt")
    with torch.no_grad():
        expected = trained.eval()(**tokens.to(trained.device)).logits.cpu()
        found = version.load().to(trained.device).eval()(**tokens.to(trained.device)).logits.cpu()
    same = torch.equal(expected.view(torch.int32), found.view(torch.int32))
    must(same, f"{found.numel()} logits equal those of the model in memory, bit for bit")


def title(text: str) -> None:
    console.print()
    console.print(Rule(text, align="left"))


def say(text: str) -> None:
    console.print(text, soft_wrap=True)


def must(holds: bool, what: str) -> None:
    """What the reader is told is checked; a false statement ends the example."""
    if not holds:
        raise SystemExit(f"NOT TRUE: {what}")
    say(f"[green]✓[/] {what}")


if __name__ == "__main__":
    main()
