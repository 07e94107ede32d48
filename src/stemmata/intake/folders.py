"""Folders: what lies in one, by its names alone. Owns which files are weights, and what name a folder gives.

Nothing is opened. What is there and cannot be looked at is UnsupportedFile, never nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from fnmatch import fnmatchcase
from pathlib import Path

from stemmata.describe import WEIGHTS
from stemmata.errors import InvalidName, UnsupportedFile
from stemmata.intake import state as states
from stemmata.names import clean_name
from stemmata.sources.files import unsupported
from stemmata.storage.failures import reason_of

CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})")
TO_RESUME = (
    *("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state*.pth", "optimizer_*"),
    *("global_step*", "zero_to_fp32.py", states.FILE_NAME),
)
"""What only going on with a training needs; trainer_state.json is kept beside the version instead."""
OF_PARTS = frozenset(("model_index.json", "modules.json"))
"""Lists of a model's parts, each in a folder of its own: of diffusers and of sentence-transformers."""
TRAINERS = ("training_args.bin", states.FILE_NAME)
_NO_WEIGHTS = ("training_args.bin", "pytorch_model_fsdp*", *TO_RESUME)
_NAME_BYTES = 120


def looked_at(path: Path) -> os.stat_result | None:
    """What is there; None if nothing is. Raises UnsupportedFile where the file system does not say."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise unsupported(path, reason_of(error)) from None


def usable(text: str) -> str:
    """A folder's name, or a path, as a name that a model or a run may have."""
    parts = [re.sub(r"[^\w.+-]+", "-", part).strip("-") for part in text.split("/")]
    # A folder's name may have 255 bytes; a label comes behind it.
    short = "/".join(filter(None, parts)).encode()[:_NAME_BYTES].decode(errors="ignore")
    plain = short.strip("-/") or "imported"
    for name in (plain, f"run-{plain}"):
        try:
            return clean_name(name)
        except InvalidName:
            continue
    return "imported"


def holds_weights(folder: Path) -> bool:
    """Whether weights in one piece, or shards of them, lie in `folder` itself."""
    return any(map(are_weights, listed(folder)))


def holds_model(folder: Path) -> bool:
    """Whether weights lie in it, or the list of a model's parts and weights in one of them."""
    there = listed(folder)
    if any(map(are_weights, there)):
        return True
    has_parts = any(p.name in OF_PARTS for p in there)
    return has_parts and any(holds_weights(p) for p in there if may_be_folder(p))


def are_weights(file: Path) -> bool:
    """Whether a file has the name of weights in one piece, or of a shard of them."""
    return file.suffix in WEIGHTS and not any(fnmatchcase(file.name, pattern) for pattern in _NO_WEIGHTS)


def last_writes(folder: Path) -> dict[str, tuple[int, int]]:
    """Of every file in a folder, what is left out of a version included: its bytes, and when it was last
    written, in ns."""
    writes = {}
    for above, _, names in os.walk(folder):
        for name in names:
            path = Path(above, name)
            with contextlib.suppress(OSError):  # it vanished: the next look sees another folder
                about = path.stat()
                writes[path.relative_to(folder).as_posix()] = (about.st_size, about.st_mtime_ns)
    return writes


def may_be_folder(path: Path) -> bool:
    """Whether it is a folder, or cannot be looked at, which its examination says."""
    try:
        about = looked_at(path)
    except UnsupportedFile:
        return True
    return about is not None and stat.S_ISDIR(about.st_mode)


def listed(folder: Path) -> list[Path]:
    """What lies in a folder; nothing if it is none. Raises UnsupportedFile if it cannot be listed."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []  # it vanished, which its examination says
    except OSError as error:
        raise unsupported(folder, f"it cannot be listed: {reason_of(error)}") from None
