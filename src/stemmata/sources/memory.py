"""Memory: files of a source that are in memory instead of on the disk. Owns how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from stemmata.storage.base import Buffer

ReadAt: TypeAlias = Callable[[int, int], Buffer]
"""Exactly these bytes (offset, length), which nobody changes any more."""


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """One file to be: its path in the version, its size, and who has its bytes.

    They are asked for in the order of the file, its head twice, one piece at a time; by any thread.
    """

    path: str
    size: int
    read_at: ReadAt
    executable: bool = False


@dataclass(frozen=True, slots=True)
class MemoryFolder:
    """A folder of which some files are in memory; the others are on the disk."""

    folder: Path
    files: tuple[MemoryFile, ...]


class OpenedMemory:
    """One file in memory, being read. Does what `files.OpenedFile` does."""

    def __init__(self, file: MemoryFile) -> None:
        self._file = file

    def __enter__(self) -> OpenedMemory:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def verify_unchanged(self) -> None:
        """It never changes: see `MemoryFile`."""

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.read_piece(offset, length))

    def read_piece(self, offset: int, length: int) -> Buffer:
        """Exactly these bytes, not copied where that can be. Raises ValueError for others."""
        data = self._file.read_at(offset, length)
        if len(data) != length:
            raise ValueError(f"{self._file.path}: {len(data)} bytes where {length} were asked for")
        return data
