"""Source: one listing that is being saved, and whether it still holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from stemmata.errors import LinkEscapes, SourceChanged, SourceMissing, UnsupportedFile
from stemmata.ids import Digest
from stemmata.sources.files import OpenedFile, SourceFile, shown
from stemmata.sources.listing import list_source
from stemmata.sources.memory import MemoryFile, MemoryFolder, OpenedMemory
from stemmata.sources.rules import LeaveOut, Rules
from stemmata.trees import check_path


class Source:
    """What a save takes, as `scan` listed it."""

    def __init__(
        self, path: Path, rules: Rules, allow_broken: bool = False, memory: Sequence[MemoryFile] = ()
    ) -> None:
        found = list_source(path, rules)
        self.on_disk: tuple[SourceFile, ...] = tuple(found.files)
        """Those of `files` that are not in memory."""
        self._listed = {f.path: f for f in found.files}
        self._found_empty = found.empty_folders
        for file in memory:
            check_path(file.path)
            if file.path in self._listed:
                raise ValueError(f"{file.path} is on the disk and in memory")
            reason = rules.reason_to_leave(file.path, path, is_folder=False)
            if reason is not None:
                found.left_out.append((shown(file.path), reason))
        taken = [f for f in memory if rules.reason_to_leave(f.path, path, is_folder=False) is None]
        self.path = path
        self.root: Path = found.root
        """The folder; that of the file if a single file is saved."""
        self.files: tuple[SourceFile | MemoryFile, ...] = tuple(
            sorted([*found.files, *taken], key=lambda f: f.path.encode())
        )
        """In the byte order of their paths."""
        self.empty_folders: tuple[str, ...] = tuple(
            folder
            for folder in found.empty_folders
            if not any(file.path.startswith(f"{folder}/") for file in taken)
        )
        self.left_out: tuple[tuple[str, str], ...] = tuple(sorted(found.left_out))
        """(path, reason) of what is not taken; a folder stands for all that is in it."""
        self.allow_broken = allow_broken
        self._rules = rules
        self._by_path = {f.path: f for f in self.files}
        self._stored: dict[str, str] = {}

    @property
    def total_bytes(self) -> int:
        return sum(f.size for f in self.files)

    def read(self, path: str) -> bytes:
        """All bytes of one file: those that were stored, if it was stored already.

        Raises KeyError for a path that is not taken, SourceChanged, UnsupportedFile.
        """
        file = self._by_path[path]
        with opened(file) as reader:
            data = reader.read_at(0, file.size)
            reader.verify_unchanged()
        if path in self._stored and Digest.of(data).hex != self._stored[path]:
            raise SourceChanged(path=shown(self.root / path))
        return data

    def remember(self, digests: Iterable[tuple[str, str]]) -> None:
        """Note (path, BLAKE3 hex) of what was stored; `read` answers with no other bytes then."""
        self._stored.update(digests)

    def verify_unchanged(self) -> None:
        """List everything again; raise SourceChanged if anything is no longer what it was."""
        try:
            again = list_source(self.path, self._rules)
        except (SourceMissing, UnsupportedFile, LinkEscapes):
            raise SourceChanged(path=shown(self.path)) from None
        after = {f.path: f for f in again.files}
        for path in sorted(self._listed.keys() | after.keys()):
            if self._listed.get(path) != after.get(path):
                raise SourceChanged(path=shown(self.root / path))
        if self.root != again.root or self._found_empty != again.empty_folders:
            raise SourceChanged(path=shown(self.path))


def opened(file: SourceFile | MemoryFile) -> OpenedFile | OpenedMemory:
    """The file, to be read. A context manager. Raises SourceChanged, UnsupportedFile."""
    return OpenedFile(file) if isinstance(file, SourceFile) else OpenedMemory(file)


def scan(
    path: str | os.PathLike[str] | MemoryFolder,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    leave_out: LeaveOut | None = None,
    allow_broken: bool = False,
) -> Source:
    """List what a save of `path` would take; opens no file.

    `include` overrides what is left out by default, `exclude` overrides everything (patterns: see
    `rules`). `leave_out` adds to the defaults: why a file of that name is left out.
    Raises SourceMissing, LinkEscapes, UnsupportedFile.
    """
    memory: Sequence[MemoryFile] = ()
    if isinstance(path, MemoryFolder):
        memory = path.files
        path = path.folder
    # Absolute: a change of the working folder during the save must not look like a change of it.
    return Source(Path(path).absolute(), Rules.of(include, exclude, leave_out), allow_broken, memory)
