"""Faults: a storage that fails at a chosen write, and ways to damage what is stored.

    run = FaultyStorage(MemoryStorage())            # counts
    save(run)
    for at, fault in every_fault(run.writes):       # fails once, at each write, in each way
        inner = MemoryStorage()
        ...  save(FaultyStorage(inner, at, fault))  # raises; then hold `inner` against the invariants

A write is one call of `put_new`, `replace`, `start_new`, `NewObject.write`, `NewObject.commit` or `delete`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path

from stemmata.errors import KeyMissing, OutcomeUnknown, StemmataError, StorageFailed, StorageFull
from stemmata.storage.base import Buffer, NewObject, Storage, StoredKey
from stemmata.storage.memory import MemoryStorage


class Crash(BaseException):
    """The process is dead: no handler of the code under test may run on. Never an Exception."""


class Fault(Enum):
    """What happens at the chosen write."""

    BEFORE = "fails before anything is written"
    AFTER = "is written, yet an error is raised"
    TORN = "fails after a part was written"
    REPLY_LOST = "is written, the answer is lost"
    UNKNOWN = "is not written, the answer is lost"
    ENOSPC = "the disk is full"
    EIO = "the disk fails"
    CRASH_BEFORE = "the process dies before it"
    CRASH_TORN = "the process dies in the middle of it"
    CRASH_AFTER = "the process dies right after it"

    @property
    def is_crash(self) -> bool:
        return self in (Fault.CRASH_BEFORE, Fault.CRASH_TORN, Fault.CRASH_AFTER)

    @property
    def writes(self) -> bool:
        """Whether the write took effect all the same."""
        return self in (Fault.AFTER, Fault.REPLY_LOST, Fault.CRASH_AFTER)


ERRORS = tuple(f for f in Fault if not f.is_crash)
CRASHES = tuple(f for f in Fault if f.is_crash)


class FaultyStorage:
    """Any storage, counting writes and failing at write `at` (from 0) as `fault` says.

    `lasting`: every later write fails in the same way (a disk stays full). After a crash every
    call raises Crash. `log` names the writes seen: `put_new log/1.json`.
    """

    def __init__(
        self, inner: Storage, at: int | None = None, fault: Fault | None = None, *, lasting: bool = False
    ) -> None:
        self.inner = inner
        self.where = inner.where
        self.cache_folder: Path | None = inner.cache_folder
        self.reads_pieces = inner.reads_pieces
        self.at, self.fault, self.lasting = at, fault, lasting
        self.log: list[str] = []
        self.dead = False
        self.fired = 0
        """How often the fault struck."""
        self.unread: set[str] = set()
        """Keys that are listed, and whose bytes the disk does not hand out."""
        self.before_write: Callable[[str], None] | None = None
        """Called with the name of each write before it happens: a place to let others act."""
        self._lock = threading.Lock()

    @property
    def writes(self) -> int:
        return len(self.log)

    def put_new(self, key: str, data: Buffer) -> None:
        self.act(
            f"put_new {key}",
            key,
            lambda: self.inner.put_new(key, data),
            lambda: _half(self.inner, key, data),
        )

    def replace(self, key: str, data: Buffer) -> None:
        # Torn: all at once or not at all, so the old bytes stay.
        self.act(f"replace {key}", key, lambda: self.inner.replace(key, data), _nothing)

    def start_new(self, key: str) -> NewObject:
        made: list[NewObject] = []
        self.act(f"start_new {key}", key, lambda: made.append(self.inner.start_new(key)), _nothing)
        return _FaultyObject(self, key, made[0])

    def make_durable(self, key: str) -> None:
        self._alive()
        self.inner.make_durable(key)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._may_read(key)
        return self.inner.get(key, start, length)

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        self._may_read(key)
        return self.inner.get_into(key, start, into)

    def size(self, key: str) -> int:
        self._alive()
        return self.inner.size(key)

    def list(self, prefix: str, after: str = "") -> Iterator[StoredKey]:
        self._alive()
        return self.inner.list(prefix, after)

    def delete(self, key: str) -> None:
        self.act(f"delete {key}", key, lambda: self.inner.delete(key), _nothing)

    def require_writable(self) -> None:
        self._alive()
        self.inner.require_writable()

    def act(self, name: str, key: str, whole: Callable[[], object], part: Callable[[], object]) -> None:
        """Do one write, or what the fault makes of it."""
        self._alive()
        if self.before_write is not None:
            self.before_write(name)
        with self._lock:
            number = len(self.log)
            self.log.append(name)
            due = self.at is not None and (number == self.at or (self.lasting and number > self.at))
            self.fired += due and self.fault is not None
        fault = self.fault if due else None
        if fault is None or fault.writes:
            whole()
        elif fault in (Fault.TORN, Fault.CRASH_TORN):
            part()
        if fault is not None:
            self.dead = self.dead or fault.is_crash
            raise self._failure(fault, key)

    def _failure(self, fault: Fault, key: str) -> BaseException:
        if fault.is_crash:
            return Crash(fault.value)
        if fault is Fault.ENOSPC:
            return StorageFull(where=self.where)
        if fault in (Fault.REPLY_LOST, Fault.UNKNOWN):
            return OutcomeUnknown(key=key, reason="the answer was lost")
        return StorageFailed(where=self.where, reason=f"a planted fault: it {fault.value}")

    def _may_read(self, key: str) -> None:
        self._alive()
        if key in self.unread:
            raise StorageFailed(where=self.where, reason="Input/output error")

    def _alive(self) -> None:
        if self.dead:
            raise Crash("the process is dead")


class _FaultyObject:
    """A key being written through a FaultyStorage."""

    def __init__(self, storage: FaultyStorage, key: str, inner: NewObject) -> None:
        self._storage, self._key, self._inner = storage, key, inner

    def write(self, data: Buffer) -> None:
        half = bytes(data)[: len(bytes(data)) // 2]
        self._storage.act(
            f"write {self._key}", self._key, lambda: self._inner.write(data), lambda: self._inner.write(half)
        )

    def commit(self) -> None:
        # Torn: a commit is all or nothing, so nothing becomes visible.
        self._storage.act(f"commit {self._key}", self._key, self._inner.commit, self._inner.abort)

    def abort(self) -> None:
        # A dead process tidies nothing up.
        if not self._storage.dead:
            self._inner.abort()


def _half(storage: Storage, key: str, data: Buffer) -> None:
    """Half of a value, neither committed nor tidied up."""
    storage.start_new(key).write(bytes(data)[: len(bytes(data)) // 2])


def _nothing() -> None:
    pass


def every_fault(writes: int, faults: Iterable[Fault] = tuple(Fault)) -> Iterator[tuple[int, Fault]]:
    """Each of `writes` writes with each fault."""
    kinds = tuple(faults)
    return ((at, fault) for at in range(writes) for fault in kinds)


def run_into(fault: Fault, action: Callable[[], object]) -> BaseException | None:
    """Run an action that a fault awaits; the error that came out, or None if it coped.

    Only what the fault may raise is caught: any other exception is a failing test.
    """
    try:
        action()
    except Crash as crash:
        assert fault.is_crash
        return crash
    except StemmataError as error:
        assert not fault.is_crash, "the code under test outlived its own process"
        return error
    return None


# --- damage -------------------------------------------------------------------------------------


def contents(storage: Storage, prefix: str = "") -> dict[str, bytes]:
    """Everything stored, to compare or to copy."""
    return {stored.key: storage.get(stored.key) for stored in storage.list(prefix)}


def memory_of(kept: dict[str, bytes]) -> MemoryStorage:
    """A memory storage that holds exactly these keys."""
    storage = MemoryStorage()
    for key, data in kept.items():
        storage.put_new(key, data)
    return storage


def replace(storage: Storage, key: str, data: bytes | None) -> None:
    """Lay other bytes under a key, as no user of a storage can; None takes the key away."""
    storage.delete(key)
    if data is not None:
        storage.put_new(key, data)


class Damage(Enum):
    """How stored bytes go bad."""

    FLIP = "one bit is flipped"
    ZERO = "a byte is zeroed"
    CUT = "the end is missing"
    GROW = "there is more at the end"
    EMPTY = "nothing is left"
    GONE = "the file is missing"


def damaged(data: bytes, how: Damage, at: int) -> bytes | None:
    """`data` gone bad at byte `at` (modulo its length); None: missing. Always differs from `data`."""
    if how is Damage.GONE:
        return None
    if how is Damage.GROW or not data:
        return data + b"\x00"
    at %= len(data)
    if how is Damage.EMPTY:
        return b""
    if how is Damage.CUT:
        return data[:at]
    byte = data[at] ^ (1 << (at % 8))
    if how is Damage.ZERO:
        byte = 0 if data[at] else 0xFF
    return data[:at] + bytes([byte]) + data[at + 1 :]


def damage(storage: Storage, key: str, how: Damage, at: int) -> None:
    """Damage one key in place. Raises KeyMissing if there is none."""
    replace(storage, key, damaged(storage.get(key), how, at))


def is_there(storage: Storage, key: str) -> bool:
    try:
        storage.size(key)
    except KeyMissing:
        return False
    return True
