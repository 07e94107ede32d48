"""Applying: proven bytes put where they belong. Owns the order, and that nothing is lost in between.

What lay there before is put aside first, under `damaged/`, so that no step of this destroys anything; then
the key is replaced at once, and read back. A missing key is put if absent, as every other. From the last
entry to the first: until a hole is filled from behind, no writer takes the log to end before it. Where
several are missing in a row, the second of them comes first of all: that one alone does a writer ask for
whose catalog goes up to the hole.
"""

from __future__ import annotations

from stemmata.errors import KeyExists, KeyMissing, OutcomeUnknown, StorageFailed
from stemmata.ids import Digest
from stemmata.log.entries import MAX_ENTRY_BYTES
from stemmata.log.survey import MISSING
from stemmata.recovering.origins import Itself, key_of
from stemmata.recovering.planning import Plan, bytes_of
from stemmata.storage.base import Storage

ASIDE = "damaged/"


def aside_key(key: str, data: bytes) -> str:
    """Where damaged bytes of a key are put aside."""
    return f"{ASIDE}{key}-{Digest.of(data).hex[:16]}"


def apply_plan(storage: Storage, plan: Plan, itself: Itself) -> None:
    """Write what the plan says. Raises StorageFailed if something was not as planned: run it again."""
    for n in _in_order(plan):
        right = plan.right[n]
        data = bytes_of(right.origin, n, right, itself)
        if data is None:
            reason = f"{right.origin.name} no longer has the bytes of {key_of(n)}"
            raise StorageFailed(where=storage.where, reason=reason)
        put_right(storage, key_of(n), data)


def _in_order(plan: Plan) -> list[int]:
    missing = {n for n, found in plan.found.items() if n and found.fault == MISSING}
    second = {n + 1 for n in missing if n - 1 not in missing} & missing & plan.right.keys()
    return sorted(second, reverse=True) + sorted(plan.right.keys() - second, reverse=True)


def put_right(storage: Storage, key: str, data: bytes) -> None:
    """Make `data` the bytes of `key`, whatever is there."""
    there = _there(storage, key)
    if there is not None:
        _put_aside(storage, key, there)
    try:
        if there is None:
            storage.put_new(key, data)
        else:
            storage.replace(key, data)
        told = True
    except (OutcomeUnknown, KeyExists):
        told = False  # reading it back decides
    if storage.get(key) != data:
        raise StorageFailed(where=storage.where, reason=f"{key} was changed by another, or not written")
    if not told:
        storage.make_durable(key)


def _there(storage: Storage, key: str) -> bytes | None:
    """What lies there; empty where it cannot be read; None if nothing does."""
    try:
        return storage.get(key, 0, MAX_ENTRY_BYTES + 1)
    except KeyMissing:
        return None
    except StorageFailed:
        return b""


def _put_aside(storage: Storage, key: str, data: bytes) -> None:
    if not data:
        return
    aside = aside_key(key, data)
    try:
        storage.put_new(aside, data)
    except (OutcomeUnknown, KeyExists):
        if storage.get(aside) != data:
            raise
        storage.make_durable(aside)
