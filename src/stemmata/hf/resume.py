"""Resume: the Trainer's own checkpoints kept as states, and runs that go on where they stopped.

A state is taken from `checkpoint-N` when the Trainer has finished it. Which run it is of stands in
the state itself, in `trainer_state.json`: so a training knows whose line it goes on with, wherever
its files lie.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemmata.catalog import lines
from stemmata.errors import IncompleteState, NameTaken, SpaceShort, TrainingSetup
from stemmata.hf import checkpoints
from stemmata.hf.captured import resumed_from
from stemmata.hf.distributed import Meeting
from stemmata.hf.origin import version_of_checkpoint
from stemmata.hf.recorder import Recorder, Saved
from stemmata.hf.runnames import free_name
from stemmata.hf.tokens import drop_tokens
from stemmata.ids import VersionId
from stemmata.names import exact_slug, name_key, slug
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.resuming import ASKED, COMMAND, PROCESSES, TRAINER_STATE, missing_parts, states_of

_KEY = "stemmata"
_EXACT = "exact"
"""Key in a mark: earlier releases, which did not write it, marked the slug alone."""
_log = logging.getLogger("stemmata")


@dataclass(frozen=True, slots=True)
class Mark:
    """Which run a training's state is of."""

    run: Run
    asked: str
    processes: int
    exact: bool
    """Whether `asked` tells the name that was asked for from every other, or is its slug alone."""


def hold_settings(arguments: Any) -> None:
    """Refuse, before the first step, settings under which no state could be kept. Raises TrainingSetup."""
    strategy = getattr(arguments.save_strategy, "value", arguments.save_strategy)
    if strategy == "no":
        raise TrainingSetup(
            reason="to resume takes the Trainer's own checkpoints, and save_strategy='no' makes none",
            hint="set save_strategy='epoch' (or 'steps'), or leave resume out",
        )
    if arguments.save_only_model:
        raise TrainingSetup(
            reason="to resume takes optimizer and random states, and save_only_model=True leaves them out",
            hint="set save_only_model=False, or leave resume out",
        )


def warn_of_other_size(mark: Mark, arguments: Any) -> None:
    """Say it once if a training goes on with another number of processes than its state is of."""
    size = int(arguments.world_size)
    if mark.processes != size:
        _log.warning(
            "run %s was trained by %d processes and goes on with %d: the data is divided otherwise and the "
            "random states are those of other ranks, so it will not end bit for bit as with %d",
            mark.run.name,
            mark.processes,
            size,
            mark.processes,
        )


def mark_of(state: Any, repository: Repository, model: str) -> Mark | None:
    """Which run of this repository and model the Trainer goes on with; None at a first start."""
    marks = (state.stateful_callbacks or {}).get(_KEY)
    found = marks.get(f"{repository.id}:{model}") if isinstance(marks, Mapping) else None
    return mark_from(found, repository, model) if found else None


def mark_from(found: Any, repository: Repository, model: str) -> Mark | None:
    """The mark that a checkpoint says; None if it says none.

    Its run is known by the id. The name in it is the one of the training's begin: another training that began
    then too may have got it since.
    """
    try:
        run, asked, processes = Run(str(found["id"]), str(found["run"])), found["asked"], found["processes"]
    except (KeyError, TypeError):
        return None  # of another release
    name = _name_of(repository, model, run) or free_name(repository, model, run.name)
    return Mark(Run(run.id, name), asked, processes, found.get(_EXACT) is True)


def goes_on(mark: Mark, wanted: str | None) -> bool:
    """Whether a training that asked for run `wanted` (None: for none) continues that run, or forks it."""
    # Not the run's own name: what one run got as its second, another may have asked for.
    return wanted is None or (exact_slug if mark.exact else slug)(wanted) == mark.asked


def go_on(recorder: Recorder, mark: Mark, step: int) -> None:
    """Continue the run's line after `step`: same id and name; what was saved after it may come again."""
    recorder.run = mark.run
    rows = _versions(recorder.repository, recorder.model, mark.run)
    for version in reversed(rows):
        name = version.name.removeprefix(f"{mark.run.name}/")
        if version.step is not None and version.step <= step and version.event != "best":
            recorder.saved.append(Saved(name, version.step, version.epoch, version.id))
    recorder.again = {name for v in rows for name in v.names}
    recorder.keeping.resumed = True


def recall_rows(recorder: Recorder, state: Any) -> None:
    """Take in what the Trainer's own history has since the version that the run goes on from: the process
    that logged it wrote no version of it."""
    last = recorder.saved[-1].step if recorder.saved else -1
    for row in state.log_history or ():
        step = int(row.get("step", -1))
        if step >= max(last, 0):
            recorder.log(step, row.get("epoch"), row)


def version_at(repository: Repository, model: str, mark: Mark, step: int) -> Any:
    """The version of that run at this step, else the state itself; None if neither is there."""
    for name in (model, states_of(model)):
        for version in _versions(repository, name, mark.run):
            if version.step == step and version.event != "best":
                return version
    return None


def source_of(
    repository: Repository, model: str, mark: Mark | None, arguments: Any, step: int
) -> list[VersionId] | None:
    """The version with the weights of the checkpoint that a training goes on from, if there is one."""
    if mark is not None:
        source = version_at(repository, model, mark, step)
        if source is not None:
            return [source.id]
    given = resumed_from() or arguments.resume_from_checkpoint
    folder = Path(given) if isinstance(given, str) else Path(arguments.output_dir) / f"checkpoint-{step}"
    found = version_of_checkpoint(folder, step, model, repository.session)
    return None if found is None else [found]


def _versions(repository: Repository, model: str, run: Run) -> list[Any]:
    name = _name_of(repository, model, run)
    if name is None or model not in repository.models():
        return []
    rows = repository.versions(model).of_run(name)
    return [v for v in rows if v.run is not None and v.run.id == run.id]


def _name_of(repository: Repository, model: str, run: Run) -> str | None:
    """The run's name, as its versions of this model have it; None if there are none."""
    repository.session.refresh()
    return lines.name_of(repository.session.catalog.connection, name_key(model), run.id)


class States:
    """Keeps the checkpoints of one training."""

    def __init__(
        self, recorder: Recorder, arguments: Any, state: Any, asked: str, command: str | None = None
    ) -> None:
        self._recorder = recorder
        self._command = {} if command is None else {COMMAND: command}
        self._asked = exact_slug(asked)
        self._processes = int(arguments.world_size)
        self._room = threading.Event()
        self._room.set()
        self._taken = int(state.global_step)
        marks = state.stateful_callbacks.setdefault(_KEY, {})
        self._place = f"{recorder.repository.id}:{recorder.model}"
        marks[self._place] = {
            "id": recorder.run.id,
            "run": recorder.run.name,
            "asked": self._asked,
            _EXACT: True,
            "processes": self._processes,
        }

    def take(self, arguments: Any, state: Any, meeting: Meeting | None = None) -> None:
        """Copy `checkpoint-N` now; store it in the background. What fails there fails as a save does."""
        step = int(state.global_step)
        if meeting is not None:
            meeting.all_here()  # each process writes its own random state; one that is late is missed below
        self._take(checkpoints.folder_of(arguments, state), step, state.epoch)

    def take_last(self, arguments: Any, state: Any) -> None:
        """A later checkpoint that was written without its event: the Trainer's own upon SIGTERM."""
        output = checkpoints.output_of(arguments, state)
        found = [(p, p.name.rpartition("-")[2]) for p in output.glob("checkpoint-*")]
        later = [(int(n), p) for p, n in found if n.isdecimal() and int(n) > self._taken]
        for step, folder in sorted(later, reverse=True):
            own = self._own_state(folder)
            if own is not None:
                self._take(folder, step, own.get("epoch"))
                return

    def _take(self, folder: Path, step: int, epoch: float | None) -> None:
        if step == self._taken:
            return
        self._room.wait()
        recorder = self._recorder
        copy: Path | None = None
        problem: Exception | None = None
        try:
            size = self._hold(folder, step)
            copy = recorder.workspace.folder()
            recorder.room.hold_on_disk(copy, size)
            _copy(folder, copy)
            drop_tokens(copy)
        except (OSError, IncompleteState, SpaceShort) as error:
            problem = error  # told by the writer, in the order and the way of every failed save
        self._taken = step
        self._room.clear()
        before = recorder.at_step(step)

        def job() -> None:
            try:
                if problem is not None or copy is None:
                    raise problem or OSError(f"{folder} could not be copied")
                self._store(copy, step, epoch, before)
            finally:
                if copy is not None:
                    recorder.workspace.remove(copy)
                self._room.set()

        recorder.add(job, f"the state of step {step}")

    def _own_state(self, folder: Path) -> dict[str, Any] | None:
        """The Trainer's state in a folder, if this run wrote it."""
        try:
            found: dict[str, Any] = json.loads((folder / TRAINER_STATE).read_bytes())
            ours = found["stateful_callbacks"][_KEY][self._place]["id"] == self._recorder.run.id
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if ours else None

    def _hold(self, folder: Path, step: int) -> int:
        """The bytes in the folder. Raises IncompleteState unless it has every part of this step's state."""
        sizes = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file()
        }
        missing = missing_parts(sizes, lambda p: (folder / p).read_bytes(), processes=self._processes)
        if not missing:
            try:
                if json.loads((folder / TRAINER_STATE).read_bytes())["global_step"] != step:
                    missing = [f"a {TRAINER_STATE} of step {step}"]
            except (ValueError, KeyError, TypeError):
                missing = [f"a readable {TRAINER_STATE}"]
        if missing:
            raise IncompleteState(state=str(folder), parts=", ".join(missing))
        return sum(sizes.values())

    def _store(self, folder: Path, step: int, epoch: float | None, before: Saved | None) -> None:
        self._hold(folder, step)  # the copy too: it lay there for a while
        recorder = self._recorder
        parents = recorder.as_parent(before) if before is not None else []
        number = 1
        while True:
            name = f"{recorder.run.name}/step-{step}" + (f"-{number}" if number > 1 else "")
            try:
                recorder.repository.save(
                    folder,
                    states_of(recorder.model),
                    name=name,
                    kind="checkpoint",
                    run=recorder.run,
                    step=step,
                    epoch=epoch,
                    event="save",
                    parents=parents,
                    config={ASKED: self._asked, PROCESSES: self._processes, **self._command},
                    provenance={},  # the run's versions have it
                )
            except NameTaken:
                number += 1  # a step that was done again after an older state
            else:
                return


def _copy(source: Path, target: Path) -> None:
    """A copy that neither a later save nor the Trainer's own rotation can change: torch.save writes into
    the file that is there, and whoever removes a name changes the times of what is linked to it."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copyfile(path, place)
