"""Cgroups: what the groups of this process allow it. Owns where they are told of, in either version.

https://docs.kernel.org/admin-guide/cgroup-v2.html; elsewhere than on Linux there are none.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
ROOT = Path("/sys/fs/cgroup")
_MOST = 32
"""Threads beyond which more only wait for the memory that all of them read."""


def folders(controller: str, proc: Path = PROC, root: Path = ROOT) -> list[tuple[int, Path]]:
    """(version, folder) of each group of the process that may limit it, its own first, up to the root: a
    container sees its root alone."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[tuple[int, Path]] = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        parts = [p for p in path.split("/") if p not in ("", "..")]
        if controllers == "":
            found += [(2, root.joinpath(*parts[:n])) for n in range(len(parts), -1, -1)]
        elif controller in controllers.split(","):
            found += [(1, root.joinpath(controllers, *parts[:n])) for n in range(len(parts), -1, -1)]
            if controllers != controller:
                found += [(1, root.joinpath(controller, *parts[:n])) for n in range(len(parts), -1, -1)]
    return found


def processors(proc: Path = PROC, root: Path = ROOT) -> int:
    """Processors that this process may use at once: of those it may run on, what its groups leave it."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    quotas = [found for version, folder in folders("cpu", proc, root) if (found := _quota(version, folder))]
    return max(1, min([count, _MOST, *quotas]))


def _quota(version: int, folder: Path) -> int | None:
    """Processors that a group may keep busy, a part of one counted as one; None without a limit."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return -(-int(quota) // int(period)) if int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):
        return None  # "max", or of another controller
