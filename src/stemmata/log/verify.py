"""Verifying the log: every entry and every bundle, read directly. Owns what `check` says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stemmata.errors import DamagedBundle, DamagedLog, KeyMissing, NewerFormat
from stemmata.ids import Digest
from stemmata.log.bundles import LEVELS, BundleName, entries_of
from stemmata.log.entries import advance, log_key, read_entry
from stemmata.log.identity import Identity
from stemmata.log.reader import fetch, number_of, require_no_hole
from stemmata.storage.base import Storage


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written. `where` is a key."""

    where: str
    reason: str


def verify_log(storage: Storage, identity: Identity) -> Iterator[Problem]:
    """Read `log/` and `bundles/` whole, without bundles' help, and report what is wrong there.

    A damaged entry ends the walk along the chain; entries past it cannot be judged.
    """
    hashes: list[Digest] = []
    here = identity.genesis
    broken = False
    while not broken and (data := fetch(storage, here.n + 1)) is not None:
        try:
            here = advance(here, data, read_entry(here.n + 1, data, here))
        except (DamagedLog, NewerFormat) as error:
            yield Problem(log_key(here.n + 1), str(error.data["reason"]))
            broken = True
        else:
            hashes.append(here.hash)
    for key in storage.list("log/"):
        if number_of(key.key) is None:
            yield Problem(key.key, "it is no entry of the log")
    if not broken:
        # What other writers have added since the walk ended is sound until it is read.
        try:
            require_no_hole(storage, here.n)
        except DamagedLog as error:
            yield Problem(log_key(here.n + 1), str(error.data["reason"]))
    yield from verify_bundles(storage, hashes)


def verify_bundles(storage: Storage, hashes: list[Digest]) -> Iterator[Problem]:
    """Hold every bundle against the hashes of entries 1, 2, …"""
    for level in LEVELS:
        for key in storage.list(f"bundles/{level}/"):
            name = BundleName.parse(key.key)
            reason = "it is no bundle's key" if name is None else wrong_bundle(storage, name, hashes)
            if reason is not None:
                yield Problem(key.key, reason)


def wrong_bundle(storage: Storage, name: BundleName, hashes: list[Digest]) -> str | None:
    """What is wrong with a bundle, held against the hashes of entries 1, 2, …; None if it is sound."""
    try:
        for offset, data in enumerate(entries_of(storage, name)):
            n = name.first + offset
            if n > len(hashes):
                # Entries that the walk could not reach: whether they fit is not known.
                continue
            if Digest.of(data) != hashes[n - 1]:
                return f"its entry {n} is not the log's"
    except DamagedBundle as error:
        return str(error.data["reason"])
    except KeyMissing:
        return None  # deleted since it was listed
    return None
