"""Origin: the version that a model in memory came from, and the base of an adapter.

Owns the one place where weights' files on this machine are matched with versions of a repository.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from safetensors import safe_open

from stemmata.bases import hash_file, is_folder, weight_paths, weights_of_tree
from stemmata.catalog import queries
from stemmata.errors import InvalidArgument
from stemmata.hf.distributed import is_part
from stemmata.hf.filesets import base_under, holds_adapters
from stemmata.ids import VersionId
from stemmata.names import name_key
from stemmata.records import Base
from stemmata.session import Session
from stemmata.version import Version
from stemmata.versions import Query, VersionList, folder_weights, version_with_weights

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Other ways to begin a LoRA (pissa, olora, loftq, …) take a part out of the base, and do so again at load.
_KEEPS_THE_BASE = (None, True, False, "gaussian", "orthogonal", "eva")
_CHANGED = (
    "the base model in memory is no longer the one at {name} ({tensor} differs), so no place is recorded "
    "from which this adapter could load it. Save the base into the repository and load it from there "
    "before training the adapter, or keep its folder for load(base=...)"
)
_Rows: TypeAlias = "dict[str, tuple[int, torch.Tensor]]"
_came_from: WeakKeyDictionary[Any, tuple[str, VersionId]] = WeakKeyDictionary()
_under: WeakKeyDictionary[Any, tuple[str, VersionId] | None] = WeakKeyDictionary()
"""Of a model that was given adapters itself, and saved with them: the version that lies under these; None
where it came from none."""
_rows_then: WeakKeyDictionary[Any, _Rows] = WeakKeyDictionary()
"""A row of each weight, as it was when it was noted where the model came from."""


def ids_of(parents: Any) -> list[VersionId] | None:
    """Of versions that are given as parents. Raises InvalidArgument for what is none."""
    if parents is None:
        return None
    found = [parent.id for parent in parents if isinstance(parent, Version)]
    if len(found) != len(parents):
        reason = "give versions: parents=[repo['sentiment@r8/final']]"
        raise InvalidArgument(argument="parents", reason=reason)
    return found


def remember_origin(model: Any, session: Session, version: VersionId) -> None:
    """Note that `model` holds the weights of `version`, or was trained on from there."""
    inner = base_under(model)
    if inner is model and isinstance(model, torch.nn.Module):
        if not holds_adapters(model):
            _rows_then[model] = _rows_of(model)
            _under.pop(model, None)
        elif model not in _under:
            _under[model] = _came_from.get(model)
    _came_from[model] = (session.identity.repository, version)


def origin_of(model: Any, session: Session) -> VersionId | None:
    """The version that `model` was loaded from or last saved as; for an adapter else its base's.

    Known from this process, from a path inside the repository's checkouts, or because a version
    holds the very files that the model was loaded from.
    """
    noted = _came_from.get(model)
    if noted is not None and noted[0] == session.identity.repository:
        return noted[1]
    inner = base_under(model)
    if inner is not model:
        return origin_of(inner, session)
    return _version_of_files(getattr(inner, "name_or_path", None), revision_of(inner), session)


def describe_base(model: Any, session: Session) -> Base:
    """Where the base under an adapter came from, and the digest of its files as they are there.

    The digest is None where no files can be read: a base made in memory, a folder that is gone. Where
    the files are here but no longer what is in memory (an adapter was merged into them, say), no
    place is named: with the base found there the adapter would be another model. That is a warning.
    """
    inner = base_under(model)
    adapter = next(iter(model.peft_config.values()))
    name = getattr(inner, "name_or_path", None) or adapter.base_model_name_or_path or ""
    # What was loaded comes first: an adapter's own revision is of another repository as often as not.
    revision = revision_of(inner) or getattr(adapter, "revision", None)
    folder = local_folder(name, revision)
    if folder is not None:
        _complete(folder, session)
    weights = folder_weights(folder) if folder is not None else None
    noted = _under[inner] if inner in _under else _came_from.get(inner)
    stored = _stored(session, noted[1]) if noted and noted[0] == session.identity.repository else None
    if stored is not None:
        if stored.kind == "adapter":
            # An adapter's version that is a base itself: merged, it is loaded so again.
            return Base(name_or_path="", version=stored.id.hex)
        trained = weights_of_tree(stored.tree())
        changed = _changed_since(model)
        if changed is not None:
            place = f"{stored.model}@{stored.name}"
            warnings.warn(_CHANGED.format(name=place, tensor=changed), stacklevel=2)
            return Base(name_or_path="")
        if weights is None or weights.digest != trained.digest:
            # Trained on in memory: the folder that its name still says holds what it was before.
            folder, name, revision, weights = None, "", None, trained
        version: VersionId | None = stored.id
    else:
        version = _version_of_files(name, revision, session) if folder is not None else None
    if folder is None or weights is None:
        rows = weights.rows if weights is not None else ()
    else:
        changed = changed_weight(model, folder)
        if changed is not None:
            warnings.warn(_CHANGED.format(name=name, tensor=changed), stacklevel=2)
            return Base(name_or_path="")
        rows = weights.rows
        revision = revision if is_folder(Path(name)) else _commit_of(folder) or revision
    return Base(
        name_or_path=str(folder) if folder is not None and is_folder(Path(name)) else name,
        revision=revision,
        digest=weights.digest if weights is not None and rows else None,
        files=list(rows),
        version=version.hex if version is not None else None,
    )


def _stored(session: Session, version: VersionId) -> Version | None:
    """The version that a model in memory came from, also if it was deleted since: a training that is under
    way goes on. None where it cannot be read any more."""
    row = queries.version_by_id(session.catalog.connection, version)
    return Version(session, row) if row is not None and row.state != "forgotten" else None


def _complete(folder: Path, session: Session) -> None:
    """A version's checkout gets its weights: what is in memory is compared with them, and others look for
    them where the adapter says."""
    version = session.version_of_path(folder)
    if version is not None:
        Version(session, session.row(version)).path()


def _rows_of(model: Any) -> _Rows:
    """The middle row of each weight that can be compared by value."""
    found = {}
    for name, weight in model.named_parameters():
        if weight.dim() and weight.dtype in _FLOATS and weight.device.type != "meta" and not is_part(weight):
            row = weight.shape[0] // 2
            found[name] = (row, weight.detach()[row : row + 1].cpu().clone())
    return found


def _changed_since(model: Any) -> str | None:
    """A frozen weight under an adapter that is not what it was when its version was noted; None if none is,
    and where that is not known. As `changed_weight`."""
    if any(getattr(c, "init_lora_weights", None) not in _KEEPS_THE_BASE for c in model.peft_config.values()):
        return None
    inner = base_under(model)
    then = _rows_then.get(inner, {})
    for name, weight in _frozen(inner).items():
        row, before = then.get(name, (0, None))
        if before is None or row >= weight.shape[0] or weight.shape[1:] != before.shape[1:]:
            continue
        if not _same_rounded(before, weight.detach()[row : row + 1].cpu()):
            return name
    return None


def _frozen(inner: Any) -> dict[str, Any]:
    """The weights under an adapter, by the names that they have without it."""
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): weight
        for name, weight in inner.named_parameters()
        if not weight.requires_grad
        and weight.dim()
        and weight.dtype in _FLOATS
        and weight.device.type != "meta"
        and not is_part(weight)  # a row of it may lie in another process
    }


def changed_weight(model: Any, folder: Path) -> str | None:
    """A frozen weight under an adapter that is not what the folder's files hold; None if there is none.

    One row of each is read: merging and training change whole matrices. What cannot be matched by
    name and shape, and what was only rounded (`_same_rounded`), is no change.
    """
    if any(getattr(c, "init_lora_weights", None) not in _KEEPS_THE_BASE for c in model.peft_config.values()):
        return None
    inner = base_under(model)
    frozen = _frozen(inner)
    prefix = f"{getattr(inner, 'base_model_prefix', '')}."
    for path in weight_paths(entry.name for entry in os.scandir(folder)):
        if not path.endswith(".safetensors"):
            continue
        with safe_open(str(folder / path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no dict)
                weight = frozen.get(name, frozen.get(prefix + name))
                stored = file.get_slice(name)
                if weight is None or list(stored.get_shape()) != list(weight.shape):
                    continue
                row = weight.shape[0] // 2
                if not _same_rounded(stored[row : row + 1], weight.detach()[row : row + 1].cpu()):
                    return str(name)
    return None


def _same_rounded(stored: torch.Tensor, live: torch.Tensor) -> bool:
    """Whether a row is the same but for what rounding makes of it: by another precision on the way, or by an
    adapter that was merged into it and taken out again.

    TRL does that before each generation, and `(w + d) - d` is `w` to about a unit in the last place of the
    larger one: four are allowed, of the row's largest number. Where a unit is large (16 bits) a small merge
    and a short training are no larger than that, but move most numbers of the row: there the mean is to be
    below half a unit too, and what many merges leave beyond it is a change.
    """
    if stored.dtype not in _FLOATS:
        return True  # packed or scaled: not to be compared by value
    return any(
        _within_units(stored.to(by).to(live.dtype), live)
        for by in (live.dtype, torch.bfloat16, torch.float16)
    )


def visible_ones(session: Session, versions: Sequence[VersionId]) -> list[VersionId]:
    """Those that are not deleted: others may be as parents, while a training runs."""
    if not versions:
        return []
    session.refresh()
    found = [(v, queries.version_by_id(session.catalog.connection, v)) for v in versions]
    return [version for version, row in found if row is not None and row.state == "visible"]


def _within_units(before: torch.Tensor, live: torch.Tensor) -> bool:
    if torch.allclose(before, live, rtol=0, atol=0, equal_nan=True):
        return True
    row = before.double()
    apart = (live.double() - row).abs()
    largest, mean = float(row.abs().max()), float(row.square().mean().sqrt())
    if not (math.isfinite(largest) and float(apart.max()) <= 4 * _unit(largest, live.dtype)):
        return False
    return live.dtype.itemsize > 2 or float(apart.square().mean().sqrt()) <= _unit(mean, live.dtype) / 2


def _unit(number: float, dtype: torch.dtype) -> float:
    """The unit in the last place of a number that is not negative; 0 of 0."""
    return math.ldexp(torch.finfo(dtype).eps, math.frexp(number)[1] - 1) if number else 0.0


def version_of_checkpoint(checkpoint: Path, step: int, model: str, session: Session) -> VersionId | None:
    """The newest version of `model` at this step that holds the very weights of a Trainer's checkpoint."""
    session.refresh()
    if not checkpoint.is_dir():
        return None
    digest_of = cache(hash_file)  # of many runs each has a version of this step
    for version in VersionList(session, Query(model=name_key(model), expressions=(f"step == {step}",))):
        weights = [f for f in version.files if f.path.endswith(".safetensors")]
        if weights and all(_same_file(checkpoint / f.path, f.size, f.digest, digest_of) for f in weights):
            return version.id
    return None


def _same_file(path: Path, size: int, digest: str, digest_of: Callable[[Path], str]) -> bool:
    return path.is_file() and path.stat().st_size == size and digest_of(path) == digest


def local_folder(name: str | None, revision: str | None) -> Path | None:
    """The folder of a model by path or by hub id, without any network; None if it is not here."""
    if not name:
        return None
    folder = Path(name)
    if is_folder(folder):
        return folder.absolute()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError, ValueError):
        return None  # not a hub id, or never downloaded


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
    found = version_with_weights(session, weights.digest, weights.rows) if weights.rows else None
    return found.id if found is not None else None


def _commit_of(snapshot: Path) -> str | None:
    """The commit of a folder in the hub's cache: a branch moves, the base of an adapter does not."""
    return snapshot.name if snapshot.parent.name == "snapshots" else None


def revision_of(model: Any) -> str | None:
    """The hub commit that a model was loaded from."""
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)
    return commit if isinstance(commit, str) else None
