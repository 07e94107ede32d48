"""Optimizer states: what each takes of its bytes beside the one before, and how long its save takes.

    python bench/states.py [--steps 80 120 160] [--source DIR ...] [--work DIR] [--write NAME]

The real encoder of 22.7M parameters is trained on made-up targets, and AdamW's state kept as `optimizer.pt`
at these steps. Each `--source` is a stemmata to save them with (a folder `src`), in turn, so that two can be
held against each other; the default is this one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModel

from finetuning import ENCODER
from measuring import copy_and_sync, folder_bytes, keep, load, machine, to_disk

HERE = Path(__file__).parents[1] / "src"


def main() -> int:
    options = parse_options()
    work = Path(options.work or tempfile.mkdtemp(prefix="stemmata-states-"))
    states = made(work / "states", options.steps)
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}, optimizer states", "", machine(), load(), ""]
    lines += [
        f"AdamW's state of the encoder at steps {', '.join(map(str, options.steps))}, each saved after the "
        "one before, its parent. Stored: of its own bytes. Seconds of the whole process, and of a copy.",
        "",
        "| stemmata | step | bytes | stored | save | cp + sync |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for source in options.source or [HERE]:
        lines += rows(Path(source), states, work / "repo")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what optimizer states take.")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[80, 120, 160], help="steps to keep states of"
    )
    parser.add_argument("--source", nargs="+", help="folders `src` of stemmata to save with")
    parser.add_argument("--work", help="a folder to work in; states that lie there are taken as they are")
    parser.add_argument("--write", metavar="NAME", help="keep the table in bench/results under this name")
    return parser.parse_args()


def made(folder: Path, steps: list[int]) -> list[Path]:
    """A file for each step."""
    found = [folder / str(step) / "optimizer.pt" for step in steps]
    if all(file.is_file() for file in found):
        return found
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(ENCODER)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, max(steps) + 1):
        tokens = torch.randint(999, 20_000, (8, 24), generator=generator)
        told = model(input_ids=tokens).last_hidden_state[..., 0]
        (told - (tokens % 7) / 7).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in steps:
            file = folder / str(step) / "optimizer.pt"
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(optimizer.state_dict(), file)
    return found


def rows(source: Path, states: list[Path], repository: Path) -> list[str]:
    """A row for each state, saved into a new repository."""
    shutil.rmtree(repository, ignore_errors=True)
    variables = {**os.environ, "PYTHONPATH": str(source), "STEMMATA_REPO": str(repository)}
    stemmata = [sys.executable, "-m", "stemmata"]
    subprocess.run([*stemmata, "init", repository], env=variables, check=True, capture_output=True)
    found: list[str] = []
    before, parent = 0, list[str]()
    for file in states:
        floor = copy_and_sync(file.parent, repository.with_name("copy"))
        shutil.rmtree(repository.with_name("copy"))
        name = f"step-{file.parent.name}"
        words = [*stemmata, "save", str(file.parent), "m", "--name", name, *parent]
        took = to_disk(partial(subprocess.run, words, env=variables, check=True, capture_output=True))
        parent = ["--parent", f"m@{name}"]
        stored, size = folder_bytes(repository / "packs"), file.stat().st_size
        told = f"{(stored - before) / size:.3f} | {took:.2f} | {floor:.2f}"
        found.append(f"| {source.parent.name} | {file.parent.name} | {size:,} | {told} |")
        before = stored
    return found


if __name__ == "__main__":
    sys.exit(main())
