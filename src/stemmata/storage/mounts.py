"""Mounts: what a folder lies on, by what Linux says of it. Owns which drives are a network's, and on which of
them other computers see no lock that is taken here. Elsewhere than on Linux nothing is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_LOCAL_LOCKS = frozenset({"nolock", "local_lock=all", "local_lock=posix", "nobrl", "localflock"})
"""Options of mounts (nfs, cifs, lustre) whose locks other computers do not see."""
_ESCAPED = re.compile(r"\\([0-7]{3})")
_NETWORK = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "lustre", "gpfs", "beegfs", "afs", "virtiofs")


def has_shared_locks(folder: Path) -> bool:
    """False where other computers write as well, and a lock taken here is unknown to them."""
    mount = mount_of(folder)
    local = mount.kind == "fuse.sshfs" or not _LOCAL_LOCKS.isdisjoint(mount.options)
    return not (local and is_network(mount))


class Mount(NamedTuple):
    """One line of /proc/self/mounts; all empty where nothing is known."""

    kind: str
    options: Sequence[str]


def mount_of(folder: Path) -> Mount:
    """What `folder` lies on, by what Linux says."""
    try:
        return mount_above(str(folder.resolve()), mounts())
    except OSError:
        return Mount("", ())


def mounts() -> list[str]:
    """The lines of /proc/self/mounts. Raises OSError where there is none."""
    return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()


def mount_above(where: str, lines: Sequence[str]) -> Mount:
    """`lines` are lines as in /proc/self/mounts; the longest mount point above `where` decides."""
    best, found = "", Mount("", ())
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        point = _ESCAPED.sub(lambda m: chr(int(m[1], 8)), fields[1]).rstrip("/")
        if (where + "/").startswith(point + "/") and len(point) >= len(best):
            best, found = point, Mount(fields[2], fields[3].split(","))
    return found


def is_network(mount: Mount) -> bool:
    return mount.kind.startswith(_NETWORK)
