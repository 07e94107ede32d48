"""Memory: files of a source that are in memory instead of on the disk. Owns how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec


class Content(Protocol):
    """Bytes of a file in memory, asked for by any thread, one at a time; raises what it likes."""

    def view(self, offset: int, length: int) -> memoryview | None:
        """Where exactly these bytes lie, if nobody changes them any more."""

    def read_into(self, offset: int, into: memoryview) -> None:
        """Copy bytes from `offset` on."""


class MemoryFile(msgspec.Struct, frozen=True):
    """One file to be: its path in the version, its size, and who has its bytes.

    They are asked for in the order of the file, its head twice.
    """

    path: str
    size: int
    content: Content
    executable: bool = False


class MemoryFolder(msgspec.Struct, frozen=True):
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
        data = bytearray(length)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def view(self, offset: int, length: int) -> memoryview | None:
        return self._file.content.view(offset, length)

    def read_into(self, offset: int, into: memoryview) -> None:
        self._file.content.read_into(offset, into)
