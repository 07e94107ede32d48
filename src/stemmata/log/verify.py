"""Verifying the log: every entry and every bundle, read directly. Owns what `check` says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stemmata.errors import DamagedBundle, DamagedLog, HostileData, KeyMissing, NewerFormat, StorageFailed
from stemmata.ids import Digest
from stemmata.log.bundles import LEVELS, BundleName, entries_of
from stemmata.log.entries import Position, advance, log_key, read_entry
from stemmata.log.identity import Identity
from stemmata.log.reader import exists, fetch, number_of
from stemmata.log.survey import judge, last_entry, unread
from stemmata.storage.base import Storage


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written. `where` is a key."""

    where: str
    reason: str


def verify_log(storage: Storage, identity: Identity) -> Iterator[Problem]:
    """Read `log/` and `bundles/` whole, without bundles' help, and report all that is wrong there.

    What follows a damaged or missing entry is judged by itself: by its seal, and by whether it follows the
    one before it once that is sound again.
    """
    hashes: dict[int, Digest] = {}
    here: Position | None = identity.genesis
    try:
        last = last_entry(storage)
    except HostileData as error:
        yield Problem("log/", str(error.data["reason"]))
        last = 0
    n = 1
    # What other writers have added since is taken in as far as it goes on without a gap.
    while n <= last or exists(storage, n):
        try:
            here = _position(n, fetch(storage, n), here, last)
        except NewerFormat as error:
            yield Problem(log_key(n), str(error.data["reason"]))
            break
        except DamagedLog as error:
            yield Problem(log_key(n), str(error.data["reason"]))
            here = None
        except StorageFailed as error:
            yield Problem(log_key(n), unread(error))
            here = None
        else:
            hashes[n] = here.hash
        n += 1
    for key in storage.list("log/"):
        if number_of(key.key) is None:
            yield Problem(key.key, "it is no entry of the log")
    yield from verify_bundles(storage, hashes)


def _position(n: int, data: bytes | None, before: Position | None, last: int) -> Position:
    """That of entry `n`; `before`: of the one before it, None if that is not sound. Raises DamagedLog,
    NewerFormat."""
    if data is None:
        raise DamagedLog(entry=n, reason=f"it is missing, but there is something of entry {last}")
    if before is not None:
        return advance(before, data, read_entry(n, data, before))
    found = judge(n, data)
    if found.hash is None:
        raise DamagedLog(entry=n, reason=found.fault)
    return Position(n, found.hash, "")


def verify_bundles(storage: Storage, hashes: Mapping[int, Digest]) -> Iterator[Problem]:
    """Hold every bundle against the hashes of the entries that are sound."""
    for level in LEVELS:
        for key in storage.list(f"bundles/{level}/"):
            name = BundleName.parse(key.key)
            reason = "it is no bundle's key" if name is None else wrong_bundle(storage, name, hashes)
            if reason is not None:
                yield Problem(key.key, reason)


def wrong_bundle(storage: Storage, name: BundleName, hashes: Mapping[int, Digest]) -> str | None:
    """What is wrong with a bundle, held against the hashes of the entries that are sound; None if nothing."""
    try:
        for offset, data in enumerate(entries_of(storage, name)):
            n = name.first + offset
            # Of an entry that is lost it is not known whether this is it.
            if n in hashes and Digest.of(data) != hashes[n]:
                return f"its entry {n} is not the log's"
    except DamagedBundle as error:
        return str(error.data["reason"])
    except StorageFailed as error:
        return unread(error)
    except KeyMissing:
        return None  # deleted since it was listed
    return None
