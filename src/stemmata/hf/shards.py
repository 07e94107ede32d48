"""Shards: what an index says of a folder's files of weights. Owns which of them are left from earlier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from stemmata.errors import NotLoadable
from stemmata.hf.sidefiles import dict_in, object_in
from stemmata.version import Version

_INDEX = re.compile(r"(?P<stem>.+)(?P<suffix>\.safetensors|\.bin)\.index\.json")
# As save_pretrained names them: https://github.com/huggingface/huggingface_hub, serialization/_base.py.
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}(?P<suffix>\.safetensors|\.bin)")
_HINT = "save again from an empty folder, or take its files with checkout()"


def shards_of(version: Version, index: str) -> set[str]:
    """The paths of the files that an index names. Raises NotLoadable for what is none, and Damage."""
    folder = index.rpartition("/")[0]
    names = dict_in(object_in(version, index, hint=_HINT) or {}, "weight_map").values()
    if not names or not all(isinstance(name, str) for name in names):
        raise NotLoadable(version=version.short, reason=f"its {index} names no shards", hint=_HINT)
    return {f"{folder}/{name}" if folder else name for name in names}


def without_old_shards(version: Version, files: Sequence[str]) -> list[str]:
    """`files` without the shards that the index of their folder would name and does not.

    Those are of an earlier save, cut into another number of files; `from_pretrained` reads none of them
    either. Raises as `shards_of`.
    """
    named: set[str] = set()
    stems: set[tuple[str, str]] = set()
    suffixes = {PurePosixPath(file).suffix for file in files}
    for file in version.files:
        match = _INDEX.fullmatch(file.path)
        if match is not None and match["suffix"] in suffixes:
            shards = shards_of(version, file.path)
            named |= shards
            stems |= {(match["stem"], match["suffix"]), *filter(None, map(_stem, shards))}
    return [file for file in files if file in named or _stem(file) not in stems]


def _stem(shard: str) -> tuple[str, str] | None:
    """What the shards of one set have in common; None for what is called otherwise."""
    match = _SHARD.fullmatch(shard)
    return match and (match["stem"], match["suffix"])
