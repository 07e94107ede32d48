"""Makes the histories that stemmata is measured on, by training them.

    .venv/bin/python bench/corpus.py [H] [H2] [L] [T] [G] [G4] [tiny] [--work bench-work/corpus]

Without names: H, H2 and G; L (long), T (ten in a line), G4 (4 GB) and tiny (made up) on request alone.
What is complete is not made again. How they are trained stands in finetuning.py and lengthy.py, what a
version is in manifests.py. Other scripts walk one with

    for entry in corpus.history("H"): entry.name, entry.folder, entry.parents, entry.kind
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

from manifests import BRANCHES, RECIPES, Entry, Shelf, branch

USUAL = ("H", "H2", "G")
WORK = Path("bench-work/corpus")
_RECIPES = {"L": "lengthy", "T": "lengthy", "tiny": "madeup"}
"""Modules of the histories that are not finetuning's."""


def history(name: str, work: Path = WORK) -> list[Entry]:
    """The versions of a history, parents before children. Ends the program if it was not made."""
    if name in BRANCHES:
        whole, only = BRANCHES[name]
        return branch(history(whole, work), only)
    shelf = Shelf((work / name).absolute())
    if not shelf.complete:
        raise SystemExit(f"{shelf.home} is not complete: run bench/corpus.py {name} --work {work}")
    return shelf.entries()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the histories that stemmata is measured on.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(RECIPES)}; default: {', '.join(USUAL)}"
    )
    parser.add_argument("--work", type=Path, default=WORK, help="folder for everything that is written")
    options = parser.parse_args()
    for name in options.names or USUAL:
        if name not in RECIPES:
            parser.error(f"there is no history {name!r}")
        shelf = Shelf((options.work / name).absolute())
        if not shelf.complete:
            # Before torch is loaded: threads that spin while they wait slow each other on a busy machine.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            recipes = importlib.import_module(_RECIPES.get(name, "finetuning"))
            shelf.make(recipes.HISTORIES[name])
        tell(name, history(name, options.work))


def tell(name: str, entries: list[Entry]) -> None:
    total = sum(entry.bytes for entry in entries)
    print(f"\n{name}: {len(entries)} versions, {total / 1e6:.0f} MB")
    for entry in entries:
        changed = "" if entry.changed is None else f"{entry.changed:.4f} changed"
        print(
            f"  {entry.name:14} {entry.bytes / 1e6:7.1f} MB  {changed:15} {entry.what}; "
            f"from {', '.join(entry.parents) or 'nothing'}"
        )


if __name__ == "__main__":
    main()
