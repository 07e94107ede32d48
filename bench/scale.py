"""Many versions: opening, listing, finding and saving with 100, 10,000 and 100,000 of them.

    python bench/scale.py [--versions 100000] [--write NAME]

Versions without weights of their own (simulated.py): what is measured is the log and the catalog. The
repositories are kept in bench-work/scale and made again only where they are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import simulated
import stemmata
from measuring import COMMAND, Peaks, folder_bytes, keep, load, machine, peak_of, timed
from stemmata.catalog import checkpointing
from stemmata.log.identity import read_identity
from stemmata.repository import Repository
from stemmata.storage.local import LocalStorage

SIZES = (100, 10_000, 100_000)
TARGETS = {"top": 0.050, "log": 0.4, "cold": 3.0}
"""Seconds, at the largest size."""


def main() -> int:
    options = parse_options()
    if options.job:
        print(json.dumps(JOBS[options.job](Path(options.at))))
        return 0
    work = Path(options.work).absolute()
    sizes = [size for size in SIZES if size <= options.versions]
    missed: list[str] = []
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}, many versions", "", machine(), load(), ""]
    found = {size: measure(work, size, options.repeat) for size in sizes}
    lines += table(found)
    largest = found[sizes[-1]]
    missed += [
        f"{words} takes {largest[words]:.3f} s, not {TARGETS[key]} s"
        for key, words in (("top", TOP), ("log", LOG), ("cold", COLD), ("cold", COLD_LOG))
        if largest[words] > TARGETS[key]
    ]
    lines += ["", *(f"MISSED: {m}" for m in missed)] if missed else ["", "Every target was met."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if missed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure repositories of many versions.")
    parser.add_argument("--work", default="bench-work/scale", help="folder for everything that is written")
    parser.add_argument("--versions", type=int, default=SIZES[-1], help="the largest size to measure")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each question; the median counts")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    parser.add_argument("--job", choices=sorted(JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--at", help=argparse.SUPPRESS)
    return parser.parse_args()


TOP, LOG, COLD = "top 50 by a metric", "`stemmata log`, a process", "cold open, a process"
COLD_LOG, WITHOUT = "`stemmata log` without a catalog, a process", "cold open without checkpoints, a process"
CHECKPOINT = "writing a checkpoint"
MADE = "-with-checkpoints.made"
FIRST_METRIC, FIRST_CONFIG = "top 50 by a metric, first after it", "sort by a config key, first after it"
FRESH = "the log folded anew, as a collection does"
MEMORY = ("cold open", "list every version", "commit")
"""Of what the peak of memory is told."""


def measure(work: Path, size: int, repeat: int) -> dict[str, float]:
    """Seconds by what was asked; peaks in bytes under `peak: …`."""
    folder = work / str(size) / "repository"
    if not (work / f"{size}{MADE}").exists():
        shutil.rmtree(work / str(size), ignore_errors=True)
        folder.parent.mkdir(parents=True)
        print(f"making {size} versions", file=sys.stderr, flush=True)
        simulated.build(folder, size)
        (work / f"{size}{MADE}").touch()
    found: dict[str, float] = {}
    cold = [process("open", folder, without_catalog=True) for _ in range(3)]
    found[COLD] = median(run["seconds"] for run in cold)
    for words in (FIRST_METRIC, FIRST_CONFIG):
        found[words] = median(run["asked"][words] for run in cold)
    found["peak: cold open"] = median(run["peak"] for run in cold)
    found[COLD_LOG] = median(timed(lambda: log(folder)) for _ in range(3) if forget_catalog(folder))
    with put_aside(folder):
        found[WITHOUT] = process("open", folder, without_catalog=True)["seconds"]
    found["floor: its rows alone"] = floor(folder)
    found["bytes of the catalog"] = folder_bytes(folder / "cache")
    found["bytes of the checkpoint"] = folder_bytes(folder / "checkpoints")
    found["bytes of the bundles"] = folder_bytes(folder / "bundles")
    found["bytes of the log's entries"] = folder_bytes(folder / "log")
    found[LOG] = median(timed(lambda: log(folder)) for _ in range(repeat))
    found |= process("ask", folder)["answers"]
    listed = process("list", folder)
    found["list every version"], found["peak: list every version"] = listed["seconds"], listed["peak"]
    commits = process("commit", folder)
    found |= commits["answers"]
    found["peak: commit"] = commits["peak"]
    folded = process("afresh", folder)
    found[FRESH], found["peak: folded anew"] = folded["seconds"], folded["peak"]
    with put_aside(folder, copied=True):
        made = process("checkpoint", folder)
    found[CHECKPOINT], found["peak: checkpoint"] = made["seconds"], made["peak"]
    return found


def process(job: str, folder: Path, *, without_catalog: bool = False) -> dict:
    if without_catalog:
        forget_catalog(folder)
    command = [sys.executable, __file__, "--job", job, "--at", str(folder)]
    return json.loads(Peaks().run(command))


def forget_catalog(folder: Path) -> bool:
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return True


@contextmanager
def put_aside(folder: Path, *, copied: bool = False) -> Iterator[None]:
    """Without the checkpoints that are there, or with a copy of them; afterwards they are there again."""
    there, aside = folder / "checkpoints", folder.parent / "checkpoints-aside"
    shutil.rmtree(aside, ignore_errors=True)
    there.mkdir(exist_ok=True)
    there.rename(aside)
    if copied:
        shutil.copytree(aside, there)
    try:
        yield
    finally:
        shutil.rmtree(there, ignore_errors=True)
        aside.rename(there)


def log(folder: Path) -> None:
    none = subprocess.DEVNULL
    subprocess.run([COMMAND, "-R", folder, "log"], check=True, stdin=none, stdout=none, stderr=none)


def floor(folder: Path) -> float:
    """Seconds to put the rows of a catalog, as they are, into an empty one: SQLite's part of a cold open."""
    (file,) = (folder / "cache").glob("catalog-*.sqlite")
    target = folder.parent / "floor.sqlite"
    source = sqlite3.connect(file)
    schema = source.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL")
    tables = schema.fetchall()
    rows = {name: source.execute(f"SELECT * FROM {name}").fetchall() for name, _ in tables}
    source.close()

    def put() -> None:
        made = sqlite3.connect(target, isolation_level=None)
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = NORMAL")
        made.execute("BEGIN")
        for name, sql in tables:
            made.execute(sql)
            if rows[name]:
                marks = ", ".join("?" * len(rows[name][0]))
                made.executemany(f"INSERT INTO {name} VALUES ({marks})", rows[name])
        made.execute("COMMIT")
        made.close()

    seconds = timed(put)
    for path in target.parent.glob("floor.sqlite*"):
        path.unlink()
    return seconds


# --- in a process of their own -------------------------------------------------------------------


def job_open(folder: Path) -> dict:
    repos: list[Repository] = []

    def opened() -> None:
        repos.append(stemmata.open(folder))
        repos[0].models()

    seconds = timed(opened)
    peak = peak_of()
    with repos[0] as repo:
        asked = {
            FIRST_METRIC: timed(lambda: list(repo.versions("m0").sort("eval_loss").limit(50))),
            FIRST_CONFIG: timed(lambda: list(repo.versions("m0").sort("lora.r").limit(50))),
        }
    return {"seconds": seconds, "peak": peak, "asked": asked}


def job_list(folder: Path) -> dict:
    with stemmata.open(folder) as repo:

        def listed() -> None:
            for version in repo.versions():
                _ = version.id

        return {"seconds": timed(listed), "peak": peak_of()}


def job_ask(folder: Path) -> dict:
    answers = {"open, warm": median(timed(lambda: stemmata.open(folder).close()) for _ in range(7))}
    with stemmata.open(folder) as repo:
        for words, ask in questions(repo).items():
            ask()
            answers[words] = median(timed(ask) for _ in range(7))
    return {"answers": answers}


def questions(repo: Repository) -> dict[str, Callable[[], object]]:
    total = len(list((Path(repo.where) / "log").iterdir()))
    # Earlier measurements have left newer versions, of no run, and entries: in a small repository these may
    # be the ones in the middle.
    middle = next(version for version in repo.versions("m0")[total // 4 - 1 :] if version.run)
    some = f"m0@{middle.name}"
    moves = repo.history("m0", "production")
    then = moves[len(moves) // 2].at[:16]
    by_filter = 'eval_loss < 0.8 and lora.r == 8 and run != "x"'
    return {
        TOP: lambda: list(repo.versions("m0").sort("eval_loss").limit(50)),
        "top 50 by a metric, of all models": lambda: list(
            repo.versions().sort("eval_f1", descending=True).limit(50)
        ),
        "filter by metric and config, newest 50": lambda: list(
            repo.versions("m0").where(by_filter).limit(50)
        ),
        "the same, by a metric": lambda: list(
            repo.versions("m0").where(by_filter).sort("eval_loss").limit(50)
        ),
        "sort by a config key": lambda: list(repo.versions("m0").sort("lora.r").limit(50)),
        "newest 50": lambda: list(repo.versions("m0").limit(50)),
        "50 from the middle": lambda: repo.versions("m0")[total // 4 : total // 4 + 50],
        "how many": lambda: len(repo.versions("m0")),
        "model@version": lambda: repo[some],
        "model@alias": lambda: repo["m0@production"],
        "model@alias@{when}": lambda: repo[f"m0@production@{{{then}}}"],
        "model@best": lambda: repo["m0@best"],
        "model@run/latest": lambda: repo[f"m0@{middle.run.name}/latest"],
        "model@run/best": lambda: repo[f"m0@{middle.run.name}/best"],
        "an id's beginning": lambda: repo[middle.id.hex[:12]],
        "model@version~9": lambda: repo[f"{some}~9"],
        "as of a day, newest 50": lambda: list(repo.versions("m0", at=then).limit(50)),
        "a name that is not there": lambda: absent(repo),
    }


def absent(repo: Repository) -> None:
    try:
        repo["m0@run-00010/epok-3"]
    except stemmata.errors.NotFound:
        return
    raise AssertionError("there is such a version")


def job_commit(folder: Path) -> dict:
    """In a copy of the log alone would be fairer, but a hundred entries more change nothing."""
    source = folder.parent / "repository-source"
    answers: dict[str, float] = {}
    with stemmata.open(folder) as repo:
        parent = repo["m0"]
        here = repo.session.catalog.position.n
        number = iter(range(here, here + 1000))

        def annotate() -> None:
            repo.annotate(parent, metrics={"x": float(next(number))})

        def save(**more: object) -> None:
            repo.save(source, "m0", name=f"measured-{next(number)}", provenance={}, **more)

        save()
        answers["save, without parents"] = median(timed(save) for _ in range(7))
        answers["save, with a parent"] = median(timed(lambda: save(parents=[parent])) for _ in range(7))
        answers["annotate"] = median(timed(annotate) for _ in range(7))
    return {"answers": answers, "peak": peak_of()}


def job_checkpoint(folder: Path) -> dict:
    """As a commit does where one is due: of the one before, and of the entries behind it."""
    storage = LocalStorage(folder)
    identity = read_identity(storage)
    return {"seconds": timed(lambda: checkpointing.write(storage, identity)), "peak": peak_of()}


def job_afresh(folder: Path) -> dict:
    """What a collection begins with: it deletes by the log itself and by no cache (I8)."""

    def afresh(repo: Repository) -> None:
        with repo.session.afresh():
            pass

    with stemmata.open(folder) as repo:
        repo.models()
        seconds = median(timed(lambda: afresh(repo)) for _ in range(3))
    return {"seconds": seconds, "peak": peak_of()}


JOBS = {
    "open": job_open,
    "afresh": job_afresh,
    "ask": job_ask,
    "list": job_list,
    "commit": job_commit,
    "checkpoint": job_checkpoint,
}


# --- the table -----------------------------------------------------------------------------------


def table(found: dict[int, dict[str, float]]) -> list[str]:
    sizes = list(found)
    lines = ["| ms | " + " | ".join(f"{size:,}" for size in sizes) + " |", "| --- |" + " ---: |" * len(sizes)]
    keys = list(found[sizes[-1]])
    for key in keys:
        if key.startswith(("peak: ", "bytes")):
            continue
        lines.append(f"| {key} | " + " | ".join(f"{found[s][key] * 1000:,.1f}" for s in sizes) + " |")
    lines += [
        "",
        "| MiB | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "| --- |" + " ---: |" * len(sizes),
    ]
    for key in keys:
        if key.startswith(("peak: ", "bytes")):
            lines.append(f"| {key} | " + " | ".join(f"{found[s][key] / 2**20:,.0f}" for s in sizes) + " |")
    return lines


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
