"""Measures what statistics cost a save, and what they save a diff: .venv/bin/python bench/weighing.py

On a model of 475 MB made on the spot: saves with and without statistics, taken by turns; the diff of two
neighbours as a process, and of two versions far apart, with its peak of memory. See bench/README.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median

import numpy as np

import stemmata
from measuring import keep, load, machine
from stemmata.surveyor import Surveyor

SLOWER, PROCESS, PEAK = 0.15, 0.5, 600
"""Targets: how much longer a save may take; seconds of a diff as a process; MiB of one that reads weights."""
LAYERS, WIDTH = 12, 768
_VOCABULARY = 50_000
_TOLD = """
import os, subprocess, sys, time
begin = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(time.perf_counter() - begin, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Of a child the peak counts from before its program is loaded: so its parent has to be small."""


def main() -> int:
    options = parse_options()
    work = Path(options.work).absolute()
    work.mkdir(parents=True, exist_ok=True)
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}: statistics of weights", "", machine(), load(), ""]
    missed: list[str] = []
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        lines += measure(Path(scratch), options.repeat, missed)
    lines += ["", load(), "", *[f"MISSED: {each}" for each in missed]]
    print("\n".join(lines))
    if options.keep:
        keep(f"{datetime.now(UTC):%Y-%m-%d}-weighing", "\n".join(lines) + "\n")
    return 1 if missed else 0


def measure(scratch: Path, repeat: int, missed: list[str]) -> list[str]:
    folder = scratch / "model"
    folder.mkdir()
    weights = made()
    size = sum(tensor.nbytes for tensor in weights.values())
    kept = {True: scratch / "with", False: scratch / "without"}
    repositories = {on: stemmata.init(path) for on, path in kept.items()}
    took: dict[bool, list[float]] = {True: [], False: []}
    cpu: dict[bool, list[float]] = {True: [], False: []}
    newest: dict[bool, list[str]] = {True: [], False: []}
    looks = Surveyor.looks
    for turn in range(repeat + 1):
        write(folder / "model.safetensors", weights)
        for on in (True, False) if turn % 2 else (False, True):
            # Without: nothing is asked, so nothing is computed; everything else is the same.
            Surveyor.looks = looks if on else nothing  # type: ignore[method-assign]
            before, spent = time.perf_counter(), time.process_time()
            parents = newest[on][-1:] or None
            version = repositories[on].save(folder, "m", parents=parents, provenance={})
            if turn:
                took[on].append(time.perf_counter() - before)
                cpu[on].append(time.process_time() - spent)
            newest[on].append(version.id.hex)
        Surveyor.looks = looks  # type: ignore[method-assign]
        train(weights, turn)
    # What a save leans on, and so has to decode, goes up and down along a line: no save stands for all.
    slower = sum(took[True]) / sum(took[False]) - 1
    dearer = sum(cpu[True]) / sum(cpu[False]) - 1
    near, _ = process(kept[True], newest[True][-2], newest[True][-1], repeat)
    far, peak = process(kept[True], newest[True][0], newest[True][-1], repeat)
    if slower >= SLOWER:
        missed.append(f"a save takes {slower:.1%} longer")
    if near >= PROCESS:
        missed.append(f"the diff of two neighbours takes {near:.2f} s")
    if peak >= PEAK:
        missed.append(f"the diff of two that are far apart takes {peak:.0f} MiB")
    return [
        f"{size / 1e6:.0f} MB of float32, every tensor moved each time; means of a line of {repeat} saves.",
        "",
        "| | with statistics | without | more |",
        "| --- | ---: | ---: | ---: |",
        f"| save, s | {mean(took[True]):.2f} | {mean(took[False]):.2f} | {slower:+.1%} |",
        f"| its processor seconds | {mean(cpu[True]):.2f} | {mean(cpu[False]):.2f} | {dearer:+.1%} |",
        "",
        "| `stemmata diff`, a process | s | peak, MiB |",
        "| --- | ---: | ---: |",
        f"| of two neighbours, from what was kept | {near:.2f} | |",
        f"| of two {repeat} versions apart, reading weights | {far:.2f} | {peak:.0f} |",
    ]


def nothing(_: Surveyor, _path: str, segment: object) -> list[None]:
    return [None] * len(segment.pieces)  # type: ignore[attr-defined]


def made() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    found = {"wte.weight": weight(_VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        for name, shape in (
            ("attn.qkv", (WIDTH, 3 * WIDTH)),
            ("attn.out", (WIDTH, WIDTH)),
            ("mlp.up", (WIDTH, 4 * WIDTH)),
            ("mlp.down", (4 * WIDTH, WIDTH)),
        ):
            found[f"h.{layer}.{name}.weight"] = weight(*shape)
            found[f"h.{layer}.{name}.bias"] = weight(shape[1])
    return found


def train(weights: dict[str, np.ndarray], turn: int) -> None:
    """As an epoch does: every element moves by a thousandth of its size, more or less."""
    random = np.random.default_rng(turn + 1)
    for tensor in weights.values():
        tensor += random.standard_normal(tensor.shape, dtype=np.float32) * np.float32(2e-5)


def write(path: Path, weights: dict[str, np.ndarray]) -> None:
    import json

    header, offset = {}, 0
    for name, tensor in weights.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in weights.values():
            file.write(tensor.data)


def process(repository: Path, a: str, b: str, repeat: int) -> tuple[float, float]:
    """Median seconds of `stemmata diff`, and its greatest resident memory in MiB."""
    program = Path(sys.executable).with_name("stemmata")
    command = [sys.executable, "-c", _TOLD, str(program), "diff", a, b, "--repo", str(repository)]
    told = [subprocess.run(command, capture_output=True, check=True, text=True).stdout for _ in range(repeat)]
    seconds, peaks = zip(*(map(float, each.split()) for each in told), strict=True)
    return median(seconds), max(peaks)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", default="bench-work/weighing", help="where to work; emptied at the end")
    parser.add_argument("--repeat", type=int, default=8, help="saves and diffs of each kind")
    parser.add_argument("--keep", action="store_true", help="keep the figures in bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
