"""Found: what a folder holds that could become versions, and what of it is complete.

Complete is a checkpoint whose trainer_state.json - the file that the Trainer writes last - can be read
and names its step, whose safetensors headers fit their files, whose zip files have their end and whose index
lacks no shard.
"""

from __future__ import annotations

import contextlib
import json
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from filecmp import cmp
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from stemmata import sources
from stemmata.containers.cut import plan
from stemmata.containers.zipped import is_cut_off
from stemmata.errors import (
    BrokenContainer,
    EmptySource,
    SourceMissing,
    StemmataError,
    UnsupportedFile,
)
from stemmata.intake import state as states
from stemmata.intake.folders import (
    CHECKPOINT,
    TO_RESUME,
    are_weights,
    holds_model,
    holds_weights,
    listed,
    looked_at,
    may_be_folder,
    usable,
)
from stemmata.intake.places import Place, Tree, places_in
from stemmata.intake.state import Broken, Metadata, State
from stemmata.names import name_key
from stemmata.recording import leave_out
from stemmata.sources import Source
from stemmata.sources.files import OpenedFile
from stemmata.storage.failures import reason_of

OF_SHARDS = ("pytorch_model_fsdp*", "latest", "zero_to_torch.py")
"""The same, of sharded trainings, in checkpoints alone: elsewhere the like may be all that there is."""
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
_NAMED = 5
_MAX_INDEX = 64 << 20
_OF_TORCH = (".bin", ".pt", ".pth", ".ckpt")
_TUTORIAL = re.compile(r"v_(.+)")


@dataclass(frozen=True, slots=True)
class Found:
    """One version to be. `problem`: why it is not complete; `warning`: what is lost beside the weights."""

    path: Path
    model: str
    run: str
    label: str
    state: State = field(default_factory=State)
    metadata: Metadata = field(default_factory=Metadata)
    source: Source | None = None
    problem: str = ""
    warning: str = ""
    training: Path | None = None
    """The folder that the training writes in, where it is not told by `path`."""
    leave: tuple[str, ...] = ()
    """Patterns of what lies in it and is not of it."""
    is_beside: bool = False
    """Whether it is a save at the end of a training, or of its best, with checkpoints beside it: it may be
    written again and again, each time as a further version of the run."""
    run_given: bool = False
    """Whether the user named the run: then it is no question which one it is."""

    @property
    def is_checkpoint(self) -> bool:
        """As a Trainer writes them while it trains; else it is a save at the end."""
        return CHECKPOINT.fullmatch(self.path.name) is not None

    @property
    def name(self) -> str:
        return f"{self.run}/{self.label}"

    @property
    def metrics(self) -> dict[str, float]:
        return {**self.metadata.metrics, **self.state.metrics}

    @property
    def created_at(self) -> datetime | None:
        """What the metadata says, else when the newest of the files was written."""
        if self.metadata.created_at is not None or self.source is None:
            return self.metadata.created_at
        try:
            newest = max(f.real.stat().st_mtime for f in self.source.on_disk)
            return datetime.fromtimestamp(newest, UTC)
        except (OSError, OverflowError, ValueError):
            return None  # gone, or a time that no calendar has


def find(
    folder: Path, *, model: str | None = None, run: str | None = None, include: Sequence[str] = ()
) -> list[Found]:
    """What `folder` holds, a run's versions in the order of their steps.

    Raises SourceMissing, EmptySource; UnsupportedFile where the file system fails, or nobody may look.

    A Trainer's output, a `checkpoint-N` itself, the tutorial's `model_versions`, a folder of such
    folders, or any other folder of files, which is one version.
    """
    about = looked_at(folder)
    if about is None or not stat.S_ISDIR(about.st_mode):
        raise SourceMissing(path=str(folder))
    here = Path(folder).resolve()
    found: list[Found] = []
    tree = places_in(here)
    for place in tree.places:
        owner = place.path.parent if CHECKPOINT.fullmatch(place.path.name) else place.path
        is_here = place.path == here
        outer = here if not is_here else owner.parent if _TUTORIAL.fullmatch(owner.name) else owner
        below = owner.name if is_here else owner.relative_to(here).as_posix()
        named = (model or usable(outer.name), run or usable(below))
        found += (replace(f, run_given=run is not None) for f in _of_output(place, *named, include))
    if not found:
        raise EmptySource(path=str(folder))
    words = filter(None, (found[0].warning, *_left_out(tree, here)))
    found[0] = replace(found[0], warning="; ".join(words))
    return found


def _left_out(tree: Tree, here: Path) -> Iterator[str]:
    """What is said of a tree's parts that become no version."""
    if tree.beside:
        yield f"left out is what lies beside the runs: {_named(tree.beside, here)}"
    if tree.skipped:
        named = _named(tree.skipped, here)
        yield f"left out are folders that hold weights: {named}; import them by themselves"
    if tree.is_cut:
        yield "there are more folders than are looked into for checkpoints: import some of them by themselves"


def _named(paths: Sequence[Path], here: Path) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(path.relative_to(here).as_posix() for path in paths[:_NAMED]) + more


def training_of(found: Found) -> Path:
    """The folder that the training of a finding writes in."""
    if found.training is not None:
        return found.training
    return found.path.parent if found.is_checkpoint else found.path


def _of_output(place: Place, model: str, run: str, include: Sequence[str]) -> Iterator[Found]:
    here = place.path
    if CHECKPOINT.fullmatch(here.name):
        yield examine(Found(here, model, run, ""), include)
        return
    numbered = ((p, CHECKPOINT.fullmatch(p.name)) for p in listed(here))
    steps = sorted((int(match[1]), path) for path, match in numbered if match and may_be_folder(path))
    labels = set[str]()
    for _, path in steps:
        found = examine(Found(path, model, run, ""), include)
        labels.add(name_key(found.label))
        yield found
    for save in place.saves:
        label = _label(save.name)
        while name_key(label) in labels:
            label += "-2"
        labels.add(name_key(label))
        yield _of_its_step(examine(Found(save, model, run, label, training=here, is_beside=True), include))
    if holds_model(here) or not steps:
        leave = tuple(escape(path.relative_to(here).as_posix()) for path in place.nested)
        final = Found(here, model, run, "final", leave=leave, is_beside=bool(steps))
        final = _of_its_step(examine(final, include))
        if steps or final.problem or (final.source is not None and final.source.on_disk):
            yield final


def _label(name: str) -> str:
    """A folder's name as one behind a run's: there more may stand than alone, as `best`."""
    whole = usable(f"run/{name}")
    return whole.removeprefix("run/") if whole.startswith("run/") else usable(name)


def _of_its_step(final: Found) -> Found:
    """A final save with the state of the step whose weights it holds: a training that brings its best ones
    back at its end writes them beside the state of its last step."""
    best = states.best_of(final.state) if final.state.content else None
    if best is None or best.step == final.state.step:
        return final
    output = training_of(final)
    there = {step: output / f"checkpoint-{step}" for step in (best.step, final.state.step)}
    with contextlib.suppress(OSError, UnsupportedFile):  # what vanishes tells nothing
        if holds_weights(there[best.step]):
            return replace(final, state=best) if _same_weights(final.path, there[best.step]) else final
        # Of a merged adapter, or other precision, nothing tells which step's weights it holds.
        if holds_weights(there[final.state.step]):
            same = _same_weights(final.path, there[final.state.step])
            return replace(final, state=best) if same is False else final
    return final


def _same_weights(one: Path, other: Path) -> bool | None:
    """Whether two folders hold the same weights; None where their files do not compare."""
    named = [p.name for p in listed(one) if are_weights(p) and (other / p.name).is_file()]
    if not named or any((one / n).stat().st_size != (other / n).stat().st_size for n in named):
        return None
    return all(cmp(one / name, other / name, shallow=False) for name in named)


def examine(found: Found, include: Sequence[str] = ()) -> Found:
    """`found` with what its folder says, or with the problem that keeps it from being taken."""
    step = CHECKPOINT.fullmatch(found.path.name)
    found = replace(found, label=f"step-{int(step[1])}" if step else found.label or "final")
    try:
        found = _with_state(found, int(step[1]) if step else None)
        exclude = to_leave(found, include)
        source = sources.scan(found.path, include=include, exclude=exclude, leave_out=leave_out)
        if step and not holds_weights(found.path):
            raise Broken("it holds no weights in one piece (not written yet, or sharded by FSDP or ZeRO)")
        _require_whole(source)
    except Broken as problem:
        return replace(found, problem=str(problem))
    except BrokenContainer as error:
        return replace(found, problem=f"{error.data['path']}: {error.data['reason']}")
    except StemmataError as error:
        return replace(found, problem=str(error))
    except OSError as error:
        return replace(found, problem=reason_of(error))
    return replace(_with_metadata(found), source=source)


def _with_state(found: Found, step: int | None) -> Found:
    try:
        state = states.read_state(found.path / states.FILE_NAME)
    except Broken as problem:
        if step is None:
            return replace(found, warning=f"{states.FILE_NAME}: {problem}; its metrics are lost")
        raise Broken(f"{states.FILE_NAME}: {problem}") from None
    warning = ""
    if state is not None and state.without_log:
        warning = f"{states.FILE_NAME}: {state.without_log}: its log is left out, and with it the metrics"
    if step is None:
        return replace(found, state=state or State(), warning=warning)
    if state is None:
        raise Broken(f"it has no {states.FILE_NAME}, which is written last")
    if state.step is None:
        state = replace(state, step=step)
    if state.step != step:
        raise Broken(f"its {states.FILE_NAME} is of step {state.step}")
    if state.unnamed:
        warning = (
            f"{states.FILE_NAME}: left out are metrics that no version can have: {', '.join(state.unnamed)}"
        )
    return replace(found, state=state, warning=warning)


def _with_metadata(found: Found) -> Found:
    match = _TUTORIAL.fullmatch(found.path.name)
    if match is None:
        return found
    path = found.path.parent / f"metadata_{match[1]}.json"
    named = states.moment_of(match[1])
    try:
        metadata = states.read_metadata(path) or Metadata()
    except Broken as problem:
        warning = f"{path.name}: {problem}; its facts are lost, the weights are not"
        return replace(found, metadata=Metadata(named), warning=warning)
    return replace(found, metadata=replace(metadata, created_at=metadata.created_at or named))


def _require_whole(source: Source) -> None:
    """Raises Broken or BrokenContainer if a safetensors file, one of torch or a shard is not whole."""
    present = {f.path for f in source.on_disk}
    for match in filter(None, map(_SHARD.fullmatch, present)):
        # Before the index is there too: it is written after the shards.
        width, count = len(match[3]), int(match[3])
        for number in range(1, min(count, len(present)) + 2):
            shard = f"{match[1]}-{number:0{width}}-of-{match[3]}{match[4]}"
            if number <= count and shard not in present:
                raise Broken(f"it lacks the shard {shard}")
    for file in source.on_disk:
        if file.path.endswith(".safetensors"):
            with OpenedFile(file) as opened:
                plan(opened, file.size, file.path)
        if file.path.endswith(_OF_TORCH):
            with OpenedFile(file) as opened:
                if is_cut_off(opened, file.size):
                    raise Broken(f"{file.path} lacks the end of a zip file; it may have been cut off")
        if file.path.endswith(".index.json"):
            above = file.path.rpartition("/")[0]
            missing = sorted({f"{above}/{s}" if above else s for s in _shards(source, file.path)} - present)
            if missing:
                raise Broken(f"it lacks the shard {missing[0]}")


def _shards(source: Source, path: str) -> set[str]:
    size = next(f.size for f in source.files if f.path == path)
    if size > _MAX_INDEX:
        raise Broken(f"{path} has {size} bytes, which no index needs")
    try:
        index = json.loads(source.read(path))
    except (ValueError, RecursionError):
        raise Broken(f"{path} is no whole JSON; it may have been cut off") from None
    named = index.get("weight_map") if isinstance(index, dict) else None
    return {str(shard) for shard in named.values()} if isinstance(named, dict) else set()


def to_leave(found: Found, include: Sequence[str]) -> list[str]:
    """The patterns of what is left out of a finding, without those that an `include` asks for."""
    patterns = TO_RESUME + (OF_SHARDS if found.is_checkpoint else ()) + found.leave
    return [p for p in patterns if not any(fnmatchcase(p, i) or fnmatchcase(i, p) for i in include)]
