"""Watching: looks at a folder again and again. Owns when something is finished, and when to stop.

A finding is taken once it is complete and was the same at two looks. The repository alone says
what was taken before, so a watcher may be stopped, killed and doubled at will.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from stemmata.errors import EmptySource, NameTaken, SourceMissing, UnsupportedFile
from stemmata.intake.folders import holds_model, last_writes, may_be_folder, usable
from stemmata.intake.found import Found, find
from stemmata.intake.runs import Runs
from stemmata.intake.state import FILE_NAME
from stemmata.intake.taking import Outcome, Tell, take
from stemmata.recording import TRAINING_ARGS
from stemmata.repository import Repository
from stemmata.sources.files import unsupported
from stemmata.storage.failures import reason_of

_SOON = 0.5
"""Seconds to the second look at a checkpoint."""
_APART = 10.0
"""Seconds by which a state is older than its checkpoint's other files if it may be an earlier training's:
callbacks that add files after the Trainer's last one do so at once."""
_LEFT_ALONE = 600.0
"""Seconds without a write after which nobody is writing such a checkpoint: it was copied, or touched.
Between its weights and its state a large training may gather the optimizer's for minutes."""
_TOO_LATE = "it was complete, and deleted before it could be taken; a shorter --interval sees it in time"
_SETTLED = frozenset({"new", "named", "known"})


class Watcher:
    """Takes in what appears in `folder`, which need not be there yet, as versions of `model`."""

    def __init__(
        self,
        repository: Repository,
        folder: Path,
        model: str,
        *,
        run: str | None = None,
        include: Sequence[str] = (),
        tell: Tell,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._repository, self._folder, self._model = repository, folder, model
        self._run, self._include, self._tell = run, include, tell
        self._runs = Runs()
        self._before: dict[Path, object] = {}
        self._complete: dict[Path, Found] = {}
        self._soon = False
        self._settled: dict[Path, object] = {}
        self._told: dict[Path, str] = {}

    def look(self) -> bool:
        """Look once; take in what is complete and unchanged since the last look. Whether anything moved.

        A file system that fails for a while, as a share's does, is told, and is no look.
        """
        try:
            everything = self._found()
        except UnsupportedFile as error:
            folder = Found(self._folder, self._model, self._run or usable(self._folder.name), "final")
            self._say(Outcome(folder, "failed", reason=str(error), error=error))
            return False
        now = {found.path: _marks(found) for found in everything}
        before, self._before = self._before, now
        moved = now != before
        for path in self._complete.keys() - now.keys():
            if path not in self._settled and not may_be_folder(path):
                self._say(Outcome(self._complete[path], "gone", reason=_TOO_LATE))
        self._complete = {f.path: f for f in everything if not f.problem}
        # What is complete by the Trainer's own mark needs no long second look, and may be rotated away.
        fresh = [f for path, f in self._complete.items() if before.get(path) != now[path]]
        self._soon = bool(fresh) and all(f.is_checkpoint and f.state.step is not None for f in fresh)
        for found in everything:
            taken = _marks_of_taken(found)
            if before.get(found.path) == now[found.path] and self._settled.get(found.path) != taken:
                if found.problem:
                    continue
                outcome = take(self._repository, found, self._include, self._runs)
                taken_name = isinstance(outcome.error, NameTaken)
                if outcome.status in _SETTLED or taken_name:
                    # A name that another content has stays taken: no need to read it all at every look.
                    self._settled[found.path] = taken
                    moved = True
                self._say(outcome)
        return moved

    def unfinished(self) -> list[Outcome]:
        """What is there and not complete."""
        try:
            return [Outcome(f, "incomplete", reason=f.problem) for f in self._found() if f.problem]
        except UnsupportedFile:
            return []  # the look before has told it

    def _found(self) -> list[Found]:
        """Raises UnsupportedFile."""
        try:
            everything = find(self._folder, model=self._model, run=self._run, include=self._include)
        except (SourceMissing, EmptySource):
            return []
        # A training that has just begun left a tokenizer or a log there: that is no final save.
        try:
            kept = [f for f in everything if f.is_checkpoint or (holds_model(f.path) and _closed(f.path))]
            return [self._unless_written_over(f) for f in kept]
        except OSError as error:
            raise unsupported(self._folder, reason_of(error)) from None

    def _unless_written_over(self, found: Found) -> Found:
        """A checkpoint with the problem that its weights may be of another training than its state, which
        comes last."""
        if not found.is_checkpoint or found.problem:
            return found
        writes = last_writes(found.path)
        state = writes.pop(FILE_NAME, None)
        name, (_, newest) = max(writes.items(), key=lambda each: each[1][1], default=("", (0, 0)))
        left_alone = self._now() - newest / 1e9 >= _LEFT_ALONE
        if state is None or newest - state[1] <= _APART * 1e9 or left_alone:
            return found
        words = f"its {FILE_NAME} is older than {name}: a training may be writing over it"
        return replace(found, problem=words)

    def follow(
        self,
        *,
        interval: float,
        idle: float | None = None,
        once: bool = False,
        stopped: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Look every `interval` seconds, sooner for a second look at a checkpoint, until `stopped`, or until
        nothing moved for `idle` seconds.

        `once`: two looks, which is what it takes to know that nothing is being written.
        """
        last, looks = clock(), 0
        while not stopped():
            moved = self.look()
            looks += 1
            if moved:
                last = clock()
            if (once and looks >= 2) or (not moved and idle is not None and clock() - last >= idle):
                return
            if not stopped():
                sleep(min(interval, _SOON) if self._soon else interval)

    def _say(self, outcome: Outcome) -> None:
        """Each thing once: a failure that comes again at every look is told when it changes."""
        words = f"{outcome.status} {outcome.version} {outcome.reason}"
        vanishing = outcome.status == "gone" and outcome.reason != _TOO_LATE
        if vanishing or self._told.get(outcome.found.path) == words:
            return
        self._told[outcome.found.path] = words
        self._tell(outcome)


def _closed(output: Path) -> bool:
    """Whether a Trainer's final save has its end: the arguments come last, as in checkpoints."""
    trainers = any((p / TRAINING_ARGS).is_file() for p in output.glob("checkpoint-*"))
    return not trainers or (output / TRAINING_ARGS).is_file()


def _marks(found: Found) -> object:
    """What differs as soon as anybody writes to it, be it to what is left out."""
    return _marks_of_taken(found), last_writes(found.path) if found.is_checkpoint else None


def _marks_of_taken(found: Found) -> object:
    files = found.source.files if found.source is not None else None
    return files, found.state.content, found.problem
