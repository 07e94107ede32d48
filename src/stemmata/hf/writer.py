"""Writer: one thread that writes versions while the training goes on.

Owns order and bounds: jobs run one after another in the order they came, and `wait_for_room` holds
the training until the save before is durable, so that one snapshot is in memory at most. A save is
never skipped. What fails is reported at the next save or at the end, never swallowed.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread, current_thread

from stemmata.codecs.workers import stay_behind
from stemmata.ids import random_hex
from stemmata.resuming import writing

_PREFIX = "saving"
_LOCK = ".lock"


class Writer:
    """Runs jobs in the background. Its thread ends with the interpreter, after its last job."""

    def __init__(self) -> None:
        # The pool's own exit handler lets queued jobs finish when the training dies of an error.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stemmata-writer", initializer=stay_behind)
        self._saving: Future[None] | None = None
        self._last: Future[None] | None = None
        self._failure: BaseException | None = None
        self._thread: Thread | None = None
        self._process = os.getpid()
        writing.add(self)

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
        """Return when every job of now is done, whatever is added meanwhile. A job may call it, and so may a
        process that was forked: its jobs are another's, which has the thread."""
        mine = self._process == os.getpid() and current_thread() is not self._thread
        if self._last is not None and mine:
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
        self._thread = current_thread()
        try:
            job()
        except BaseException as error:  # noqa: BLE001
            # Whatever it was, the training thread hears of it at its next call.
            if self._failure is None:
                self._failure = error


class Workspace:
    """Temporary folders beside the repository, where there is room for weights.

    Beside each lies a file that its process holds a lock on, as the sign that it lives: containers may share
    a host's name and count their processes each for itself.
    """

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._host = socket.gethostname()
        self._remove_stale()

    def folder(self) -> Path:
        """A new, empty folder; remove it with `remove`."""
        self.parent.mkdir(parents=True, exist_ok=True)
        folder = self.parent / f"{_PREFIX}-{self._host}-{os.getpid()}-{random_hex(8)}"
        _held[folder] = _hold(_lock_of(folder))  # first: a folder without it may be taken for a dead one's
        try:
            folder.mkdir(0o700)
        except OSError:
            self.remove(folder)
            raise
        return folder

    @staticmethod
    def remove(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            _lock_of(folder).unlink(missing_ok=True)
        held = _held.pop(folder, None)
        if held is not None:
            os.close(held)

    def _remove_stale(self) -> None:
        """What processes of this host left that were killed."""
        for name in {left.name.removesuffix(_LOCK) for left in self.parent.glob(f"{_PREFIX}-*")}:
            host, _, process = name.removeprefix(f"{_PREFIX}-").rpartition("-")[0].rpartition("-")
            if host == self._host and not _in_use(self.parent / name, process):
                self.remove(self.parent / name)


_held: dict[Path, int] = {}
"""The folders of this process, each with its open lock."""


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)


def _hold(lock: Path) -> int:
    """Make and lock it. It is empty unless that came off: nobody else can tell then who lives."""
    opened = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX)
        os.write(opened, b"held")
    return opened


def _in_use(folder: Path, process: str) -> bool:
    """Whether its process may live still; one that does not lock is asked for by its number."""
    if folder in _held:
        return True
    try:
        import fcntl

        opened = os.open(_lock_of(folder), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return not process.isdigit() or int(process) == os.getpid() or _alive(int(process))
    except (ImportError, OSError):
        return True
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(opened).st_size == 0
    except OSError:
        return True
    finally:
        os.close(opened)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True
