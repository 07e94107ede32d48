"""Survey: each entry of the log by itself. Owns whether one is sound without regard to its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from stemmata.errors import DamagedLog, HostileData, StorageFailed
from stemmata.ids import Digest
from stemmata.log.bundles import find_bundles
from stemmata.log.entries import Entry, Position, link_of, read_entry
from stemmata.log.reader import fetch, number_of
from stemmata.storage.base import Storage

MISSING = "it is missing"
MOST_MISSING = 1 << 20
"""Entries that are looked for at most, beyond those that are there."""
_NOTHING = Digest(bytes(Digest.SIZE))


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in an entry's place.

    `hash` is None where nothing sound is. `link` is the hash that it follows; None also of a void entry,
    which may say nothing of what comes before it.
    """

    fault: str = ""
    hash: Digest | None = None
    link: Digest | None = None


def judge(n: int, data: bytes) -> Found:
    """Judge bytes as entry `n`, whatever comes before it. Raises NewerFormat."""
    link = link_of(data)
    try:
        found = read_entry(n, data, Position(n - 1, link or _NOTHING, ""))
    except DamagedLog as error:
        return Found(str(error.data["reason"]))
    says = isinstance(found, Entry) or found.at is not None
    return Found(hash=Digest.of(data), link=link if says else None)


def unread(error: StorageFailed) -> str:
    """What is told of a key that is there and not handed out."""
    return f"it cannot be read: {error.data['reason']}"


def last_entry(storage: Storage) -> int:
    """The last entry that is there or, by a bundle's key, was."""
    numbers = [n for k in storage.list("log/") if (n := number_of(k.key))]
    last = max([0, *numbers, *(b.last for b in find_bundles(storage))])
    if last - len(numbers) > MOST_MISSING:
        reason = f"something is there of entry {last}, and {len(numbers)} entries are"
        raise HostileData(where=f"the log of {storage.where}", reason=reason)
    return last


def survey(storage: Storage, last: int) -> dict[int, Found]:
    """Entries 1 to `last`, each by itself. Raises NewerFormat: nothing is put right past one's knowledge."""
    found: dict[int, Found] = {}
    for n in range(1, last + 1):
        # Each is asked for: one that is written while keys are listed may not be among them.
        try:
            data = fetch(storage, n)
        except StorageFailed as error:
            found[n] = Found(unread(error))
            continue
        found[n] = judge(n, data) if data is not None else Found(MISSING)
    return found
