"""The threads that objects and their frames are coded on. Owns STEMMATA_THREADS.

Two pools for the whole process. A frame waits for nothing: anybody may wait for frames. An object waits
for frames alone: anybody but an object may wait for objects.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from stemmata.errors import InvalidArgument

VARIABLE = "STEMMATA_THREADS"

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_lock = threading.Lock()
_pools: dict[str, ThreadPoolExecutor] = {}
_OBJECTS = 2
"""Objects coded at once: while one is hashed or looked up, the other's frames keep the processors busy."""


def thread_count() -> int:
    """Threads to use: STEMMATA_THREADS, else one per processor. Raises InvalidArgument."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return os.cpu_count() or 1
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1024:
        raise InvalidArgument(argument=VARIABLE, reason=f"{text!r} is not a number from 1 to 1024")
    return int(text)


def frame_pool() -> Executor | None:
    """The shared pool; None where one thread is all there is, and frames are coded in place."""
    return _pool("frames", thread_count())


def object_pool() -> Executor | None:
    """As `frame_pool`, for whole objects."""
    return _pool("objects", min(_OBJECTS, thread_count()))


def _pool(name: str, count: int) -> Executor | None:
    if count == 1:
        return None
    with _lock:
        if name not in _pools:
            _pools[name] = ThreadPoolExecutor(count, thread_name_prefix=f"stemmata-{name}")
        return _pools[name]


def each(work: Callable[[_In], _Out], items: Sequence[_In], threads: Executor | None) -> list[_Out]:
    """`work` of every item, in order, on `threads` where there are any."""
    if threads is None or len(items) < 2:
        return [work(item) for item in items]
    found: Iterable[_Out] = threads.map(work, items)
    return list(found)


def _forget_pools() -> None:
    # The threads of a pool do not follow a fork: a child that kept it would wait for ever.
    global _lock, _pools
    _lock = threading.Lock()
    _pools = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
