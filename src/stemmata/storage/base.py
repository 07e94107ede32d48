"""The storage interface: a few verbs over keys. Owns the promise of put-if-absent.

Keys are the paths of FORMAT.md, section 1. Everything above speaks to a repository through
this interface alone, so that a folder, a bucket and memory behave alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

Buffer: TypeAlias = bytes | bytearray | memoryview


class StoredKey(msgspec.Struct, frozen=True):
    """One stored key. `modified` is the store's own clock, seconds since 1970."""

    key: str
    size: int
    modified: float


class NewObject(Protocol):
    """A key being written. Nothing is visible until `commit`; a crash before it leaves no key."""

    def write(self, data: Buffer) -> None:
        """Append. `data` is the caller's again when this returns."""

    def commit(self) -> None:
        """Make it durable and visible, all at once.

        Raises KeyExists (lost), OutcomeUnknown (settle by reading), StorageFull, StorageFailed,
        StorageReadOnly (not written).
        """

    def abort(self) -> None:
        """Drop what was written; safe to call twice or after `commit`."""


class Storage(Protocol):
    """A place for one repository. Safe to use from many threads."""

    where: str
    """For messages: a folder's path or a bucket's address, without credentials."""

    cache_folder: Path | None
    """Where caches of this repository may live, or None: then the user's cache folder serves."""

    @property
    def reads_pieces(self) -> bool:
        """Whether many short reads cost hardly more than a long one: with files at hand, not by a network."""

    def put_new(self, key: str, data: Buffer) -> None:
        """Write a whole key if it is absent. Raises as `NewObject.commit`."""

    def start_new(self, key: str) -> NewObject: ...

    def replace(self, key: str, data: Buffer) -> None:
        """Lay other bytes under a key, there or not, all at once: a reader sees the old ones or these.

        For damage that is put right and nothing else (I2); no commit comes this way. Raises OutcomeUnknown,
        StorageFull, StorageFailed, StorageReadOnly.
        """

    def make_durable(self, key: str) -> None:
        """Wait until a key is durable that this process wrote, though it was not told so.

        Reading back says that it is there, not that it stays. Raises StorageFailed and the other errors of a
        write if that cannot be told, KeyMissing.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes from `start`; fewer than `length` only where the key ends. Raises KeyMissing."""

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        """As `get`, into memory that is given; how many bytes there were."""

    def size(self, key: str) -> int:
        """Bytes stored under `key`. Raises KeyMissing."""

    def list(self, prefix: str, after: str = "") -> Iterator[StoredKey]:
        """All keys that begin with `prefix` (which ends in '/' or is empty), sorted: those beyond `after`."""

    def delete(self, key: str) -> None:
        """Remove a key; an absent one is fine."""

    def require_writable(self) -> None:
        """Raise StorageReadOnly or PutIfAbsentUnsupported if no commit can succeed here."""
