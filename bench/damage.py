"""Damages a real repository at random, a thousand times: what is found, handed out and mended.

    .venv/bin/python bench/damage.py [H] [--damages 1000] [--at-once 25] [--write NAME]

The history is saved into one repository. Each round begins with a copy of it, flips bits in some of its
files, cuts others and deletes others, all at random; asks `check` for them; reads versions, which must come
back byte for byte or not at all; mends everything from an untouched copy, checks again, and reads again. See
bench/README.md.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import corpus
import stemmata
from collecting import MODEL, comes_back, save
from manifests import Entry
from measuring import keep, load, machine, repository_bytes
from stemmata import recovering
from stemmata.checking import Report, check
from stemmata.errors import OlderCopy, StemmataError
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage

_ANNOTATIONS = 300
"""Entries after the saves, so that there is a bundle of 256."""
_FULL = 10
"""Every round of so many is checked to the last byte and read whole."""
_SAMPLE = 3
"""Versions that are read in the others."""


@dataclass
class Counts:
    damages: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    unfound: list[str] = field(default_factory=list)
    refused: int = 0
    newest: int = 0
    """Rounds that lost the newest entry of the log, which no other copy had."""
    exact: int = 0
    wrong: list[str] = field(default_factory=list)
    unmended: list[str] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)


def main() -> int:
    options = parse_options()
    entries = corpus.history(options.name, options.corpus)
    work = Path(options.work).absolute() / "damage"
    shutil.rmtree(work, ignore_errors=True)
    whole = work / "whole"
    build(entries, whole)
    counts, dice = Counts(), random.Random(options.seed)
    rounds = -(-options.damages // options.at_once)
    left = options.damages
    for number in range(rounds):
        one_round(number, min(left, options.at_once), entries, whole, work, dice, counts)
        left -= options.at_once
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    text = report(options, entries, whole, counts, rounds)
    shutil.rmtree(work, ignore_errors=True)
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if counts.unfound or counts.wrong or counts.unmended else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Damage a repository at random.")
    parser.add_argument("name", nargs="?", default="H", help="a history of corpus.py; default: H")
    parser.add_argument("--damages", type=int, default=1000, help="in all; default: 1000")
    parser.add_argument("--at-once", type=int, default=25, help="in one round; default: 25")
    parser.add_argument("--seed", type=int, default=1, help="of the dice")
    parser.add_argument("--work", default="bench-work", help="folder for everything that is written")
    parser.add_argument("--corpus", type=Path, default=corpus.WORK, help="where corpus.py put it")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


def build(entries: Sequence[Entry], folder: Path) -> None:
    with save(entries, folder) as repository:
        repository.alias(MODEL, "production", f"{MODEL}@{entries[-1].name}", why="the newest")
        for k in range(_ANNOTATIONS):
            repository.annotate(f"{MODEL}@{entries[k % len(entries)].name}", metrics={"score": k / 7})


def one_round(
    number: int,
    count: int,
    entries: Sequence[Entry],
    whole: Path,
    work: Path,
    dice: random.Random,
    counts: Counts,
) -> None:
    # A place of its own: this machine remembers of each how far its log went.
    hurt = work / f"hurt-{number}"
    shutil.copytree(whole, hurt)
    storage = LocalStorage(hurt)
    with stemmata.open(hurt) as repository:
        # Somebody works there: the machine knows how far that log goes.
        repository.annotate(f"{MODEL}@{entries[0].name}", metrics={"round": number})
    newest = max((hurt / "log").iterdir()).relative_to(hurt).as_posix()
    keys = spoil(hurt, count, dice, counts)
    full = not number % _FULL
    with timed(counts, "check"):
        found = check(storage, level="full" if full else "stored")
    counts.unfound += [f"round {number}: {key}" for key in keys if not told(found, key)]
    read(hurt, entries if full else dice.sample(list(entries), _SAMPLE), work, counts, number)
    with timed(counts, "mend"):
        recovered = recovering.recover(storage, sources=[LocalStorage(whole)])
        with stemmata.open(hurt) as repository:
            if not (hurt / newest).exists():
                # No other copy has it: it is told, and stays lost.
                counts.newest += 1
                if not is_refused(repository, f"{MODEL}@{entries[0].name}"):
                    counts.unmended.append(f"round {number}: written to without its newest entry")
                repository.accept_older()
            mended = repository.repair([whole], level="stored")
    if not (recovered.complete and mended.sound):
        counts.unmended.append(f"round {number}: {mended.lost or mended.left or recovered.lost}")
    with timed(counts, "check after"):
        after = check(storage, level="full" if full else "stored")
    counts.unmended += [f"round {number}: {p.kind} {p.where}: {p.reason}" for p in after.problems]
    before = counts.refused
    read(hurt, entries if full else dice.sample(list(entries), _SAMPLE), work, counts, number)
    if counts.refused > before:
        counts.unmended.append(f"round {number}: a version could not be read after it was mended")
    shutil.rmtree(hurt)


def is_refused(repository: Repository, reference: str) -> bool:
    """Whether nothing may be written while the newest entry is gone."""
    try:
        repository.annotate(reference, metrics={"after": 1})
    except OlderCopy:
        return True
    return False


def spoil(folder: Path, count: int, dice: random.Random, counts: Counts) -> list[str]:
    """Damage `count` times; the keys of what is damaged then. Caches are no part of what is kept."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [path for path in files if path.relative_to(folder).parts[0] not in ("cache", "tmp")]
    hurt: dict[Path, bytes] = {}
    done = 0
    while done < count:
        # Half of them where the bytes are, half in any file: most files are small.
        weights = [path.stat().st_size if path.exists() else 0 for path in files]
        path = dice.choices(files, weights)[0] if dice.random() < 0.5 else dice.choice(files)
        if not path.exists() or not path.stat().st_size:
            continue
        before = hurt.setdefault(path, path.read_bytes())
        how = dice.choice(["flip", "flip", "cut", "delete"])
        path.chmod(0o644)
        if how == "delete":
            path.unlink()
        elif how == "cut":
            with path.open("r+b") as file:
                file.truncate(dice.randrange(path.stat().st_size))
        else:
            place = dice.randrange(path.stat().st_size)
            with path.open("r+b") as file:
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ 1 << dice.randrange(8)]))
        done += 1
        counts.damages[how] += 1
        counts.places[path.relative_to(folder).parts[0]] += 1
        # Two flips of one bit are none.
        if path.exists() and path.read_bytes() == before:
            del hurt[path]
    return [path.relative_to(folder).as_posix() for path in hurt]


def told(found: Report, key: str) -> bool:
    """Whether a problem speaks of the file: by its key, by its pack, or by the number of its entry."""
    stem = Path(key).stem
    words = {key, stem, f"entry {int(stem)}"} if stem.isdigit() else {key, stem}
    if key.startswith("bundles/"):
        # One that is missing is noted: the log itself is whole without it.
        words.add(key.rpartition("-")[0])
    said = [f"{each.where} {each.reason}" for each in [*found.problems, *found.notes]]
    said += [problem.pack for problem in found.problems if problem.pack]
    return any(word in each for each in said for word in words)


def read(folder: Path, entries: Sequence[Entry], work: Path, counts: Counts, number: int) -> None:
    """Every version comes back exact, or is refused."""
    with timed(counts, "read"):
        try:
            repository = stemmata.open(folder)
        except StemmataError:
            counts.refused += len(entries)
            return
        with repository:
            for entry in entries:
                try:
                    exact = comes_back(repository, entry, work / "out")
                except StemmataError:
                    counts.refused += 1
                    continue
                counts.exact += exact
                if not exact:
                    counts.wrong.append(f"round {number}: {entry.name}")


@contextmanager
def timed(counts: Counts, what: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    counts.seconds[what] += time.perf_counter() - begin  # type: ignore[assignment]


def report(
    options: argparse.Namespace, entries: Sequence[Entry], whole: Path, counts: Counts, rounds: int
) -> str:
    size = sum(entry.bytes for entry in entries)
    files = sum(path.is_file() for path in whole.rglob("*"))
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}: damage at random", "", machine(), load(), ""]
    lines += [
        f"History {options.name}: {len(entries)} versions, {size / 1e6:.0f} MB, kept in "
        f"{repository_bytes(whole) / 1e6:.0f} MB, {files} files. {rounds} rounds, seed {options.seed}.",
        "",
        f"- {sum(counts.damages.values()):,} damages: {told_of(counts.damages)}; in {told_of(counts.places)}",
        f"- not found by `check`: {len(counts.unfound)}",
        f"- versions read while damaged and after: {counts.exact} exact, {counts.refused} refused, "
        f"{len(counts.wrong)} with other bytes",
        f"- not mended from the untouched copy: {len(counts.unmended)}",
        f"- rounds that lost the newest entry of the log, which no other copy had, so that writing was "
        f"refused until that was accepted: {counts.newest}",
        "",
        "| seconds a round | |",
        "| --- | ---: |",
        *[f"| {what} | {spent / rounds:.1f} |" for what, spent in counts.seconds.items()],
        "",
        *[f"MISSED: not found: {each}" for each in counts.unfound],
        *[f"MISSED: other bytes: {each}" for each in counts.wrong],
        *[f"MISSED: not mended: {each}" for each in counts.unmended],
    ]
    return "\n".join(lines) + "\n"


def told_of(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
