"""Writer: one thread that writes versions while the training goes on.

Owns order and bounds: jobs run one after another in the order they came, and `wait_for_room` holds
the training until the save before is durable, so that one snapshot is in memory at most. A save is
never skipped. What fails is reported at the next save or at the end, never swallowed.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from stemmata.codecs.workers import stay_behind

_PREFIX = "saving"


class Writer:
    """Runs jobs in the background. Its thread ends with the interpreter, after its last job."""

    def __init__(self) -> None:
        # The pool's own exit handler lets queued jobs finish when the training dies of an error.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stemmata-writer", initializer=stay_behind)
        self._saving: Future[None] | None = None
        self._last: Future[None] | None = None
        self._failure: BaseException | None = None

    def wait_for_room(self) -> None:
        """Return when no save is under way."""
        if self._saving is not None:
            self._saving.exception()  # waits; `_run` has kept what it raised

    def save(self, job: Callable[[], None]) -> None:
        """Run a save after everything before it. Call `wait_for_room` before taking its snapshot."""
        self._saving = self._submit(job)

    def add(self, job: Callable[[], None]) -> None:
        """Run a small job after everything before it."""
        self._submit(job)

    def drain(self) -> None:
        """Return when every job is done."""
        seen = None
        while self._last is not seen:  # a job may have added one
            seen = self._last
            if seen is not None:
                seen.exception()

    def settle(self) -> None:
        """Return when every job of now is done, whatever is added meanwhile."""
        if self._last is not None:
            self._last.exception()

    def busy(self) -> bool:
        """Whether a job is waiting or under way."""
        return self._last is not None and not self._last.done()

    def take_failure(self) -> BaseException | None:
        """The first failure since the last call."""
        failure, self._failure = self._failure, None
        return failure

    def _submit(self, job: Callable[[], None]) -> Future[None]:
        self._last = self._pool.submit(self._run, job)
        return self._last

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001
            # Whatever it was, the training thread hears of it at its next call.
            if self._failure is None:
                self._failure = error


class Workspace:
    """Temporary folders beside the repository, where there is room for weights."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._mark = f"{_PREFIX}-{socket.gethostname()}-"
        self._remove_stale()

    def folder(self) -> Path:
        """A new, empty folder; remove it with `remove`."""
        self.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{self._mark}{os.getpid()}-", dir=self.parent))

    @staticmethod
    def remove(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def _remove_stale(self) -> None:
        """Folders of processes of this host that were killed."""
        for left in self.parent.glob(f"{self._mark}*"):
            process = left.name.removeprefix(self._mark).partition("-")[0]
            if process.isdigit() and int(process) != os.getpid() and not _alive(int(process)):
                self.remove(left)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True
