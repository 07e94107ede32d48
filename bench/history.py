"""Saves histories of corpus.py, brings every version back, and says what it cost.

    .venv/bin/python bench/history.py [H] [G] … [--peers] [--loads] [--only 'rounded-*'] [--write NAME]

Owns what is measured together and how it is told; the procedure is walking.py's. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import corpus
import peers
from manifests import Entry
from measuring import Peaks, keep, load, machine
from ours import MODEL, Whole, inside
from programs import Programs
from walking import STORE, Tool, Walked, chosen, walk


def main() -> int:
    options = parse_options()
    work = Path(options.work).absolute()
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}: histories", "", machine(), load(), ""]
    missed: list[str] = []
    for name in options.names:
        entries = chosen(corpus.history(name, options.corpus), options.only)
        lines += report(name, entries, work / "history", options, missed)
    lines += [load(), ""]
    lines += [f"MISSED: {m}" for m in missed] or ["Every version came back byte for byte."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if missed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure saving and restoring of histories.")
    parser.add_argument("names", nargs="*", default=["H"], metavar="NAME", help="of corpus.py; default: H")
    parser.add_argument("--work", default="bench-work", help="folder for everything that is written")
    parser.add_argument("--corpus", type=Path, default=corpus.WORK, help="where corpus.py put them")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of the versions to take")
    parser.add_argument("--repeat", type=int, default=3, help="walks of each tool; medians count")
    parser.add_argument("--peers", action="store_true", help="walk with git-lfs, DVC, restic and borg too")
    parser.add_argument("--loads", action="store_true", help="also v.load() beside from_pretrained")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


def report(
    name: str, entries: Sequence[Entry], work: Path, options: argparse.Namespace, missed: list[str]
) -> list[str]:
    rounds = range(options.repeat)
    whole = Walked.of("stemmata", [walk(Whole(), entries, work) for _ in rounds], missed)
    loads = load_lines(entries, work, options.repeat, missed) if options.loads else []
    walks, peaks = zip(*(inside(entries, work) for _ in rounds), strict=True)
    within = Walked.of("stemmata in one process", walks, missed)
    lines = [f"## {name}: {len(whole.rows)} versions, {whole.total('bytes') / 1e6:.1f} MB", ""]
    lines += [f"As whole processes, the median of each of {options.repeat} walks:", ""]
    lines += [*table(whole, memory=True), "", *sums(whole)]
    lines += ["", "In one process:", "", *table(within), "", *sums(within)]
    lines += [f"The most memory that this process had: {max(peaks) / 2**20:.0f} MiB.", "", *loads]
    if options.peers:
        lines += peer_lines(whole, entries, work, options, missed)
    shutil.rmtree(work, ignore_errors=True)
    return lines


# --- stemmata ------------------------------------------------------------------------------------


def table(walked: Walked, *, memory: bool = False) -> list[str]:
    heads = [
        "version",
        "MB",
        "MB kept",
        "ratio",
        "save s",
        "check out s",
        "`cp -r` s",
        "save x",
        "check out x",
    ]
    heads += ["save MiB", "check out MiB"] if memory else []
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in (*walked.rows, walked.again):
        cells = [row.name, f"{row.bytes / 1e6:.1f}", f"{row.kept / 1e6:.1f}", f"{row.kept / row.bytes:.3f}"]
        cells += [f"{seconds:.2f}" for seconds in (row.save, row.restore, row.copy)]
        cells += [f"{row.save / row.copy:.1f}", f"{row.restore / row.copy:.1f}"]
        if memory:
            cells += [f"{peak / 2**20:.0f}" for peak in (row.save_peak, row.restore_peak)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def sums(walked: Walked) -> list[str]:
    raw, kept = walked.total("bytes"), walked.total("kept")
    save, restore, copy = (walked.total(field) for field in ("save", "restore", "copy"))
    lines = [
        f"Kept: {kept / 1e6:.1f} MB of {raw / 1e6:.1f} MB ({kept / raw:.4f}).",
        f"All saves {save:.2f} s, all checkouts {restore:.2f} s, all copies {copy:.2f} s: "
        f"{save / copy:.1f} x and {restore / copy:.1f} x.",
    ]
    largest = max(row.bytes for row in walked.rows)
    large = [row for row in walked.rows if row.bytes * 10 > largest * 9 and row is not walked.rows[0]]
    if large:
        save, restore = (median(getattr(row, f) / row.copy for row in large) for f in ("save", "restore"))
        lines.append(
            f"Of the {len(large)} largest after the first, the median of each over its own copy: "
            f"save {save:.1f} x, check out {restore:.1f} x."
        )
    return lines


# --- loading -------------------------------------------------------------------------------------


_CHECK_OUT = "import sys, stemmata; stemmata.open(sys.argv[1])[sys.argv[2]].path()"


def load_lines(entries: Sequence[Entry], work: Path, repeat: int, missed: list[str]) -> list[str]:
    """The last large version from the repository of the last walk, beside its plain folder."""
    entry, repository = entries[-1], work / STORE / "repository"
    warm = small_model(entry.folder, work / "warm")
    at = (str(repository), f"{MODEL}@{entry.name}")
    told: dict[str, list[dict]] = {"folder": [], "first": [], "again": []}
    for _ in range(repeat):
        told["folder"].append(one_load(warm, "folder", str(entry.folder)))
        shutil.rmtree(repository / "cache" / "checkouts", ignore_errors=True)
        told["first"].append(one_load(warm, "version", *at))
        Peaks().run([sys.executable, "-c", _CHECK_OUT, *at])
        told["again"].append(one_load(warm, "version", *at))
    if len({run["digest"] for runs in told.values() for run in runs}) != 1:
        missed.append(f"{entry.name} loads with other weights than its folder")
    floor = median(run["seconds"] for run in told["folder"])
    titles = {
        "folder": "`from_pretrained` on the plain folder",
        "first": "`v.load()`",
        "again": "`v.load()` after `v.path()`",
    }
    lines = [f"Loading {entries[-1].parents[0]} in fresh processes, imports done, medians of {repeat}:", ""]
    lines += ["| what | s | x | to open and find s | MiB |", "| --- | --- | --- | --- | --- |"]
    for way, title in titles.items():
        seconds, opened = (median(run[field] for run in told[way]) for field in ("seconds", "opened"))
        peak = max(run["peak"] for run in told[way]) / 2**20
        lines.append(f"| {title} | {seconds:.3f} | {seconds / floor:.2f} | {opened:.3f} | {peak:.0f} |")
    return [*lines, ""]


def one_load(warm: Path, *where: str) -> dict:
    script = Path(__file__).with_name("loading.py")
    return json.loads(Peaks().run([sys.executable, script, warm, *where]).splitlines()[-1])


def small_model(folder: Path, target: Path) -> Path:
    """A model of the same class with next to no weights, made in a process of its own."""
    code = (
        "import sys, json, transformers as t; c = t.AutoConfig.from_pretrained(sys.argv[1]);"
        "c.vocab_size, c.hidden_size, c.num_hidden_layers, c.num_attention_heads = 300, 8, 1, 1;"
        "getattr(t, c.architectures[0])(c).save_pretrained(sys.argv[2])"
    )
    Peaks().run([sys.executable, "-c", code, folder, target])
    return target


# --- the peers -----------------------------------------------------------------------------------


def peer_lines(
    ours: Walked, entries: Sequence[Entry], work: Path, options: argparse.Namespace, missed: list[str]
) -> list[str]:
    tools = peers.stores(Programs(Path(options.work).absolute() / "peers"))
    walked = [ours, *(peer_walk(tool, entries, work, options.repeat, missed) for tool in tools)]
    heads = [
        "tool",
        "s per save",
        "x",
        "s, unchanged",
        "MB kept",
        "ratio",
        "s per restore",
        "x",
        "byte-exact",
    ]
    lines = ["Beside others, as whole processes; x is over `cp -r` + `sync` in the same walk:", ""]
    lines += [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for one in walked:
        count, copy, kept = len(one.rows), one.total("copy"), one.total("kept")
        save, restore = one.total("save"), one.total("restore")
        exact = "yes" if all(row.exact for row in (*one.rows, one.again)) else "**no**"
        cells = [one.title, f"{save / count:.2f}", f"{save / copy:.1f}", f"{one.again.save:.2f}"]
        cells += [f"{kept / 1e6:.0f}", f"{kept / one.total('bytes'):.3f}"]
        cells += [f"{restore / count:.2f}", f"{restore / copy:.1f}", exact]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"{'; '.join(dict.fromkeys(tool.version() for tool in tools))}.", ""]


def peer_walk(tool: Tool, entries: Sequence[Entry], work: Path, repeat: int, missed: list[str]) -> Walked:
    return Walked.of(tool.title, [walk(tool, entries, work) for _ in range(repeat)], missed)


if __name__ == "__main__":
    sys.exit(main())
