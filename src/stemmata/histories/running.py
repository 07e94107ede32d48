"""Running: a command that judges a version or makes one, as a process group of its own. Owns its end, however
it comes.

The command has no terminal and no input: nothing asks a question that nobody answers. What it prints goes to
this process's stderr, or where it is told.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stemmata.errors import CommandNotStarted

SIGNALLED = 128
GRACE = 3.0
"""Seconds between asking a group of processes to end and ending it."""
_GONE_WITHIN = GRACE
"""Seconds that those which were killed have to be gone."""
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command."""

    status: int | None
    """As a shell shows it, 128 + n if signal n ended it; None: it took too long and was ended."""
    seconds: float


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout: float | None = None,
    grace: float = GRACE,
    folder: Path | None = None,
    output: int | None = None,
) -> Outcome:
    """Run a command to its end, or for `timeout` seconds; then all processes of its group are ended, with
    SIGTERM, and with SIGKILL what is left after `grace` seconds. So they are if this process is interrupted
    or told to end. It runs in `folder`; `output`, a descriptor, gets all that it prints. Raises
    CommandNotStarted."""
    begun = time.monotonic()
    with _told_to_end():
        try:
            child = subprocess.Popen(
                list(command),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=_stderr() if output is None else output,
                stderr=output,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CommandNotStarted(command=command[0], reason=reason) from error
        try:
            status: int | None = child.wait(timeout)
        except subprocess.TimeoutExpired:
            end(child, grace)
            status = None
        except BaseException:
            end(child, grace)
            raise
    if status is not None and status < 0:
        status = SIGNALLED - status
    return Outcome(status, time.monotonic() - begun)


def end(child: subprocess.Popen[bytes], grace: float = GRACE) -> None:
    """End the whole group of a child that leads one."""
    there = _signal(child.pid, signal.SIGTERM)
    try:
        until = time.monotonic() + grace
        while there and time.monotonic() < until:
            time.sleep(0.02)
            # Reaped first: as long as nobody has asked for it, a dead child counts as one of the group.
            child.poll()
            there = _signal(child.pid, 0)
    finally:
        if there:  # else its number may be somebody else's by now
            _signal(child.pid, signal.SIGKILL)
            _wait_for_group(child)
        with suppress(subprocess.TimeoutExpired):
            # One that waits for a disk in vain does not end even so: it must not hold us.
            child.wait(5)


def _wait_for_group(child: subprocess.Popen[bytes]) -> None:
    """Until those that were killed are gone: the signal is sent to all, and each ends in its own time."""
    until = time.monotonic() + _GONE_WITHIN
    while time.monotonic() < until:
        child.poll()
        if not _signal(child.pid, 0):
            return
        time.sleep(0.01)


def _signal(group: int, number: int) -> bool:
    """Whether there was anybody to be told."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _stderr() -> int | None:
    """Where the command's own output goes: stdout is for results."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return None


@contextmanager
def _told_to_end() -> Iterator[None]:
    """SIGTERM and SIGHUP as an exception, so that nothing that was started stays behind. What is handled
    or ignored already stays so; in other threads than the first nothing can be set."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _stop(number: int, _frame: object) -> None:
    raise SystemExit(SIGNALLED + number)
