"""Descriptors: whole reads, whole writes and syncs of opened files. Raises plain OSError."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from stemmata.storage.base import Buffer

# O_NONBLOCK: a pipe that lies where a file should must not hang the reader. O_BINARY: for Windows.
READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
NEW_FILE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
_MOST = 1 << 30  # one read or write call moves less than 2 GiB on Linux
_PIECE = 1 << 20
"""Bytes of one write. For longer ones Linux makes the page cache of pages of 2 MiB and more; those are what a
host takes of a virtual machine's free memory, and each has to be fetched from it again (ADR 055)."""


def write_all(fd: int, data: Buffer) -> None:
    """Write every byte, a piece at a time."""
    with memoryview(data) as view, view.cast("B") as rest:
        done = 0
        while done < len(rest):
            done += os.write(fd, rest[done : done + _PIECE])


def write_at(fd: int, data: memoryview, start: int) -> None:
    """Write every byte from `start` on, where the descriptor stands or not. Not on Windows."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done : done + _PIECE], start + done)


def read_range(fd: int, start: int, length: int) -> bytes:
    """`length` bytes from `start`; fewer only where the file ends."""
    parts: list[bytes] = []
    while length > 0:
        part = _read_once(fd, start, min(length, _MOST))
        if not part:
            break
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_into(fd: int, start: int, into: memoryview) -> int:
    """Fill `into` from `start` on; how many bytes there were: fewer only where the file ends."""
    done = 0
    while done < len(into):
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [into[done : done + _MOST]], start + done)
        else:
            part = _read_once(fd, start + done, min(len(into) - done, _MOST))
            count = len(part)
            into[done : done + count] = part
        if not count:
            break
        done += count
    return done


def _read_once(fd: int, start: int, length: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, length, start)
    os.lseek(fd, start, os.SEEK_SET)  # Windows; nobody shares a descriptor between threads here
    return os.read(fd, length)


def sync_file(fd: int) -> None:
    """Wait until an open file's bytes are on the disk itself."""
    if os.name == "posix":
        import fcntl

        full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync stops at the drive's own cache
        if full is not None:
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, full)
                return
    os.fsync(fd)


_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


def begin_sync(fd: int, start: int, length: int) -> None:
    """Let the disk begin with bytes that were written, so that less is left for `sync_file` to wait for.

    A hint, on Linux alone: it promises nothing, and what goes wrong is said by `sync_file`.
    """
    call = _sync_file_range()
    if call is not None:
        call(fd, start, length, _SYNC_FILE_RANGE_WRITE)


@cache
def _sync_file_range() -> Any:
    if sys.platform != "linux":
        return None
    import ctypes  # for who writes

    with contextlib.suppress(OSError, AttributeError):  # no such function in this C library
        call = ctypes.CDLL(None).sync_file_range
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        return call
    return None


def refresh_names(root: Path, path: Path) -> None:
    """Have a network drive ask its server which names there are, on the way from `root` down to `path`.

    Opening a folder does that (close-to-open consistency, nfs(5)); a look at a name alone does not.
    """
    if os.name == "nt":
        return
    for folder in (root, *(root / part for part in reversed(path.relative_to(root).parents[:-1]))):
        try:
            os.close(os.open(folder, _FOLDER))
        except OSError:
            return  # what is looked for there is absent, or the look itself will say why not


def may_write(folder: Path) -> bool:
    """Whether this process may make and rename files in it, as far as permissions say."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk; nothing where folders cannot be synced."""
    if os.name == "nt":
        return
    fd = os.open(folder, _FOLDER)
    try:
        sync_file(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(fd)
