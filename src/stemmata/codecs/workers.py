"""The threads that objects and their frames are coded on. Owns STEMMATA_THREADS, what becomes of them
where the interpreter ends, and which of them let others go first.

Two pools for the whole process. A frame waits for nothing: anybody may wait for frames. An object waits
for frames alone: anybody but an object may wait for objects. Work that stays behind has two of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

from stemmata.cgroups import processors
from stemmata.errors import InvalidArgument

VARIABLE = "STEMMATA_THREADS"

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Given = ParamSpec("_Given")


class Threads(ThreadPoolExecutor):
    """A pool that goes on where the interpreter ends: what is handed over then is done at once, in place.

    A save on another thread outlives the main one, which may have died of an error; the standard pool
    would take nothing from it any more, and the version would be lost.

    Made by a thread that stays behind, its threads do too.
    """

    def __init__(self, count: int, *, thread_name_prefix: str) -> None:
        super().__init__(count, thread_name_prefix, initializer=stay_behind if _stays_behind() else None)

    def submit(
        self, fn: Callable[_Given, _Out], /, *args: _Given.args, **kwargs: _Given.kwargs
    ) -> Future[_Out]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as error:
            # "… after interpreter shutdown", or "after shutdown" once a thread has noticed it. Not where a
            # thread cannot be started: that is said after handing over, and it would be done twice.
            if not str(error).startswith("cannot schedule new futures after"):
                raise
        done: Future[_Out] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001
            done.set_exception(error)  # as a pool does
        return done


_here = threading.local()
_BEHIND = 5
"""What is added to the nice value: a quarter of a processor is left where one other thread wants it all."""


def stay_behind() -> None:
    """Let whatever else runs go first, from now on, before this thread and what it hands over.

    A version that is written while a model trains fills the gaps between the steps. Only where a thread has
    a priority of its own, which is Linux; elsewhere the threads are apart, and alike.
    """
    if _stays_behind():
        return
    _here.behind = True
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a container may forbid it
            # Against the main thread's: this one may have begun with that of a thread which stays behind.
            mains = os.getpriority(os.PRIO_PROCESS, os.getpid())
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, mains + _BEHIND))


def _stays_behind() -> bool:
    return getattr(_here, "behind", False)


_lock = threading.Lock()
_pools: dict[str, Threads] = {}
_OBJECTS = 3
"""Objects coded at once: while one is hashed or looked up, the others' frames keep the processors busy."""


def thread_count() -> int:
    """Threads to use: STEMMATA_THREADS, else one per processor that this process may use.

    Raises InvalidArgument.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return _processors()
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1024:
        raise InvalidArgument(argument=VARIABLE, reason=f"{text!r} is not a number from 1 to 1024")
    return int(text)


@cache
def _processors() -> int:
    return processors()


def _share() -> int:
    """Of the threads to use, those that this thread may hand over to: half of them where it stays behind.
    More would wait for a processor before each other, and each takes its turn from what goes first."""
    count = thread_count()
    return max(1, count // 2) if _stays_behind() else count


def frame_pool() -> Executor | None:
    """The shared pool; None where one thread is all there is, and frames are coded in place."""
    return _pool("frames", _share())


def object_pool() -> Executor | None:
    """As `frame_pool`, for whole objects."""
    return _pool("objects", _OBJECTS if _share() > 1 else 1)


def _pool(name: str, count: int) -> Executor | None:
    if count == 1:
        return None
    if _stays_behind():
        name += "-behind"
    with _lock:
        if name not in _pools:
            _pools[name] = Threads(count, thread_name_prefix=f"stemmata-{name}")
        return _pools[name]


def each(work: Callable[[_In], _Out], items: Sequence[_In], threads: Executor | None) -> list[_Out]:
    """`work` of every item, in order, on `threads` where there are any. None is under way when this ends or
    raises: what they write to may be lent to others then.

    Each is begun after those before it. A thread goes from one to the next by itself: handing over every one
    would wake two threads for it, and each of them waits for the interpreter. Raises what the first of those
    that failed failed of.
    """
    if threads is None or len(items) < 2:
        return [work(item) for item in items]
    done: dict[int, _Out] = {}
    failed: dict[int, BaseException] = {}
    waiting, changed = iter(range(len(items))), threading.Condition()
    given_up, under_way = False, 0

    def run() -> None:
        nonlocal given_up, under_way
        while True:
            with changed:
                number = None if given_up else next(waiting, None)
                if number is None:
                    break
                under_way += 1
            try:
                done[number] = work(items[number])
            except BaseException as error:  # noqa: BLE001
                failed[number] = error  # raised below
            with changed:
                under_way -= 1
                given_up = given_up or bool(failed)
                changed.notify_all()
        for future in handed:
            future.cancel()  # those that wait behind other work have nothing to do any more

    handed: list[Future[None]] = []
    try:
        for _ in range(min(len(items), thread_count())):
            handed.append(threads.submit(run))
        for future in handed:
            with contextlib.suppress(CancelledError):
                future.result()
    except BaseException:
        # Counted, for futures do not tell: an interrupt between handing over and the answer leaves one that
        # nobody has.
        with changed:
            given_up = True
            changed.wait_for(lambda: not under_way)
        raise
    if failed:
        raise failed[min(failed)]
    if len(done) < len(items):
        raise CancelledError  # by whoever shut the pool down
    return [done[number] for number in range(len(items))]


def _forget_pools() -> None:
    # The threads of a pool do not follow a fork: a child that kept it would wait for ever.
    global _lock, _pools
    _lock = threading.Lock()
    _pools = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
