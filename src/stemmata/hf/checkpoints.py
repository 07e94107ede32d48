"""Checkpoints: versions of a sharded model, from the folders in which the Trainer wrote it whole.

Owns which checkpoints become versions, under which names, and that none does that lacks a tensor.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemmata.errors import IncompleteCheckpoint, StemmataError
from stemmata.hf.filesets import FileSet
from stemmata.hf.sharded import Sharding
from stemmata.hf.space import Room
from stemmata.hf.tokens import drop_tokens
from stemmata.hf.wrappers import clean_files
from stemmata.intake.found import Found, examine
from stemmata.resuming import TRAINER_STATE
from stemmata.seen import LEAST, marks_of
from stemmata.session import seen_files

if TYPE_CHECKING:
    from stemmata.hf.recorder import Recorder

_ROUNDING = 1e-9
"""Of epochs that somebody's own loop adds up; those of the Trainer are exact. A step is more than that."""


def output_of(arguments: Any, state: Any) -> Path:
    """The folder in which the Trainer writes the checkpoints of a training: in a search, the trial's."""
    output = Path(arguments.output_dir)
    if not state.is_hyper_param_search:
        return output
    if state.trial_name:
        return output / str(state.trial_name)
    # The Trainer does not tell the trial's number, and several processes may search in one folder: the newest
    # checkpoint that was written with this trial's parameters.
    found = [p.parent for p in sorted(output.glob("run-*/checkpoint-*"), key=_time) if _is_of_trial(p, state)]
    return found[-1] if found else output


def _time(checkpoint: Path) -> int:
    try:
        return checkpoint.stat().st_mtime_ns
    except OSError:
        return 0  # rotated away just now


def _is_of_trial(checkpoint: Path, state: Any) -> bool:
    try:
        written = json.loads((checkpoint / TRAINER_STATE).read_bytes())["trial_params"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(written == json.loads(json.dumps(state.trial_params, default=str)))


def folder_of(arguments: Any, state: Any) -> Path:
    """Where the Trainer writes its checkpoint of this step."""
    return output_of(arguments, state) / f"checkpoint-{state.global_step}"


def note_twins(recorder: Recorder, arguments: Any, state: Any) -> None:
    """Remember the Trainer's checkpoint of a step that has a version: its weight files are byte for byte the
    version's, so that the next one need not decode them while they lie there. A guess, held against their
    digests by whoever reads them."""
    saved, folder, seen = recorder.at_step(state.global_step), folder_of(arguments, state), seen_files()

    def note() -> None:
        if saved is None or saved.version is None:
            return
        with suppress(OSError, StemmataError):
            for file in recorder.repository.get(saved.version).files:
                twin = folder.absolute() / file.path
                if file.size >= LEAST and twin.is_file() and twin.stat().st_size == file.size:
                    seen.remember(twin, marks_of(twin.stat()), file.digest, 0)

    recorder.aside(note)


def epoch_name(state: Any) -> str | None:
    """`epoch-3` at the end of an epoch, else None."""
    epoch = state.epoch or 0.0
    whole = abs(epoch - round(epoch)) < _ROUNDING and round(epoch) > 0
    return f"epoch-{round(epoch)}" if whole else None


def wanted(every: str | int, state: Any, *, last: bool, evaluated: bool) -> tuple[str, str] | None:
    """Name and event of the version that the checkpoint of this step is to be; None if of none."""
    step = f"step-{state.global_step}"
    if every == "epoch":
        name = epoch_name(state)
        return (name, "epoch") if name is not None else (step, "save")
    if every == "save":
        return step, "save"
    if every == "eval" and evaluated:
        return step, "eval"
    if isinstance(every, int) and state.global_step % every == 0:
        return step, "step"
    return ("final", "end") if last else None


def copy_whole(sharding: Sharding, checkpoint: Path, folder: Path, room: Room) -> FileSet:
    """Copy of a finished checkpoint what a version holds, so that its rotation harms nothing.

    Raises IncompleteCheckpoint, SpaceShort, SourceChanged, OSError.
    """
    if not checkpoint.is_dir():
        raise IncompleteCheckpoint(checkpoint=str(checkpoint), reason="it is not there")
    found = examine(Found(checkpoint, model="", run="", label=""))
    if found.problem or found.source is None:
        raise IncompleteCheckpoint(checkpoint=str(checkpoint), reason=found.problem)
    room.hold_on_disk(folder, found.source.total_bytes)
    for file in found.source.on_disk:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.real, target)
    found.source.verify_unchanged()
    clean_files(folder)
    drop_tokens(folder)
    # Of the copy: those are the bytes that are committed.
    problem = sharding.problem(folder)
    if problem is not None:
        raise IncompleteCheckpoint(checkpoint=str(checkpoint), reason=problem)
    return FileSet(folder=folder)
