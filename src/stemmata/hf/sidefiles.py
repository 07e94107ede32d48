"""Side files: the JSON objects that lie beside weights and say what they are.

Owns how long one may be, and that a broken one is refused by its name; one that is not there is None.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stemmata.errors import FileNotInVersion, NotLoadable
from stemmata.version import Version

MOST = 64 << 20
"""Bytes of one that is read."""
_HINT = "look at it with checkout(); state_dict() gives the weights without it"


def object_in(version: Version, name: str, *, hint: str = _HINT) -> dict[str, Any] | None:
    """A JSON object among a version's files. Raises NotLoadable for any other content, and Damage."""
    try:
        size = version.file(name).size
    except FileNotInVersion:
        return None
    return _object(version, f"its {name}", size, lambda: version.read(name), hint)


def object_of(version: Version, source: Path | Version, name: str) -> dict[str, Any] | None:
    """As `object_in`, of `source`: a version, or a folder on this machine that `version` is loaded with."""
    if isinstance(source, Version):
        return object_in(source, name)
    path = source / name
    if not path.is_file():
        return None
    return _object(version, str(path), path.stat().st_size, path.read_bytes, _HINT)


def list_in(settings: dict[str, Any], key: str) -> list[Any]:
    """A list in such an object; empty where it is none."""
    found = settings.get(key)
    return found if isinstance(found, list) else []


def dict_in(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """An object in such an object; empty where it is none."""
    found = settings.get(key)
    return found if isinstance(found, dict) else {}


def _object(version: Version, what: str, size: int, read: Callable[[], bytes], hint: str) -> dict[str, Any]:
    if size > MOST:
        reason = f"{what} has {size} bytes, and of such a file {MOST} at most are read"
        raise NotLoadable(version=version.short, reason=reason, hint=hint)
    try:
        found = json.loads(read())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotLoadable(version=version.short, reason=f"{what} is no JSON object", hint=hint)
    return found
