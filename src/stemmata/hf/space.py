"""Space: how much room there is for a version, on the disk and in memory; and whether that is enough.

A quota of the file system's own is not seen here: a write that meets it fails as any other does.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from stemmata import cgroups
from stemmata.errors import SpaceShort

_MARGIN = 1 << 20
_SPARE = 1.2
"""A copy of the weights is made where this many times its bytes are free."""
_log = logging.getLogger("stemmata")


class Room:
    """What the saves of one run of a model may take."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._told = False

    def hold_on_disk(self, folder: Path, needed: int) -> None:
        """Raise SpaceShort if `needed` bytes do not fit into `folder`."""
        free = free_bytes(folder)
        if free is not None and free < needed + _MARGIN:
            where, model = str(folder), self._model
            raise SpaceShort(where=where, free=_readable(free), model=model, needed=_readable(needed))

    def is_in_memory(self, needed: int, *, spare: int = 0) -> bool:
        """Whether there is memory for a copy of `needed` bytes, of which `spare` are at hand already.

        If there is not, that is logged, once for the run.
        """
        free = free_memory()
        if free is None or free + spare >= _SPARE * needed:
            return True
        if not self._told:
            self._told = True
            _log.warning(
                "the versions of %s are written straight from the model, and the training waits for that:"
                " %s of memory are free, and a copy of the weights to write in the background takes %s",
                self._model,
                _readable(free + spare),
                _readable(needed),
            )
        return False


def free_bytes(folder: Path) -> int | None:
    """Bytes free for this user where `folder` is or would be made; None if that cannot be told."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def free_memory(proc: Path = cgroups.PROC, cgroup: Path = cgroups.ROOT) -> int | None:
    """Bytes of memory that this process may still take; None if that cannot be told.

    The least of what the kernel says is available and what each cgroup of the process, of version 1
    or 2, leaves it (https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    found = [left for left in (_available(proc), *_of_cgroups(proc, cgroup)) if left is not None]
    return min(found) if found else None


def _available(proc: Path) -> int | None:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass  # another system
    return None


def _of_cgroups(proc: Path, root: Path) -> list[int | None]:
    files = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
    return [_left(folder, *files[version]) for version, folder in cgroups.folders("memory", proc, root)]


def _left(folder: Path, limit: str, usage: str) -> int | None:
    try:
        most, used = (folder / limit).read_text().strip(), (folder / usage).read_text().strip()
        # Files that were read count as used, and are let go of when memory is wanted.
        kept = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if not most.isdigit() or not used.isdigit():
        return None  # "max"
    cached = int(kept.get("total_inactive_file", kept.get("inactive_file", "0")))
    return max(0, int(most) - int(used) + cached)


def _readable(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
