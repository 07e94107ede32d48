"""Forks: locks that a forked child finds free, and what they guard in order.

A child has the forking thread alone: a lock that another thread held just then stays taken in it for
ever. DataLoader workers fork at any moment, while a writer's thread is in the middle of a commit.
"""

from __future__ import annotations

import os
import time
from threading import RLock
from typing import Protocol, TypeVar
from weakref import WeakSet

_PATIENCE_SECONDS = 30.0


class _Lock(Protocol):
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...


_L = TypeVar("_L", bound=_Lock)

_shared: WeakSet[_Lock] = WeakSet()
_adding = RLock()
_taken: list[_Lock] = []


def held_at_forks(lock: _L) -> _L:
    """`lock`, which from now on the forking thread holds while the process forks."""
    with _adding:
        _shared.add(lock)
    return lock


def _before() -> None:
    _adding.acquire()
    end, busy = time.monotonic() + _PATIENCE_SECONDS, None
    while True:
        busy = _take_all(busy, end)
        if busy is None:
            return
        _release()
        if time.monotonic() > end:
            # Patience has an end: a child that cannot use a repository is better than no child.
            _taken.extend(lock for lock in list(_shared) if lock.acquire(blocking=False))
            return


def _take_all(first: _Lock | None, end: float) -> _Lock | None:
    """Take `first`, waiting for it, then all others if they are free. The one that was not; None: all are
    taken. Nobody is waited for while another one is held: who holds one may be waiting for that."""
    if first is not None:
        if not first.acquire(timeout=max(0.0, end - time.monotonic())):
            return first
        _taken.append(first)
    for lock in list(_shared):
        if lock is first:
            continue
        if not lock.acquire(blocking=False):
            return lock
        _taken.append(lock)
    return None


def _release() -> None:
    while _taken:
        _taken.pop().release()


def _after() -> None:
    _release()
    _adding.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
