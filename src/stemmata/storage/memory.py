"""Memory: a repository that ends with its process. For tests and for trying things out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from stemmata.errors import KeyExists, KeyMissing
from stemmata.storage.base import Buffer, NewObject, StoredKey
from stemmata.storage.forks import held_at_forks
from stemmata.storage.keys import check_key, check_prefix, check_range


class MemoryStorage:
    """A dictionary behind a lock. Meets the same contract as every other storage."""

    def __init__(self, where: str = "memory") -> None:
        self.where = where
        self.cache_folder: Path | None = None
        self.reads_pieces = True
        self._lock = held_at_forks(threading.Lock())
        self._kept: dict[str, tuple[bytes, float]] = {}

    def put_new(self, key: str, data: Buffer) -> None:
        check_key(key)
        copy = bytes(data)
        with self._lock:
            if key in self._kept:
                raise KeyExists(key=key)
            self._kept[key] = (copy, time.time())

    def replace(self, key: str, data: Buffer) -> None:
        check_key(key)
        copy = bytes(data)
        with self._lock:
            self._kept[key] = (copy, time.time())

    def start_new(self, key: str) -> NewObject:
        return _MemoryObject(self, check_key(key))

    def make_durable(self, key: str) -> None:
        self._find(key)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        data = self._find(key)[0]
        return data[start:] if length is None else data[start : start + length]

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        data = self.get(key, start, len(into))
        into[: len(data)] = data
        return len(data)

    def size(self, key: str) -> int:
        return len(self._find(key)[0])

    def list(self, prefix: str, after: str = "") -> Iterator[StoredKey]:
        check_prefix(prefix)
        with self._lock:
            kept = self._kept.items()
            rows = [(k, len(v[0]), v[1]) for k, v in kept if k > after and k.startswith(prefix)]
        return (StoredKey(key, size, modified) for key, size, modified in sorted(rows))

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._kept.pop(key, None)

    def require_writable(self) -> None:
        """Memory can always be written."""

    def _find(self, key: str) -> tuple[bytes, float]:
        check_key(key)
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            raise KeyMissing(key=key)
        return found


class _MemoryObject:
    """Bytes gathered until `commit`."""

    def __init__(self, storage: MemoryStorage, key: str) -> None:
        self._storage = storage
        self._key = key
        self._data: bytearray | None = bytearray()

    def write(self, data: Buffer) -> None:
        if self._data is None:
            raise ValueError(f"{self._key} is no longer being written")
        self._data += data

    def commit(self) -> None:
        if self._data is None:
            raise ValueError(f"{self._key} is no longer being written")
        data, self._data = self._data, None
        self._storage.put_new(self._key, data)

    def abort(self) -> None:
        self._data = None
