"""Failures: what a training does about a version that could not be written. Owns the second try and
the list of what is missing at the end; a training never ends for a save unless it asked for that.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from stemmata.errors import CommitUnknown, StemmataError, TrainingSaveFailed

_log = logging.getLogger("stemmata")

OnError = Literal["warn", "raise"]
ON_ERROR = ("warn", "raise")
_HINT = "mend the cause; the weights are still in the running process"


@dataclass(slots=True, eq=False)
class Task:
    """Something to be written. `run` may be called twice if `again`; `drop` lets go of what it holds."""

    name: str
    run: Callable[[], None]
    drop: Callable[[], None] | None = None
    again: bool = False
    at_once: bool = False
    """Whether its second try is now: it cannot wait for the next save."""
    waits: bool = False
    """Whether it was put off until its version is there."""
    unsure: bool = False
    """Whether an earlier try may have taken effect after all."""
    failed: TrainingSaveFailed | None = None
    """Of the first try."""

    def done(self) -> None:
        """Let go of everything: a job refers to its task, and a snapshot must not wait for the collector."""
        if self.drop is not None:
            self.drop()
        self.run, self.drop = _nothing, None


class Failures:
    """One run's failures. Tasks run on the writer's thread; the training thread asks."""

    def __init__(self, model: str, on_error: OnError) -> None:
        self.on_error: OnError = on_error
        self.missing: dict[str, str] = {}
        """What is not in the repository, by its name, and why."""
        self._model = model
        self._waiting: list[Task] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        _of_unended.add(self)

    def guarded(self, task: Task, run_name: Callable[[], str]) -> Callable[[], None]:
        """`task` for the writer: with "warn" it raises nothing but what ends a process."""

        def run() -> None:
            try:
                task.run()
            except Exception as error:
                # Libraries raise anything while they write; the training gets one named error.
                failed = self.named(f"{run_name()}/{task.name}", error)
                if self.on_error == "warn" and task.again:
                    task.again, task.failed = False, failed
                    task.unsure = isinstance(error, CommitUnknown)
                    # Now, too: the next save may be hours away, or never come.
                    when = "at once" if task.at_once else "at the next save"
                    _log.error("%s; it is tried once more %s", failed, when)
                    with self._lock:
                        self._waiting.append(task)
                    return
                self._give_up(task, failed)
                if self.on_error == "raise":
                    raise failed from error
            else:
                # One that waits for its version is done when that is there.
                if not task.waits:
                    task.done()

        return run

    def missed(self, name: str, error: Exception) -> TrainingSaveFailed:
        """Note a version of which not even the snapshot could be taken."""
        failed = self.named(name, error)
        self._note(failed)
        return failed

    def aside(self, what: str, error: Exception) -> None:
        """Log what failed beside the versions, of which none is missing; every later write tries it again.

        Raises TrainingSaveFailed if failures are to be raised.
        """
        failed = self.named(what, error)
        _log.error("%s", failed)
        if self.on_error == "raise":
            raise failed from error

    def waiting(self) -> bool:
        """Whether something is to be tried again."""
        return bool(self._waiting)

    def take_waiting(self) -> list[Task]:
        """What failed once, to be tried again now."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return waiting

    def put_back(self, tasks: Sequence[Task]) -> None:
        """What was taken and could not be begun."""
        with self._lock:
            self._waiting[:0] = tasks

    def leave(self) -> None:
        """Of a training that never came to its end: what was to be tried again is missing too."""
        if os.getpid() != self._process:
            return  # a copy in a process that was forked off
        for task in self.take_waiting():
            if task.failed is not None:
                self.missing[str(task.failed.data["name"])] = str(task.failed.data["reason"])
            task.done()
        if self.missing:
            _log.warning(
                "a training of %s did not come to its end; not written:%s", self._model, self._lines()
            )

    def named(self, name: str, error: Exception) -> TrainingSaveFailed:
        if isinstance(error, TrainingSaveFailed):
            return error
        if isinstance(error, StemmataError):
            reason = error.what.format(**error.data)
        else:
            reason = f"{type(error).__name__}: {error}"
        return TrainingSaveFailed(name=name, model=self._model, reason=reason, hint=_HINT)

    def report(self, run_name: str, written: int) -> None:
        """At the end: what is missing, by name."""
        _of_unended.discard(self)
        if not self.missing:
            return
        _log.warning(
            "run %s of %s ended; not written (the other %d versions are there):%s",
            run_name,
            self._model,
            written,
            self._lines(),
        )

    def _lines(self) -> str:
        return "".join(f"\n  {name}: {reason}" for name, reason in self.missing.items())

    def _give_up(self, task: Task, failed: TrainingSaveFailed) -> None:
        task.done()
        self._note(failed)

    def _note(self, failed: TrainingSaveFailed) -> None:
        self.missing[str(failed.data["name"])] = str(failed.data["reason"])
        _log.error("%s", failed)


_of_unended: weakref.WeakSet[Failures] = weakref.WeakSet()


@atexit.register
def _tell() -> None:
    """What is missing, of trainings that could not say it at their end. The writers are done by now."""
    for failures in list(_of_unended):
        failures.leave()


def _nothing() -> None:
    """What is left of a task that is done."""
