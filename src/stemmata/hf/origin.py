"""Origin: the version that a model in memory came from, and the base of an adapter.

Owns the one place where weights' files on this machine are matched with versions of a repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from stemmata.bases import Weights, weights_of_folder, weights_of_tree
from stemmata.catalog.catalog import user_cache_folder
from stemmata.errors import StemmataError
from stemmata.hf.filesets import is_adapter
from stemmata.ids import VersionId
from stemmata.records import Base
from stemmata.session import Session
from stemmata.version import Version
from stemmata.versions import Query, VersionList

_SEARCHED = 256
_came_from: WeakKeyDictionary[Any, tuple[str, VersionId]] = WeakKeyDictionary()


def remember_origin(model: Any, session: Session, version: VersionId) -> None:
    """Note that `model` holds the weights of `version`, or was trained on from there."""
    _came_from[model] = (session.identity.repository, version)


def origin_of(model: Any, session: Session) -> VersionId | None:
    """The version that `model` was loaded from or last saved as; for an adapter else its base's.

    Known from this process, from a path inside the repository's checkouts, or because a version
    holds the very files that the model was loaded from.
    """
    noted = _came_from.get(model)
    if noted is not None and noted[0] == session.identity.repository:
        return noted[1]
    inner = model.get_base_model() if is_adapter(model) else model
    if inner is not model:
        return origin_of(inner, session)
    return _version_of_files(getattr(inner, "name_or_path", None), _revision(inner), session)


def describe_base(model: Any, session: Session) -> Base:
    """Where the base under an adapter came from, and the digest of its files as they are there.

    The digest is None where no files can be read: a base made in memory, a folder that is gone.
    """
    inner = model.get_base_model()
    adapter = next(iter(model.peft_config.values()))
    name = getattr(inner, "name_or_path", None) or adapter.base_model_name_or_path or ""
    revision = getattr(adapter, "revision", None) or _revision(inner)
    noted = _came_from.get(inner)
    version = noted[1] if noted is not None and noted[0] == session.identity.repository else None
    folder = local_folder(name, revision)
    if folder is None:
        if version is None:
            return Base(name_or_path=name, revision=revision)
        weights = weights_of_tree(Version(session, session.row(version)).tree())
    else:
        weights = folder_weights(folder)
        version = version or _version_of_files(name, revision, session)
        revision = revision if Path(name).is_dir() else _commit_of(folder) or revision
    return Base(
        name_or_path=str(folder) if folder is not None and Path(name).is_dir() else name,
        revision=revision,
        digest=weights.digest if weights.rows else None,
        files=list(weights.rows),
        version=version.hex if version is not None else None,
    )


def local_folder(name: str | None, revision: str | None) -> Path | None:
    """The folder of a model by path or by hub id, without any network; None if it is not here."""
    if not name:
        return None
    folder = Path(name)
    if folder.is_dir():
        return folder.absolute()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None  # not a hub id, or never downloaded


def folder_weights(folder: Path) -> Weights:
    """Digest of a folder's weight files; cached by path, inode, size and times."""
    return weights_of_folder(folder, user_cache_folder() / "digests")


def version_with_weights(session: Session, digest: str) -> Version | None:
    """The newest visible version whose weight files have this digest."""
    session.refresh()
    models = VersionList(session, Query(expressions=('kind == "model"',), limit=_SEARCHED))
    for version in models:
        try:
            if weights_of_tree(version.tree()).digest == digest:
                return version
        except StemmataError:
            continue  # a damaged version elsewhere is no reason to fail here
    return None


def _version_of_files(name: str | None, revision: str | None, session: Session) -> VersionId | None:
    if name and Path(name).is_absolute():
        version = session.version_of_path(name)
        if version is not None:
            return version
    folder = local_folder(name, revision)
    if folder is None:
        return None
    try:
        weights = folder_weights(folder)
    except OSError:
        return None
    found = version_with_weights(session, weights.digest) if weights.rows else None
    return found.id if found is not None else None


def _commit_of(snapshot: Path) -> str | None:
    """The commit of a folder in the hub's cache: a branch moves, the base of an adapter does not."""
    return snapshot.name if snapshot.parent.name == "snapshots" else None


def _revision(model: Any) -> str | None:
    """The hub commit that a model was loaded from."""
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)
    return commit if isinstance(commit, str) else None
