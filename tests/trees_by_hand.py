"""Trees made by hand, with their objects in a dictionary: checkouts without a store below them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from blake3 import blake3

from stemmata.trees import Segment, Tree, TreeFile

FILES = {
    "config.json": b"{}",
    "empty": b"",
    "sub/deep/模型.bin": bytes(range(256)) * 40,
    "sub/x": b"x",
    "z" * 255: b"long name",
}
FOLDERS = ["hollow", "sub/hollow/er"]


class Objects:
    """Objects by digest. `asked` remembers what was read."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked: list[str] = []

    def add(self, data: bytes) -> str:
        digest = blake3(data).hexdigest()
        self.kept[digest] = data
        return digest

    def read(self, digest: str) -> bytes:
        self.asked.append(digest)
        return self.kept[digest]


def tree_of(
    files: Mapping[str, bytes],
    objects: Objects,
    *,
    folders: Collection[str] = (),
    executable: Collection[str] = (),
    step: int = 300,
) -> Tree:
    """A tree of these files, each one segment of objects of `step` bytes."""
    rows = []
    for path in sorted(files, key=str.encode):
        data = files[path]
        digests = [objects.add(data[i : i + step]) for i in range(0, len(data), step)]
        segments = [Segment(len(data), digests)] if data else []
        rows.append(TreeFile(path, len(data), blake3(data).hexdigest(), segments, path in executable))
    return Tree(rows, sorted(folders, key=str.encode))


def contents_of(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """(bytes of every file, folders that hold nothing), by path."""
    files, folders = {}, []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not any(path.iterdir()):
            folders.append(name)
        elif not path.is_dir():
            files[name] = path.read_bytes()
    return files, sorted(folders)


def leftovers(folder: Path) -> list[str]:
    """What checkouts have not tidied away."""
    return [p.name for p in folder.rglob("*") if ".stemmata-" in p.name]
