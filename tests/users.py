"""Somebody else than root, and what a process really used: helpers about the machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PEAK = """
def peak():
    # Not ru_maxrss: a child inherits that from the process that forked it.
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
"""
"""Source of `peak()`: the most memory that the calling process ever held, in bytes (Linux)."""


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Run as an ordinary user: root may write everywhere, so permissions mean nothing to it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter and write to: pytest's own lie in one of the user's."""
    with tempfile.TemporaryDirectory(prefix="stemmata-tests-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@contextmanager
def member(user: int, group: int, umask: int) -> Iterator[None]:
    """Run as another user of `group`, as far as files are concerned. For root alone.

    What a test uses must be imported before: an interpreter in root's home is closed to others.
    """
    before, groups = os.umask(umask), os.getgroups()
    os.setgroups([group])
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        os.umask(before)
