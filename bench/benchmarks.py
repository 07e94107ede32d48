"""Measures stemmata beside what else people keep models with, and writes docs/benchmarks.md.

    .venv/bin/python bench/benchmarks.py
    .venv/bin/python bench/benchmarks.py --histories tiny --only-tools stemmata restic

Gets the others' programs, trains the histories that are missing, walks. Each walk is kept in the work folder:
the same command goes on where an interrupted one stopped. See bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import benchpage
import contents
import corpus
import patches
import peers
import trackers
from figures import LARGE, LINES, ONCE, USUAL, USUAL_WALKS
from keeping import Conditions, Measured, Results, Shelf, conditions, measure
from manifests import BRANCHES, RECIPES, Entry
from measuring import ROOT, machine_facts
from ours import Alone, Gone, Whole
from programs import Programs
from walking import chosen

RESULTS = ROOT / "bench" / "results" / "benchmarks.json"
"""What the page in docs/ is made of."""
TOOLS = (
    "stemmata",
    "stemmata-alone",
    "stemmata-gone",
    "cp",
    "zstd",
    "zstd-patch",
    "restic",
    "borg-lz4",
    "borg-zstd",
    "dvc",
    "git-lfs",
    "trackio",
    "mlflow",
)
OF_ONCE = {
    LARGE: ("stemmata", "cp", "zstd", "borg-zstd", "dvc"),
    LINES: ("stemmata", "cp", "zstd-patch", "restic", "borg-zstd", "dvc"),
}
"""The tools that walk those of ONCE: the large one tells how memory grows with a model, the long one what a
version takes far down a line, and both take minutes. So: ours, the floor, and one of each kind of the
others."""


def main() -> int:
    options = parse_options()
    work = Path(options.work).absolute()
    shelf = Shelf(work / "benchmarks" / "walks")
    failed: list[str] = []
    if not options.page:
        try:
            failed = measure_all(shelf, options, work)
        except KeyboardInterrupt:
            print("\nInterrupted. What was measured is kept; the same command goes on from there.")
            return 130
    docs, file, results = target(shelf, options, work)
    failed += benchpage.inexact(results)
    for line in failed:
        print(f"FAILED: {line}")
    if failed and not options.page:
        print("No page was written. What was measured is kept; --page writes a page of it.")
        return 1
    results.write(file)
    benchpage.write(results, docs, file)
    print(f"{docs / 'benchmarks.md'} is written, its figures are in {file}.")
    return 1 if failed else 0


def target(shelf: Shelf, options: argparse.Namespace, work: Path) -> tuple[Path, Path, Results]:
    """Where the page and its results go, and the results: of what is kept, else of the page that is there.

    What is not the whole set does not replace the page of it, unless that is asked for.
    """
    ours = ROOT / "docs"
    kept = [one for name in options.histories for one in shelf.newest([name], walkers(name, options))]
    if not kept:
        return ours, RESULTS, Results.read(RESULTS)
    results = Results.of(kept)
    walked = {(history.name, *history.walks) for history in results.histories}
    whole = walked == {(name, *OF_ONCE.get(name, TOOLS)) for name in USUAL}
    docs = Path(options.docs).resolve() if options.docs else ours if whole else work / "benchmarks" / "docs"
    return docs, RESULTS if docs == ours else docs / RESULTS.name, results


def parse_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    both = " and ".join(ONCE)
    parser = argparse.ArgumentParser(description="Measure stemmata beside other tools, and write the page.")
    parser.add_argument(
        "--histories",
        nargs="+",
        default=USUAL,
        choices=[*RECIPES, *BRANCHES],
        help=f"default: {' '.join(USUAL)}",
    )
    parser.add_argument("--only-tools", nargs="+", choices=TOOLS, metavar="TOOL",
                        help=f"of {', '.join(TOOLS)}; default: all, on {both} some")  # fmt: skip
    parser.add_argument(
        "--repeat",
        type=int,
        default=USUAL_WALKS,
        help=f"walks of each tool, one on {both}; medians count; default: {USUAL_WALKS}",
    )
    parser.add_argument("--work", default="bench-work", help="folder for everything that is written")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page of what is kept")
    parser.add_argument(
        "--docs",
        metavar="FOLDER",
        help="where the page goes; default: docs, but below the work folder if that is not all of it",
    )
    return parser.parse_args(words)


def walkers(history: str, options: argparse.Namespace) -> Sequence[str]:
    """The tools that walk a history: what was asked for, else all that are to."""
    asked: Sequence[str] | None = options.only_tools
    return asked or OF_ONCE.get(history, TOOLS)


def rounds(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Every walk in its order: history, tool, number."""
    return [
        (name, key, number)
        for number in range(1, options.repeat + 1)
        for name in options.histories
        if number == 1 or name not in ONCE
        for key in mixed(walkers(name, options), f"{name} {number}")
    ]


def found(keys: Sequence[str], programs: Programs) -> dict[str, Measured]:
    """The tools, with their programs got if they are not there yet."""
    every: dict[str, Measured] = {
        "stemmata": Whole(),
        "stemmata-alone": Alone(),
        "stemmata-gone": Gone(),
        "cp": peers.Copies(programs),
        "zstd": peers.Archives(programs),
        "zstd-patch": patches.Patches(programs),
        "restic": peers.Restic(programs),
        "borg-lz4": peers.Borg(programs, "lz4"),
        "borg-zstd": peers.Borg(programs, "zstd,3"),
        "dvc": peers.Dvc(programs),
        "git-lfs": peers.GitLfs(programs),
        "trackio": trackers.Trackio(programs),
        "mlflow": trackers.MLflow(programs),
    }
    for key in keys:
        every[key].install()
    return {key: every[key] for key in keys}


def measure_all(shelf: Shelf, options: argparse.Namespace, work: Path) -> list[str]:
    """All walks that are not kept yet. Returns what failed."""
    due = rounds(options)
    tools = found(list(dict.fromkeys(key for _, key, _ in due)), Programs(work / "peers"))
    histories = {name: versions(name, work / "corpus") for name in options.histories}
    facts = machine_facts(work)
    known = {name: contents.contents(name, work / "corpus") for name in options.histories}
    states: dict[tuple[str, str], Conditions] = {
        (name, key): conditions(key, tools[key], name, histories[name], facts, known[name])
        for name, key, number in due
        if number == 1
    }
    due = [(name, key, n) for name, key, n in due if shelf.get(states[name, key], n) is None]
    failed = []
    for at, (name, key, number) in enumerate(due, 1):
        started = time.perf_counter()
        print(f"[{at}/{len(due)}] {name}, {tools[key].title}, walk {number}", end="", flush=True)
        try:
            walked = measure(tools[key], histories[name], work / "walking", number)
        except SystemExit as error:  # a program failed: the others' figures are worth having
            failed.append(f"{name}, {tools[key].title}: {error}")
        else:
            shelf.put(states[name, key], walked)
        shutil.rmtree(work / "walking", ignore_errors=True)
        print(f": {time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    return failed


def versions(name: str, folder: Path) -> list[Entry]:
    """A history's, trained and looked into in processes of their own where that is not done yet."""
    trained = BRANCHES[name][0] if name in BRANCHES else name
    for script in ("corpus.py", "contents.py"):
        subprocess.run([sys.executable, ROOT / "bench" / script, trained, "--work", folder], check=True)
    return chosen(corpus.history(name, folder))


def mixed(keys: Sequence[str], turn: str) -> list[str]:
    """In each round through each history another order: no tool always has the memory that the same one left.
    The same order whenever it is measured, so that an interrupted run goes on."""
    return random.Random(turn).sample(keys, len(keys))


if __name__ == "__main__":
    sys.exit(main())
