"""New memory: what it takes to touch it, in huge pages and in small ones; and a new file's in the page cache.

    python bench/touching.py [--mib 80] [--repeat 5] [--write NAME]

A process each time, which reads a file from the page cache into memory that is new, then into the same once
more, or writes a new file, in few calls or in many. Before each a pause, in which a host that takes back free
memory has taken what the last one left.
"""

from __future__ import annotations

import argparse
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from measuring import keep, load, machine, timed
from stemmata.codecs import pages

WAYS = {"huge": True, "small": False}
PIECES = {"8 MiB": 8 << 20, "1 MiB": 1 << 20}


def main() -> int:
    options = parse_options()
    if options.one in PIECES:
        print(*written(options.file, PIECES[options.one]))
        return 0
    if options.one:
        first, again = touched(options.file, advise=WAYS[options.one])
        print(first, again)
        return 0
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.NamedTemporaryFile(dir=options.work) as made:
        made.write(os.urandom(options.mib << 20))
        made.flush()
        for _ in range(options.repeat):
            for way in (*WAYS, *PIECES):
                time.sleep(options.pause)
                words = [sys.executable, __file__, "--one", way, "--file", made.name]
                found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
                rows[way].append((float(found[0]), float(found[1])))
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}, touching new memory", "", machine(), load(), ""]
    lines += [
        f"{options.mib} MiB of a file read into new memory, and into the same once more. Seconds: the median "
        f"(least to most) of {options.repeat} processes, {options.pause} seconds apart.",
        "",
        "| pages | new | once more |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {way} | {_told(rows[way], 0)} | {_told(rows[way], 1)} |" for way in WAYS]
    lines += [
        "",
        f"{options.mib} MiB written to a new file, and over the same once more, seconds of the same.",
        "",
        "| bytes of a call | new | once more |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {size} | {_told(rows[size], 0)} | {_told(rows[size], 1)} |" for size in PIECES]
    asked = (
        "asks for huge pages" if pages.huge_pages_pay() else "asks for none: its host takes back what is free"
    )
    lines += ["", f"stemmata on this machine {asked}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how long it takes to touch new memory.")
    parser.add_argument("--mib", type=int, default=80, help="memory to touch")
    parser.add_argument("--work", help="folder for the files; the system's own for such if not given")
    parser.add_argument("--repeat", type=int, default=5, help="processes of each kind; the median counts")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds before each")
    parser.add_argument("--one", choices=[*WAYS, *PIECES], help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


def touched(path: str, *, advise: bool) -> tuple[float, float]:
    """Seconds to read all of the file into new memory, and into the same again."""
    size = os.path.getsize(path)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if advise else mmap.MADV_NOHUGEPAGE)
    with open(path, "rb", buffering=0) as file:

        def read() -> int:
            return os.preadv(file.fileno(), [memory], 0)

        return timed(read), timed(read)


def written(path: str, piece: int) -> tuple[float, float]:
    """Seconds to write the bytes of a file to a new one, and over it again."""
    content = memoryview(Path(path).read_bytes())
    with tempfile.TemporaryFile(dir=Path(path).parent, buffering=0) as file:

        def write() -> None:
            for begin in range(0, len(content), piece):
                os.pwrite(file.fileno(), content[begin : begin + piece], begin)

        return timed(write), timed(write)


def _told(rows: list[tuple[float, float]], which: int) -> str:
    found = [row[which] for row in rows]
    return f"{median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


if __name__ == "__main__":
    sys.exit(main())
