"""Many small saves: how many packs are left, what a save takes, and what the merges among them take.

.venv/bin/python bench/merging.py --saves 10000 [--write NAME]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import stemmata
from measuring import keep, load, machine, repository_bytes, timed
from stemmata import collecting
from stemmata.collecting import merging

MODULES = ("q_proj", "v_proj")
LAYERS = 12
MOST_PACKS, MOST_SECONDS = 200, 0.3
CHECKED = 50
"""Versions that are brought back in the end, byte for byte."""


@dataclass(frozen=True)
class Save:
    seconds: float
    merged: bool


def adapter(folder: Path, state: list[np.ndarray], layers: int) -> None:
    """An adapter as peft writes it: float32 A and B of each module."""
    names = [
        f"base_model.model.layers.{i}.{m}.lora_{w}.weight"
        for i in range(layers)
        for m in MODULES
        for w in "AB"
    ]
    header, offset = {}, 0
    for name, array in zip(names, state, strict=True):
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in state)
    (folder / "adapter_model.safetensors").write_bytes(data)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "lora_alpha": 16}')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saves", type=int, default=1000)
    parser.add_argument("--kilobytes", type=int, default=300, help="of an adapter, raw")
    parser.add_argument("--where", type=Path, default=None, help="folder for the repository")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    given = parser.parse_args()
    if given.where is not None:
        given.where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.where) as work:
        text, met = measured(given.saves, given.kilobytes, Path(work))
    print(text)
    if given.write:
        keep(given.write, text)
    return 0 if met else 1


def measured(count: int, kilobytes: int, work: Path) -> tuple[str, bool]:
    """The page, and whether the targets are met."""
    merges: list[int] = []
    counted = merging.merge_small

    def noted(session: object) -> int:
        went = counted(session)  # type: ignore[arg-type]
        merges.extend([went] if went else [])
        return went

    collecting.merge_small = noted  # type: ignore[assignment]
    rng = np.random.default_rng(0)
    width = max(16, kilobytes * 1000 // (LAYERS * len(MODULES) * 2 * 8 * 4))
    shapes = [(8, width), (width, 8)] * (LAYERS * len(MODULES))
    folder = work / "adapter"
    folder.mkdir()
    repo = stemmata.open(work / "models", create=True)
    saves: list[Save] = []
    kept: dict[str, bytes] = {}
    last = None
    state = [rng.normal(size=s).astype(np.float32) * np.float32(0.02) for s in shapes]
    for number in range(count):
        # Runs of twenty epochs; each begins anew.
        begins = number % 20 == 0
        far = np.float32(0.02 if begins else 1e-4)
        noise = [rng.normal(size=s).astype(np.float32) * far for s in shapes]
        state = noise if begins else [a + b for a, b in zip(state, noise, strict=True)]
        adapter(folder, state, LAYERS)
        if number % max(1, count // CHECKED) == 0:
            kept[f"s{number}"] = (folder / "adapter_model.safetensors").read_bytes()
        before, begin = len(merges), time.perf_counter()
        parents = [] if begins or last is None else [last]
        last = repo.save(folder, "m", name=f"s{number}", parents=parents, provenance={})
        saves.append(Save(time.perf_counter() - begin, len(merges) > before))
    for name, data in kept.items():
        if (repo.get(f"m@{name}").path() / "adapter_model.safetensors").read_bytes() != data:
            raise SystemExit(f"{name} came back with other bytes")
    rows = repo.session.catalog.connection.execute(
        "SELECT state, COUNT(*), SUM(size) FROM packs GROUP BY state"
    ).fetchall()
    packs = {str(name): (int(number), int(size)) for name, number, size in rows}
    raw = count * sum(a.nbytes for a in state)
    stored = repository_bytes(work / "models")
    collected = timed(repo.gc)
    return _page(saves, packs, raw, stored, len(kept), collected)


def _page(
    saves: list[Save],
    packs: dict[str, tuple[int, int]],
    raw: int,
    stored: int,
    checked: int,
    collected: float,
) -> tuple[str, bool]:
    live, size = packs.get("live", (0, 0))
    late = saves[-min(1000, len(saves)) :]
    typical = statistics.median(s.seconds for s in late)
    met = live < MOST_PACKS and typical < MOST_SECONDS
    lines = [
        machine(),
        load(),
        "",
        f"{len(saves)} saves of adapters, each {raw / len(saves) / 1e3:.0f} kB in {4 * LAYERS} tensors, in "
        f"one process; {checked} of them were brought back and had their bytes.",
        "",
        f"Live packs: {live} (target: under {MOST_PACKS}), {size / 1e6:.0f} MB of {raw / 1e6:.0f} MB. The "
        f"whole repository: {stored / 1e6:.0f} MB, with what was merged away in the last hour.",
        "",
        f"A save, seconds (target: under {MOST_SECONDS} at the median of the last {len(late)}; "
        f"it is {typical:.3f}):",
        "",
        "| saves | how many | median | 95 % | most |",
        "| --- | --- | --- | --- | --- |",
    ]
    step = max(1, len(saves) // 10)
    parts = {
        f"{at + 1} to {at + step}": [s.seconds for s in saves[at : at + step]]
        for at in range(0, len(saves), step)
    }
    parts["all that merge nothing"] = [s.seconds for s in saves if not s.merged]
    parts["all that merge packs"] = [s.seconds for s in saves if s.merged]
    for words, times in parts.items():
        if times:
            ordered = sorted(times)
            most = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
            middle = statistics.median(times)
            lines.append(f"| {words} | {len(times)} | {middle:.3f} | {most:.3f} | {ordered[-1]:.3f} |")
    lines += ["", f"A collection after them, which begins with folding the log anew: {collected:.1f} s."]
    return "\n".join(lines), met


if __name__ == "__main__":
    raise SystemExit(main())
