"""Bases: which files a base model is made of. Owns the digest that an adapter remembers of its base.

The digest is taken over files, never over weights in memory: those may be cast, quantised or half
trained. It covers what decides the loaded weights, so tokenizer and README do not count.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import msgspec
from blake3 import blake3

from stemmata.records import Base
from stemmata.seen import Seen, begun_at, marks_of, size_of
from stemmata.trees import Tree, content_digest

Row = tuple[str, int, str]
"""Path, bytes, BLAKE3 hex."""

_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "adapter_model", "rng_state", "sentence_bert")
_CHUNK = 8 << 20


class Weights(msgspec.Struct, frozen=True):
    """Digest and rows of a folder's weight files; no rows: the folder holds no weights."""

    digest: str
    rows: tuple[Row, ...]


def weight_paths(paths: Iterable[str]) -> list[str]:
    """Those of a folder's files that decide its weights: `*.safetensors`, else `*.bin`; their index;
    `config.json`. [] where there are no weights."""
    top = sorted(p for p in paths if "/" not in p)
    models = [p for p in top if not p.startswith(_NO_WEIGHTS)]
    for suffix in (".safetensors", ".bin"):
        weights = [p for p in models if PurePosixPath(p).suffix == suffix]
        if weights:
            index = [p for p in models if p.endswith(f"{suffix}.index.json")]
            return sorted([*weights, *index, *(["config.json"] if "config.json" in top else [])])
    return []


def weights_of_tree(tree: Tree) -> Weights:
    """The same digest for a stored version, from its list of files alone."""
    wanted = set(weight_paths(f.path for f in tree.files))
    return _weights([(f.path, f.size, f.digest) for f in tree.files if f.path in wanted])


def weights_of_folder(folder: Path, seen: Seen | None = None) -> Weights:
    """Hash a folder's weight files; what was `seen` and not touched since is not read again.

    Raises OSError if a file cannot be read.
    """
    names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return _weights([_row(folder, name, seen) for name in weight_paths(names)])


def complete(base: Base, seen: Seen | None = None) -> Base:
    """`base` with the digest of its files, if they are here: in the folder that it names, or in the
    hub's cache under the id and revision that it names."""
    if base.digest is not None or not base.name_or_path:
        return base
    folder = Path(base.name_or_path)
    snapshot = None if is_folder(folder) else _hub_snapshot(base.name_or_path, base.revision)
    folder = snapshot or folder
    if not is_folder(folder):
        return base
    try:
        weights = weights_of_folder(folder, seen)
    except (OSError, ValueError):
        # Unreadable, or names that no text can hold: the adapter is saved all the same, without a digest
        # to hold it to.
        return base
    if not weights.rows:
        return base
    # Absolute: a relative path means another folder to whoever loads it.
    return Base(
        name_or_path=str(folder.absolute()) if snapshot is None else base.name_or_path,
        # A branch moves; the base of an adapter does not.
        revision=base.revision if snapshot is None else snapshot.name,
        digest=weights.digest,
        files=list(weights.rows),
        version=base.version,
    )


def is_folder(path: Path) -> bool:
    """Whether a folder is there; where nobody lets us look, or no folder can have that name, none is."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _hub_snapshot(name: str, revision: str | None) -> Path | None:
    """The folder of a downloaded model in the hub client's cache, as that client lays it out:
    `models--<id with -->/refs/<branch>` holds the commit, `snapshots/<commit>` the files."""
    if Path(name).is_absolute() or not all(part not in ("", ".", "..") for part in name.split("/")):
        return None
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    hub = Path(chosen) if chosen else Path(os.environ.get("HF_HOME") or caches / "huggingface") / "hub"
    model = hub.expanduser() / f"models--{name.replace('/', '--')}"
    wanted = revision or "main"
    try:
        commit = (model / "refs" / wanted).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError):
        commit = wanted
    snapshot = model / "snapshots" / commit
    return snapshot if commit and "/" not in commit and is_folder(snapshot) else None


def _weights(rows: list[Row]) -> Weights:
    return Weights(digest=content_digest(rows).digest, rows=tuple(sorted(rows)))


def _row(folder: Path, name: str, seen: Seen | None) -> Row:
    path = (folder / name).resolve()
    before = marks_of(path.stat())
    known = seen.digest_of(path, before) if seen is not None else None
    if known is not None:
        return name, size_of(before), known
    begun = begun_at(path, before) if seen is not None else 0
    digest = hash_file(path)
    after = marks_of(path.stat())
    if seen is not None and before == after:
        seen.remember(path, after, digest, begun)
    return name, size_of(after), digest


def hash_file(path: Path) -> str:
    """BLAKE3 of a file, hex."""
    hasher = blake3()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()
