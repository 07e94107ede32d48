"""Interruption: SIGTERM while versions are being written. Owns one rule: what was snapshotted is
finished first, then whoever handled the signal before gets it, so that the exit status stays theirs.

An exception and an interrupted notebook cell need nothing of this: the writer's thread works on, and
the interpreter waits for it at its exit.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any


class Patience:
    """A SIGTERM handler in front of the one that was there, from `begin` to `end`.

    `owner`: what the training is known by. A training that dies has no end: its handler is left behind, and
    taken away when another training begins. Runs of loops may be several at once, and beside a `training`:
    of these none is left behind that its owner has not ended, or is gone.
    """

    def __init__(
        self, busy: Callable[[], bool], wait: Callable[[], None], owner: Any, *, training: bool = True
    ) -> None:
        self._owner = weakref.ref(owner)
        self._training = training
        self._ended = False
        self._busy = busy
        self._wait = wait
        self._before: Any = None
        self._process = 0
        self._waited = False
        self._waiting = False

    def begin(self) -> None:
        """Take the signal, where that is possible: in the main thread, before a handler of Python's."""
        if threading.current_thread() is not threading.main_thread():
            return
        owner = self._owner() if self._training else None
        before = _without_left(signal.getsignal(signal.SIGTERM), owner)
        if before is None or before == signal.SIG_IGN:
            return
        self._before, self._process = before, os.getpid()
        signal.signal(signal.SIGTERM, self._handle)

    @property
    def holds(self) -> bool:
        """Whether the signal comes here first; others may have set a handler since, or given back theirs."""
        return self._before is not None and signal.getsignal(signal.SIGTERM) == self._handle

    def end(self) -> None:
        """Give the signal back to who had it before and has not ended, unless somebody else has it by now."""
        self._ended = True
        if self.holds and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _without_left(self._before, None))
            self._before = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A process that was forked meanwhile has the handler and no writer: its wait would never end, and
        # nobody could terminate it.
        ours = os.getpid() == self._process
        if ours and self._waiting:
            return  # it will be passed on
        if ours and not self._waited and self._busy() and self._begin_to_wait(number):
            return
        if callable(self._before):
            self._waited = False
            self._before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _begin_to_wait(self, number: int) -> bool:
        """Wait in a thread of its own: the training may hold a lock that the writer needs. Whether it began:
        an interpreter that ends starts none."""
        self._waiting = True
        try:
            threading.Thread(target=self._finish, args=(number,), name="stemmata-sigterm").start()
        except RuntimeError:
            self._waiting = False
        return self._waiting

    def _finish(self, number: int) -> None:
        try:
            self._wait()
        finally:
            # Whatever became of the wait: who sent the signal wants an answer.
            self._waited, self._waiting = True, False
            os.kill(os.getpid(), number)

    def before_if_left(self, owner: Any) -> Any:
        """The handler in front of which this one stands, if its own training is over; else itself. `owner` of
        a training that begins: then an idle one of another is over."""
        mine = self._owner()
        over = self._ended or mine is None or (owner is not None and self._training and mine is not owner)
        left = over and not self._busy() and os.getpid() == self._process
        return self._before if left else self._handle


def take_left_away(owner: Any) -> None:
    """Give the signal back that dead trainings left: whoever looks at it before `owner` begins shall see
    the handler that was there before them."""
    if threading.current_thread() is threading.main_thread():
        found = signal.getsignal(signal.SIGTERM)
        before = _without_left(found, owner)
        if before != found:
            signal.signal(signal.SIGTERM, before)


def _without_left(handler: Any, owner: Any) -> Any:
    while isinstance(patience := getattr(handler, "__self__", None), Patience):
        before = patience.before_if_left(owner)
        if before == handler or before is None:
            break
        handler = before
    return handler
