"""Repository: the facade. Owns what people call; every operation itself lies below.

repo = stemmata.open("models", create=True)
v = repo.save("out/", "sentiment", metrics={"eval_loss": 0.41})
repo.alias("sentiment", "production", v, why="passed the gate")
repo["sentiment@production@{3 weeks ago}"]
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from stemmata import redirecting
from stemmata.arguments import instant_of
from stemmata.catalog import queries
from stemmata.deferred import deferred
from stemmata.errors import (
    InvalidArgument,
    MissingExtra,
    RepositoryExists,
    RepositoryNotFound,
)
from stemmata.ids import VersionId
from stemmata.log.identity import create_identity
from stemmata.names import clean_name
from stemmata.promotion import Promotion
from stemmata.records import Base, Run
from stemmata.session import Session
from stemmata.storage.base import Storage
from stemmata.storage.failures import read_failure
from stemmata.storage.local import LocalStorage
from stemmata.transaction import default_author
from stemmata.upkeep import Target
from stemmata.version import Version
from stemmata.versions import Query, VersionList

if TYPE_CHECKING:
    from stemmata import (
        capturing,
        collecting,
        moves,
        naming,
        portraits,
        recording,
        resolve,
        resuming,
        saving,
        sources,
        timephrases,
    )
    from stemmata.collecting import small
    from stemmata.recording import SaveRequest
    from stemmata.resolve import BestFound, Resolved
    from stemmata.saving import Saved
    from stemmata.sources import MemoryFolder
else:
    capturing = deferred("stemmata.capturing")
    collecting = deferred("stemmata.collecting")
    moves = deferred("stemmata.moves")
    naming = deferred("stemmata.naming")
    portraits = deferred("stemmata.portraits")
    recording = deferred("stemmata.recording")
    resolve = deferred("stemmata.resolve")
    resuming = deferred("stemmata.resuming")
    saving = deferred("stemmata.saving")
    small = deferred("stemmata.collecting.small")
    sources = deferred("stemmata.sources")
    timephrases = deferred("stemmata.timephrases")

FOLDER = ".stemmata"
VARIABLE = "STEMMATA_REPO"


def open(
    path: str | os.PathLike[str] | None = None, *, create: bool = False, up_to_damage: bool = False
) -> Repository:
    """Open the repository in folder `path`.

    A folder in which one lies as `.stemmata` stands for that, and `~` for the home folder.
    Without `path`: the one that `STEMMATA_REPO` names, else the nearest `.stemmata` folder in the
    working directory or above. With `create`, an absent one is made (without `path`:
    `.stemmata` in the working directory).

    `up_to_damage`: where an entry of the log is damaged, read what came before it and write nothing. Names
    point where they pointed then.

    Raises RepositoryNotFound, DamagedRepository, DamagedLog, NewerFormat.
    """
    if redirecting.is_on():
        return Repository(redirecting.storage_for(path), up_to_damage=up_to_damage)
    folder = meant(path) if path is not None else locate()
    if folder is None:
        folder = Path.cwd() / FOLDER
        if not create:
            raise RepositoryNotFound(where=str(folder))
    if create:
        _create(folder)
    return Repository(LocalStorage(folder), up_to_damage=up_to_damage)


def init(path: str | os.PathLike[str] = FOLDER) -> Repository:
    """Make a new repository in folder `path`. Raises RepositoryExists if one is there."""
    if redirecting.is_on():
        return Repository(redirecting.storage_for(path))
    folder = _at_home(Path(path))
    if not _create(folder):
        raise RepositoryExists(where=str(folder), reason="a stemmata repository")
    return Repository(LocalStorage(folder))


def meant(path: str | os.PathLike[str]) -> Path:
    """The folder of the repository that `path` stands for: itself, or the `.stemmata` in it."""
    folder = _at_home(Path(path))
    inner = folder / FOLDER
    try:
        is_project = (inner / "stemmata.json").is_file() and not (folder / "stemmata.json").exists()
    except OSError:
        return folder  # whoever opens it says what is the matter
    return inner if is_project else folder


def _at_home(folder: Path) -> Path:
    """With `~` as a shell reads it: bash does not in `--repo=~/models`, and nobody means a folder of that
    name."""
    try:
        return folder.expanduser()
    except RuntimeError:  # no such user
        return folder


def locate(start: Path | None = None) -> Path | None:
    """The folder that `STEMMATA_REPO` names, else the nearest `.stemmata` upward, else None."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return meant(chosen)
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / FOLDER / "stemmata.json").is_file():
            return folder / FOLDER
    return None


def _folder(source: object) -> Path | MemoryFolder:
    if isinstance(source, sources.MemoryFolder):
        return source
    path = os.fspath(cast("str | os.PathLike[str]", source))
    if not path:
        # Path("") is the working folder, which nobody means by an empty string.
        raise InvalidArgument(argument="source", reason="it is empty")
    return Path(path)


def _lasting(base: Base | None) -> Base | None:
    """Of a run that is made again: where the base lies when its work folder is gone."""
    if base is None or not redirecting.is_on():
        return base
    place = redirecting.as_it_was(base.name_or_path)
    return Base(place, base.revision, base.digest, base.files, base.version)


def _models_in_memory(source: object) -> Any:
    """What saves a model, of the `hf` extra. Raises InvalidArgument, MissingExtra."""
    if not hasattr(source, "state_dict"):
        reason = f"{type(source).__name__} is neither a path nor a model"
        raise InvalidArgument(argument="source", reason=reason)
    return _of_torch("stemmata.hf.live", "saving a model from memory")


def _of_torch(module: str, feature: str) -> Any:
    """A module of the `hf` extra, by its name, as the loaders are: this floor knows no torch."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "stemmata":
            raise
        raise MissingExtra(feature=feature, package=error.name, extra="hf") from error


def _create(folder: Path) -> bool:
    """Make the repository unless it is there; True if this call made it."""
    storage = LocalStorage(folder)
    try:
        strange = folder.is_dir() and any(e.name not in ("tmp", "cache") for e in folder.iterdir())
        # Asked last: another process may have made it since the folder was empty.
        if (folder / "stemmata.json").exists():
            return False
    except OSError as error:
        raise read_failure(error, str(folder)) from error
    if strange:
        reason = "files that are not a repository's"
        if (folder / "log").is_dir():
            reason = "a repository without its stemmata.json, which stemmata check --repair looks for"
        raise RepositoryExists(where=str(folder), reason=reason)
    return create_identity(storage)


class Repository(Promotion):
    """One opened store. Safe to use from many threads; any number of processes may share it."""

    def __init__(self, storage: Storage, *, author: str | None = None, up_to_damage: bool = False) -> None:
        self._session = Session(storage, author=author or default_author(), up_to_damage=up_to_damage)
        self._session.refresh()

    @classmethod
    def in_memory(cls) -> Self:
        """A new repository that lives as long as the object: for tests and trials."""
        from stemmata.storage.memory import MemoryStorage

        storage = MemoryStorage()
        create_identity(storage)
        return cls(storage)

    # --- looking ----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The repository's own id, 32 hex digits."""
        return self._session.identity.repository

    @property
    def where(self) -> str:
        return self._session.storage.where

    @property
    def session(self) -> Session:
        """Storage, catalog and readers; for operations built on this repository."""
        return self._session

    def models(self) -> list[str]:
        """Names of all models that have versions."""
        self._session.refresh()
        return [m.name for m in queries.models(self._session.catalog.connection)]

    def versions(self, model: str | None = None, *, at: str | datetime | None = None) -> VersionList:
        """Visible versions, newest first; with `at` as they were then. Raises ModelNotFound, InvalidTime."""
        self._session.refresh()
        key = self._model_key(model) if model is not None else None
        moment = _instant(at)
        return VersionList(self._session, Query(model=key, at=moment))

    def get(self, reference: Target, *, at: str | datetime | None = None) -> Version:
        """The version that a reference names, or named at time `at`; then with the metrics, labels and notes
        that it had at that time.

        Raises ModelNotFound, VersionNotFound, AmbiguousReference, InvalidReference, InvalidTime.
        """
        if at is not None and not isinstance(reference, str):
            # It is asked for by its id: what was not there yet then, or not any more, is refused.
            reference = f"id:{reference.hex if isinstance(reference, VersionId) else reference.id.hex}"
        if isinstance(reference, Version):
            return reference
        if isinstance(reference, VersionId):
            self._session.refresh()
            return Version(self._session, self._session.row(reference))
        found = self.resolve(reference, at=at)
        # `@{…}` in a reference says which version; `at` also, as of when it is told.
        return Version(self._session, found.row, at=found.at_utc if at is not None else None)

    def __getitem__(self, reference: str) -> Version:
        return self.get(reference)

    def resolve(self, reference: str, *, at: str | datetime | None = None) -> Resolved:
        """What a reference names, with the UTC instant that a time phrase was read as."""
        self._session.refresh()
        return resolve.resolve(self._session.catalog.connection, reference, at=at)

    def search(
        self,
        model: str | None,
        expression: str,
        *,
        sort: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> VersionList:
        """Versions for which `expression` holds, such as `eval_loss < 0.5 and lora.r == 8`."""
        found = self.versions(model).where(expression)
        if sort is not None:
            found = found.sort(sort, descending=descending)
        return found.limit(limit) if limit is not None else found

    def best(
        self,
        model: str,
        metric: str | None = None,
        *,
        direction: str | None = None,
        run: str | None = None,
    ) -> Version:
        """The best version by `metric`, else by the model's primary metric; NaN never wins."""
        return Version(self._session, self.find_best(model, metric, direction=direction, run=run).row)

    def find_best(
        self,
        model: str,
        metric: str | None = None,
        *,
        direction: str | None = None,
        run: str | None = None,
    ) -> BestFound:
        """As `best`, with the metric, the direction and the ties that decided."""
        self._session.refresh()
        key = self._model_key(model)
        return resolve.best_of(
            self._session.catalog.connection, key, metric=metric, direction=direction, run=run
        )

    def version_of_path(self, path: str | os.PathLike[str]) -> VersionId | None:
        """The version whose cached checkout (`Version.path()`) this folder is, else None."""
        return self._session.version_of_path(path)

    # --- saving -----------------------------------------------------------------------------

    def save(
        self,
        source: str | os.PathLike[str] | MemoryFolder | object,
        model: str,
        *,
        tokenizer: object = None,
        name: str | None = None,
        metrics: Mapping[str, float] | None = None,
        config: Mapping[str, object] | None = None,
        message: str = "",
        parents: Sequence[Target] | None = None,
        run: Run | None = None,
        step: int | None = None,
        epoch: float | None = None,
        event: str = "manual",
        kind: str | None = None,
        base: Base | None = None,
        data: Mapping[str, object] | None = None,
        provenance: Mapping[str, bytes] | None = None,
        labels: Mapping[str, str] | None = None,
        alias: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        allow_broken: bool = False,
        reread: bool = False,
        strict: bool = False,
        author: str | None = None,
        created_at: datetime | None = None,
        progress: Callable[[int], None] | None = None,
        same_as_existing: bool = False,
        numbered: bool = False,
    ) -> Version:
        """Make an immutable version of a folder, a file, or a model in memory.

        A model (of transformers, peft, sentence-transformers, or any torch module) goes into the store
        without its weights being written anywhere else; `tokenizer` (or a processor) is saved beside
        it. It must not change until this returns.

        `name` is unique in the model (default: made from the time); `parents` default to the newest
        version of `run`; `provenance` (kind -> JSON bytes) defaults to what this process can tell
        of itself, `{}` records none. Secret-looking values are masked; `training_args.bin` is kept
        as sanitised JSON unless `include` names it, and a file whose name says that it holds secrets
        (`.env`, `hf_token.txt`) is left out, with a warning, unless it is named there. All that is said
        of a version has 4 MiB at most as JSON: of config, metrics and base that the folder's own files
        tell, the longest is left out beyond. `same_as_existing` makes `name` a second name of a version
        of this model that holds the very same bytes, if there is one; `numbered` takes `<name>-2`, or the
        next that is free, where the name is another version's. A file of 1 MiB or more that was
        saved before, and that nothing has touched since (inode, size, times of its last changes), is not
        read again, unless `reread`.

        Raises SourceMissing, SourceChanged, BrokenContainer, LinkEscapes, UnsupportedFile, EmptySource,
        NameTaken, InvalidName, InvalidArgument, StorageFull, StorageReadOnly, StorageFailed, CommitUnknown;
        after any of them no version was made.
        """
        on_disk = isinstance(source, str | os.PathLike | sources.MemoryFolder)
        if on_disk and tokenizer is not None:
            raise InvalidArgument(argument="tokenizer", reason="it goes beside a model, not into a folder")
        with capturing.beside() if provenance is None else nullcontext() as captured:
            request = recording.SaveRequest(
                source=_folder(source) if on_disk else Path(),
                model=model,
                name=name,
                metrics=dict(metrics or {}),
                config=dict(config or {}),
                message=message,
                parents=None if parents is None else [self.get(p).id for p in parents],
                run=run,
                step=step,
                epoch=epoch,
                event=event,
                kind=kind,
                base=_lasting(base),
                data=dict(data or {}),
                provenance=dict(provenance or {}),
                captured=captured,
                labels={**redirecting.labels(), **(labels or {})},
                alias=alias,
                include=include,
                exclude=exclude,
                allow_broken=allow_broken,
                reread=reread,
                strict=strict,
                author=author or self._session.author,
                created_at=created_at,
                progress=progress,
                same_as_existing=same_as_existing,
                numbered=numbered,
            )
            if not on_disk:
                saved: Version = _models_in_memory(source).save_live(self, source, tokenizer, request)
                return saved
            return self.save_request(request)[0]

    def save_request(self, request: SaveRequest) -> tuple[Version, Saved]:
        """As `save`, with an account of what was left out and of the bytes."""
        wanted = small.is_wanted()  # a mistake in it is told before anything is saved
        saved = saving.save(self._session, request)
        if wanted and small.are_many(self._session.catalog):
            collecting.merge_small(self._session)
        return Version(self._session, self._session.row(saved.version)), saved

    def run(
        self,
        model: str,
        name: str | None = None,
        *,
        message: str = "",
        config: Mapping[str, object] | None = None,
        labels: Mapping[str, str] | None = None,
        parents: Sequence[Target] | None = None,
        keep: str | int = "all",
        on_error: str = "warn",
    ) -> Any:
        """A run for a training loop of one's own; see `stemmata.hf.runs.TrainingRun`.

        `with repo.run("sentiment") as run: run.save(model, metrics={...})`. `keep`, as in VersionCallback:
        "all", a number or "best:N"; the run's other versions get the label `deletable`.
        Raises MissingExtra, InvalidArgument.
        """
        return _of_torch("stemmata.hf.runs", "Repository.run").TrainingRun(
            self,
            model,
            name,
            message=message,
            config=config or {},
            labels=labels or {},
            parents=None if parents is None else [self.get(p).id for p in parents],
            keep=keep,
            on_error=on_error,
        )

    def resume(self, model: str, *, run: str | None = None, step: int | None = None) -> Path | None:
        """A folder for `trainer.train(resume_from_checkpoint=...)`; None if nothing was kept yet.

        The newest state that `VersionCallback(..., resume=True)` kept of `run` (default: of any run),
        or that of `step`; read-only, every byte verified. `run` is the name that was asked for,
        as the script gave it.
        Raises IncompleteState, Damage.
        """
        return resuming.resume(self._session, clean_name(model), run, step)

    # --- names ------------------------------------------------------------------------------

    def name(self, model: str, name: str, version: Target) -> None:
        """Give a version a further, immutable version name. Raises NameTaken."""
        naming.name_version(self._session, model, clean_name(name), self.get(version).id)

    def tag(self, model: str, name: str, version: Target) -> None:
        """Set a tag: a name that never moves. Raises NameTaken."""
        naming.name_version(self._session, model, clean_name(name), self.get(version).id, kind="tag")

    def configure(self, model: str, *, metric: str | None = None, direction: str | None = None) -> None:
        """Declare the model's primary metric and whether "min" or "max" is better."""
        if direction not in (None, "min", "max"):
            raise InvalidArgument(argument="direction", reason=f"{direction!r} is neither 'min' nor 'max'")
        settings = {"primary_metric": metric, "direction": direction}
        moves.configure(self._session, clean_name(model), {k: v for k, v in settings.items() if v})

    # --- housekeeping -------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what other processes have committed; every call above does so by itself."""
        self._session.refresh()

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Repository {self.where}>"

    def _repr_html_(self) -> str:
        return portraits.snippet_of_repository(self._session, self.where)


def _instant(at: str | datetime | None) -> str | None:
    """A stored-time text for `at`; phrases are read against the present."""
    if at is None:
        return None
    return instant_of("at", at if isinstance(at, datetime) else timephrases.parse_when(at, datetime.now(UTC)))
