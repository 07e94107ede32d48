"""Weights of versions that follow each other, and everything that a repository's packs hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from stemmata.ids import PackName
from stemmata.packs import PackReader
from stemmata.repository import Repository

SHAPE = (48, 32)
"""Large enough that a difference pays."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """A weight file, and its tensors' bytes that are large enough to be told apart."""

    content: bytes
    tensors: frozenset[bytes]
    arrays: tuple[np.ndarray, ...]

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(self.content)
        (folder / "config.json").write_text(json.dumps({"model_type": "tiny"}))
        return folder


def next_weights(before: Bytes | None, seed: int) -> Bytes:
    """A fresh model, or one that a training has moved a little: one tensor stays as it was, one moves, one
    is new."""
    dice = np.random.default_rng(seed)
    fresh = [dice.standard_normal(SHAPE).astype(np.float32) for _ in range(3)]
    if before is not None:
        stays, moves, _ = before.arrays
        fresh[:2] = [stays, moves + np.float32(1e-4) * fresh[1]]
    content = save({f"layer.{i}.weight": array for i, array in enumerate(fresh)})
    return Bytes(content, frozenset(array.tobytes() for array in fresh), tuple(fresh))


def every_stored_content(repo: Repository) -> list[bytes]:
    """The content of every object of every pack that lies there, and the packs' own bytes, whatever the log
    says of them."""
    storage, reader = repo.session.storage, repo.session.reader
    found: list[bytes] = []
    for stored in storage.list("packs/"):
        name = PackName.parse(Path(stored.key).stem)
        found.append(storage.get(stored.key))
        found += [bytes(reader.read(digest, [name])) for digest in PackReader(storage, name).index.digests()]
    return found
