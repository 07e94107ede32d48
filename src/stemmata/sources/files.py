"""Files: one file of a source, opened without trust in its name. Owns noticing that it changed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec

from stemmata.errors import SourceChanged, UnsupportedFile
from stemmata.seen import Marks, marks_of
from stemmata.storage.descriptors import NO_FOLLOW, READ, read_into, read_range
from stemmata.storage.failures import reason_of

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""How opening fails where the file that was listed has made way for a link, a socket or nothing."""


class SourceFile(msgspec.Struct, frozen=True):
    """One file to be: its path in the version, where its bytes lie, and what it looked like."""

    path: str
    real: Path
    size: int
    executable: bool
    marks: Marks
    """What differs once somebody writes to it."""


class OpenedFile:
    """One file, opened once. Meets `containers.base.RandomReader`; a context manager."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        try:
            # What was listed as a file may have become a link or a pipe since.
            self._fd = os.open(file.real, READ | NO_FOLLOW)
        except OSError as error:
            if error.errno in _GONE:
                raise SourceChanged(path=shown(file.real)) from None
            raise unsupported(file.real, f"it cannot be read: {reason_of(error)}") from None

    def __enter__(self) -> OpenedFile:
        try:
            self.verify_unchanged()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def verify_unchanged(self) -> None:
        """Raise SourceChanged unless the file is what was listed."""
        about = os.fstat(self._fd)
        if not stat.S_ISREG(about.st_mode) or marks_of(about) != self._file.marks:
            raise SourceChanged(path=shown(self._file.real))

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly these bytes, copied. Raises SourceChanged where the file has become shorter."""
        try:
            data = read_range(self._fd, offset, length)
        except OSError as error:
            raise unsupported(self._file.real, f"it cannot be read: {reason_of(error)}") from None
        if len(data) != length:
            raise SourceChanged(path=shown(self._file.real))
        return data

    def view(self, offset: int, length: int) -> None:
        """None: the bytes may change, and are always copied."""

    def read_into(self, offset: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `offset` on. Raises as `read_at`."""
        try:
            count = read_into(self._fd, offset, into)
        except OSError as error:
            raise unsupported(self._file.real, f"it cannot be read: {reason_of(error)}") from None
        if count != len(into):
            raise SourceChanged(path=shown(self._file.real))


def read_inside(root: Path, path: str, most: int) -> bytes | None:
    """The first `most` bytes of an ordinary file of a source that is not taken; None if it is none, or lies
    outside."""
    file = root / path
    try:
        if not file.parent.resolve().is_relative_to(root):
            return None
        fd = os.open(file, READ | NO_FOLLOW)
    except (OSError, ValueError):
        return None
    with os.fdopen(fd, "rb") as opened:
        try:
            return opened.read(most) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        except OSError:
            return None


def unsupported(path: Path, reason: str) -> UnsupportedFile:
    return UnsupportedFile(path=shown(path), reason=reason)


def shown(path: str | Path) -> str:
    """A path that can be printed, whatever bytes or control characters are in its name."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
