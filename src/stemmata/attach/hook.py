"""Hook: wraps `transformers.Trainer.__init__`, so that every Trainer made has a VersionCallback.

Owns that nothing of this ever breaks the command: what fails is said on stderr and in the report.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from stemmata.afterimport import Watcher
from stemmata.attach.settings import Settings, decode, report

_TRAINER_MODULE = "transformers.trainer"
_CALLBACK_MODULE = "stemmata.hf.attached"


def install() -> None:
    """Wait for transformers' Trainer. Raises where the environment holds no settings."""
    settings = decode(os.environ)
    if not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher(settings))


class _Watcher(Watcher):
    def __init__(self, settings: Settings) -> None:
        super().__init__(_TRAINER_MODULE, lambda module: wrap(module, settings))


def wrap(module: ModuleType, settings: Settings) -> None:
    """Replace the constructor of `module.Trainer`; every trainer of trl and others calls it."""
    trainer = getattr(module, "Trainer", None)
    if not isinstance(trainer, type):
        warn(settings, f"{module.__name__} has no Trainer: no version will be saved")
        return
    theirs: Any = trainer.__init__  # type: ignore[misc]

    @functools.wraps(theirs)
    def constructor(self: Any, *args: Any, **kwargs: Any) -> None:
        theirs(self, *args, **kwargs)
        attach(self, settings)

    trainer.__init__ = constructor  # type: ignore[misc]
    if settings.resume:
        trainer.train = _going_on(trainer.train)  # type: ignore[attr-defined]


def _going_on(theirs: Any) -> Any:
    """`Trainer.train`, which goes on from the last state of its run unless it is told from where."""

    @functools.wraps(theirs)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Not there where the callback could not be added: then there is nothing to go on from.
        module = sys.modules.get(_CALLBACK_MODULE)
        given = args[0] if args else kwargs.get("resume_from_checkpoint")
        trial = args[1] if len(args) > 1 else kwargs.get("trial")
        if module is not None and trial is None:
            state = module.begin(self, given)
            if state is not None and args:
                args = (state, *args[1:])
            elif state is not None:
                kwargs = {**kwargs, "resume_from_checkpoint": state}
        return theirs(self, *args, **kwargs)

    return train


def attach(trainer: Any, settings: Settings) -> None:
    """Add the callback, unless the trainer has one. Raises nothing."""
    try:
        import_module(_CALLBACK_MODULE).attach(trainer, settings)
    except Exception as error:  # noqa: BLE001
        # The training is worth more than its versions: other releases of transformers, a stemmata
        # without its extra, an odd Trainer may fail in any way.
        warn(settings, f"no versions of this Trainer: {type(error).__name__}: {error}")


def warn(settings: Settings, words: str) -> None:
    """Say it now and at the end. No `warnings`: the command may have made those errors."""
    report(settings, "warning", words)
    try:
        sys.stderr.write(f"stemmata: {words}\n")
    except (OSError, ValueError, AttributeError):
        pass  # stderr is closed or away
