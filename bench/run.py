"""Measures what stemmata promises. One command: .venv/bin/python bench/run.py

Prints, and with --write keeps in bench/results/: how long the command line takes as whole processes,
and of the encoder's history (H of corpus.py), in one process, the time to save and to check out beside
`cp -r` + `sync`, and the bytes kept. history.py measures that and more. See bench/README.md.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import corpus
import history
import stemmata
import walking
from measuring import COMMAND, ROOT, keep, machine, timed, without
from ours import inside

HEAVY = ("torch", "transformers", "peft", "datasets", "pandas")


def main() -> int:
    options = parse_options()
    work = Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}", "", machine(), ""]
    missed: list[str] = []
    lines += command_line(work, options.repeat, missed)
    if not options.quick:
        lines += encoder_history(work, missed)
    lines += ["", *(f"MISSED: {m}" for m in missed)] if missed else ["", "Every target above was met."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if missed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure stemmata on this machine.")
    parser.add_argument("--work", default="bench-work", help="folder for everything that is written")
    parser.add_argument("--repeat", type=int, default=10, help="runs of each command; the median counts")
    parser.add_argument("--quick", action="store_true", help="the command line only, no training")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


# --- the command line, as whole processes --------------------------------------------------------


def command_line(work: Path, repeat: int, missed: list[str]) -> list[str]:
    repository = thousand_versions(work / "thousand")
    cache = repository / "cache"
    helped = median(timed(lambda: run("--help")) for _ in range(repeat))
    logged = median(timed(lambda: run("-R", str(repository), "log", "many")) for _ in range(repeat))
    listed = median(timed(lambda: run("-R", str(repository), "log", "many", "--all")) for _ in range(repeat))
    cold = median(without(cache, lambda: run("-R", str(repository), "log", "many")) for _ in range(3))
    loaded = {
        " ".join(arguments): imported("-R", str(repository), *arguments)
        for arguments in (["--help"], ["log", "many"], ["models"], ["show", "many@latest"])
    }
    lines = ["## The command line, as whole processes", ""]
    lines += ["| what | seconds | target |", "| --- | --- | --- |"]
    for name, seconds, target in (
        ("`stemmata --help`", helped, 0.25),
        ("`stemmata log` on 1,000 versions (shows the newest 50)", logged, 0.5),
        ("`stemmata log --all` on 1,000 versions", listed, 0.5),
        ("`stemmata log` without a catalog (rebuilt from the log)", cold, None),
    ):
        lines.append(f"| {name} | {seconds:.3f} | {f'< {target}' if target else '-'} |")
        if target and seconds >= target:
            missed.append(f"{name} takes {seconds:.3f} s")
    for command, modules in loaded.items():
        if modules:
            missed.append(f"stemmata {command} imports {', '.join(modules)}")
    lines += ["", f"Of {', '.join(HEAVY)} these commands import none: {', '.join(loaded)}.", ""]
    return lines


def thousand_versions(folder: Path) -> Path:
    """A repository of 1,000 small versions in twenty runs; made once."""
    done = folder / "cache" / "bench-complete"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    source = folder.with_name("thousand-source")
    source.mkdir(exist_ok=True)
    with stemmata.open(folder, create=True) as repo:
        for i in range(1000):
            (source / "weights.bin").write_bytes(i.to_bytes(4, "little") * 64)
            repo.save(
                source,
                "many",
                name=f"run-{i // 50}/step-{i % 50}",
                step=i % 50,
                metrics={"eval_loss": 1 / (1 + i), "accuracy": i / 1000},
                config={"lora.r": 4 << (i % 3), "learning_rate": 1e-4},
                provenance={},
            )
    done.parent.mkdir(exist_ok=True)
    done.touch()
    return folder


def run(*arguments: str) -> None:
    none = subprocess.DEVNULL
    subprocess.run([COMMAND, *arguments], check=True, stdin=none, stdout=none, stderr=none)


def imported(*arguments: str) -> list[str]:
    """Which of HEAVY a command imports, by what Python itself reports."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", COMMAND, *arguments],
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines()}
    return sorted(modules.intersection(HEAVY))


# --- the history ---------------------------------------------------------------------------------


def encoder_history(work: Path, missed: list[str]) -> list[str]:
    """H of corpus.py, trained if it is not there yet, walked once in one process."""
    made = work / "corpus"
    subprocess.run([sys.executable, ROOT / "bench" / "corpus.py", "H", "--work", made], check=True)
    rows, _ = inside(walking.chosen(corpus.history("H", made)), work / "history")
    shutil.rmtree(work / "history")
    walked = walking.Walked.of("stemmata", [rows], missed)
    return ["## The encoder's history", "", *history.table(walked), "", *history.sums(walked), ""]


if __name__ == "__main__":
    sys.exit(main())
