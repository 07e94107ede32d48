"""Rules of what a save takes. Owns the defaults and how patterns are read.

A pattern is a shell pattern over the path with '/'; one without '/' is also held against every
part of the path alone. A pattern that fits a folder fits everything in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

_AT_TOP = {
    "checkpoint-*": "a checkpoint of the Trainer; save it by itself to keep it",
    "runs": "logs of TensorBoard",
}
"""Folders left out directly in the source alone: further down, these names may mean anything."""
_ANYWHERE = {
    ".cache": "a cache",
    "__pycache__": "a cache",
    ".ipynb_checkpoints": "a cache",
    ".git": "a repository of git",
    ".stemmata": "a stemmata repository",
}
_UNFINISHED = re.compile(r"\.stemmata-[0-9a-f]{16}")
_OF_FOLDERS = (".DS_Store", "._.DS_Store")
APPLE_DOUBLE = b"\0\x05\x16\x07"
"""How the files begin that macOS lays beside others (`._name`) where a file system keeps no attributes."""
_WILD = ("", "*", "?", "[")
LeaveOut = Callable[[str], str | None]
"""Of the name of a file: why it is left out, or None."""


class Rules(msgspec.Struct, frozen=True):
    """What to take. `exclude` is stronger than `include`, and that than the defaults.

    `leave_out` says why the caller leaves out a file of a name; an `include` must name such a file.
    """

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    leave_out: LeaveOut

    @classmethod
    def of(cls, include: Sequence[str], exclude: Sequence[str], leave_out: LeaveOut | None = None) -> Rules:
        return cls(
            tuple(p.rstrip("/") for p in include),
            tuple(p.rstrip("/") for p in exclude),
            leave_out or (lambda _name: None),
        )

    def includes(self, path: str) -> bool:
        return any(_fits(pattern, path) for pattern in self.include)

    def reason_to_leave(self, path: str, real: Path, is_folder: bool, is_plain: bool = True) -> str | None:
        """Why this path is left out, or None. `real` is where it lies; `is_plain`: as an ordinary file."""
        for pattern in self.exclude:
            if _fits(pattern, path):
                return f"excluded by {pattern!r}"
        if not is_folder:
            reason = self.leave_out(path.rpartition("/")[2])
            reason = reason or (_of_macos(real) if is_plain else None)
            return None if reason is None or self._asks_for(path) else reason
        reason = self._default(path, real)
        return None if reason is None or self.includes(path) else reason

    def _asks_for(self, path: str) -> bool:
        """Whether a pattern names this very file: to ask for its folder, or for `*`, is not to ask for it."""
        name = path.rpartition("/")[2]
        last = [(pattern, pattern.rpartition("/")[2]) for pattern in self.include]
        return any(
            end[:1] not in _WILD and fnmatchcase(name, end) and _fits(pattern, path) for pattern, end in last
        )

    def _default(self, path: str, real: Path) -> str | None:
        name = path.rpartition("/")[2]
        if path == name:
            for pattern, why in _AT_TOP.items():
                if fnmatchcase(name, pattern):
                    return why
        if name in _ANYWHERE:
            return _ANYWHERE[name]
        if _UNFINISHED.fullmatch(name):
            return "a checkout that was not finished"
        if is_repository(real):
            # A save would change it while reading it.
            return "a stemmata repository"
        return None

    def may_include_below(self, folder: str) -> bool:
        """Whether a folder that is left out by default may hold something that is included."""
        if any(_fits(pattern, folder) for pattern in self.exclude):
            return False
        parts = folder.split("/")
        for pattern in self.include:
            wanted = pattern.split("/")
            if len(wanted) > len(parts) and all(map(fnmatchcase, parts, wanted)):
                return True
        return False


def _of_macos(file: Path) -> str | None:
    if file.name in _OF_FOLDERS:
        return "how macOS shows a folder"
    if not file.name.startswith("._"):
        return None
    try:
        with file.open("rb") as opened:
            return "attributes that macOS keeps beside a file" if opened.read(4) == APPLE_DOUBLE else None
    except OSError:
        return None  # who takes it is told that


def is_repository(folder: Path) -> bool:
    """Whether it is one of stemmata; not where nobody may look: who lists it is told that."""
    try:
        return (folder / "stemmata.json").is_file()
    except OSError:
        return False


def _fits(pattern: str, path: str) -> bool:
    parts = path.split("/")
    if "/" not in pattern and any(fnmatchcase(part, pattern) for part in parts):
        return True
    return any(fnmatchcase("/".join(parts[: i + 1]), pattern) for i in range(len(parts)))
