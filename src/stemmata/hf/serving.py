"""Serving: which training a callback serves. Owns that it is one at any time, and who is told otherwise."""

from __future__ import annotations

import logging
import threading
from typing import Any

from stemmata.errors import TrainingSetup

_log = logging.getLogger("stemmata")


class NotLightnings:
    """The hooks that Lightning calls first: what has them is no callback of its Trainer."""

    state_key = "stemmata.hf.VersionCallback"

    def setup(self, *_: Any, **__: Any) -> None:
        raise TrainingSetup(
            reason="stemmata.hf.VersionCallback was given to the Trainer of Lightning",
            hint="take the one of stemmata.lightning",
        )

    def on_exception(self, *_: Any, **__: Any) -> None:
        """What it calls next."""


class NotTransformers:
    """The first event of transformers' Trainer: what has it is a callback of Lightning's."""

    def on_init_end(self, *_: Any, **__: Any) -> None:
        raise TrainingSetup(
            reason="stemmata.lightning.VersionCallback was given to the Trainer of transformers",
            hint="take the one of stemmata.hf",
        )


class Serving:
    """The training that a callback serves, from `begin` to `end`; known by the Trainer's own state."""

    def __init__(self) -> None:
        self.ended = False
        self._training: Any = None
        self._thread: threading.Thread | None = None
        self._told = False

    def hold_alone(self) -> None:
        """Raise TrainingSetup if another training that is under way has the callback."""
        other = self._thread
        elsewhere = other is not None and other is not threading.current_thread() and other.is_alive()
        if elsewhere and not self.ended:
            raise TrainingSetup(
                reason="its VersionCallback is in use by a training in another thread",
                hint="make one VersionCallback for each Trainer; they may share the repository",
            )

    def begin(self, state: Any) -> None:
        self._training, self._thread = state, threading.current_thread()
        self.ended = False

    def end(self) -> None:
        self.ended = True

    def serves(self, state: Any, run: str | None, model: str) -> bool:
        """Whether an event is of the training that began last; another's would mix two lines."""
        if state is self._training:
            return True
        if not self.ended and not self._told:
            self._told = True
            _log.error(
                "a VersionCallback was given to two trainings at once: only the later one, run %s of %s,"
                " is saved; make one VersionCallback for each Trainer",
                run,
                model,
            )
        return False
