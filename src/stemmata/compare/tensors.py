"""Differences between files and between tensors, told from two trees alone. Reads no weights.

Two tensors are equal when dtype, shape and the digests of their objects are: bytes are compared by their
BLAKE3, so re-sharding, renaming files or re-ordering tensors changes no tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from stemmata.describe import is_of_training
from stemmata.trees import Segment, Tree, TreeFile


class FileChange(msgspec.Struct, frozen=True):
    """A path whose bytes (or executable bit) differ."""

    path: str
    a: TreeFile
    b: TreeFile


class FilesDiff(msgspec.Struct, frozen=True):
    """Files by path."""

    added: tuple[TreeFile, ...]
    removed: tuple[TreeFile, ...]
    changed: tuple[FileChange, ...]
    same: tuple[TreeFile, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        return {
            "added": {f.path: f.size for f in self.added},
            "removed": {f.path: f.size for f in self.removed},
            "changed": {c.path: {"a": c.a.size, "b": c.b.size} for c in self.changed},
            "same": {f.path: f.size for f in self.same},
        }


class Tensor(msgspec.Struct, frozen=True):
    """One tensor of a tree. `length` is in bytes; `objects` are digests, hex."""

    name: str
    path: str
    dtype: str
    shape: tuple[int, ...]
    length: int
    objects: tuple[str, ...]
    label: str = ""
    """In a difference: what it is known by there, `path:name` where several files have one of that name."""

    def to_dict(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": list(self.shape), "bytes": self.length, "file": self.path}


class TensorChange(msgspec.Struct, frozen=True):
    """A tensor that both sides have, but not alike."""

    name: str
    a: Tensor
    b: Tensor

    @property
    def retyped(self) -> bool:
        return self.a.dtype != self.b.dtype

    @property
    def reshaped(self) -> bool:
        return self.a.shape != self.b.shape


class TensorsDiff(msgspec.Struct, frozen=True):
    """Tensors by name, over all files; each has its `label`. `changed`: other values alone."""

    added: tuple[Tensor, ...]
    removed: tuple[Tensor, ...]
    changed: tuple[TensorChange, ...]
    refitted: tuple[TensorChange, ...]
    """Another dtype or another shape."""
    same: tuple[Tensor, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.refitted)

    def names(self) -> Iterator[str]:
        """Of all tensors of both sides."""
        for changes in (self.changed, self.refitted):
            yield from (change.name for change in changes)
        for tensors in (self.removed, self.added, self.same):
            yield from (tensor.label for tensor in tensors)

    def to_dict(self) -> dict[str, Any]:
        return {
            "added": {t.label: t.to_dict() for t in self.added},
            "removed": {t.label: t.to_dict() for t in self.removed},
            "changed": {c.name: c.b.to_dict() for c in self.changed},
            "refitted": {c.name: {"a": c.a.to_dict(), "b": c.b.to_dict()} for c in self.refitted},
            "same": len(self.same),
        }


def tensors_of(tree: Tree) -> Iterator[Tensor]:
    """Every tensor that the tree's segments name, file by file; not those of a training's state."""
    for file in tree.files:
        if is_of_training(file.path):
            continue
        for segment in file.segments:
            if segment.name is not None:
                yield Tensor(
                    name=segment.name,
                    path=file.path,
                    dtype=segment.dtype or "",
                    shape=tuple(segment.shape or ()),
                    length=segment.length,
                    objects=tuple(segment.objects),
                )


def numbered(tree: Tree) -> Iterator[tuple[int, str, Segment]]:
    """Every segment that is a whole tensor, those of a training's state included: its running number in the
    tree, the file's path, and it."""
    number = 0
    for file in tree.files:
        for segment in file.segments:
            if segment.name is not None:
                yield number, file.path, segment
                number += 1


def compare_files(a: Tree, b: Tree) -> FilesDiff:
    """Files by path; equal when size, digest and executable bit are."""
    left, right = {f.path: f for f in a.files}, {f.path: f for f in b.files}
    common = [p for p in left if p in right]
    same = [p for p in common if _identity(left[p]) == _identity(right[p])]
    kept = set(same)
    return FilesDiff(
        added=tuple(f for p, f in right.items() if p not in left),
        removed=tuple(f for p, f in left.items() if p not in right),
        changed=tuple(FileChange(p, left[p], right[p]) for p in common if p not in kept),
        same=tuple(right[p] for p in same),
    )


def _identity(file: TreeFile) -> tuple[int, str, bool]:
    return file.size, file.digest, file.executable


def compare_tensors(
    a: Tree, b: Tree, more_a: Iterable[Tensor] = (), more_b: Iterable[Tensor] = ()
) -> TensorsDiff:
    """Tensors by name, with `more` that the trees do not name. A name that occurs in several files of one
    tree counts once for each file, as `path:name`."""
    first, second = [*tensors_of(a), *more_a], [*tensors_of(b), *more_b]
    twice = {
        name for side in (first, second) for name, count in Counter(t.name for t in side).items() if count > 1
    }
    left, right = _by_name(first, twice), _by_name(second, twice)
    common = [name for name in left if name in right]
    same: list[Tensor] = []
    changed: list[TensorChange] = []
    refitted: list[TensorChange] = []
    for name in common:
        change = TensorChange(name, left[name], right[name])
        if change.retyped or change.reshaped:
            refitted.append(change)
        elif left[name].objects != right[name].objects:
            changed.append(change)
        else:
            same.append(right[name])
    return TensorsDiff(
        added=tuple(t for name, t in right.items() if name not in left),
        removed=tuple(t for name, t in left.items() if name not in right),
        changed=tuple(changed),
        refitted=tuple(refitted),
        same=tuple(same),
    )


def _by_name(tensors: list[Tensor], twice: set[str]) -> dict[str, Tensor]:
    labels = (t.name if t.name not in twice else f"{t.path}:{t.name}" for t in tensors)
    return {label: msgspec.structs.replace(t, label=label) for label, t in zip(labels, tensors, strict=True)}
