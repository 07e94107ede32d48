"""Trees: the files of one version and how each is cut. Owns path rules and the content digest.

Paths are checked here at save *and* at checkout: a tree from a shared place is hostile input.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable

import msgspec
from blake3 import blake3

from stemmata.errors import DamagedTree, UnsafePath
from stemmata.ids import Digest
from stemmata.records import Content

MAX_FILES = 1_000_000
MAX_PATH_BYTES = 4096
MAX_TREE_BYTES = 256 << 20
_TREE_OBJECT = 64 << 20
"""Bytes of a tree in one object."""
_OBJECT = re.compile(r"[0-9a-f]{64}")
_WINDOWS_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}
)


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run of bytes of a file, as the objects whose contents follow each other.

    `length` is in bytes. If the run is numbers, `dtype` (safetensors' word) and `shape` say so; its objects
    are then cut every 16 Mi elements. With a `name`, too, it is one whole tensor.
    """

    length: int
    objects: list[str]
    name: str | None = None
    dtype: str | None = None
    shape: list[int] | None = None


class TreeFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file: `path` with '/', `size` in bytes, `digest` the BLAKE3 of the whole file."""

    path: str
    size: int
    digest: str
    segments: list[Segment] = []
    executable: bool = False
    container: str = ""
    """How it was cut: safetensors, torch, gguf, npz, npy or '' (chunks)."""


class Tree(msgspec.Struct, frozen=True, omit_defaults=True):
    """All files in the byte order of their paths, and the folders that hold nothing."""

    files: list[TreeFile]
    empty_folders: list[str] = []


_decoder = msgspec.json.Decoder(Tree)
_encoder = msgspec.json.Encoder()


def encode_tree(tree: Tree) -> bytes:
    return _encoder.encode(tree)


def split_tree(encoded: bytes) -> list[bytes]:
    """An encoded tree as the contents of its objects."""
    return [encoded[i : i + _TREE_OBJECT] for i in range(0, len(encoded), _TREE_OBJECT)]


def join_tree(version: str, parts: Iterable[bytes | bytearray]) -> bytes:
    """The tree's bytes from those of its objects. Raises DamagedTree before they are too many."""
    joined = bytearray()
    for part in parts:
        # A log may name one object of zeros a million times.
        if len(joined) + len(part) > MAX_TREE_BYTES:
            raise DamagedTree(version=version, reason=f"it is longer than {MAX_TREE_BYTES} bytes")
        joined += part
    return bytes(joined)


def decode_tree(data: bytes, expected: Content, version: str) -> Tree:
    """Decode a tree and hold it against the record's content digest.

    Raises DamagedTree, or UnsafePath for a path that could leave the target folder.
    """

    def refuse(reason: str) -> DamagedTree:
        return DamagedTree(version=version, reason=reason)

    if len(data) > MAX_TREE_BYTES:
        raise refuse(f"it is {len(data)} bytes long")
    try:
        tree = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refuse(str(error)) from None
    check_paths([f.path for f in tree.files], tree.empty_folders)
    for file in tree.files:
        if file.size < 0 or any(s.length < 0 for s in file.segments):
            raise refuse(f"{file.path!r} has a negative size")
        if file.size >= 1 << 63:
            raise refuse(f"{file.path!r} is larger than any file")
        if sum(s.length for s in file.segments) != file.size:
            raise refuse(f"the segments of {file.path!r} do not tile it")
        if not all(_OBJECT.fullmatch(o) for s in file.segments for o in s.objects):
            raise refuse(f"{file.path!r} names an object by something that is no digest")
        if any(n < 0 for s in file.segments for n in s.shape or ()):
            raise refuse(f"{file.path!r} has a tensor of a negative shape")
    try:
        found = content_of(tree)
    except ValueError as error:
        raise refuse(str(error)) from None
    if found != expected:
        raise refuse("it is not what the record commits to")
    return tree


def content_of(tree: Tree) -> Content:
    """The record's commitment: BLAKE3 over the sorted list of (path, size, file digest).

    Cutting and the executable bit stay outside it, so that both may change without a new identity.
    """
    return content_digest([(f.path, f.size, f.digest) for f in tree.files], tree.empty_folders)


def content_digest(files: Iterable[tuple[str, int, str]], empty_folders: Iterable[str] = ()) -> Content:
    """Content of (path, bytes, BLAKE3 hex) rows. Bytes hashed: FORMAT.md, "Content digest"."""
    hasher = blake3(b"stemmata content 1\n")
    count = total = 0
    rows = sorted((p.encode("utf-8"), size, digest) for p, size, digest in files)
    for path, size, digest in rows:
        hasher.update(b"f" + len(path).to_bytes(4, "little") + path)
        hasher.update(size.to_bytes(8, "little") + Digest.parse(digest).raw)
        count, total = count + 1, total + size
    for folder in sorted(p.encode("utf-8") for p in empty_folders):
        hasher.update(b"d" + len(folder).to_bytes(4, "little") + folder)
    return Content(digest=hasher.hexdigest(), files=count, bytes=total)


def check_paths(files: list[str], empty_folders: list[str]) -> None:
    """Refuse paths that are unsafe or that two files would fight over. Raises UnsafePath."""
    if len(files) + len(empty_folders) > MAX_FILES:
        raise UnsafePath(path="…", reason=f"there are more than {MAX_FILES} of them")
    seen: set[str] = set()
    for path in [*files, *empty_folders]:
        check_path(path)
        if path in seen:
            raise UnsafePath(path=path, reason="it occurs twice")
        seen.add(path)
    taken = set(files)
    for path in seen:
        folder = path.rpartition("/")[0]
        while folder:
            if folder in taken:
                raise UnsafePath(path=path, reason=f"{folder!r} is a file")
            folder = folder.rpartition("/")[0]


def check_path(path: str, *, on_windows: bool = os.name == "nt") -> None:
    """Refuse a path that is absolute, climbs or hides control characters. Raises UnsafePath.

    Names that only Windows reads as something else are refused there alone: elsewhere they are
    ordinary names, and anything that lies in a folder can be saved.
    """

    def refuse(reason: str) -> UnsafePath:
        return UnsafePath(path=path, reason=reason)

    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        raise refuse("it is not valid Unicode") from None
    if not path or size > MAX_PATH_BYTES:
        raise refuse("it is empty or too long")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise refuse("it has an empty, '.' or '..' part")
        if any(unicodedata.category(c) == "Cc" for c in part):
            raise refuse("it contains a control character")
        if not on_windows:
            continue
        device = part.split(".")[0].rstrip().casefold() in _WINDOWS_DEVICES
        if "\\" in part or ":" in part or part.rstrip(" .") != part or device:
            raise refuse("Windows would read it as something else")
