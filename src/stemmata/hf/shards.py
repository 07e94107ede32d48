"""Shards: what an index says of a folder's files of weights. Owns which of them are left from earlier."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from stemmata.errors import NotLoadable
from stemmata.version import Version

_INDEX = re.compile(r"(?P<stem>.+)(?P<suffix>\.safetensors|\.bin)\.index\.json")
# As save_pretrained names them: https://github.com/huggingface/huggingface_hub, serialization/_base.py.
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}(?P<suffix>\.safetensors|\.bin)")
_MAX_INDEX = 64 << 20


def shards_of(version: Version, index: str) -> set[str]:
    """The paths of the files that an index names. Raises NotLoadable for what is none, and Damage."""
    folder = index.rpartition("/")[0]
    try:
        if version.file(index).size > _MAX_INDEX:
            raise ValueError("no index is that long")
        names = set(json.loads(version.read(index))["weight_map"].values())
        if not names:
            raise ValueError("it names nothing")
        return {f"{folder}/{name}" if folder else str(name) for name in names}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        hint = "save again from an empty folder, or take its files with checkout()"
        reason = f"its {index} is no index of shards"
        raise NotLoadable(version=version.short, reason=reason, hint=hint) from error


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
