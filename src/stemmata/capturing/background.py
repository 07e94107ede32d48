"""Background: a capture that begins with the run and goes on beside it.

What the training will change (variables, seeds, generators) is read at once, on the caller's thread; what
takes longer (git, packages, rows of datasets) on a thread of its own. Whoever stores waits for it. A save
without a run captures beside itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from stemmata import redirecting
from stemmata.capture import mask, to_json
from stemmata.capturing import code, environment, machine, packages, process, seeds
from stemmata.capturing.missing import Missing, told
from stemmata.capturing.secrets import without_known

PATIENCE = 300.0
"""Seconds that a save waits for the capture."""
Objects = dict[str, bytes]
Job = Callable[[], Objects]
_log = logging.getLogger("stemmata")


def collect(folder: Path | None = None) -> Objects:
    """Provenance of this process as objects: command, environment, packages, seeds and code, at once.

    `folder` is where the code lies; by default the running script's folder, else the working one.
    """
    return Capturing(_at_once(begin=False), _later(folder)).objects()


@contextmanager
def beside() -> Iterator[Capturing]:
    """What `collect` tells, captured while the caller saves. At the end of the context it is there."""
    capturing = Capturing(_at_once(begin=False), _later(None))
    capturing._start()
    try:
        yield capturing
    finally:
        # No thread of ours may be importing or asking git while the interpreter ends.
        capturing.objects()


class Capturing:
    """One capture. `at_once` is there already; each job of `later` adds its objects under its own kind."""

    def __init__(self, at_once: Objects, later: Mapping[str, Job]) -> None:
        self._objects = dict(at_once)
        self._later = dict(later)
        self._done: Objects | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @classmethod
    def begin(cls, more: Objects | None = None, later: Mapping[str, Job] | None = None) -> Capturing:
        """Capture this process at the begin of a run, in the background; `more` is known already, and
        `later` are further jobs. Costs the caller milliseconds."""
        capturing = cls({**_at_once(begin=True), **(more or {})}, {**_later(None), **(later or {})})
        capturing._start()
        return capturing

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="stemmata-capture", daemon=True)
        # None to be had, or the interpreter ends: whoever stores captures then.
        with suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def add(self, objects: Objects) -> None:
        """Objects that could not be had before; of the thread that stores, before it first does."""
        done = self.objects()
        with self._lock:
            self._done = {**done, **_gated(objects)}

    def objects(self) -> Objects:
        """Everything, when it is there; the same bytes at every call."""
        if self._thread is not None:
            self._thread.join(PATIENCE)
            self._thread = None  # who has waited once does not wait again for what never ends
        elif self._done is None:
            self._run()
        with self._lock:
            if self._done is None:
                late = Missing("the rest of the capture", f"it took longer than {PATIENCE:g} s")
                said = {"code": to_json({"missing": told([late])})}
                self._done = _gated({**self._objects, **said})
            return dict(self._done)

    def _run(self) -> None:
        found: Objects = {}
        for kind, job in self._later.items():
            found.update(guarded(kind, job))
        with self._lock:
            if self._done is None:
                self._done = _gated({**self._objects, **found})
        self._later.clear()  # they may hold datasets


def _gated(objects: Objects) -> Objects:
    """As they are stored: without secrets, and with places that last."""
    safe = without_known(objects)
    if not redirecting.is_on():
        return safe
    return {kind: redirecting.as_it_was(data.decode()).encode() for kind, data in safe.items()}


def guarded(kind: str, job: Job) -> Objects:
    try:
        return job()
    except Exception as error:  # noqa: BLE001
        # Whatever it was: a run is worth more than what is known of it.
        why = mask(f"capturing it failed: {type(error).__name__}: {error}")
        _log.debug("%s: %s", kind, why)
        return {kind: to_json({"missing": told([Missing(kind, why)])})}


def _at_once(*, begin: bool) -> Objects:
    found = guarded("command", lambda: {"command": to_json(process.collect())})
    return {**found, **guarded("seeds", lambda: {"seeds": to_json(seeds.collect(begin=begin))})}


def _later(folder: Path | None) -> dict[str, Job]:
    variables = environment.variables()

    def surroundings() -> Objects:
        found, missing = machine.collect()
        return {"environment": to_json({**found, "variables": variables, "missing": told(missing)})}

    return {
        "environment": surroundings,
        "packages": lambda: {"packages": to_json(packages.collect())},
        "code": lambda: code.collect(folder),
    }
