"""Launch: runs the command of `stemmata run` as a child and hands through what happens to it.

Owns signals and exit status. The child stays in this process's group and terminal, as under a shell.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from stemmata.attach.settings import Settings, encode, read_report
from stemmata.errors import CommandNotStarted

SIGNALLED = 128
_PASSED_ON = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
_FROM_KEYBOARD = frozenset({signal.SIGINT, getattr(signal, "SIGQUIT", signal.SIGINT)})


class Outcome(NamedTuple):
    """What came of the command: exit status as a shell shows it, and what its Pythons reported."""

    status: int
    trainers: int
    own: int
    runs: list[str]
    warnings: list[str]
    absent: list[str]


def run(command: Sequence[str], settings: Settings, *, stdout: int | None = None) -> Outcome:
    """Run the command to its end; `settings.report` is filled in here.

    Raises CommandNotStarted.
    """
    with tempfile.TemporaryDirectory(prefix="stemmata-run-") as folder:
        path = Path(folder).resolve() / "report.jsonl"
        path.touch(0o600)
        environment = encode(settings._replace(report=str(path)), os.environ)
        status = _child(command, environment, stdout)
        found = list(read_report(path))

    def of(kind: str) -> list[str]:
        return [text for k, text in found if k == kind]

    runs, warnings, absent = (list(dict.fromkeys(of(k))) for k in ("run", "warning", "absent"))
    return Outcome(status, len(of("trainer")), len(of("own")), runs, warnings, absent)


def _child(command: Sequence[str], environment: dict[str, str], stdout: int | None) -> int:
    child: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        if not child:
            early.append(number)
        elif not (number in _FROM_KEYBOARD and _typed()):
            child[0].send_signal(number)  # does nothing once the child has been waited for

    with _handling(pass_on) as handled:
        try:
            child.append(subprocess.Popen(list(command), env=environment, stdout=stdout))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CommandNotStarted(command=command[0], reason=reason) from error
        for number in early:
            child[0].send_signal(number)
        with _passing_on_what_was_sent(child[0], _FROM_KEYBOARD & handled):
            status = child[0].wait()
    return SIGNALLED - status if status < 0 else status


@contextmanager
def _passing_on_what_was_sent(child: subprocess.Popen[bytes], numbers: Set[signal.Signals]) -> Iterator[None]:
    """Pass the keyboard's signals on where another process sent them: the typed ones the child has had.

    A handler is not told which it was. A thread that waits for them is, where the system has such a wait.
    """
    if not numbers or not hasattr(signal, "sigwaitinfo"):
        yield
        return
    over = threading.Event()

    def wait() -> None:
        while True:
            found = signal.sigwaitinfo(numbers)
            if over.is_set():
                return
            if found.si_code <= 0:  # above are the kernel's own, as those of a terminal
                with suppress(OSError):  # it runs as another user, as sudo does
                    child.send_signal(found.si_signo)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    waiting = threading.Thread(target=wait, name="stemmata-signals", daemon=True)
    waiting.start()
    try:
        yield
    finally:
        over.set()
        signal.pthread_kill(waiting.ident or 0, min(numbers))
        waiting.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _typed() -> bool:
    """Whether the terminal itself sends such signals to this group: then the child has had its own. So it is
    told where nothing says of one signal who sent it."""
    try:
        return os.tcgetpgrp(sys.__stdin__.fileno()) == os.getpgrp()  # type: ignore[union-attr]
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[Set[signal.Signals]]:
    """The handler for every signal that is not ignored, which it yields: what nohup ignores stays so in the
    child."""
    before = {}
    try:
        for number in _PASSED_ON:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
        yield before.keys()
    finally:
        for number, old in before.items():
            signal.signal(number, old)
