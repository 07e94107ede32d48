"""Recorder: one training run's line of versions. Owns names, parents and what goes off the thread.

The training thread takes the snapshot; the writer's thread stores it and commits. Metrics that come
later follow through the same queue, so they find their version.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stemmata import logrows
from stemmata.capturing import Capturing
from stemmata.errors import (
    IncompleteCheckpoint,
    NameTaken,
    SpaceShort,
    StemmataError,
    TrainingSaveFailed,
    VersionNotFound,
)
from stemmata.hf import captured, facts, filesets
from stemmata.hf.failures import Failures, OnError, Task
from stemmata.hf.keeping import Keep, Keeping, metric_of
from stemmata.hf.origin import describe_base, origin_of, remember_origin, visible_ones
from stemmata.hf.runnames import free_name, run_name
from stemmata.hf.space import Room
from stemmata.hf.writer import Workspace, Writer
from stemmata.histories.logs import add as add_rows
from stemmata.ids import VersionId
from stemmata.logrows import Kept, Rows
from stemmata.metricnames import Direction
from stemmata.records import Base, Run
from stemmata.repository import Repository
from stemmata.sources import MemoryFolder

_log = logging.getLogger("stemmata")
_UNKNOWN = -1


@dataclass(slots=True, eq=False)
class Saved:
    """A version that is being written or is there. `version` is set once it is durable."""

    name: str
    step: int
    epoch: float | None
    version: VersionId | None = None
    told: dict[str, float] = field(default_factory=dict)
    """Metrics of evaluations that it has been given."""
    late: list[Task] = field(default_factory=list)
    """What is to be done once it is there, should its first write have failed."""
    rows: Kept = field(default_factory=Kept)
    """What was logged since the version before."""


@dataclass(slots=True)
class Account:
    """What every version of the run says."""

    message: str = ""
    config: dict[str, object] = field(default_factory=dict)
    data: dict[str, object] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    captured: Capturing | None = None
    """Of the run, in the background; its versions share the objects."""
    parents: Sequence[VersionId] | None = None
    """Of the run's first version; None: what the model was loaded from, if that is known."""


class Recorder:
    """Saves one run of one model into a repository."""

    def __init__(
        self,
        repository: Repository,
        model: str,
        run_name: str,
        account: Account,
        *,
        on_error: OnError = "warn",
        keep: Keep | None = None,
        metric: tuple[str, Direction] | None = None,
    ) -> None:
        self.repository = repository
        self.model = model
        self._wanted = run_name
        self.run = Run(id=uuid.uuid4().hex, name=free_name(repository, model, run_name))
        self.account = account
        self.saved: list[Saved] = []
        self.again: set[str] = set()
        """Names that a resumed run has already, of steps that it may make again."""
        self.failures = Failures(model, on_error)
        self.keeping = Keeping(repository.session, model, keep or Keep(), metric)
        self._writer = Writer()
        self._ended = False
        self._lost: TrainingSaveFailed | None = None
        self.room = Room(model)
        self.workspace = Workspace(repository.session.cache_folder() / "writing")
        self.rows = Rows()
        self._thinned = False
        """Whether it was said that there are more rows than a version keeps."""
        self._unkept = Kept()
        """Rows of a save that made no version: one with these bytes was there."""
        self._base: Base | None = None
        self._origin: Sequence[VersionId] | None = account.parents
        self._told_of = set[VersionId]()
        """Parents of which it was said that they are gone."""

    def at_step(self, step: int) -> Saved | None:
        """The run's version of this step."""
        return next((s for s in reversed(self.saved) if s.step == step), None)

    def log(self, step: int, epoch: float | None, values: Mapping[str, Any] | None) -> None:
        """Take in what the training logged at a step, for the run's next version."""
        self.rows.add(step, epoch, facts.numbers(values))

    def save(self, live: Any, processing_class: Any, **said: Any) -> Saved:
        """Snapshot `live` now; store and commit in the background.

        Without memory for a snapshot it is stored from the live weights, before this returns.

        Waits first until the save before is durable, and tries once more what failed before.
        The parent is `after`; else, if it `follows`, the run's newest version; else what the model
        came from. A version that cannot be written is noted in `failures`. What is `said`: see `record`.

        Raises TrainingSaveFailed for an earlier failure, if failures are to be raised.
        """

        def begin(folder: Path) -> filesets.FileSet:
            return filesets.begin(live, processing_class, folder, self.room, whole=False)

        return self.record(begin, filesets.unwrap(live), **said)

    def record(
        self,
        begin: Callable[[Path], filesets.FileSet],
        inner: Any,
        *,
        name: str,
        step: int | None,
        epoch: float | None,
        event: str,
        metrics: Mapping[str, float],
        same_as_existing: bool = False,
        after: Saved | None = None,
        follows: bool = True,
    ) -> Saved:
        """As `save`, of what `begin` puts into an empty folder; `inner` is the model without wrappers."""
        self._ended = False  # though somebody waited: more is to be told at the end
        self._writer.wait_for_room()
        self._try_again()
        self.raise_failure()
        saved = Saved(name=name, step=_UNKNOWN if step is None else step, epoch=epoch)
        before = after or (self.saved[-1] if self.saved and follows else None)
        line = self.saved[: self.saved.index(before) + 1] if before in self.saved else [before]
        files = self._begin(begin, name)
        if files is None:
            return saved
        # The training thread changes these before its next save, which waits for this one there.
        data, config = dict(self.account.data), dict(self.account.config)
        if follows:
            saved.rows = self.rows.take()

        def job() -> None:
            # Looked at before the disk is filled to its brim: others may be writing there, the training too.
            self.room.hold_on_disk(self.workspace.parent, files.nbytes)
            base = self._base_of(inner)
            same = same_as_existing or task.unsure or f"{self.run.name}/{name}" in self.again
            saved.version = self._commit(
                lambda: self._store(
                    files.source,
                    name,
                    metrics=metrics,
                    parents=self._parents(line, inner),
                    step=step,
                    epoch=epoch,
                    event=event,
                    base=base,
                    data=data,
                    config=config,
                    rows=self._rows_of(line, saved),
                    same_as_existing=same,
                )
            )
            if any(each.version == saved.version for each in line if each is not saved and each is not None):
                self._unkept += saved.rows
            for late in saved.late:
                late.waits = False
                self._writer.add(self._guarded(late))
            saved.late.clear()

        def drop() -> None:
            files.drop()
            self.workspace.remove(files.folder)

        task = Task(name, job, drop=drop, again=True, at_once=files.live)
        self._writer.save(self._guarded(task))
        if files.live:
            self._hold_still(files)
        if not same_as_existing:
            self.saved.append(saved)
        return saved

    def _hold_still(self, files: filesets.FileSet) -> None:
        """Let the training wait while its own weights are stored, a second try included."""
        try:
            self._writer.wait_for_room()
            self._try_again()
        except BaseException:
            # Interrupted: the model may change from now on, and half of it must not become a version.
            files.drop()
            raise

    def take_in(
        self,
        source: Path,
        *,
        name: str,
        step: int | None,
        epoch: float | None,
        metrics: Mapping[str, float],
    ) -> Saved:
        """A version of a folder or file. It may change afterwards: this returns when it is written."""
        self._ended = False
        self._writer.drain()
        self._try_again()
        self.raise_failure()
        saved = Saved(name=name, step=_UNKNOWN if step is None else step, epoch=epoch)
        saved.rows, line = self.rows.take(), list(self.saved)

        def job() -> None:
            saved.version = self._commit(
                lambda: self._store(
                    source,
                    name,
                    metrics=metrics,
                    parents=self._line_of(line) or self._visible(self.account.parents or ()),
                    step=step,
                    epoch=epoch,
                    config=self.account.config,
                    rows=self._rows_of(line, saved),
                )
            )

        self._writer.save(self._guarded(Task(name, job)))
        self._writer.wait_for_room()
        self.raise_failure()
        if saved.version is not None:
            self.saved.append(saved)
        else:
            self._unkept += saved.rows
        return saved

    def _begin(self, begin: Callable[[Path], filesets.FileSet], name: str) -> filesets.FileSet | None:
        """The snapshot; None if it could not be taken and that is noted."""
        folder: Path | None = None
        try:
            folder = self.workspace.folder()
            return begin(folder)
        except BaseException as error:
            if folder is not None:
                self.workspace.remove(folder)
            named = isinstance(error, OSError | SpaceShort | IncompleteCheckpoint)
            if not isinstance(error, Exception) or (self.failures.on_error == "raise" and not named):
                raise
            self.miss(name, error)
            return None

    def miss(self, name: str, error: Exception) -> None:
        """Note a version that cannot be begun. Raises TrainingSaveFailed if failures are to be raised."""
        failed = self.failures.missed(f"{self.run.name}/{name}", error)
        if self.failures.on_error == "raise":
            raise failed from error

    def miss_last(self, name: str, error: Exception) -> None:
        """As `miss`, at the end of training: it is `finish` that raises, when all that is there is kept."""
        failed = self.failures.missed(f"{self.run.name}/{name}", error)
        if self.failures.on_error == "raise":
            self._lost = failed

    def _store(self, source: Path | MemoryFolder, name: str, *, rows: Kept, **said: Any) -> VersionId:
        """One save under the run's name as it is now: losing that name to another changes it."""
        account = self.account
        provenance = dict(account.captured.objects()) if account.captured is not None else {}
        if rows:
            provenance[logrows.KIND] = rows.encoded()
        if rows.left_out and not self._thinned:
            self._thinned = True
            kept = len(rows.rows)
            words = "%s/%s of %s keeps %d of the %d rows that were logged since the version before"
            _log.warning(words, self.run.name, name, self.model, kept, kept + rows.left_out)
        return self.repository.save(
            source,
            self.model,
            name=f"{self.run.name}/{name}",
            run=self.run,
            message=account.message,
            provenance=provenance,
            labels=account.labels,
            # A step that a resumed run makes again has other bytes: it gets its name with a number.
            numbered=bool(self.again),
            **said,
        ).id

    def annotate(
        self, saved: Saved, metrics: Mapping[str, float], event: str, data: Mapping[str, Any] | None = None
    ) -> None:
        """Attach metrics to a version of this run, durably, as soon as it is there itself. `data`: of
        `facts.data`, what they were measured on."""
        name, fingerprint = (
            str((data or {}).get(f"eval.{word}") or "") for word in ("dataset", "fingerprint")
        )

        def job() -> None:
            if saved.version is None:
                task.waits = True
                saved.late.append(task)
            else:
                with suppress(VersionNotFound):  # deleted while it was measured: nobody asks any more
                    self.repository.annotate(
                        saved.version, metrics=metrics, event=event, dataset=name, fingerprint=fingerprint
                    )

        task = Task(f"{saved.name} ({event} metrics)", job, again=True)
        if metrics:
            self._writer.add(self._guarded(task))

    def unmeasured(self, saved: Saved, metrics: Mapping[str, float]) -> dict[str, float]:
        """Those of `metrics`, measured after the end, that its version does not have with another value: they
        may be of other data."""
        self._writer.drain()
        if saved.version is None:
            return {}
        try:
            found = self.repository.get(saved.version).metrics
        except StemmataError:
            return {}  # deleted, or out of reach: what it has is not known
        other = [key for key, value in metrics.items() if found.get(key, value) != value]
        told = [key for key in other if not key.endswith(facts.SPEEDS)]
        if told:
            words = "%s of %s keeps the %s that it has: what was measured after it is not attached"
            hint = "; give evaluate() a metric_key_prefix of its own"
            _log.warning(words + hint, saved.name, self.model, ", ".join(told))
        return {key: value for key, value in metrics.items() if key not in other}

    def also_name(self, saved: Saved, name: str) -> None:
        """Give a version of this run a further name: of a run that goes on the next one that is free."""

        def job() -> None:
            first = full = f"{self.run.name}/{name}"
            if saved.version is None:
                task.waits = True
                saved.late.append(task)
                return
            for number in itertools.count(2):
                try:
                    self.repository.name(self.model, full, saved.version)
                except VersionNotFound:
                    pass  # deleted meanwhile
                except NameTaken:
                    if first not in self.again:
                        raise
                    full = f"{first}-{number}"
                    continue
                break

        task = Task(name, job, again=True)
        self._writer.add(self._guarded(task))

    def aside(self, job: Callable[[], None]) -> None:
        """Run a job after everything before it of which nobody needs to know whether it came off."""

        def quietly() -> None:
            try:
                job()
            except Exception as error:  # noqa: BLE001
                # Whatever it was: the training would be told of it, and end.
                _log.debug("left: %s: %s", type(error).__name__, error)

        self._writer.add(quietly)

    def add(self, job: Callable[[], None], name: str) -> None:
        """Run a job of one's own after everything before it; `name` is what it saves, for its failure."""
        self._writer.add(self._guarded(Task(name, job)))

    def busy(self) -> bool:
        """Whether something that was asked for is not written yet, or is to be tried again."""
        return self._writer.busy() or self.failures.waiting()

    def wait(self) -> None:
        """Wait until nothing is left to write; failures stay to be told."""
        self._writer.drain()

    def settle(self) -> None:
        """Wait for what was asked for so far, and what failed of it once more. Of any thread."""
        with suppress(RuntimeError):  # the interpreter ends and takes no more work
            self._begin_again(self._writer.add)
        self._writer.settle()

    def finish(self, live: Any, held: Saved | None) -> None:
        """Wait for the last write, after a second try of what failed. `held` is the version whose
        weights `live` holds now. What is missing then is listed.

        Raises TrainingSaveFailed if a write failed since the last call, or the last weights are missing, and
        failures are to be raised.
        """
        self._writer.drain()
        self._try_again()
        self.keep_last_rows()
        if held is not None and held.version is not None:
            remember_origin(filesets.unwrap(live), self.repository.session, held.version)
        if not self._ended:
            if held is not None and held.version is not None:
                self._tell_of_name(held.version)
            self.failures.report(self.run.name, sum(s.version is not None for s in self.saved))
            self.keeping.report(self.run)
        self._ended = True
        lost, self._lost = self._lost, None
        self.raise_failure()
        if lost is not None:
            raise lost

    def _tell_of_name(self, version: VersionId) -> None:
        """A script that loads `<run>/final` gets what it was before the run went on."""
        before = f"{self.run.name}/final"
        with suppress(StemmataError):
            names = self.repository.get(version).names
            if before in self.again and before not in names:
                words = "run %s of %s went on and ended with %s; %s is what it ended with before"
                _log.warning(words, self.run.name, self.model, " = ".join(names), before)

    def leave(self) -> None:
        """As `finish`, of a training that did not come to its own end.

        Raises TrainingSaveFailed if a write failed since the last call and failures are to be raised.
        """
        self.finish(None, None)

    def drain(self) -> None:
        """Wait for everything that was asked for so far."""
        self._writer.drain()
        self.raise_failure()

    def raise_failure(self) -> None:
        failure = self._writer.take_failure()
        if failure is not None:
            raise failure

    def hold_space(self, needed: int) -> None:
        """Look, before the first step, whether a version fits on the disk at all, of which `needed` bytes
        are written. Raises SpaceShort, or warns, as failures are to be met."""
        try:
            self.room.hold_on_disk(self.workspace.parent, needed)
        except SpaceShort as short:
            if self.failures.on_error == "raise":
                raise
            _log.warning("%s", short)

    def _try_again(self) -> None:
        self._begin_again(self._writer.save)
        self._writer.wait_for_room()

    def _begin_again(self, begin: Callable[[Callable[[], None]], None]) -> None:
        waiting = self.failures.take_waiting()
        try:
            while waiting:
                begin(self._guarded(waiting[0]))
                del waiting[0]
        finally:
            self.failures.put_back(waiting)  # what could not be begun is told as missing at the exit

    # --- on the writer's thread -------------------------------------------------------------

    def _guarded(self, task: Task) -> Callable[[], None]:
        write = self.failures.guarded(task, lambda: self.run.name)

        def run() -> None:
            write()
            # Also after metrics and names: they may change which versions are the best, or needed.
            try:
                self.keeping.apply(self.run)
            except Exception as error:  # noqa: BLE001
                # As of a save: whatever it was, the training gets one named error, or goes on.
                self.failures.aside(f"the marks of {self.keeping.keep}", error)

        return run

    def _commit(self, save: Callable[[], VersionId]) -> VersionId:
        """Save; if another process took the run's name meanwhile, take the next one."""
        lost = set[str]()
        if not (self.again or self.keeping.resumed or any(s.version is not None for s in self.saved)):
            # Another run that began at the same time may have the name by now, with other steps.
            name = free_name(self.repository, self.model, self._wanted)
            self.run = Run(id=self.run.id, name=name)
        while True:
            try:
                return save()
            except NameTaken:
                if self.again or any(s.version is not None for s in self.saved):
                    raise
                lost.add(self.run.name)
                name = free_name(self.repository, self.model, self._wanted, lost)
                self.run = Run(id=self.run.id, name=name)

    def _rows_of(self, line: Sequence[Saved | None], saved: Saved) -> Kept:
        """The version's rows, and before them those of versions that could not be written."""
        rows = saved.rows
        for before in reversed(line):
            if before is None or before.version is not None:
                break
            if before is not saved:
                rows = before.rows + rows
        return rows

    def keep_last_rows(self) -> None:
        """Wait for the last write, then keep what was logged after the last version's step with that version:
        none comes any more. What was logged at its own step it was told as metrics."""
        self._writer.drain()
        rows, self._unkept = self._unkept + self.rows.take(), Kept()
        last = next((each for each in reversed(self.saved) if each.version is not None), None)
        for missed in reversed(self.saved):
            if missed is last:
                break
            rows, missed.rows = missed.rows + rows, Kept()
        if last is None or last.version is None:
            return
        version, step = last.version, last.step
        late = Kept(tuple(row for row in rows.rows if row["step"] > step), rows.left_out)

        def job() -> None:
            with suppress(VersionNotFound):  # deleted meanwhile
                add_rows(self.repository.session, version, late)

        if late:
            self._writer.add(self._guarded(Task("what was logged last", job)))
            self._writer.drain()

    def _parents(self, line: Sequence[Saved | None], inner: Any) -> list[VersionId]:
        """The newest of `line` that is there: one that could not be written, or was deleted since, has no
        children. Else what the run began with, as far as that is there."""
        if found := self._line_of(line):
            return found
        if self._origin is None:
            origin = origin_of(inner, self.repository.session)
            self._origin = [origin] if origin is not None else []
        return self._visible(self._origin)

    def _line_of(self, line: Sequence[Saved | None]) -> list[VersionId]:
        written = [saved for saved in reversed(line) if saved is not None]
        return next((found for saved in written if (found := self.as_parent(saved))), [])

    def _visible(self, parents: Sequence[VersionId]) -> list[VersionId]:
        found = visible_ones(self.repository.session, parents)
        for gone in set(parents) - {*found, *self._told_of}:
            self._told_of.add(gone)
            words = "the versions of run %s of %s do not name %s as a parent: it is not here, or deleted"
            _log.warning(words, self.run.name, self.model, gone.short)
        return found

    def as_parent(self, saved: Saved) -> list[VersionId]:
        """Its version, if it was written and not deleted since: else none."""
        return visible_ones(self.repository.session, [] if saved.version is None else [saved.version])

    def _base_of(self, inner: Any) -> Base | None:
        if self._base is None and filesets.holds_adapters(inner):
            self._base = describe_base(inner, self.repository.session)
        return self._base


def start(
    repository: Repository,
    model: str,
    chosen: str | None,
    arguments: Any,
    live: Any,
    account: Account,
    on_error: OnError,
    keep: Keep,
    weights: int | None = None,
    live_parts: Mapping[str, Any] | None = None,
) -> Recorder:
    """A recorder for a training that begins now. `weights`: their bytes, of a model that is held in parts."""
    inner = filesets.unwrap(live)
    account.config = {**facts.config(arguments, inner), **account.config}
    account.captured = captured.of_trainer(arguments, inner, live_parts or {})
    name, metric = run_name(arguments, chosen), metric_of(arguments)
    recorder = Recorder(repository, model, name, account, on_error=on_error, keep=keep, metric=metric)
    # What is sharded is copied from a checkpoint first.
    recorder.hold_space(filesets.weight_bytes(inner) if weights is None else 2 * weights)
    return recorder
