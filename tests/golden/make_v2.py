"""Make the golden repository of deltas and casts: `PYTHONPATH=tests python tests/golden/make_v2.py DIR`.

Run once, when codecs 3 and 4 settled; what it made is committed and never made again. It holds every codec
with every dtype that it knows, every class of blocks, chains, deltas on wider tensors, ragged frames and
groups.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from golden.make_v1 import AUTHOR, ITEM, describe, safetensors
from stemmata.log.identity import create_identity
from stemmata.repository import Repository
from stemmata.storage.memory import MemoryStorage

Words = npt.NDArray[np.unsignedinteger]

PERIOD = 509
"""Values repeat, so that the whole stays small; a prime, so that blocks and frames differ."""
LENGTHS = {dtype: 4_300 // size for dtype, size in ITEM.items()} | {"F32": 9_001}
"""At least 4096 bytes, below which no base is sought; enough for groups where half is rounded from F32."""
SPECIALS = {
    "F32": [0, 1 << 31, 1, 0x807FFFFF, 0x7F800000, 0xFF800000],
    "F64": [0, 1 << 63, 1, 0x800FFFFFFFFFFFFF, 0x7FF0 << 48, (0x7FF0 << 48) | 1],
    "F16": [0, 0x8000, 1, 0x83FF, 0x7C00, 0x7E01],
    "BF16": [0, 0x8000, 1, 0x807F, 0xFF80, 0x7F81],
}


def words(dtype: str, values: object) -> Words:
    return np.asarray(values).astype(f"<u{ITEM[dtype]}")


def start(dtype: str, count: int) -> Words:
    """Numbers of many sizes and both signs, or any bytes for what is no float of 16 bits or more."""
    rng = np.random.default_rng([list(ITEM).index(dtype), count])
    numbers = rng.normal(size=PERIOD) * 2.0 ** rng.integers(-6, 2, PERIOD)
    tiled = np.resize(numbers, count)
    if dtype == "F64":
        found = words(dtype, tiled.view("<u8"))
    elif dtype == "F16":
        found = words(dtype, tiled.astype("<f2").view("<u2"))
    elif dtype in ("F32", "BF16"):
        bits = tiled.astype("<f4").view("<u4")
        found = words(dtype, bits if dtype == "F32" else bits >> 16)
    else:
        found = words(dtype, np.resize(rng.integers(0, 1 << 8 * ITEM[dtype], PERIOD, np.uint64), count))
    special = words(dtype, SPECIALS.get(dtype, []))
    found[: len(special)] = special
    return found


def moved(before: Words, seed: int) -> Words:
    """Small steps for most, none in a stretch, wide ones for a few."""
    rng = np.random.default_rng(seed)
    steps = np.rint(rng.normal(size=len(before)) * 1.5).astype(np.int64)
    steps[256:1000] = 0
    wide = rng.integers(0, len(before), 24)
    after = (before.astype(np.uint64) + steps.astype(np.uint64)).astype(before.dtype)
    after[wide] = rng.integers(0, 1 << 8 * before.dtype.itemsize, 24, np.uint64).astype(before.dtype)
    return after


def decayed(before: Words, dtype: str) -> Words:
    """Every number nearer to zero, by a step that its mantissa tells."""
    mantissa = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}[dtype]
    steps = 1 + (before >> before.dtype.type(mantissa - 3) & before.dtype.type(7))
    large = (before << before.dtype.type(1)) > before.dtype.type(1 << mantissa)
    return np.where(large, before - steps, before).astype(before.dtype)


def first() -> dict[str, tuple[str, Words]]:
    tensors = {f"t.{dtype}": (dtype, start(dtype, LENGTHS[dtype])) for dtype in ITEM if dtype != "BOOL"}
    tensors |= {f"decay.{d}": (d, start(d, 2_100)) for d in ("F64", "F32", "F16", "BF16")}
    # Two frames, the second ragged.
    tensors["long"] = ("F32", np.resize(start("F32", PERIOD), (128 << 10) + 77))
    return tensors


def later(before: dict[str, tuple[str, Words]], seed: int) -> dict[str, tuple[str, Words]]:
    after: dict[str, tuple[str, Words]] = {}
    for name, (dtype, values) in before.items():
        if name == "long":
            changed = values.copy()
            changed[1000 * seed : 1000 * seed + 600] += words(dtype, 3)
            changed[-70:] -= words(dtype, seed)
            after[name] = dtype, changed
        else:
            after[name] = dtype, decayed(values, dtype) if name[0] == "d" else moved(values, seed)
    return after


def narrowed(before: dict[str, tuple[str, Words]], dtype: str) -> dict[str, tuple[str, Words]]:
    """The fp32 tensors as half of their bytes, by numpy's own rounding or by that of torch."""
    found: dict[str, tuple[str, Words]] = {}
    for name, (kind, values) in before.items():
        if kind == "F32":
            bits = values.astype(np.uint64)
            bf16 = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
            with np.errstate(over="ignore"):
                f16 = values.view("<f4").astype("<f2").view("<u2")
            found[name] = dtype, words(dtype, bf16 if dtype == "BF16" else f16)
    return found


def folder(work: Path, tensors: dict[str, tuple[str, Words]]) -> Path:
    target = work / "model"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    data = safetensors({n: (d, [len(v)], v.tobytes()) for n, (d, v) in tensors.items()})
    (target / "model.safetensors").write_bytes(data)
    (target / "config.json").write_text('{"model_type": "toy"}')
    return target


def fill(repo: Repository, work: Path) -> None:
    epochs = [first()]
    parents: list[str] = []
    for epoch in range(4):
        name = f"epoch-{epoch}"
        repo.save(folder(work, epochs[-1]), "fine", name=name, parents=parents, epoch=epoch, provenance={})
        parents = [f"fine@{name}"]
        epochs.append(later(epochs[-1], epoch + 1))
    for dtype in ("BF16", "F16"):
        half = narrowed(epochs[0], dtype)
        lower = f"as-{dtype.lower()}"
        parents = ["fine@epoch-0"]
        repo.save(folder(work, half), "half", name=lower, parents=parents, provenance={})
        tuned = {n: (d, moved(v, 9)) for n, (d, v) in half.items() if n != "long"}
        repo.save(folder(work, tuned), "half", name=f"{lower}-tuned", parents=parents, provenance={})


def expected(repo: Repository) -> dict[str, object]:
    """What reading must give, in terms that need nothing of stemmata."""
    versions = sorted((describe(v) for v in repo.versions()), key=lambda v: str(v["id"]))
    return {"repository": repo.id, "entries": repo.session.catalog.position.n, "versions": versions}


def main(target: Path) -> None:
    storage = MemoryStorage()
    create_identity(storage)
    with tempfile.TemporaryDirectory() as work, Repository(storage, author=AUTHOR) as repo:
        fill(repo, Path(work))
        repo.refresh()
        found = expected(repo)
    shutil.rmtree(target, ignore_errors=True)
    for key in storage.list(""):
        path = target / "repository" / key.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.get(key.key))
    text = json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True)
    (target / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
