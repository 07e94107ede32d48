"""Versions in two repositories, and captures, for what judges them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from makers import Array, safetensors_bytes
from stemmata.capturing import Captured, read
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.version import Version

CAPTURE: dict[str, dict[str, Any]] = {
    "command": {"argv": ["/usr/bin/python3", "train.py", "--lr", "1e-4"], "folder": "/home/ada/work"},
    "environment": {
        "python": "3.11.9", "implementation": "CPython", "build": "main", "platform": "Linux-6.1",
        "machine": "x86_64", "cpu": "EPYC", "cpus": 8, "driver": "550.54",
        "torch": {"version": "2.6.0", "cuda": "12.4", "cudnn": 90100, "cpu_capability": "AVX2"},
        "gpus": [{"name": "A100"}, {"name": "A100"}],
        "variables": {"OMP_NUM_THREADS": "4"},
    },
    "packages": {"torch": "2.6.0", "transformers": "5.0.0", "numpy": "2.1.0", "six": "1.16", "pytest": "8.3"},
    "seeds": {
        "seed": 42, "data_seed": None, "full_determinism": False,
        "python": {"hash_seed": "random", "state": "aa"},
        "torch": {"deterministic_algorithms": False, "threads": 4, "initial_seed": 42, "state": "cc"},
    },
    "code": {"commit": "c" * 40, "branch": "main", "root": "/home/ada/work",
             "entry": {"kind": "script", "path": "train.py"}},
    "code_files": {"files": {"helper.py": {"text": "x = 1\n"}}},
    "training_arguments": {"learning_rate": 1e-4, "seed": 42, "output_dir": "out", "fsdp": {"min": 0}},
    "trainer": {"trainer": "transformers.Trainer", "optimizer": "torch.optim.AdamW"},
    "base": {"name_or_path": "toy", "revision": None, "digest": "b" * 64},
    "data": {"parts": {
        "train": {"type": "Dataset", "rows": 120, "digest": "d" * 64, "covers": "all", "fingerprint": "f"},
        "eval": {"type": "Dataset", "rows": 12, "digest": "e" * 64, "covers": "all"},
    }},
}  # fmt: skip
"""What a Trainer's run captures, in small."""


def captured(**changes: Any) -> Captured:
    """`CAPTURE` read as a version's capture. `packages={"torch": "2.7.0"}` goes over what is there, nested
    objects too; a kind that is None is not captured."""
    objects = {kind: merged(said, changes.pop(kind, {})) for kind, said in CAPTURE.items()}
    assert not changes
    kept = {kind: json.dumps(said).encode() for kind, said in objects.items() if said is not None}
    return read(kept, kept.__getitem__)


def merged(said: dict[str, Any], change: Any) -> Any:
    if change is None:
        return None
    found = dict(said)
    for key, value in change.items():
        nested = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if nested else value
    return found


NOTHING = Captured()


class Stores:
    """A repository, and the one in which its versions are made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.first, self.second = Repository.in_memory(), Repository.in_memory()
        self._runs = Run("1" * 32, "r"), Run("2" * 32, "r")
        self._made = 0

    def close(self) -> None:
        self.first.close()
        self.second.close()

    def save(
        self,
        side: int,
        tensors: Mapping[str, Array] | None = None,
        *,
        files: Mapping[str, bytes] | None = None,
        raw: bytes | None = None,
        **said: Any,
    ) -> Version:
        """A version of the first (0) or second (1) repository, of its run."""
        said = {"run": self._runs[side], "provenance": {}, **said}
        folder = self.folder(tensors, files=files, raw=raw)
        return (self.first, self.second)[side].save(folder, "toy", **said)

    def folder(
        self,
        tensors: Mapping[str, Array] | None = None,
        *,
        files: Mapping[str, bytes] | None = None,
        raw: bytes | None = None,
    ) -> Path:
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        if tensors is not None or raw is not None:
            data = raw if raw is not None else safetensors_bytes(tensors or {}, {"format": "pt"})
            (folder / "model.safetensors").write_bytes(data)
        for name, content in ({"config.json": b'{"model_type": "toy"}'} | dict(files or {})).items():
            (folder / name).write_bytes(content)
        return folder

    def pair(self, a: Mapping[str, Array], b: Mapping[str, Array]) -> tuple[Version, Version]:
        return self.save(0, a), self.save(1, b)
