"""Small models that resemble each other, and what their stored tensors lean on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from golden.make_v1 import safetensors
from stemmata.codecs.decoding import ObjectDecoder
from stemmata.codecs.frames import Reference
from stemmata.ids import Digest
from stemmata.objects.room import Room
from stemmata.repository import Repository
from stemmata.version import Version

SHAPES = {"embed": (300, 24), "layer.0.weight": (96, 64), "layer.1.weight": (96, 64), "head": (64, 96)}

Tensors = dict[str, npt.NDArray[np.float32]]


def model(seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: (rng.normal(size=shape) * 0.02).astype("<f4") for name, shape in SHAPES.items()}


def trained(before: Tensors, seed: int, rate: float = 1e-5) -> Tensors:
    rng = np.random.default_rng([7, seed])
    return {n: (a + rng.normal(size=a.shape) * rate).astype("<f4") for n, a in before.items()}


def as_bf16(tensors: Tensors) -> dict[str, npt.NDArray[np.uint16]]:
    bits = {n: a.view("<u4").astype(np.uint64) for n, a in tensors.items()}
    return {n: ((b + 0x7FFF + (b >> 16 & 1)) >> 16).astype("<u2") for n, b in bits.items()}


def written(folder: Path, tensors: Tensors | dict[str, npt.NDArray[np.uint16]]) -> bytes:
    """A folder with one file of these tensors; the file's bytes."""
    folder.mkdir(exist_ok=True)
    words = {4: "F32", 2: "BF16"}
    data = safetensors({n: (words[a.itemsize], list(a.shape), a.tobytes()) for n, a in tensors.items()})
    (folder / "model.safetensors").write_bytes(data)
    return data


def opened(repo: Repository, version: Version) -> dict[str, list[tuple[Reference, ObjectDecoder]]]:
    """Of each tensor itself and what it leans on, nearest first."""
    session = repo.session
    packs = session.packs(version._row)
    found = {}
    for file in version.files:
        for segment in file.segments:
            if segment.name is not None:
                (digest,) = segment.objects
                with session.reader.opened(Digest.parse(digest), packs, Room()) as (where, decoder):
                    found[segment.name] = decoder.lineage(where)
    return found
