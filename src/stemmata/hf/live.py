"""Live: a model in memory becomes a version, without its weights being written anywhere else first."""

from __future__ import annotations

from typing import Any

import torch

from stemmata.errors import InvalidArgument
from stemmata.hf import facts, filesets
from stemmata.hf.origin import describe_base, origin_of, remember_origin
from stemmata.hf.writer import Workspace
from stemmata.recording import SaveRequest
from stemmata.repository import Repository
from stemmata.version import Version


def save_live(repository: Repository, live: Any, tokenizer: Any, request: SaveRequest) -> Version:
    """Save `live` as `request` says; where that says nothing, what the model tells of itself is recorded:
    its configuration, an adapter's base, and the version that it came from as its parent.

    Raises InvalidArgument for what is no model, TrainingSetup for one that is sharded over processes.
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
    folder = workspace.folder()
    try:
        files = filesets.begin(live, tokenizer, folder, live=True)
        request.source = files.source
        version, _ = repository.save_request(request)
    finally:
        workspace.remove(folder)
    remember_origin(inner, session, version.id)
    return version
