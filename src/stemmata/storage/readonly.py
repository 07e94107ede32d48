"""Read-only: a storage that is only read. Owns the refusal of every write, with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from stemmata.errors import StorageReadOnly
from stemmata.storage.base import Buffer, NewObject, Storage, StoredKey


class ReadOnlyStorage:
    """Another storage, of which nothing changes."""

    def __init__(self, inner: Storage, reason: str) -> None:
        self._inner, self._reason = inner, reason
        self.where = inner.where
        self.cache_folder: Path | None = inner.cache_folder

    @property
    def reads_pieces(self) -> bool:
        return self._inner.reads_pieces

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._inner.get(key, start, length)

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        return self._inner.get_into(key, start, into)

    def size(self, key: str) -> int:
        return self._inner.size(key)

    def list(self, prefix: str, after: str = "") -> Iterator[StoredKey]:
        return self._inner.list(prefix, after)

    def put_new(self, key: str, data: Buffer) -> None:  # noqa: ARG002 - the interface's
        self._refuse()

    def replace(self, key: str, data: Buffer) -> None:  # noqa: ARG002 - the interface's
        self._refuse()

    def start_new(self, key: str) -> NewObject:  # noqa: ARG002 - the interface's
        self._refuse()

    def delete(self, key: str) -> None:  # noqa: ARG002 - the interface's
        self._refuse()

    def make_durable(self, key: str) -> None:  # noqa: ARG002 - the interface's
        self._refuse()

    def require_writable(self) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StorageReadOnly(where=self.where, reason=self._reason)
