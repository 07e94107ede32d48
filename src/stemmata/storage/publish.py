"""Publish: how a finished file gets its name only if that name is free. Owns the choice of means.

A hard link is the means everywhere it exists. Where it does not (exFAT, some mounted drives and
bucket mounts) a rename that refuses to replace serves, once a probe has seen it refuse.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from enum import Enum
from functools import cache
from pathlib import Path

from stemmata.ids import random_hex
from stemmata.storage.failures import is_full


class Means(Enum):
    """What gives a file its name."""

    LINK = "link"
    RENAME = "rename"
    OVER = "over"
    """Never found by a probe: a rename that replaces, for who means to."""


def call_of(means: Means) -> Callable[[Path, Path], object]:
    """What gives a finished file the name of another path, by this means."""
    if means is Means.OVER:
        return os.replace
    return link if means is Means.LINK else rename_new


class NoMeans(Exception):
    """Neither a link nor a rename that refuses to replace works here."""


_RENAME_NOREPLACE = 1  # linux/fs.h
_RENAME_EXCL = 4  # sys/stdio.h of macOS
_AT_FDCWD = -100
_HOPELESS = frozenset({errno.EROFS, errno.EIO})


def link(source: Path, target: Path) -> None:
    """Give `source` the further name `target`. OSError; FileExistsError if that is taken.

    NFS may lose the answer to a link that was made and report an error for its repetition: whether both names
    are of one file tells. Their count does not, for a backup by links gives one more to whatever it meets.
    """
    try:
        os.link(source, target)
    except OSError:
        with contextlib.suppress(OSError):
            if _file_of(source) == _file_of(target):
                return
        raise


def _file_of(name: Path) -> tuple[int, int]:
    # Opened, for then NFS asks its server; what it remembers is from before the link.
    fd = os.open(name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        about = os.fstat(fd)
        return about.st_dev, about.st_ino
    finally:
        os.close(fd)


def rename_new(source: Path, target: Path) -> None:
    """Rename unless `target` exists. OSError; FileExistsError if it does."""
    if os.name == "nt":
        source.rename(target)  # refuses to replace, there
        return
    call = _native_rename()
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    code = call(os.fsencode(source), os.fsencode(target))
    if code:
        raise OSError(code, os.strerror(code), str(target))


@cache
def _native_rename() -> Callable[[bytes, bytes], int] | None:
    """A call that returns 0 or an errno; None where the system has none."""
    import ctypes  # for who writes

    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        native = getattr(library, "renameat2", None)
        before, flag = (_AT_FDCWD,), _RENAME_NOREPLACE
    else:
        native = getattr(library, "renamex_np", None)
        before, flag = (), _RENAME_EXCL
    if native is None:
        return None

    def call(source: bytes, target: bytes) -> int:
        between = before  # renameat2 takes a folder before each path
        failed = native(*before, source, *between, target, ctypes.c_uint(flag))
        return ctypes.get_errno() or errno.EIO if failed else 0

    return call


def probe(folder: Path) -> Means:
    """Find the means that `folder` has by trying it on throw-away files there.

    Raises NoMeans, or the OSError of a folder that cannot be written at all.
    """
    for means, call in ((Means.LINK, link), (Means.RENAME, rename_new)):
        name = random_hex(8)
        trio = [folder / f"probe-{name}-{i}" for i in range(3)]
        try:
            trio[0].write_bytes(b"1")
            trio[1].write_bytes(b"2")
            if _works(call, *trio):
                return means
        finally:
            for path in trio:
                with contextlib.suppress(OSError):
                    path.unlink()
    raise NoMeans


def _works(means: Callable[[Path, Path], None], first: Path, second: Path, free: Path) -> bool:
    """Whether `means` refuses the taken name, leaving it as it was, and grants the free one."""
    try:
        try:
            means(first, second)
        except FileExistsError:
            means(first, free)
            return second.read_bytes() == b"2" and free.read_bytes() == b"1"
    except OSError as error:
        if is_full(error) or error.errno in _HOPELESS:
            raise
    return False
