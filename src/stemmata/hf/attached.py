"""Attached: the callback that `stemmata run` adds to a Trainer that somebody else's script made.

Owns the difference to VersionCallback: the script did not ask for it, so it never fails the script.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from stemmata.attach.hook import warn
from stemmata.attach.settings import Settings, report
from stemmata.errors import StemmataError
from stemmata.hf.callback import Every, VersionCallback


class AttachedCallback(VersionCallback):
    """A VersionCallback whose failures are warnings; it tells the parent of its runs."""

    def __init__(self, settings: Settings) -> None:
        every = cast("Every", settings.every)  # the base class looks at it
        super().__init__(settings.repository, settings.model, every=every, run_name=settings.run_name)
        self.settings = settings
        self.off = False

    def told(self, event: str, state: Any) -> None:
        """After an event that went well."""
        if event in ("on_train_begin", "on_train_end") and state.is_world_process_zero and self.run_name:
            report(self.settings, "run", self.run_name)

    def failed(self, event: str, error: Exception) -> None:
        self.off = event == "on_train_begin"
        words = str(error) if isinstance(error, StemmataError) else f"{type(error).__name__}: {error}"
        what = "no versions of this training" if self.off else "the training goes on"
        warn(self.settings, f"{words} ({what})")


def _harmless(event: str) -> Callable[..., Any]:
    inherited = getattr(VersionCallback, event)

    @functools.wraps(inherited)
    def call(self: AttachedCallback, args: Any, state: Any, control: Any, **live: Any) -> Any:
        if self.off and event != "on_train_begin":
            return None
        self.off = False
        try:
            result = inherited(self, args, state, control, **live)
            self.told(event, state)
        except Exception as error:  # noqa: BLE001
            # Any failure of ours, of a disk, of a model that cannot be saved: not the script's.
            self.failed(event, error)
            return None
        return result

    return call


# Every event that the callback has, now and later.
for _event in [name for name in vars(VersionCallback) if name.startswith("on_")]:
    setattr(AttachedCallback, _event, _harmless(_event))


def attach(trainer: Any, settings: Settings) -> None:
    """Add the callback to a Trainer, unless the script gave it one of its own."""
    if any(isinstance(found, VersionCallback) for found in trainer.callback_handler.callbacks):
        report(settings, "own")
        return
    trainer.add_callback(AttachedCallback(settings))
    report(settings, "trainer")
