"""Identity: which repository this is. Owns `stemmata.json`, the beginning of the chain."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from stemmata.errors import (
    DamagedRepository,
    KeyExists,
    KeyMissing,
    NewerFormat,
    RepositoryNotFound,
    StorageProblem,
)
from stemmata.ids import Digest, random_hex
from stemmata.log.entries import Position, is_hex, is_time, seal, unseal
from stemmata.log.ops import FORMAT
from stemmata.records import timestamp
from stemmata.storage.base import Storage

KEY = "stemmata.json"
MAX_BYTES = 64 << 10
_MAGIC = "stemmata"
_ATTEMPTS = 3


class Identity(msgspec.Struct, frozen=True):
    """A repository's id (32 hex), its format at creation, when that was, and the chain's beginning."""

    repository: str
    format: int
    created: str
    genesis: Position


class _Body(msgspec.Struct, frozen=True):
    magic: str
    format: int
    repository: str
    created: str


def create_identity(storage: Storage, *, now: datetime | None = None) -> bool:
    """Make the repository; False if one is there already. Raises the storage's own errors.

    Whether the one that is there is sound shows when it is read.
    """
    body = _Body(_MAGIC, FORMAT, random_hex(16), timestamp(now or datetime.now(UTC)))
    data = _encode(body)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            storage.put_new(KEY, data)
            return True
        except KeyExists:
            # Also the answer to our own bytes, when the reply to an earlier attempt was lost.
            return _is_there(storage, data)
        except StorageProblem:
            try:
                return _is_there(storage, data)
            except KeyMissing:
                pass
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _is_there(storage: Storage, data: bytes) -> bool:
    """Do these bytes lie there, durably? Raises KeyMissing, and as storages do."""
    if storage.get(KEY, 0, MAX_BYTES + 1) != data:
        return False
    storage.make_durable(KEY)
    return True


def encode_identity(repository: str, format: int, created: str) -> bytes:
    """The bytes of `stemmata.json`, as this release writes them."""
    return _encode(_Body(_MAGIC, format, repository, created))


def _encode(body: _Body) -> bytes:
    return seal(msgspec.json.encode(body))


def read_identity(storage: Storage) -> Identity:
    """Raises RepositoryNotFound, DamagedRepository, NewerFormat."""

    def refuse(reason: str) -> DamagedRepository:
        return DamagedRepository(where=storage.where, reason=reason)

    try:
        data = storage.get(KEY, 0, MAX_BYTES + 1)
    except KeyMissing:
        if any(True for prefix in ("log/", "bundles/", "packs/") for _ in storage.list(prefix)):
            raise refuse(f"{KEY} is missing, but the rest of a repository is there") from None
        raise RepositoryNotFound(where=storage.where) from None
    if len(data) > MAX_BYTES:
        raise refuse(f"{KEY} is longer than 64 KiB")
    try:
        text = unseal(data)
    except ValueError as error:
        raise refuse(f"{KEY}: {error}") from None
    try:
        body = msgspec.json.decode(text, type=_Body)
    except (ValueError, RecursionError) as error:
        raise refuse(f"{KEY}: {error}") from None
    if body.magic != _MAGIC:
        raise refuse(f"{KEY} belongs to something else")
    if body.format > FORMAT:
        raise NewerFormat(where=storage.where, reason=f"format {body.format}, this release reads {FORMAT}")
    if body.format < 1 or not is_hex(body.repository, 32) or not is_time(body.created):
        raise refuse(f"{KEY} has a field of the wrong form")
    return Identity(body.repository, body.format, body.created, Position(0, Digest.of(data), ""))
