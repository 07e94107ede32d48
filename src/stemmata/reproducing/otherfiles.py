"""Other files: those of a version that hold no weights. Owns which of their differences make another model.

What a load reads (config, tokenizer, adapter's config) makes the model as the weights do. What only going on
with a training needs, what people read, and the list of shards, do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from stemmata.compare.architectures import is_weights
from stemmata.compare.tensors import FilesDiff
from stemmata.describe import is_of_training

_MAX_JSON = 64 << 20
_OF_THE_RUN = frozenset(
    {"trainer_state.json", "training_args.json", "global_step", "latest", "zero_to_fp32.py"}
)
_FOR_PEOPLE = frozenset({".md", ".log", ".rst", ".png", ".html", ".gitattributes", ".gitignore"})
_TEXTS_FOR_PEOPLE = re.compile(
    r"(?i)(?:readme|licen[cs]e|notice|copying|authors|changelog|requirements|notes?)\b.*\.txt"
)
"""Any other may be a vocabulary: `vocab.txt`, `merges.txt`, `dict.txt`, `target_vocab.txt`."""
_SHARDS = (".safetensors.index.json", ".bin.index.json")
_PLACES = frozenset(
    # Where something was loaded from, and by which release it was written; `causes` tells of both.
    {"_name_or_path", "name_or_path", "base_model_name_or_path", "transformers_version", "peft_version"}
    | {"tokenizer_file", "special_tokens_map_file", "_commit_hash"}
)
_SETS = frozenset({"target_modules", "modules_to_save", "exclude_modules"})
"""What PEFT has as a set, which another process writes in another order."""


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file without weights that is not the same. `what`: changed, added, removed (of the copy)."""

    path: str
    what: str
    matters: bool
    """Whether a load would make something else of it."""
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "what": self.what, "matters": self.matters, "why": self.why}


def differences(
    files: FilesDiff, a: Callable[[str], bytes], b: Callable[[str], bytes]
) -> Iterator[FileDifference]:
    """Of the files that hold no weights those that differ; `a` and `b` read a file of a side."""
    for part, what in ((files.added, "added"), (files.removed, "removed")):
        for file in part:
            if not is_weights(file.path):
                why = _aside(file.path)
                yield FileDifference(file.path, what, not why, why)
    for change in files.changed:
        path = change.path
        if is_weights(path):
            continue
        why = _aside(path)
        if not why and change.a.digest == change.b.digest:
            why = "only its executable bit differs"
        elif not why and path.endswith(".json") and max(change.a.size, change.b.size) <= _MAX_JSON:
            why = _same_meaning(a(path), b(path))
        yield FileDifference(path, "changed", not why, why)


def _aside(path: str) -> str:
    """Why a difference of this file makes no other model; empty where it does."""
    name, suffix = PurePosixPath(path).name, PurePosixPath(path).suffix
    if is_of_training(path) or name in _OF_THE_RUN or name.startswith("training_args"):
        return "it is of the training, not of the model"
    if name.endswith(_SHARDS):
        return "it says in which file a tensor lies"
    if suffix in _FOR_PEOPLE or name in _FOR_PEOPLE or _TEXTS_FOR_PEOPLE.fullmatch(name):
        return "no load reads it"
    return ""


def _alike(key: str, a: Any, b: Any) -> bool:
    if key in _SETS and isinstance(a, list) and isinstance(b, list):
        return sorted(map(str, a)) == sorted(map(str, b))
    return bool(a == b)


def _same_meaning(a: bytes, b: bytes) -> str:
    try:
        left, right = json.loads(a), json.loads(b)
    except (ValueError, RecursionError):
        return ""
    if left == right:
        return "only its layout differs"
    if not isinstance(left, dict) or not isinstance(right, dict):
        return ""
    keys = sorted(k for k in left.keys() | right.keys() if not _alike(k, left.get(k), right.get(k)))
    if not keys:
        return "only the order of a set differs"
    return f"only {', '.join(keys)} differs" if set(keys) <= _PLACES else ""
