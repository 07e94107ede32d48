"""Attached: the callback that `stemmata run` adds to a Trainer that somebody else's script made.

Owns the difference to VersionCallback: the script did not ask for it, so it never fails the script; and
where its trainings go on, since the script does not say that either.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from stemmata import resuming
from stemmata.attach.hook import warn
from stemmata.attach.settings import Settings, report
from stemmata.capture import mask_command
from stemmata.errors import Damage, IncompleteState, StemmataError, TrainingSetup
from stemmata.hf import captured
from stemmata.hf.callback import Every, VersionCallback
from stemmata.hf.distributed import Meeting
from stemmata.hf.recorder import Recorder, Saved
from stemmata.ids import VersionId
from stemmata.records import Record

_ANEW = "it starts from the beginning"
_trainings = itertools.count(1)
_untold: dict[str, tuple[Settings, str]] = {}
"""Names of runs, by their ids, that have begun and of which the parent has not heard."""


class AttachedCallback(VersionCallback):
    """A VersionCallback whose failures are warnings; it tells the parent of its runs."""

    def __init__(self, settings: Settings) -> None:
        every = cast("Every", settings.every)  # the base class looks at it
        super().__init__(
            settings.repository,
            settings.model,
            every=every,
            run_name=settings.run_name,
            keep=settings.keep,
            resume=settings.resume,
        )
        self.settings = settings
        self.off = False

    def yields(self) -> bool:
        """Whether the script gave its Trainer a callback after it was made: that one saves."""
        trainer = captured.find_trainer()
        if trainer is None or not _has_own(trainer):
            return False
        report(self.settings, "own")
        return True

    def told(self, event: str, state: Any) -> None:
        """After an event that went well."""
        recorder = self._recorder
        if recorder is None or not state.is_world_process_zero:
            return
        if event == "on_train_begin":
            _untold[recorder.run.id] = self.settings, recorder.run.name
        if event == "on_train_end" or (event == "on_train_begin" and recorder.saved):
            self._tell_run(recorder)

    def _record(
        self, recorder: Recorder, live: Mapping[str, Any], checkpoint: Path | None, **said: Any
    ) -> Saved:
        """As inherited. The parent hears of the run when a version is there: before the first one another
        training may still get the name."""
        saved = super()._record(recorder, live, checkpoint, **said)

        def tell() -> None:
            if saved.version is not None:
                self._tell_run(recorder)

        recorder.aside(tell)
        return saved

    def _tell_run(self, recorder: Recorder) -> None:
        _untold.pop(recorder.run.id, None)
        report(self.settings, "run", recorder.run.name)

    def _makes_states(self, args: Any) -> bool:
        """As inherited; settings that make none are a warning, and the versions are saved all the same."""
        try:
            return super()._makes_states(args)
        except TrainingSetup as error:
            if args.process_index != 0:
                return False
            reason, hint = str(error.data["reason"]), str(error.data["hint"])
            warn(self.settings, f"--resume keeps no states of this training: {reason}; {hint}")
            return False

    def last_state(self) -> str:
        """The id of the state from which the training of this command goes on; empty if there is none.

        The newest one that is sound: a broken one is told, and passed over. Nobody is there to be asked, and
        every sound state of the run leads to the same end.
        """
        session = self.repository.session
        states = resuming.find_states(session, self.model, self.settings.run_name, command=self.command)
        broken: list[str] = []
        for found in states:
            try:
                resuming.folder_of(session, found)  # verified, before anybody relies on it
            except (IncompleteState, Damage) as error:
                broken.append(f"the state {found.name} is broken: {error}")
                continue
            self._tell_broken(broken, f"it goes on from {found.name}, the newest sound state before it")
            return found.id.hex
        self._tell_broken(broken, _ANEW)
        if states:
            return ""
        other = resuming.find_state(session, self.model, self.settings.run_name)
        if other is not None and not _command(session.record(other)).startswith(_command_line()):
            words = "its states are of another command line; this training starts from the beginning"
            warn(self.settings, f"run {self.settings.run_name} is there, but {words}")
        return ""

    def _tell_broken(self, broken: list[str], instead: str) -> None:
        for words in broken:
            warn(self.settings, f"{words} ({instead})")

    def folder(self, state: str) -> str:
        """That state as a folder. Raises IncompleteState, Damage."""
        session = self.repository.session
        session.refresh()
        return str(resuming.folder_of(session, session.row(VersionId.parse(state))))

    def failed(self, event: str, error: Exception, *, told: bool = False) -> None:
        """Warn of it, unless another process does. One that fails at the begin does nothing any more."""
        self.off = event == "on_train_begin"
        if self.off and self.meeting is not None:
            self.meeting.abandon()
        if told:
            return
        words = str(error) if isinstance(error, StemmataError) else f"{type(error).__name__}: {error}"
        what = {
            "on_train_begin": "no versions of this training",
            "resume": _ANEW,
        }.get(event, "the training goes on")
        warn(self.settings, f"{words} ({what})")


def _harmless(event: str) -> Callable[..., Any]:
    inherited = getattr(VersionCallback, event)

    @functools.wraps(inherited)
    def call(self: AttachedCallback, args: Any, state: Any, control: Any, **live: Any) -> Any:
        if event == "on_train_begin":
            self.off = self.yields()
        if self.off:
            return None
        try:
            result = inherited(self, args, state, control, **live)
            self.told(event, state)
        except Exception as error:  # noqa: BLE001
            # Any failure of ours, of a disk, of a model that cannot be saved: not the script's.
            # What one process is refused for its settings, all are.
            told = isinstance(error, TrainingSetup) and not state.is_world_process_zero
            self.failed(event, error, told=told)
            return None
        return result

    return call


# Every event that the callback has, now and later.
for _event in [name for name in vars(VersionCallback) if name.startswith("on_")]:
    setattr(AttachedCallback, _event, _harmless(_event))


@atexit.register
def _tell_rest() -> None:
    """Of runs that died before their first version."""
    while _untold:
        _, (settings, name) = _untold.popitem()
        report(settings, "run", name)


def attach(trainer: Any, settings: Settings) -> None:
    """Add the callback to a Trainer, unless the script gave it one of its own."""
    if _has_own(trainer):
        report(settings, "own")
        return
    trainer.add_callback(AttachedCallback(settings))
    report(settings, "trainer")


def _has_own(trainer: Any) -> bool:
    """Whether the script gave the Trainer a VersionCallback itself."""
    given = [c for c in trainer.callback_handler.callbacks if isinstance(c, VersionCallback)]
    return any(not isinstance(each, AttachedCallback) for each in given)


def begin(trainer: Any, given: object) -> str | None:
    """At each call of `train`: the checkpoint to go on from, None to leave it as the script has it.

    A state is taken of the same training of the same command line alone: of two Trainers under one run
    name, or two scripts, neither goes on with the other's. What fails on rank 0 is a warning, and every
    process starts from the beginning; the others raise, for they would train apart from it.
    """
    number = next(_trainings)
    ours = [c for c in trainer.callback_handler.callbacks if isinstance(c, AttachedCallback)]
    if not ours:
        return None
    callback = ours[0]
    if _has_own(trainer):
        return None
    callback.command = f"{_command_line()}-{number}"
    if given:
        return None

    def decide() -> str:
        try:
            return callback.last_state()
        except Exception as error:  # noqa: BLE001
            # Whatever it was: the script is not to fail for us.
            callback.failed("resume", error)
            return ""

    state = Meeting(trainer.args).word(decide)
    return callback.folder(state) if state else None


def _command_line() -> str:
    """Tells one command line from another, without its secrets."""
    words = json.dumps(mask_command(sys.orig_argv[1:]))
    return hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _command(state: Record) -> str:
    return str(state.config.get(resuming.COMMAND, ""))
