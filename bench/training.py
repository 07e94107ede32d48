"""Measures what a training pays for its versions: .venv/bin/python bench/training.py

A real Trainer on GPT-2's geometry (124M parameters, random weights), all weights and LoRA. In one training
the callback is put in and taken out, an epoch each, so that both are measured under the same conditions.
See bench/README.md.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

# Before torch is loaded: threads that spin while they wait slow each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

import finetuning
import stemmata
import texts
from measuring import keep, load, machine, timed
from stemmata.hf import VersionCallback

ROWS, TOKENS = 2, 64
SLOWER, LONGER = 0.01, 1.5
"""Targets: how much longer an epoch may take with the callback in it; a pause, against a clone."""
_TOUCHED = 3 << 30


def main() -> int:
    options = parse_options()
    work = Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}: training", "", machine(), load(), ""]
    missed: list[str] = []
    tokenizer = finetuning.gpt_tokenizer()
    # In a virtual machine the first use of a page ever takes several times as long as any later one.
    np.ones(_TOUCHED, dtype=np.uint8)
    for case in options.cases:
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            lines += measure(case, tokenizer, Path(scratch), options, missed)
    lines += [load(), "", *([f"MISSED: {m}" for m in missed] or ["Every target above was met."])]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if missed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what a training pays for its versions.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="full, lora; default: both")
    parser.add_argument("--work", default="bench-work/training", help="folder for everything that is written")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps in an epoch")
    parser.add_argument("--repeat", type=int, default=3, help="epochs with the callback; as many without")
    parser.add_argument("--pauses", type=int, default=9, help="saves and clones that are timed by themselves")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    options = parser.parse_args()
    options.cases = options.cases or ["full", "lora"]
    if not set(options.cases) <= {"full", "lora"}:
        parser.error("the cases are full and lora")
    return options


# --- what is trained -----------------------------------------------------------------------------


def fresh_model(case: str) -> Any:
    torch.manual_seed(51)
    model = GPT2LMHeadModel(GPT2Config())
    if case == "full":
        return model
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", fan_in_fan_out=True))


def clone(model: Any) -> dict[str, torch.Tensor]:
    """What the pause at a save is held against. A tied tensor is in it under each of its names."""
    state = get_peft_model_state_dict(model) if hasattr(model, "peft_config") else model.state_dict()
    return {name: tensor.clone() for name, tensor in state.items()}


def rows(tokenizer: Any, count: int) -> list[dict[str, list[int]]]:
    docs = [doc for _, doc in texts.standard_library()]
    stream = [i for ids in tokenizer(docs)["input_ids"] for i in ids]
    starts = [i * TOKENS % (len(stream) - TOKENS) for i in range(count)]
    return [{"input_ids": stream[s : s + TOKENS], "labels": stream[s : s + TOKENS]} for s in starts]


def train(
    model: Any, tokenizer: Any, scratch: Path, steps: int, epochs: int, callbacks: list[TrainerCallback]
) -> None:
    """`callbacks` in their order; the first may take the others out and put them in."""
    arguments = TrainingArguments(
        str(scratch / "out"),
        run_name="measured",
        per_device_train_batch_size=ROWS,
        num_train_epochs=epochs,
        learning_rate=5e-5,
        logging_steps=50,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=51,
    )
    data: Any = rows(tokenizer, ROWS * steps)
    trainer = Trainer(
        model,
        arguments,
        data_collator=default_data_collator,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    for callback in callbacks:
        if isinstance(callback, Turns):
            callback.trainer = trainer
    trainer.train()


class Timed(VersionCallback):
    """The callback, with the seconds that the training thread spent in its event at an epoch's end."""

    def __init__(self, repository: stemmata.Repository) -> None:
        super().__init__(repository, "measured")
        self.pauses: list[float] = []

    def on_epoch_end(self, *given: Any, **live: Any) -> None:
        self.pauses.append(timed(lambda: super(Timed, self).on_epoch_end(*given, **live)))

    def writes(self) -> bool:
        """Whether anything is being written in the background."""
        return self._recorder is not None and self._recorder.busy()

    def rest(self) -> None:
        """Wait for the background."""
        if self._recorder is not None:
            self._recorder.wait()


class Turns(TrainerCallback):
    """Comes first of the callbacks. A turn begins after the last step of an epoch, before anybody saves, and
    ends at the same place of the next epoch: the pause and what goes on in the background are both in it."""

    def __init__(self, versions: Timed) -> None:
        self.versions = versions
        self.trainer: Any = None
        self.here = True
        self.last = 0

    def put(self, here: bool) -> None:
        if here and not self.here:
            self.trainer.add_callback(self.versions)
        if self.here and not here:
            self.trainer.remove_callback(self.versions)
        self.here = here

    def on_step_end(self, _args: Any, state: Any, _control: Any, **live: Any) -> None:
        self.stepped()
        if state.global_step % (state.max_steps // state.num_train_epochs) == 0:
            self.turn(round(state.epoch), live["model"])

    def stepped(self) -> None: ...

    def turn(self, epoch: int, model: Any) -> None:
        raise NotImplementedError


# --- the pause -----------------------------------------------------------------------------------


class Pauses(Turns):
    """Saves and clones in turn, each with nothing else going on and memory as fresh for both."""

    def __init__(self, versions: Timed) -> None:
        super().__init__(versions)
        self.clones: list[float] = []

    def turn(self, epoch: int, model: Any) -> None:
        self.versions.rest()
        self.put(epoch % 2 == 0)
        ctypes.CDLL(None).malloc_trim(0)
        if not self.here:
            self.clones.append(timed(lambda: clone(model)))


# --- whole epochs --------------------------------------------------------------------------------


@dataclass(slots=True)
class Stretch:
    """One epoch's steps and what came before its first one. Seconds."""

    saved: bool
    whole: float
    quiet: list[float]
    """Steps with nothing in the background."""
    busy: list[float]
    """Steps during which a version was written, or a part of them."""


class Epochs(Turns):
    """Epochs with the callback and without, in turn, the first of them not counted."""

    def __init__(self, versions: Timed) -> None:
        super().__init__(versions)
        self.stretches: list[Stretch] = []
        self.overran = False
        """Whether a version was still being written when its epoch was over."""
        self._at = self._step = 0.0
        self._quiet: list[float] = []
        self._busy: list[float] = []
        self._writes = False

    def on_step_begin(self, *_given: Any, **_live: Any) -> None:
        self._writes = self.versions.writes()
        self._step = time.perf_counter()

    def stepped(self) -> None:
        (self._busy if self._writes else self._quiet).append(time.perf_counter() - self._step)

    def turn(self, epoch: int, _model: Any) -> None:
        now = time.perf_counter()
        if epoch > 1:
            self.overran = self.overran or self.versions.writes()
            self.stretches.append(Stretch(self.here, now - self._at, self._quiet, self._busy))
        self.versions.rest()
        self.put(epoch % 2 == 1)
        self._quiet, self._busy = [], []
        self._at = time.perf_counter()


# --- the page ------------------------------------------------------------------------------------


def measure(
    case: str, tokenizer: Any, scratch: Path, options: argparse.Namespace, missed: list[str]
) -> list[str]:
    with stemmata.open(scratch / "models", create=True) as repository:
        pauses = Pauses(Timed(repository))
        model = fresh_model(case)
        # Two steps between: the optimizer's state is there, and every value moves.
        train(model, tokenizer, scratch, 2, 2 * options.pauses + 2, [pauses, pauses.versions])
        epochs = Epochs(Timed(repository))
        train(model, tokenizer, scratch, options.steps, 2 * options.repeat + 1, [epochs, epochs.versions])
        stored = repository.check().sound
    if not stored:
        missed.append(f"{case}: the repository is not sound")
    mine = sum(tensor.numel() * tensor.element_size() for tensor in clone(model).values()) / 1e6
    lines = [f"## {'All weights' if case == 'full' else 'LoRA, r=8'}", ""]
    lines += ["| at an epoch's end | median s | least | most |", "| --- | --- | --- | --- |"]
    # The first of each is not counted: imports, and the run's first look at everything.
    paused, cloned = pauses.versions.pauses[1:], pauses.clones[1:]
    for name, found in (("pause: the callback's event", paused), (f"clone of the {mine:.1f} MB", cloned)):
        lines.append(f"| {name} | {median(found):.4f} | {min(found):.4f} | {max(found):.4f} |")
    ratio = median(paused) / median(cloned)
    lines += ["", f"Pause / clone: {ratio:.2f}{f' (target < {LONGER})' if case == 'full' else ''}.", ""]
    if case == "full" and ratio >= LONGER:
        missed.append(f"{case}: a pause takes {ratio:.2f} times as long as a clone")
    return lines + whole_epochs(case, epochs, options.steps, missed)


def whole_epochs(case: str, epochs: Epochs, steps: int, missed: list[str]) -> list[str]:
    with_it = [s for s in epochs.stretches if s.saved]
    without = [s for s in epochs.stretches if not s.saved]
    quiet = median(t for s in without for t in s.quiet)
    beside = [t for s in with_it for t in s.quiet]
    busy = [t for s in with_it for t in s.busy]
    pause = median(epochs.versions.pauses[1:])
    taken = sum(t - quiet for t in busy) / len(with_it)
    cost = pause + max(0.0, taken)
    share = median(s.whole for s in with_it) / median(s.whole for s in without) - 1
    lines = [f"| an epoch of {steps} steps | without the callback | with it |", "| --- | --- | --- |"]
    whole = " | ".join(f"{median(s.whole for s in side):.2f}" for side in (without, with_it))
    lines.append(f"| whole, s (median of {len(with_it)} and {len(without)}) | {whole} |")
    told = f"{median(beside):.4f}" if beside else "-"
    lines.append(f"| step with nothing in the background, s | {quiet:.4f} | {told} |")
    told = f"{median(busy):.4f} ({len(busy) / len(with_it):.1f} steps an epoch)" if busy else "none"
    lines.append(f"| step while a version is written, s | - | {told} |")
    lines += ["", f"An epoch takes {share:+.2%} longer with the callback (target < {SLOWER:.0%}). "]
    lines[-1] += (
        f"A save costs {cost:.2f} s: the pause, {pause:.3f}, and {taken:.2f} that its background takes from "
        "the steps. "
    )
    lines[-1] += (
        f"That is 1 % of {max(1, round(100 * cost / quiet))} steps, {cost / (quiet * steps):.2%} of these."
    )
    if epochs.overran:
        lines[-1] += " **A version was still being written when its epoch was over.**"
    if share >= SLOWER:
        missed.append(f"{case}: an epoch of {steps} steps takes {share:.2%} longer with the callback")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
