"""The folders of a history and its `manifest.json`.

Owns what a version of a history is, and that a training that was interrupted is made again from its start.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from measuring import folder_bytes

RECIPES = {"H": 1, "H2": 1, "L": 1, "T": 1, "G": 1, "G4": 1, "tiny": 1}
"""Counted up with every change of what is trained: a history of an older recipe is made anew."""
BRANCHES = {"B": ("H", "bf16-*"), "R": ("L", "rounded-*")}
"""Histories that are part of another: which, and the names of its versions. Nothing more is trained for them;
what comes from outside of the part has no parent there."""
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """One version: a folder as a training leaves it. `parents` are names of earlier entries.

    `kind`: model, adapter or checkpoint. `changed`: of the values that stand under the same name, type and
    shape in the first parent, the share whose bits differ; None where there are none.
    """

    name: str
    folder: Path
    parents: tuple[str, ...]
    kind: str
    what: str
    bytes: int
    changed: float | None


def branch(entries: Sequence[Entry], only: str) -> list[Entry]:
    """Those whose names fit. Parents that do not fit are left out, and with them what changed since."""
    found = [entry for entry in entries if fnmatchcase(entry.name, only)]
    names = {entry.name for entry in found}
    kept = [replace(entry, parents=tuple(p for p in entry.parents if p in names)) for entry in found]
    return [entry if entry.parents else replace(entry, changed=None) for entry in kept]


Line = tuple[str, Callable[["Shelf"], None]]
"""A training: its name, and what puts its versions on the shelf. Made whole or again from its start."""


class Shelf:
    """Where the trainings of one history leave their versions, and find those of earlier ones."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._manifest = _read(home)

    @property
    def complete(self) -> bool:
        return bool(self._manifest["complete"])

    def make(self, lines: list[Line]) -> None:
        if not self._manifest["versions"]:
            shutil.rmtree(self.home, ignore_errors=True)  # another recipe's, if anything
        for name, train in lines:
            if name in self._manifest["lines"]:
                continue
            self._forget(name)
            started = time.perf_counter()
            self._line = name
            train(self)
            self._manifest["lines"].append(name)
            self._write()
            seconds = time.perf_counter() - started
            print(f"{self.home.name} {name}: complete after {seconds:.0f} s", flush=True)
        self._manifest["complete"] = True
        self._write()

    def entries(self) -> list[Entry]:
        known = Entry.__dataclass_fields__
        rows = ({k: v for k, v in version.items() if k in known} for version in self._manifest["versions"])
        return [
            Entry(**{**row, "folder": self.home / row["folder"], "parents": tuple(row["parents"])})
            for row in rows
        ]

    def folder(self, name: str) -> Path:
        return next(entry.folder for entry in self.entries() if entry.name == name)

    def put(
        self, name: str, parents: tuple[str, ...], kind: str, what: str, write: Callable[[Path], object]
    ) -> None:
        """Have `write` fill the folder of a new version, and enter it."""
        folder = self.home / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)
        entry = Entry(name, folder, parents, kind, what, folder_bytes(folder), None)
        if parents:
            entry = replace(entry, changed=share_changed(self.folder(parents[0]), folder))
        self._manifest["versions"].append({**vars(entry), "folder": name, "line": self._line})
        self._write()

    def _forget(self, line: str) -> None:
        """What an interrupted training left."""
        for version in self._manifest["versions"]:
            if version["line"] == line:
                shutil.rmtree(self.home / version["folder"], ignore_errors=True)
        self._manifest["versions"] = [v for v in self._manifest["versions"] if v["line"] != line]

    def _write(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        new = self.home / f"{_MANIFEST}.new"
        new.write_text(json.dumps(self._manifest, indent=1) + "\n", encoding="utf-8")
        new.replace(self.home / _MANIFEST)


def share_changed(before: Path, after: Path) -> float | None:
    """See Entry.changed. Bits, not values: -0.0 and 0.0 differ, a NaN equals itself."""
    paths = [path for path in sorted(after.glob("*.safetensors")) if (before / path.name).exists()]
    if not paths:
        return None
    import torch
    from safetensors import safe_open

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    differing = total = 0
    for path in paths:
        with safe_open(before / path.name, "pt") as old, safe_open(path, "pt") as new:
            for name in set(old.keys()).intersection(new.keys()):
                one, two = old.get_tensor(name), new.get_tensor(name)
                if one.dtype == two.dtype and one.shape == two.shape:
                    bits = integers[one.element_size()]
                    differing += int((one.view(bits) != two.view(bits)).sum())
                    total += one.numel()
    return differing / total if total else None


def _read(home: Path) -> dict:
    try:
        manifest = json.loads((home / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        manifest = {}
    recipe = RECIPES[home.name]
    if manifest.get("recipe") == recipe:
        return manifest
    return {"recipe": recipe, "complete": False, "lines": [], "versions": []}
