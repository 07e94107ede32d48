"""The compiled inner loops of delta: nanoseconds an element, on frames made up as training leaves them.

    python bench/loops.py [LIBRARY …] [--plain] [--write NAME]

Without a name the library of the installation; of several each has its turn in every round. Processor time of
this thread, the least of many rounds: what else the machine does meanwhile is in none of them. What was
joined is held against what was split.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np

from measuring import keep, load, machine
from stemmata.codecs import native
from stemmata.codecs.dtypes import BLOCK, DType, dtype_of

COUNT = 128 << 10
"""Elements of a frame."""
ROUNDS = 150
STEPS = {"every element": 0.0, "a third of the blocks unchanged": 1 / 3, "nothing": 1.0}
"""What a step moves, and the share of blocks that it leaves."""
FUNCTIONS = ("split", "groups", "join")


def frames(dtype: DType, unchanged: float) -> tuple[np.ndarray, np.ndarray]:
    """A frame and its base: weights, and steps of the size that AdamW makes."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.02, COUNT).astype("<f4")
    step = (1e-5 * rng.normal(0, 1, COUNT)).astype("<f4")
    if dtype.word == "BF16":
        # Of several steps: one alone is less than most can hold.
        step *= np.float32(8)
    step.reshape(-1, BLOCK)[rng.random(COUNT // BLOCK) < unchanged] = 0
    words = [base + step, base]
    if dtype.word == "BF16":
        words = [(found.view("<u4") >> 16).astype("<u2") for found in words]
    return words[0].view(np.uint8), words[1].view(np.uint8)


class Frame:
    """One frame, and room for all that is made of it."""

    def __init__(self, dtype: DType, unchanged: float) -> None:
        self.dtype = dtype
        self.data, self.base = frames(dtype, unchanged)
        size = len(self.data)
        shapes = {"u": size, "sorted": 2 * size, "classes": COUNT // BLOCK, "tokens": COUNT, "raw": size + 8}
        rooms = {name: np.zeros(n, np.uint8) for name, n in shapes.items()}
        low, high, of_key, into = np.zeros(COUNT, np.uint8), np.zeros(COUNT, np.uint8), *self._two(size)
        self.counts, self.sizes = (ctypes.c_uint32 * 33)(), (ctypes.c_int64 * 2)()
        self.into, self._kept = into, (rooms, low, high, of_key)
        at = {name: ctypes.c_void_p(room.ctypes.data) for name, room in rooms.items()}
        x, b, o, k, lo, hi = (
            ctypes.c_void_p(a.ctypes.data) for a in (self.data, self.base, into, of_key, low, high)
        )
        count, mantissa = ctypes.c_int64(COUNT), dtype.mantissa
        split = (
            at["u"],
            at["sorted"],
            at["classes"],
            at["tokens"],
            self.counts,
            at["raw"],
            lo,
            hi,
            self.sizes,
        )
        self.split = (x, b, count, mantissa, *split)
        self.groups = (b, count, mantissa, at["classes"], k, self.counts, (ctypes.c_int64 * 1)())
        self._join = (b, count, mantissa, at["classes"], k, self.counts)
        self._streams = (at["tokens"], at["raw"]), (lo, hi, at["sorted"], o)

    @staticmethod
    def _two(size: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(2048, np.uint8), np.zeros(size, np.uint8)

    def calls(self, library: ctypes.CDLL, suffix: str) -> dict[str, Callable[[], int]]:
        """By their names in FUNCTIONS. What they need was made by those before."""
        found = {
            name: getattr(library, f"stm_delta_{name}_{8 * self.dtype.itemsize}{suffix}")
            for name in FUNCTIONS
        }
        groups = found["split"](*self.split)
        raw, rest = self._streams
        join = (*self._join, groups, *raw, ctypes.c_int64(self.sizes[0]), *rest)
        return {
            "split": lambda: found["split"](*self.split),
            "groups": lambda: found["groups"](*self.groups),
            "join": lambda: found["join"](*join),
        }


def measure(libraries: dict[str, ctypes.CDLL], suffix: str) -> list[str]:
    lines = [
        f"| width | a step moves | function | {' | '.join(libraries)} |",
        "| --- " * (3 + len(libraries)) + "|",
    ]
    for word, (step, unchanged) in product(("F32", "BF16"), STEPS.items()):
        frame = Frame(dtype_of(word), unchanged)
        calls = {name: frame.calls(library, suffix) for name, library in libraries.items()}
        least = dict.fromkeys(product(FUNCTIONS, libraries), float("inf"))
        for _ in range(ROUNDS):
            for function, name in least:
                started = time.thread_time_ns()
                calls[name][function]()
                least[function, name] = min(least[function, name], time.thread_time_ns() - started)
                if function == "join" and not np.array_equal(frame.into, frame.data):
                    raise SystemExit(f"{name} did not bring {word} back")
        for function in FUNCTIONS:
            figures = " | ".join(f"{least[function, name] / COUNT:.2f}" for name in libraries)
            lines.append(f"| {8 * frame.dtype.itemsize} | {step} | {function} | {figures} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the compiled inner loops of delta.")
    parser.add_argument("libraries", nargs="*", type=Path, default=[native.FILE], metavar="LIBRARY")
    parser.add_argument("--plain", action="store_true", help="the functions that run on every processor")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    options = parser.parse_args()
    libraries = {path.stem: ctypes.CDLL(str(path.absolute())) for path in options.libraries}
    lines = [
        f"# {datetime.now(UTC):%Y-%m-%d}: the inner loops of delta, ns an element",
        "",
        machine(),
        load(),
        "",
    ]
    text = "\n".join([*lines, *measure(libraries, "" if options.plain else native.suffix), "", load()]) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
