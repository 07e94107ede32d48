"""Layered: a repository that goes on from another one, which stays as it is. Owns which of them has a key.

What is there is read from below, what is new goes above. Nothing is written below, nothing is deleted there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path

from stemmata.errors import KeyExists, KeyMissing
from stemmata.storage.base import Buffer, NewObject, Storage, StoredKey


class LayeredStorage:
    """`above` over `below`. Keys of `below` for which `hidden` holds are not there."""

    def __init__(self, above: Storage, below: Storage, hidden: Callable[[str], bool]) -> None:
        self._above, self._below, self._hidden = above, below, hidden
        self.where = above.where
        self.cache_folder: Path | None = above.cache_folder

    @property
    def reads_pieces(self) -> bool:
        return self._above.reads_pieces and self._below.reads_pieces

    def put_new(self, key: str, data: Buffer) -> None:
        self._require_free(key)
        self._above.put_new(key, data)

    def start_new(self, key: str) -> NewObject:
        self._require_free(key)
        return self._above.start_new(key)

    def replace(self, key: str, data: Buffer) -> None:
        self._above.replace(key, data)

    def make_durable(self, key: str) -> None:
        self._above.make_durable(key)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            return self._above.get(key, start, length)
        except KeyMissing:
            return self._lower(key).get(key, start, length)

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        try:
            return self._above.get_into(key, start, into)
        except KeyMissing:
            return self._lower(key).get_into(key, start, into)

    def size(self, key: str) -> int:
        try:
            return self._above.size(key)
        except KeyMissing:
            return self._lower(key).size(key)

    def list(self, prefix: str, after: str = "") -> Iterator[StoredKey]:
        below = (k for k in self._below.list(prefix, after) if not self._hidden(k.key))
        last = None
        # The one above comes first where both have a key: merging keeps the order of its arguments.
        for found in heapq.merge(self._above.list(prefix, after), below, key=lambda k: k.key):
            if found.key != last:
                last = found.key
                yield found

    def delete(self, key: str) -> None:
        self._above.delete(key)

    def require_writable(self) -> None:
        self._above.require_writable()

    def _lower(self, key: str) -> Storage:
        if self._hidden(key):
            raise KeyMissing(key=key)
        return self._below

    def _require_free(self, key: str) -> None:
        if self._hidden(key):
            return
        try:
            self._below.size(key)
        except KeyMissing:
            return
        raise KeyExists(key=key)
