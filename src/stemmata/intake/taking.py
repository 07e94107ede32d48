"""Taking: one finding becomes a version, or is recognised. Owns what counts as a repeat.

The repository decides alone: a name that is there with the same content is nothing new, whoever
made it; with other content it is refused. So any number of importers and watchers agree.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemmata.catalog import queries
from stemmata.errors import InvalidArgument, NameTaken, NotFound, StemmataError
from stemmata.ids import Digest, VersionId
from stemmata.intake.folders import looked_at, may_be_folder
from stemmata.intake.found import Found, find, to_leave, training_of
from stemmata.intake.runs import Content, Runs
from stemmata.names import name_key
from stemmata.recording import SaveRequest
from stemmata.records import Run
from stemmata.repository import Repository
from stemmata.sources import Source
from stemmata.sources.files import unsupported
from stemmata.storage.failures import reason_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one finding.

    `status`: new; named (a further name of a version of the run with the same bytes); known (nothing new);
    incomplete; gone (it vanished meanwhile); failed, with the `reason`.
    """

    found: Found
    status: str
    version: VersionId | None = None
    reason: str = ""
    error: StemmataError | None = None


Tell = Callable[[Outcome], None]


def import_folders(
    repository: Repository,
    folders: Iterable[Path],
    *,
    model: str | None = None,
    run: str | None = None,
    include: Sequence[str] = (),
    dry_run: bool = False,
    tell: Tell | None = None,
) -> list[Outcome]:
    """Take in everything complete in `folders`: a run each, its versions in a line.

    With `dry_run` nothing is written and "new" means "would be". A finding that fails costs no
    other one. Raises SourceMissing, EmptySource, UnsupportedFile, InvalidArgument before anything is taken.
    """
    folders = list(folders)
    for folder in folders:
        about = looked_at(folder)
        if about is not None and stat.S_ISREG(about.st_mode):
            reason = f"{folder} is a file; give the folder that it lies in, or save it alone: stemmata save"
            raise InvalidArgument(argument="folder", reason=reason)
    everything = [f for folder in folders for f in find(folder, model=model, run=run, include=include)]
    outcomes, runs = [], Runs()
    for found in everything:
        outcome = _foreseen(repository, found, runs) if dry_run else take(repository, found, include, runs)
        outcomes.append(outcome)
        if tell is not None:
            tell(outcome)
    return outcomes


def take(
    repository: Repository, found: Found, include: Sequence[str] = (), runs: Runs | None = None
) -> Outcome:
    """Make a version of a finding, unless its run has it. Raises nothing of the error tree or of files.

    `runs`: what the findings before it were found to be.
    """
    if found.problem or found.source is None:
        return _missed(found, found.problem)
    runs, content, placed = runs or Runs(), Content(found.source), found
    last: NameTaken | None = None
    while True:
        try:
            placed = runs.placed(repository, found, content)
            known = _known(repository, placed, content)
            return known or _save(repository, placed, found.source, include)
        except NameTaken as error:
            # Another process may have taken in the very same folder just now, or one of the same name.
            if last is not None and error.data == last.data:
                return _failed(placed, error)
            last = error
        except (StemmataError, OSError) as error:
            return _failed(placed, error)


def _missed(found: Found, problem: str) -> Outcome:
    if not may_be_folder(found.path):
        return Outcome(found, "gone", reason="it vanished while it was read")
    return Outcome(found, "incomplete", reason=problem)


def _failed(found: Found, error: StemmataError | OSError) -> Outcome:
    if not may_be_folder(found.path):
        return _missed(found, "")
    if isinstance(error, OSError):
        error = unsupported(found.path, reason_of(error))
    return Outcome(found, "failed", reason=str(error), error=error)


def _foreseen(repository: Repository, found: Found, runs: Runs) -> Outcome:
    if found.problem or found.source is None:
        return _missed(found, found.problem)
    content, placed = Content(found.source), found
    try:
        placed = runs.placed(repository, found, content)
        return _known(repository, placed, content) or Outcome(placed, "new")
    except (StemmataError, OSError) as error:
        return _failed(placed, error)


def _known(repository: Repository, found: Found, content: Content) -> Outcome | None:
    """The outcome if the name is there with this content. Raises NameTaken if with another."""
    session = repository.session
    session.refresh()
    taken = queries.ref(session.catalog.connection, name_key(found.model), name_key(found.name))
    if taken is None:
        return None
    row = queries.version_by_id(session.catalog.connection, taken.target)
    if row is None or row.content != content.digest:
        holder = f"{taken.kind} of {taken.target.short}, with other content; name the run with --run"
        raise NameTaken(model=found.model, name=found.name, holder=holder)
    if row.state != "visible":
        # Whoever deleted it meant it: a folder that is still there does not bring it back.
        return Outcome(found, "known", taken.target, reason="it was deleted since it was taken in")
    return Outcome(found, "known", taken.target)


def _save(repository: Repository, found: Found, source: Source, include: Sequence[str]) -> Outcome:
    run = _run(repository, found)
    origin = {"source": str(found.path), "training": str(training_of(found))}
    provenance = {"import": json.dumps(origin).encode()}
    # A state that is kept is taken for all that was logged up to it.
    if found.state.content and not found.state.without_log:
        provenance["trainer_state"] = found.state.content
    request = SaveRequest(
        source=found.path,
        model=found.model,
        name=found.name,
        metrics=found.metrics,
        config=found.metadata.config,
        parents=_parents(repository, found),
        run=run,
        step=found.state.step,
        epoch=found.state.epoch,
        event="import",
        provenance=provenance,
        include=include,
        exclude=to_leave(found, include),
        author=repository.session.author,
        created_at=found.created_at,
        # A final save often is the last checkpoint once more; equal checkpoints are versions of their own.
        same_as_existing=not found.is_checkpoint,
        listed=source.on_disk,
    )
    version, saved = repository.save_request(request)
    return Outcome(found, "named" if saved.existed else "new", version.id)


def _run(repository: Repository, found: Found) -> Run:
    """The run of that name; if it is new, with an id that every process would give it."""
    try:
        known = repository.get(f"{found.model}@{found.run}/latest").run
    except NotFound:
        known = None
    if known is not None and known.name == found.run:
        return known
    made = Digest.of(f"stemmata import\n{name_key(found.model)}\n{name_key(found.run)}".encode())
    return Run(id=made.hex[:32], name=found.run)


def _parents(repository: Repository, found: Found) -> list[VersionId] | None:
    """The run's last version before this step; None leaves it to the save: the newest."""
    if found.state.step is None or not found.is_checkpoint:
        return None
    try:
        versions = repository.versions(found.model)
    except NotFound:
        return []
    before = [
        v
        for v in versions
        if v.run is not None and v.run.name == found.run and (v.step or 0) < found.state.step
    ]
    return [max(before, key=lambda v: v.step or 0).id] if before else []
