"""Seen: files whose content is known although they are not read, for nothing has touched them since they
were. Owns when that is believed.

What is kept lies in the user's own folder: whoever shares a repository cannot make others believe anything.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TypeAlias

import msgspec
from blake3 import blake3

from stemmata.storage.descriptors import NO_FOLLOW, READ
from stemmata.storage.mounts import mount_of

SETTLED_NS = 60_000_000_000
"""How long a file must have been left alone when it was read."""
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs", "rootfs"})
"""File systems without a disk: what is written through a mapping there may never change a file's times."""
LEAST = 1 << 20
"""Bytes of a file that is worth a note: a smaller one is read in less time."""
_MOST_NOTES = 4000

Marks: TypeAlias = "tuple[int, ...]"
"""Device, inode, size, times of the last changes in ns: what differs once somebody writes to a file."""


class _Note(msgspec.Struct, frozen=True):
    path: bytes
    marks: tuple[int, ...]
    digest: str
    """BLAKE3 of the whole file, hex."""
    at_ns: int
    """When it began to be read; 0: it may change without its marks."""


class Seen:
    """Notes of files that were read, in a folder, which is made when there is one to be kept.

    Each is kept twice: under its path, and under its content.
    """

    def __init__(self, folder: Path | None) -> None:
        """None: nothing is kept."""
        self._folder = folder

    def digest_of(self, path: Path, marks: Marks) -> str | None:
        """BLAKE3 of a file, if it is what it was when it was read, and had been so for a while.

        Not on Windows, which does not tell when a file was last changed.
        """
        note = _recall(self._under(os.fsencode(path)))
        if note is None or os.name == "nt" or note.path != os.fsencode(path) or note.marks != marks:
            return None
        return note.digest if note.at_ns - max(note.marks[-2:]) >= SETTLED_NS else None

    def place_of(self, digest: str) -> tuple[Path, Marks] | None:
        """Where a file of this content lay, and what it looked like. Whoever reads it has to look at both."""
        note = _recall(self._under(bytes.fromhex(digest)))
        return (
            (Path(os.fsdecode(note.path)), note.marks) if note is not None and note.digest == digest else None
        )

    def remember(self, path: Path, marks: Marks, digest: str, at_ns: int) -> None:
        """Note a file that had these marks when it began to be read, and after it was.

        `at_ns`: see `begun_at`; 0: this tells where the content lies, and is not taken for the file's.
        """
        note = msgspec.json.encode(_Note(os.fsencode(path), marks, digest, at_ns))
        for key in (os.fsencode(path), bytes.fromhex(digest)):
            file = self._under(key)
            if file is not None:
                _write(file, note)

    def tidy(self) -> None:
        """Forget the oldest, where there are very many."""
        if self._folder is None:
            return
        try:
            notes = [entry for entry in os.scandir(self._folder) if entry.is_file()]
            if len(notes) > _MOST_NOTES:
                notes.sort(key=lambda entry: entry.stat().st_mtime_ns)
                for entry in notes[: len(notes) // 2]:
                    Path(entry.path).unlink()
        except OSError:
            pass  # another process tidies as well

    def _under(self, key: bytes) -> Path | None:
        return self._folder / f"{blake3(key).hexdigest()[:32]}.json" if self._folder is not None else None


def begun_at(path: Path, marks: Marks) -> int:
    """The time, for `Seen.remember`, to be asked right before a file is read; 0 where it was touched a while
    ago, or may change unnoticed.

    Whoever maps a file and writes to it changes its times with the first write to a page, and not with the
    next before that page is on the disk: so it is brought there, which mostly it is already.
    """
    now = time.time_ns()
    if now - max(marks[-2:]) < SETTLED_NS or mount_of(path).kind in _IN_MEMORY:
        return 0
    try:
        fd = os.open(path, READ | NO_FOLLOW)
        try:
            getattr(os, "fdatasync", os.fsync)(fd)
        finally:
            os.close(fd)
    except OSError:
        return 0
    return now


def marks_of(about: os.stat_result) -> Marks:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def size_of(marks: Marks) -> int:
    return marks[2]


def _recall(file: Path | None) -> _Note | None:
    if file is None:
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Note)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _write(file: Path, note: bytes) -> None:
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(note)
        fresh.replace(file)
    except OSError:
        pass  # a cache that cannot be written costs time alone
