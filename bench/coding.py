"""Codes every tensor of a history against its version's first parent: bytes, speed, whether it comes back.

    .venv/bin/python bench/coding.py [H] [H2] … [--numpy] [--only 'full-*'] [--write NAME]

No repository: what the codecs reach by themselves, tensor for tensor of the same name and shape, without
the bound on chains, without headers of files, trees and packs. Equal tensors take nothing. See
bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import corpus
from manifests import Entry
from measuring import keep, load, machine

TARGETS = {"full-*": 0.34, "bf16-[1-9]*": 0.03, "rounded-[2-9]*": 0.10}
"""Bytes kept of a version's tensors, against the one before it."""


@dataclass
class Coded:
    """What became of one version's tensors. Bytes, and seconds of processor time."""

    entry: Entry
    raw: int = 0
    alone: int = 0
    stored: int = 0
    same: int = 0
    encode: float = 0.0
    decode: float = 0.0
    coded: int = 0
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    options = parse_options()
    if options.numpy:
        # Before the codecs are loaded: they choose once.
        os.environ["STEMMATA_NATIVE"] = "0"
    from stemmata.codecs import native

    kind = "compiled" if native.library is not None else "numpy"
    title = f"# {datetime.now(UTC):%Y-%m-%d}: codecs ({kind} inner loops, one thread, processor time)"
    lines = [title, "", machine(), load(), ""]
    missed: list[str] = []
    for name in options.names:
        lines += [f"## {name}", "", *HEAD]
        for coded in walk(corpus.history(name, options.corpus), options.only):
            lines.append(row(coded))
            missed += problems(name, coded)
            print(lines[-1], flush=True)
        lines.append("")
    lines += [load(), "", *(f"MISSED: {m}" for m in missed)]
    if not any("come back" in m for m in missed):
        lines.append("Every tensor came back bit for bit.")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if missed else 0


HEAD = [
    "| version | parent | MB | unchanged | alone | against the parent | encode MB/s | decode MB/s |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the codecs on histories of corpus.py.")
    parser.add_argument("names", nargs="*", default=["H"], metavar="NAME", help="of corpus.py; default: H")
    parser.add_argument("--corpus", type=Path, default=corpus.WORK, help="where corpus.py put them")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of the versions to take")
    parser.add_argument(
        "--numpy", action="store_true", help="the inner loops in numpy, not the compiled ones"
    )
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


def problems(history: str, coded: Coded) -> list[str]:
    found = [f"{history} {coded.entry.name}: {name} did not come back" for name in coded.wrong]
    if coded.entry.parents:
        for pattern, most in TARGETS.items():
            if fnmatchcase(coded.entry.name, pattern) and coded.stored > most * coded.raw:
                share = coded.stored / coded.raw
                found.append(f"{history} {coded.entry.name} keeps {share:.4f} of its bytes, not {most}")
    return found


def row(coded: Coded) -> str:
    entry = coded.entry
    parent = entry.parents[0] if entry.parents else "-"
    rates = [coded.coded / seconds / 1e6 if seconds else 0.0 for seconds in (coded.encode, coded.decode)]
    return (
        f"| {entry.name} | {parent} | {coded.raw / 1e6:.1f} | {coded.same / max(coded.raw, 1):.3f} "
        f"| {coded.alone / max(coded.raw, 1):.4f} | {coded.stored / max(coded.raw, 1):.4f} "
        f"| {rates[0]:.0f} | {rates[1]:.0f} |"
    )


def walk(entries: list[Entry], only: str) -> Iterator[Coded]:
    folders = {entry.name: entry.folder for entry in entries}
    for entry in entries:
        if fnmatchcase(entry.name, only):
            yield code(entry, folders[entry.parents[0]] if entry.parents else None)


def code(entry: Entry, parent: Path | None) -> Coded:
    from stemmata.codecs.decoding import ObjectDecoder, Stored
    from stemmata.codecs.dtypes import dtype_of
    from stemmata.codecs.frames import Reference
    from stemmata.codecs.objectcode import Base, encode_object, fits
    from stemmata.ids import Digest, PackName

    coded = Coded(entry)
    bases = dict(tensors(parent)) if parent is not None else {}
    for (name, at), (word, data) in tensors(entry.folder):
        coded.raw += len(data)
        dtype, digest = dtype_of(word), Digest.of(data)
        alone = len(encode_object(data, dtype))
        coded.alone += alone
        under = bases.get((name, at))
        if under is not None and under[1] == data:
            coded.same += len(data)
            continue
        base, kept = None, {}
        if under is not None and fits(dtype, len(data), dtype_of(under[0]), len(under[1])):
            reference = Reference(PackName.fresh(), Digest.of(under[1]))
            base = Base(reference, dtype_of(under[0]), memoryview(under[1]))
            # As the store has it: alone, so that decoding it counts.
            whole = bytes(encode_object(under[1], base.dtype))
            kept[reference] = Stored(whole, len(under[1]), reference.digest, "base")
        started = time.thread_time()
        stored = encode_object(data, dtype, None, base)
        coded.encode += time.thread_time() - started
        coded.coded += len(data)
        coded.stored += min(len(stored), alone)
        started = time.thread_time()
        found = ObjectDecoder(Stored(stored, len(data), digest, "bench"), kept.__getitem__).content()
        coded.decode += time.thread_time() - started
        if found != data:
            coded.wrong.append(name)
    return coded


def tensors(folder: Path) -> Iterator[tuple[tuple[str, int], tuple[str, bytes]]]:
    """((name, offset in the tensor), (safetensors' word, bytes)) of every object of the files of weights."""
    from stemmata.containers.cut import plan

    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".safetensors", ".pt", ".bin"):
            continue
        data = path.read_bytes()
        reader = _Bytes(data)
        for n, segment in enumerate(plan(reader, len(data), path.name).segments):
            if not segment.dtype:
                continue
            # Moments of an optimizer have no names: their place among the numbers of the file is one.
            name = segment.name or f"{path.name}/{n}"
            for piece in segment.pieces:
                at = piece.offset - segment.offset
                yield (name, at), (segment.dtype, data[piece.offset : piece.offset + piece.length])


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


if __name__ == "__main__":
    sys.exit(main())
