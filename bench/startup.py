"""Start-up: how long short commands take as whole processes, beside what Python takes for nothing.

    python bench/startup.py [--write NAME]

Wall clock and processor time, medians over rounds in which each is run once: what else the machine does
meanwhile meets all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import gauss
from statistics import median

import stemmata
from measuring import COMMAND, keep, load, machine
from run import thousand_versions

TARGETS = {"stemmata log": 0.4}
"""Seconds of the processor: where it is idle, the wall clock's too."""


@dataclass
class Timed:
    """One command line, and what its processes took."""

    title: str
    words: Sequence[str | Path]
    before: Callable[[], object] = lambda: None
    """Done before each, and not timed."""
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def once(self) -> tuple[float, float]:
        """Seconds of the wall clock and of the processor. Ends the program if the process fails."""
        self.before()
        nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        words = [str(word) for word in self.words]
        started = time.perf_counter()
        pid = os.posix_spawn(words[0], words, os.environ, file_actions=nothing)
        _, status, used = os.wait4(pid, 0)
        if status:
            raise SystemExit(f"{' '.join(words)} failed")
        return time.perf_counter() - started, used.ru_utime + used.ru_stime


def main() -> int:
    options = parse_options()
    work = Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    floors, commands = python(), stemmatas(work)
    for number in range(options.repeat + 1):
        for each in (*floors, *commands):
            wall, processor = each.once()
            if number:  # The first round fills the page cache, and writes bytecode where there is none.
                each.wall.append(wall)
                each.processor.append(processor)
    missed = [
        f"{each.title} takes {median(each.processor):.3f} s, not {TARGETS[each.title]} s"
        for each in commands
        if each.title in TARGETS and median(each.processor) >= TARGETS[each.title]
    ]
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}, start-up", "", machine(), load(), ""]
    lines += [f"Whole processes, {options.repeat} rounds; processor is user and system time.", ""]
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        lines += [
            "Others kept the machine busy: the processor's time alone says anything here.",
            "",
        ]
    lines += table(floors, commands)
    lines += ["", *(f"MISSED: {m}" for m in missed)] if missed else ["", "Every target was met."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if missed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how long short commands take.")
    parser.add_argument("--work", default="bench-work", help="folder for everything that is written")
    parser.add_argument("--repeat", type=int, default=9, help="rounds; the median counts")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


def python() -> list[Timed]:
    """What no command of this kind can be faster than."""
    lines = ("pass", "import sqlite3", "import typer", "import numpy")
    return [Timed(f"python -c '{line}'", [sys.executable, "-c", line]) for line in lines]


def stemmatas(work: Path) -> list[Timed]:
    many = thousand_versions(work / "thousand")
    folder, saves = work / "startup-folder", work / "startup-saves"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "none"}')
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 400)
    adapter, checkout = work / "startup-adapter", work / "startup-checkout"
    another_adapter(adapter)
    shutil.rmtree(saves, ignore_errors=True)
    with stemmata.open(saves, create=True) as repo:
        repo.save(adapter, "adapter", name="first")
    opened = f"import stemmata; stemmata.open({str(many)!r})"
    return [
        Timed("python -c 'import stemmata'", [sys.executable, "-c", "import stemmata"]),
        Timed("python -c 'import stemmata; stemmata.open(…)'", [sys.executable, "-c", opened]),
        Timed("stemmata --version", [COMMAND, "--version"]),
        Timed("stemmata --help", [COMMAND, "--help"]),
        Timed("stemmata log", [COMMAND, "-R", many, "log"]),
        Timed("stemmata show", [COMMAND, "-R", many, "show", "many@latest"]),
        Timed(
            "stemmata checkout, an adapter",
            [COMMAND, "-R", saves, "checkout", "adapter@first", "-o", checkout],
            lambda: shutil.rmtree(checkout, ignore_errors=True),
        ),
        Timed("stemmata save, nothing new", [COMMAND, "-R", saves, "save", folder, "m"]),
        Timed(
            "stemmata save, an adapter",
            [COMMAND, "-R", saves, "save", adapter, "adapter", "--parent", "adapter@first"],
            lambda: another_adapter(adapter),
        ),
    ]


def another_adapter(folder: Path) -> None:
    """A small LoRA adapter that nobody has saved: rank 4 on six layers of width 384, 147 kB."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    header, body = {}, b""
    for layer in range(6):
        for side, shape in (("A", [4, 384]), ("B", [384, 4])):
            data = array("f", (gauss(0, 0.02) for _ in range(1536))).tobytes()
            name = f"base_model.model.encoder.layer.{layer}.attention.self.query.lora_{side}.weight"
            offsets = [len(body), len(body) + len(data)]
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
            body += data
    head = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + body)


def table(*groups: Sequence[Timed]) -> list[str]:
    lines = ["| what | s | least | processor s | target, processor s |", "| --- | --- | --- | --- | --- |"]
    for each in (each for group in groups for each in group):
        target = f"< {TARGETS[each.title]}" if each.title in TARGETS else "-"
        figures = f"{median(each.wall):.3f} | {min(each.wall):.3f} | {median(each.processor):.3f}"
        lines.append(f"| `{each.title}` | {figures} | {target} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
