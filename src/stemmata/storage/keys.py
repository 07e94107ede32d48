"""Keys: what a key may be, for every storage alike. Refuses whatever could leave the repository."""

from __future__ import annotations

import re

# Lower case alone: two keys must not meet on a file system that ignores case.
_PART = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?!\.))*", re.ASCII)
_PRIVATE = frozenset({"tmp", "cache"})
_MAX_BYTES = 512


def check_key(key: str) -> str:
    """Return `key` if it may be stored. Keys come from code, never from people: ValueError."""
    if not is_key(key):
        raise ValueError(f"{key!r} is no key")
    return key


def is_key(key: str) -> bool:
    """Parts of lower-case letters, digits, '.', '_', '-' between single slashes; not `tmp/`, `cache/`."""
    if len(key) > _MAX_BYTES:
        return False
    parts = key.split("/")
    return parts[0] not in _PRIVATE and all(_PART.fullmatch(part) for part in parts)


def check_prefix(prefix: str) -> str:
    """Return `prefix` if keys may be listed by it: empty, or a key and '/'."""
    if prefix and not (prefix.endswith("/") and is_key(prefix[:-1])):
        raise ValueError(f"{prefix!r} is no prefix of keys")
    return prefix


def check_range(start: int, length: int | None) -> None:
    """Refuse a negative range of bytes."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError(f"no bytes lie at {start}, {length}")
