"""Live: a model in memory becomes a version, without its weights being written anywhere else first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stemmata.errors import InvalidArgument
from stemmata.hf import facts, filesets
from stemmata.hf.origin import describe_base, origin_of, remember_origin
from stemmata.hf.writer import Workspace
from stemmata.recording import SaveRequest
from stemmata.repository import Repository
from stemmata.storage.failures import write_failure
from stemmata.version import Version


def save_live(repository: Repository, live: Any, tokenizer: Any, request: SaveRequest) -> Version:
    """Save `live` as `request` says; where that says nothing, what the model tells of itself is recorded:
    its configuration, an adapter's base, and the version that it came from as its parent.

    Raises InvalidArgument for what is no model, TrainingSetup for one that is sharded over processes,
    StorageProblem where its small files cannot be written.
    """
    if not isinstance(live, torch.nn.Module):
        reason = f"{type(live).__name__} is neither a path nor a model"
        raise InvalidArgument(argument="source", reason=reason)
    inner = filesets.unwrap(live)
    filesets.hold_savable(inner, training=False)
    session = repository.session
    request.config = {**facts.model_config(inner), **request.config}
    if request.base is None and filesets.holds_adapters(inner):
        request.base = describe_base(inner, session)
    if request.parents is None and request.run is None:
        came_from = origin_of(inner, session)
        request.parents = [came_from] if came_from is not None else []
    workspace = Workspace(session.cache_folder() / "writing")
    with _written(workspace.parent):
        folder = workspace.folder()
    try:
        with _written(folder):
            files = filesets.begin(live, tokenizer, folder, live=True)
        request.source = files.source
        version, _ = repository.save_request(request)
    finally:
        workspace.remove(folder)
    remember_origin(inner, session, version.id)
    return version


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Name what keeps files of `folder` from being written; what fails elsewhere stays as it is."""
    try:
        yield
    except OSError as error:
        # A write that fails names no file; what a library says in its own words has no number.
        named = error.filename
        elsewhere = isinstance(named, str) and not Path(named).is_relative_to(folder)
        if error.errno is None or elsewhere:
            raise
        raise write_failure(error, str(folder)) from error
