"""A file system that is really small: a tmpfs of its own, where this process may mount one."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """`folder`, new and with room for `size` bytes. Skips the test where nothing may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "small-disk", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: an opened file of a failed test must not keep it for ever.
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Use up every byte that is left; the file to remove again."""
    ballast = folder / "ballast"
    with open(ballast, "ab", buffering=0) as file, contextlib.suppress(_Full):
        while True:
            try:
                file.write(b"\0" * (1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise _Full from error
    return ballast


class _Full(Exception):
    pass
