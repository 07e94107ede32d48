"""Packages: every installed distribution with its version, and where it came from if not from an index.

Read as `importlib.metadata` finds them, which itself is asked only where something else than folders holds
them: it brings the parser of mails along, and takes longer to import than all of them to read.
"""

# ruff: noqa: PTH113, PTH118, PTH208 - a `Path` of each of hundreds of files takes longer than reading it

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import PathFinder
from typing import Protocol

from stemmata.capture import mask

_UNREADABLE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)

_BLOCK = 16 << 10

Found = dict[str, str | dict[str, object]]


class _Distribution(Protocol):
    def read_text(self, filename: str) -> str | None: ...


class _Folder:
    """An installed distribution: the folder that tells of it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read_text(self, filename: str) -> str | None:
        """All of a file; of one with a head and a text, which may be a whole manual, what comes first."""
        found = b""
        try:
            with open(os.path.join(self._path, filename), "rb", buffering=0) as file:
                while b"\n\n" not in found and (more := file.read(_BLOCK)):
                    found += more
        except _UNREADABLE:
            return None
        return found.decode("utf-8", "replace").replace("\r\n", "\n")


def collect() -> Found:
    """Name -> version, or {version, url, …} of one that has a direct URL (PEP 610); by name. They are read
    again once one was installed or removed: a notebook's `%pip install` is no new process."""
    return dict(_collect(tuple(_folders()), tuple(sys.path), _in_folders_alone()))


@lru_cache(maxsize=1)
def _collect(folders: tuple[str, ...], _path: tuple[str, ...], alone: bool) -> Found:
    """Of these folders, if they are all there is, else of what the finders know of on the path."""
    found: Found = {}
    for distribution in _distributions(folders if alone else None):
        # Not through `metadata`, which parses all of it as a mail: a quarter of a second for 200 packages.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        head = text.partition("\n\n")[0]
        name = _field(head, "Name")
        if not name or name in found:
            continue  # the first on the path is the one that imports
        version = mask(_field(head, "Version"))
        origin = _origin(distribution)
        found[name] = {"version": version, **origin} if origin else version
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _field(head: str, name: str) -> str:
    """The first word after that name at the begin of a line."""
    # By `str.find`: an expression that looks at each line takes longer than reading the files.
    after = f"\n{head}".partition(f"\n{name}:")[2]
    return next(iter(after.partition("\n")[0].split()), "")


def _distributions(folders: tuple[str, ...] | None) -> Iterator[_Distribution]:
    """All of them, in the order of the path."""
    if folders is not None:
        yield from map(_Folder, folders)
        return
    from importlib.metadata import distributions

    yield from distributions()


def _in_folders_alone() -> bool:
    """Whether nothing on the path is an archive, and no finder but Python's own knows of distributions."""
    others = [f for f in sys.meta_path if f is not PathFinder and hasattr(f, "find_distributions")]
    return not others and not any(os.path.isfile(entry) or entry.endswith(".egg") for entry in sys.path)


def _folders() -> Iterator[str]:
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        for name in names:
            if name.lower().endswith((".dist-info", ".egg-info")):
                yield os.path.join(entry, name)


def _origin(distribution: _Distribution) -> dict[str, object]:
    text = distribution.read_text("direct_url.json")
    if not text:
        return {}
    try:
        said = json.loads(text)
        found: dict[str, object] = {"url": mask(str(said["url"]))}
        version_control = said.get("vcs_info") or {}
        if version_control.get("commit_id"):
            found["commit"] = str(version_control["commit_id"])
            found["vcs"] = str(version_control.get("vcs", "git"))
        archive = said.get("archive_info") or {}
        hashes = archive.get("hashes") or {}
        if hashes.get("sha256") or archive.get("hash"):
            found["hash"] = f"sha256={hashes['sha256']}" if hashes.get("sha256") else str(archive["hash"])
        if (said.get("dir_info") or {}).get("editable"):
            found["editable"] = True
        if said.get("subdirectory"):
            found["subdirectory"] = str(said["subdirectory"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # not as PEP 610 has it
    return found
