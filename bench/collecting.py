"""Deletes most of a history and collects: what is left, against what the rest takes alone.

    .venv/bin/python bench/collecting.py [H] [--keep full-2,frozen-3,bf16-4] [--write NAME]

The history is saved into one repository, all versions but those of --keep are deleted, and collected with no
grace. The kept ones are saved, in their order, into a second, new repository. Sizes are of all files but the
cache. See bench/README.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import corpus
import stemmata
from manifests import Entry
from measuring import keep, load, machine, repository_bytes, timed

MODEL = "measured"
TARGET = 1.1
"""What is left, over what the kept versions take alone."""
CHOICES = ("full-4,frozen-3,bf16-4", "full-2,full-3,full-4", "base,bf16-base,lora-r8")


def main() -> int:
    options = parse_options()
    entries = corpus.history(options.name, options.corpus)
    work = Path(options.work).absolute() / "collecting"
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}: collecting", "", machine(), load(), ""]
    lines += [f"## {options.name}: {len(entries)} versions, {sum(e.bytes for e in entries) / 1e6:.1f} MB", ""]
    lines += ["| kept | MB before | MB after | MB of them alone | x | gc s | all sound and exact |"]
    lines += ["| --- " * 7 + "|"]
    missed: list[str] = []
    for choice in options.keep or CHOICES:
        shutil.rmtree(work, ignore_errors=True)
        lines.append(row(choice, entries, work, missed))
    shutil.rmtree(work, ignore_errors=True)
    lines += ["", load(), "", *([f"MISSED: {m}" for m in missed] or ["Every target above was met."])]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if missed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what a collection leaves.")
    parser.add_argument("name", nargs="?", default="H", help="a history of corpus.py; default: H")
    parser.add_argument("--keep", action="append", metavar="A,B,…", help="versions that stay; may come again")
    parser.add_argument("--work", default="bench-work", help="folder for everything that is written")
    parser.add_argument("--corpus", type=Path, default=corpus.WORK, help="where corpus.py put it")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


def row(choice: str, entries: Sequence[Entry], work: Path, missed: list[str]) -> str:
    names = choice.split(",")
    kept = [entry for entry in entries if entry.name in names]
    if len(kept) != len(names):
        raise SystemExit(f"{choice}: there are {', '.join(entry.name for entry in entries)}")
    whole = save(entries, work / "whole")
    before = repository_bytes(work / "whole")
    whole.delete([f"{MODEL}@{entry.name}" for entry in entries if entry not in kept], force=True)
    seconds = timed(lambda: whole.gc(undo_window=0, grace=0))
    after = repository_bytes(work / "whole")
    save(kept, work / "alone").close()
    alone = repository_bytes(work / "alone")
    exact = whole.check().sound and all(comes_back(whole, entry, work / "out") for entry in kept)
    whole.close()
    if after > TARGET * alone:
        missed.append(f"{choice}: {after / alone:.3f} times what the three take alone")
    if not exact:
        missed.append(f"{choice}: not sound, or other bytes")
    sizes = " | ".join(f"{size / 1e6:.1f}" for size in (before, after, alone))
    cells = [", ".join(names), sizes, f"{after / alone:.3f}", f"{seconds:.1f}", "yes" if exact else "**no**"]
    return f"| {' | '.join(cells)} |"


def save(entries: Sequence[Entry], folder: Path) -> stemmata.Repository:
    repository = stemmata.open(folder, create=True)
    names = {entry.name for entry in entries}
    for entry in entries:
        parents = [f"{MODEL}@{parent}" for parent in entry.parents if parent in names]
        repository.save(entry.folder, MODEL, name=entry.name, parents=parents)
    return repository


def comes_back(repository: stemmata.Repository, entry: Entry, out: Path) -> bool:
    shutil.rmtree(out, ignore_errors=True)
    repository[f"{MODEL}@{entry.name}"].checkout(out)
    files = sorted(path.relative_to(entry.folder) for path in entry.folder.rglob("*") if path.is_file())
    return all((out / name).read_bytes() == (entry.folder / name).read_bytes() for name in files)


if __name__ == "__main__":
    sys.exit(main())
