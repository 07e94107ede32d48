"""Many small saves: how many packs are left, what a save takes, and what the merges among them take.

PYTHONPATH=src python bench/merging.py --saves 1000 --kilobytes 300
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import stemmata
from stemmata import collecting
from stemmata.collecting import merging

MODULES = ("q_proj", "v_proj")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saves", type=int, default=1000)
    parser.add_argument("--kilobytes", type=int, default=300, help="of an adapter, raw")
    parser.add_argument("--where", type=Path, default=None)
    given = parser.parse_args()
    layers = 12
    width = max(16, given.kilobytes * 1000 // (layers * len(MODULES) * 2 * 8 * 4))
    rng = np.random.default_rng(0)
    shapes = [(8, width), (width, 8)] * (layers * len(MODULES))
    state = [rng.normal(size=s).astype(np.float32) * 0.02 for s in shapes]
    alone, with_merge, merges = [], [], []
    counted = merging.merge_small

    def timed(session: object) -> int:
        begin = time.perf_counter()
        went = counted(session)  # type: ignore[arg-type]
        if went:
            merges.append(time.perf_counter() - begin)
        return went

    collecting.merge_small = timed  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(dir=given.where) as work:
        folder = Path(work) / "adapter"
        folder.mkdir()
        repo = stemmata.open(Path(work) / "models", create=True)
        last = None
        for i in range(given.saves):
            state = [
                a + rng.normal(size=a.shape).astype(np.float32) * np.float32(1e-4)
                if i % 20
                else rng.normal(size=a.shape).astype(np.float32) * np.float32(0.02)
                for a in state
            ]
            adapter(folder, state, layers)
            before = len(merges)
            begin = time.perf_counter()
            last = repo.save(
                folder,
                "m",
                name=f"s{i}",
                parents=[last] if last is not None and i % 20 else [],
                provenance={},
            )
            (with_merge if len(merges) > before else alone).append(time.perf_counter() - begin)
        states = repo.session.catalog.connection.execute(
            "SELECT state, COUNT(*), SUM(size) FROM packs GROUP BY state"
        ).fetchall()
    found = {
        "saves": given.saves,
        "adapter_bytes": sum(a.nbytes for a in state),
        "packs": {name: {"count": count, "bytes": size} for name, count, size in states},
        "save_seconds": _told(alone),
        "save_that_merges_seconds": _told(with_merge),
        "merge_seconds": _told(merges),
    }
    json.dump(found, sys.stdout, indent=1)
    print()


def _told(times: list[float]) -> dict[str, float]:
    if not times:
        return {}
    return {
        "count": len(times),
        "median": round(statistics.median(times), 4),
        "p99": round(sorted(times)[int(len(times) * 0.99)], 4),
        "max": round(max(times), 4),
    }


if __name__ == "__main__":
    main()
