"""Reading the log. Owns the walk along the chain; takes bundles only where the log itself confirms them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec
from blake3 import blake3

from stemmata.errors import DamagedBundle, DamagedLog, KeyMissing, StorageFailed
from stemmata.ids import Digest
from stemmata.log.bundles import BundleName, blocks_of, entries_in, find_bundles
from stemmata.log.entries import (
    MAX_ENTRY_BYTES,
    Entry,
    Position,
    Void,
    advance,
    follow,
    log_key,
    read_entry,
)
from stemmata.storage.base import Storage

Step: TypeAlias = tuple[Position, Entry | Void, bytes]
"""A position, what was found there, and its bytes."""

_FAR = 256


def fetch(storage: Storage, n: int) -> bytes | None:
    """The bytes of entry `n`, at most one more than allowed; None if it is absent."""
    try:
        return storage.get(log_key(n), 0, MAX_ENTRY_BYTES + 1)
    except KeyMissing:
        return None


def exists(storage: Storage, n: int) -> bool:
    try:
        storage.size(log_key(n))
    except KeyMissing:
        return False
    return True


def read_log(storage: Storage, after: Position) -> Iterator[Step]:
    """Entries after `after`, in order, each held against the one before.

    Raises DamagedLog, NewerFormat; what was yielded before stands.
    """
    here = after
    data = fetch(storage, here.n + 1)
    if data is not None and exists(storage, after.n + _FAR):
        for step in _from_bundles(storage, after):
            here = step[0]
            yield step
        data = fetch(storage, here.n + 1)
    while True:
        if data is None:
            if after.n == 0:
                # A reader without memory would take a hole for the end, and miss all that follows.
                require_no_hole(storage, here.n)
                data = fetch(storage, here.n + 1)
            if data is None:
                return
        found = read_entry(here.n + 1, data, here)
        here = advance(here, data, found)
        yield here, found, data
        data = fetch(storage, here.n + 1)


def require_no_hole(storage: Storage, end: int) -> None:
    """Raise DamagedLog if something shows that entry `end` + 1 was there: later entries or a bundle."""
    last = max((number_of(k.key) or 0 for k in storage.list("log/", after=log_key(end))), default=0)
    bundled = max((b.last for b in find_bundles(storage)), default=0)
    if max(last, bundled) > end and not exists(storage, end + 1):
        what = f"entry {last} is there" if last > end else f"a bundle goes up to {bundled}"
        raise DamagedLog(entry=end + 1, reason=f"it is missing, but {what}")


def require_whole(storage: Storage, end: int) -> None:
    """Raise DamagedLog unless entries 1 to `end` are all there, and none after a hole. Lists `log/`."""
    wanted = 1
    for key in storage.list("log/"):
        n = number_of(key.key)
        if n is None or n > end:
            continue
        if n != wanted or key.size == 0:
            found = f"it is missing, but entry {n} is there" if n != wanted else "it is empty"
            raise DamagedLog(entry=wanted, reason=found)
        wanted += 1
    if wanted <= end:
        raise DamagedLog(entry=wanted, reason=f"it is missing, but entry {end} was read before")
    require_no_hole(storage, end)


def number_of(key: str) -> int | None:
    """The number in an entry's key; None for a key that is none."""
    digits = key.removeprefix("log/").removesuffix(".json")
    if len(digits) != 20 or not (digits.isascii() and digits.isdigit()) or log_key(int(digits)) != key:
        return None
    return int(digits)


def _from_bundles(storage: Storage, after: Position) -> Iterator[Step]:
    here = after
    bundles = find_bundles(storage)
    while True:
        wanted = here.n + 1
        # The longest first: one read then brings the reader furthest.
        fitting = sorted((b for b in bundles if b.first <= wanted <= b.last), key=lambda b: -b.last)
        for name in fitting:
            parts = confirm(storage, name, here)
            if parts is not None:
                break
        else:
            return
        for step in _walk(storage, name, parts, here):
            here = step[0]
            yield step
        if here.n != name.last:
            return


class Part(msgspec.Struct, frozen=True):
    """A block of a bundle: the digest of its bytes as stored, and those of its entries."""

    stored: bytes
    entries: list[bytes]


def confirm(storage: Storage, name: BundleName, after: Position) -> list[Part] | None:
    """What a bundle holds, if its chain is whole from `after` to an entry that `log/` holds too.

    None: the bundle is not to be used.
    """
    parts: list[Part] = []
    n, before = name.first - 1, None
    try:
        for block in blocks_of(storage, name):
            part = Part(blake3(block[1]).digest(), [])
            parts.append(part)
            for data in entries_in(name, block):
                if n == after.n and before not in (None, after.hash.hex):
                    return None
                digest = follow(data, after.hash.hex if n == after.n else before)
                if digest is None:
                    return None
                n, before = n + 1, digest.hex()
                part.entries.append(digest)
        last = fetch(storage, name.last)
    except (DamagedBundle, KeyMissing, StorageFailed):
        return None
    if n != name.last or last is None or Digest.of(last).hex != before:
        return None
    return parts


def _walk(storage: Storage, name: BundleName, parts: list[Part], after: Position) -> Iterator[Step]:
    """The entries of a confirmed bundle that follow `after`; fewer if it changes or vanishes meanwhile."""
    here = after
    n = name.first - 1
    try:
        for part, block in zip(parts, blocks_of(storage, name), strict=False):
            n += len(part.entries)
            if n <= here.n:
                continue
            if blake3(block[1]).digest() != part.stored:
                return
            known = n - len(part.entries)
            for digest, data in zip(part.entries, entries_in(name, block), strict=True):
                known += 1
                if known <= here.n:
                    continue
                found = read_entry(known, data, here, sealed=True)
                here = advance(here, data, found, Digest(digest))
                yield here, found, data
    except (DamagedBundle, KeyMissing, StorageFailed):
        return
