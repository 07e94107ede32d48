"""Transactions: the commit protocol (FORMAT.md, section 3.2). Owns the only way into the log.

Packs are durable before this begins. The one put of an entry is the only commit point, and every answer
to it but success is settled by reading that entry, never by guessing.
"""

from __future__ import annotations

import enum
import getpass
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from stemmata import heads
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.checkpoints import EVERY
from stemmata.deferred import deferred
from stemmata.errors import (
    CommitContention,
    CommitUnknown,
    DamagedLog,
    DamagedRepository,
    KeyExists,
    OutcomeUnknown,
    Refused,
    StemmataError,
    StorageProblem,
)
from stemmata.ids import Digest, PackName, fresh_txn
from stemmata.log.bundles import write_due_bundles
from stemmata.log.entries import Entry, Position, advance, encode_entry, log_key, read_entry
from stemmata.log.identity import read_identity
from stemmata.log.ops import Op, PackAdd
from stemmata.log.reader import exists, fetch
from stemmata.records import timestamp
from stemmata.storage.base import Storage

if TYPE_CHECKING:
    from stemmata.catalog import checkpointing
else:
    checkpointing = deferred("stemmata.catalog.checkpointing")

ATTEMPTS, PATIENCE = 64, 300.0
"""How often a plan is made anew because another writer was faster, at least, and for how many seconds: of a
hundred that commit at once on a slow drive the last one wins after a minute or two."""
_PUTS = 4
_LONG = 16
_HINT = "look at what the repository holds now, then decide again"

Plan = Callable[[Catalog], Sequence[Op]]


class NewPack(Protocol):
    """What the log says of a pack: `packs.PackSummary`."""

    @property
    def name(self) -> PackName: ...
    @property
    def size(self) -> int: ...
    @property
    def digest(self) -> Digest: ...
    @property
    def bases(self) -> Sequence[PackName]: ...


class Committed(msgspec.Struct, frozen=True):
    """Where a transaction stands in the log. `txn` is None if there was nothing to commit."""

    position: Position
    txn: str | None


class _Outcome(enum.Enum):
    WON = enum.auto()
    LOST = enum.auto()
    ABSENT = enum.auto()


def commit(
    catalog: Catalog,
    storage: Storage,
    plan: Plan,
    *,
    by: str,
    new_packs: Sequence[NewPack] = (),
    now: Callable[[], datetime] | None = None,
) -> Committed:
    """Write one entry: `new_packs`, then what `plan` says when it sees the log's end.

    `plan` is called again whenever another writer was faster; what it raises ends the commit with nothing
    written. Without ops and packs nothing is committed.

    Raises RepositoryNotFound and DamagedRepository if it is not there any more, OlderCopy (restored from a
    backup), Refused (a precondition fails), CommitContention, CommitUnknown, DamagedLog, NewerFormat and the
    storage's errors; after all of these but CommitUnknown nothing was written.
    """
    txn = fresh_txn()
    clock = now or _utc_now
    added = [
        PackAdd(pack=p.name.hex, size=p.size, digest=p.digest.hex, bases=[base.hex for base in p.bases])
        for p in new_packs
    ]
    begun = time.monotonic()
    for attempt in itertools.count():
        if attempt >= ATTEMPTS and time.monotonic() - begun > PATIENCE:
            raise CommitContention(attempts=attempt)
        here = catalog.refresh()
        _require_same(catalog, storage)
        heads.require_newest(storage, catalog.identity, here)
        ops: list[Op] = [*added, *plan(catalog)]
        if not ops:
            return Committed(here, None)
        data = _encode(here, ops, txn, timestamp(clock()), by)
        position = _foresee(catalog, here, data)
        if not _is_hole(catalog, storage, here) and _put(storage, position.n, data, txn):
            _follow_up(catalog, storage, position)
            return Committed(position, txn)
        # Who has lost for long does not wait longer than who has just come.
        _pause(attempt if attempt < _LONG else 0)
    raise AssertionError("it ends in one of these")


def _require_same(catalog: Catalog, storage: Storage) -> None:
    """A log that is not there is not told from one that begins: a drive may have gone, or another repository
    come in its place, since this one was opened. Raises RepositoryNotFound, DamagedRepository."""
    if read_identity(storage) != catalog.identity:
        reason = "another repository has come in its place since it was opened"
        raise DamagedRepository(where=storage.where, reason=reason)


def default_author() -> str:
    """`<user>@<host>`, as far as this machine knows them; what is no UTF-8 in it as question marks."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "unknown"  # a container's user may have no name
    return f"{user}@{platform.node() or 'unknown'}".encode("utf-8", "replace").decode("utf-8")


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _encode(here: Position, ops: Sequence[Op], txn: str, at: str, by: str) -> bytes:
    try:
        return encode_entry(here, ops, txn=txn, at=at, by=by)
    except UnicodeError:
        raise Refused(reason="it holds text that is no UTF-8", hint="write it in UTF-8") from None
    except (ValueError, TypeError) as error:
        raise Refused(reason=str(error), hint="divide it into several") from None


def _foresee(catalog: Catalog, here: Position, data: bytes) -> Position:
    """Read the entry as every reader will, before it is written. Raises Refused if it would be void."""
    found = read_entry(here.n + 1, data, here)
    position = advance(here, data, found)
    reason = catalog.preview(here, position, found) if isinstance(found, Entry) else found.reason
    if reason is not None:
        raise Refused(reason=reason, hint=_HINT)
    return position


def _is_hole(catalog: Catalog, storage: Storage, here: Position) -> bool:
    """Is the entry after the next one there already? True: others were faster.

    Raises DamagedLog if the next one is missing: what is written into a hole forks the log.
    """
    if not exists(storage, here.n + 2):
        return False
    if catalog.refresh().n == here.n:
        raise DamagedLog(entry=here.n + 1, reason=f"it is missing, but entry {here.n + 2} is there")
    return True


def _put(storage: Storage, n: int, data: bytes, txn: str) -> bool:
    """Put entry `n`; True: won, False: another's entry is there."""
    for attempt in range(_PUTS):
        certain: StorageProblem | None = None
        try:
            storage.put_new(log_key(n), data)
            return True
        except StorageProblem as error:
            # Also one that says "not written": the reply to an earlier attempt may be the one that counts.
            certain = None if isinstance(error, OutcomeUnknown) else error
        outcome = _settle(storage, n, data, txn)
        if outcome is not _Outcome.ABSENT:
            return outcome is _Outcome.WON
        if certain is not None and attempt == 0 and not isinstance(certain, KeyExists):
            raise certain
        _pause(attempt)
    raise CommitUnknown(txn=txn, entry=n)


def _settle(storage: Storage, n: int, data: bytes, txn: str) -> _Outcome:
    """What is entry `n`? Raises CommitUnknown if the storage does not say."""
    for attempt in range(_PUTS):
        try:
            found = fetch(storage, n)
            if found == data:
                # What is read may come out of memory: nobody has said that it stays (I1).
                storage.make_durable(log_key(n))
        except StorageProblem:
            _pause(attempt)
            continue
        if found is None:
            return _Outcome.ABSENT
        return _Outcome.WON if found == data else _Outcome.LOST
    raise CommitUnknown(txn=txn, entry=n)


def _follow_up(catalog: Catalog, storage: Storage, position: Position) -> None:
    """After the commit point: nothing here can take the commit back."""
    heads.remember(storage, catalog.identity, position)
    for attempt in range(_PUTS):
        try:
            catalog.refresh()
            break
        except StemmataError:
            _pause(_LONG + attempt)
    else:
        return  # the next reader meets the same trouble, and may report it: this entry is written
    reason = catalog.void_reason(position.n)
    if reason is not None:
        raise Refused(reason=reason, hint=_HINT)
    write_due_bundles(storage, position.n)
    if position.n % EVERY == 0:
        checkpointing.write_due(storage, catalog.identity, position.n)


def _pause(attempt: int) -> None:
    """Wait a little, at random: writers that collided should not collide again."""
    import random  # no other command needs it, and it hashes

    time.sleep(random.uniform(0.0, min(0.25, 0.002 * 2 ** min(attempt, 10))))  # noqa: S311  # no secret
