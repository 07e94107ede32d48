"""Measures what stemmata promises. One command: .venv/bin/python bench/run.py

Prints, and with --write keeps in bench/results/: how long the command line takes as whole processes,
and on the encoder's history (examples/encoder.py) the time to save and to check out beside
`cp -r` + `sync`, and the bytes kept. See bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import stemmata

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).with_name("stemmata")
Row = tuple[str, int, int, float, float, float]
"""Name, bytes, bytes more in the store, seconds to save, to check out, to copy."""
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
        target = ROOT / "bench" / "results" / f"{options.write}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return 1 if missed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure stemmata on this machine.")
    parser.add_argument("--work", default="bench-work", help="folder for everything that is written")
    parser.add_argument("--repeat", type=int, default=10, help="runs of each command; the median counts")
    parser.add_argument("--quick", action="store_true", help="the command line only, no training")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


def machine() -> str:
    return (
        f"stemmata {stemmata.__version__}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, commit {commit()}. Medians."
    )


def commit() -> str:
    asked = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


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


# --- the encoder's history -----------------------------------------------------------------------


def encoder_history(work: Path, missed: list[str]) -> list[str]:
    trained = work / "encoder"
    if not (trained / "complete").exists():
        subprocess.run([sys.executable, ROOT / "examples" / "encoder.py", "--work", trained], check=True)
        (trained / "complete").touch()
    folders = raw_folders(trained / "models", work / "raw")
    repository = work / "again"
    shutil.rmtree(repository, ignore_errors=True)
    with stemmata.open(repository, create=True) as repo:
        rows = [measure(repo, repository, work, *folder, missed) for folder in folders]
    raw = sum(row[1] for row in rows)
    kept = stored(repository)
    return history_lines(rows, raw, kept)


def measure(
    repo: stemmata.Repository,
    repository: Path,
    work: Path,
    name: str,
    parent: str,
    folder: Path,
    missed: list[str],
) -> Row:
    """Save one folder, check it out again, and copy it beside, each followed by sync."""
    out, copy = work / "out", work / "copy"
    for leftover in (out, copy):
        shutil.rmtree(leftover, ignore_errors=True)
    before = stored(repository)
    parents = [f"encoder@{parent}"] if parent else []
    saving = timed(lambda: repo.save(folder, "encoder", name=name, parents=parents))
    version = repo[f"encoder@{name}"]
    checking_out = timed(lambda: (version.checkout(out), os.sync()))
    copying = timed(lambda: copy_and_sync(folder, copy))
    if subprocess.run(["diff", "-r", folder, out], check=False).returncode:
        missed.append(f"the checkout of {name} differs from what was saved")
    return name, stored(folder), stored(repository) - before, saving, checking_out, copying


def history_lines(rows: Sequence[Row], raw: int, kept: int) -> list[str]:
    lines = ["## The encoder's history", ""]
    lines += ["| version | MB | MB kept | save s | check out s | `cp -r` + `sync` s |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, size, more, save, checkout, copy in rows:
        lines.append(
            f"| {name} | {size / 1e6:.1f} | {more / 1e6:.1f} | {save:.2f} | {checkout:.2f} | {copy:.2f} |"
        )
    large = [row for row in rows if row[1] > 50e6]
    save, checkout, copy = (median(row[i] for row in large) for i in (3, 4, 5))
    lines += [
        "",
        f"Of the {len(large)} versions with all weights: `cp -r` + `sync` {copy:.2f} s, "
        f"save {save:.2f} s ({save / copy:.1f} x), check out {checkout:.2f} s ({checkout / copy:.1f} x).",
        f"Kept: {kept / 1e6:.1f} MB of {raw / 1e6:.1f} MB ({kept / raw:.3f}).",
        "Each checkout was compared with `diff -r`.",
        "",
    ]
    return lines


def raw_folders(repository: Path, target: Path) -> list[tuple[str, str, Path]]:
    """(name, parent's name, folder) of every version of the trained history, the oldest first."""
    found = []
    with stemmata.open(repository) as repo:
        for version in reversed(repo.versions("encoder")):
            folder = target / version.short
            if not folder.exists():
                version.checkout(folder)
            parent = repo.get(version.parents[0]).name if version.parents else ""
            found.append((version.name, parent, folder))
    return found


# --- measuring -----------------------------------------------------------------------------------


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def without(folder: Path, action: Callable[[], object]) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    return timed(action)


def copy_and_sync(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", source, target], check=True)
    subprocess.run(["sync"], check=True)


def stored(folder: Path) -> int:
    """Bytes of all files, caches aside: they may be deleted at any time."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] != "cache")
    return sum(p.stat().st_size for p in files)


if __name__ == "__main__":
    sys.exit(main())
