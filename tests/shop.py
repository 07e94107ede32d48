"""Shop: a history to collect from: small tensors that resemble each other, and text to look for later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import faults
from makers import safetensors_bytes
from stemmata import checking
from stemmata.log import ops
from stemmata.repository import Repository
from stemmata.storage.base import Storage, StoredKey
from stemmata.version import Version

WIDTH = 64


class Epochs:
    """Folders of one training, each epoch's weights near those of the one before, and nearer than that was to
    its own: else what it leans on would be leant on itself (ADR 058)."""

    def __init__(self, work: Path, *, layers: int = 2, width: int = WIDTH) -> None:
        self._work = work
        rng = np.random.default_rng(7)
        self._weights = [(rng.normal(size=(width, width)) * 0.02).astype(np.float32) for _ in range(layers)]
        self.folders: list[Path] = []

    def folder(self, k: int) -> Path:
        while len(self.folders) <= k:
            rng = np.random.default_rng(100 + len(self.folders))
            rate = np.float32(1e-3 / 16 ** ((len(self.folders) - 1) % 3))
            self._weights = [(w + rng.normal(size=w.shape).astype(np.float32) * rate) for w in self._weights]
            made = self._work / f"epoch-{len(self.folders)}"
            made.mkdir(parents=True)
            tensors = {f"l{i}.weight": w for i, w in enumerate(self._weights)}
            (made / "model.safetensors").write_bytes(safetensors_bytes(tensors))
            (made / "config.json").write_text(json.dumps({"planted": planted("file", len(self.folders))}))
            (made / "tokenizer.json").write_text('{"shared": "by all"}' * 20)
            self.folders.append(made)
        return self.folders[k]

    def save(self, repo: Repository, k: int, parent: Version | None = None) -> Version:
        return repo.save(
            self.folder(k),
            "m",
            name=f"e{k}",
            parents=[parent] if parent is not None else [],
            provenance={"environment": planted("provenance", k).encode(), "python": b'{"same": "in all"}'},
        )

    def history(self, repo: Repository, count: int) -> list[Version]:
        made: list[Version] = []
        for k in range(count):
            made.append(self.save(repo, k, made[-1] if made else None))
        return made

    def require(self, repo: Repository, k: int) -> None:
        """Version `k` reads as it was saved."""
        for path in ("model.safetensors", "config.json", "tokenizer.json"):
            assert repo[f"m@e{k}"].read(path) == (self.folder(k) / path).read_bytes()


def planted(what: str, k: int) -> str:
    """Text that occurs once, to be looked for in all that is stored. Stored raw: too short to be packed."""
    return f"{what}-{k}-" + np.random.default_rng(k).bytes(12).hex()


def delete(repo: Repository, *versions: Version) -> None:
    for version in versions:
        repo.session.commit(lambda _, v=version: [ops.VersionDelete(version=v.id.hex)])  # type: ignore[misc]


def packs_bytes(storage: Storage) -> int:
    return sum(key.size for key in storage.list("packs/"))


def stored_text(storage: Storage) -> bytes:
    """All packs, as they are stored."""
    return b"".join(faults.contents(storage, "packs/").values())


def live(repo: Repository) -> int:
    found = repo.session.catalog.connection.execute("SELECT COUNT(*) FROM packs WHERE state = 'live'")
    return int(found.fetchone()[0])


def require_sound(storage: Storage) -> None:
    report = checking.check(storage)
    assert not report.problems, report.problems


class Dated:
    """A storage whose times a test sets. `now` is what a key that is written gets."""

    def __init__(self, inner: Storage, now: float = 1_000_000.0) -> None:
        self.inner, self.now = inner, now
        self.where, self.cache_folder = inner.where, inner.cache_folder
        self.times: dict[str, float] = {}

    def put_new(self, key: str, data: bytes) -> None:
        self.inner.put_new(key, data)
        self.times[key] = self.now

    def list(self, prefix: str, after: str = "") -> Iterator[StoredKey]:
        for found in self.inner.list(prefix, after):
            yield StoredKey(found.key, found.size, self.times.setdefault(found.key, self.now))

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self.inner, name)
