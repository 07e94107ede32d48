"""Reading: a repository whose log is damaged, as it will read once that is put right. Owns what stands in for
the damaged keys meanwhile; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stemmata.storage.base import Storage, StoredKey
from stemmata.storage.readonly import ReadOnlyStorage


class MendedStorage(ReadOnlyStorage):
    """Another storage, but for the bytes of some keys."""

    def __init__(self, inner: Storage, kept: Mapping[str, bytes]) -> None:
        super().__init__(inner, "its log is damaged")
        self._kept = kept

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        kept = self._kept.get(key)
        if kept is None:
            return super().get(key, start, length)
        return kept[start : None if length is None else start + length]

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        kept = self._kept.get(key)
        if kept is None:
            return super().get_into(key, start, into)
        part = kept[start : start + len(into)]
        into[: len(part)] = part
        return len(part)

    def size(self, key: str) -> int:
        kept = self._kept.get(key)
        return super().size(key) if kept is None else len(kept)

    def list(self, prefix: str, after: str = "") -> Iterator[StoredKey]:
        there = {key.key: key for key in super().list(prefix, after)}
        for key, data in self._kept.items():
            if key.startswith(prefix) and key > after:
                there[key] = StoredKey(key, len(data), there[key].modified if key in there else 0.0)
        return iter([there[key] for key in sorted(there)])
