"""Places: which folders of a tree are a training's output each. Owns how deep is looked.

Sweeps write below folders of dates, times and values: `outputs/2024-01-01/10-00-00/checkpoint-5`. Links
are not followed, but for those that lie directly in the given folder and lead out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from stemmata.errors import UnsupportedFile
from stemmata.intake.folders import (
    CHECKPOINT,
    OF_PARTS,
    TRAINERS,
    are_weights,
    holds_weights,
    listed,
    may_be_folder,
)
from stemmata.sources.rules import is_repository

_DEPTH = 6
_FOLDERS = 10_000
"""That are listed in one look."""
_NO_OUTPUTS = (".*", "__pycache__", "optimizer_*", "global_step*", "pytorch_model_fsdp*", "tmp-checkpoint-*")
_OF_MODELS = ("config.json", "adapter_config.json", "*.safetensors", "*.gguf", "pytorch_model*.bin")
"""One of these lies in whatever library's saves; a file of data may end as weights do."""


@dataclass(frozen=True, slots=True)
class Place:
    """One output. `saves`: folders of final saves beside its checkpoints; `nested`: outputs within it."""

    path: Path
    saves: tuple[Path, ...] = ()
    nested: tuple[Path, ...] = ()


@dataclass(slots=True)
class Tree:
    """The outputs of a tree, by path; files that lie beside them, and folders with weights that no output
    has; whether there were more folders than are looked at."""

    places: list[Place] = field(default_factory=list)
    beside: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    is_cut: bool = False


def places_in(folder: Path) -> Tree:
    """The outputs in `folder`, or `folder` itself as a plain one. Raises UnsupportedFile.

    Files do not make one version of the outputs of several trainings. Of folders that a Trainer has not
    written they may: a pipeline is its model_index.json and a folder of weights for each part.
    """
    if CHECKPOINT.fullmatch(folder.name):
        return Tree([Place(folder)])
    walk = _Walk(folder)
    walk.tree.skipped = walk.folder(folder, 0, False).weights
    tree = walk.tree
    if not tree.places or (tree.beside and not walk.trainers):
        return Tree([Place(folder)], is_cut=tree.is_cut)
    tree.places.sort(key=lambda place: place.path)
    return tree


@dataclass(slots=True)
class _Below:
    """What a folder turned out to hold: outputs, and folders of weights that are of none."""

    outputs: list[Path] = field(default_factory=list)
    weights: list[Path] = field(default_factory=list)

    def __iadd__(self, other: _Below) -> _Below:
        self.outputs += other.outputs
        self.weights += other.weights
        return self


class _Walk:
    def __init__(self, top: Path) -> None:
        self._top, self._count = top, 0
        self.tree = Tree()
        self.trainers = False
        """Whether a Trainer wrote one of the outputs: any program may write weights."""

    def folder(self, path: Path, depth: int, within: bool) -> _Below:
        """Look at a folder; `within` an output only those that hold checkpoints are outputs themselves."""
        self._count += 1
        if self._count > _FOLDERS:
            self.tree.is_cut = True
            return _Below()
        try:
            there = sorted(listed(path))
        except UnsupportedFile:
            if depth == 0:
                raise
            return _Below()  # as a disk's lost+found: nobody may look, and no training wrote there
        folders = [p for p in there if may_be_folder(p)]
        has_steps = any(CHECKPOINT.fullmatch(p.name) for p in folders)
        has_model = _has_model(there, near=depth <= 1) or (depth == 0 and _has_parts(there))
        if has_steps or (has_model and not within):
            self.trainers |= has_steps or any(p.name in TRAINERS for p in there)
            return self._output(path, depth, folders, has_model)
        if has_model or any(map(are_weights, there)):
            # Whatever lies in it is of it, but for a training's output.
            below = self._children(folders, depth, True)
            return _Below(below.outputs, [path])
        below = self._children(folders, depth, within)
        if below.outputs and not within:
            self.tree.beside += [p for p in there if p not in folders and not _is_of_shelf(p)]
        return below

    def _output(self, path: Path, depth: int, folders: Sequence[Path], has_model: bool) -> _Below:
        nested, saves, others = list[Path](), list[Path](), list[Path]()
        for child in self._worth(folders, depth):
            below = self.folder(child, depth + 1, True)
            nested += below.outputs
            is_save = child in below.weights and not below.outputs and _has_model(_listed(child))
            (saves if is_save else others).extend(below.weights)
        if has_model:
            # They are in the version of the folder itself, but for what lies in another output.
            saves, others = [], [p for p in others if any(p.is_relative_to(n) for n in nested)]
        self.tree.places.append(Place(path, tuple(saves), tuple(nested)))
        return _Below([path, *nested], others)

    def _children(self, folders: Sequence[Path], depth: int, within: bool) -> _Below:
        below = _Below()
        for child in self._worth(folders, depth):
            below += self.folder(child, depth + 1, within)
        return below

    def _worth(self, folders: Sequence[Path], depth: int) -> list[Path]:
        """The folders of these to look into."""
        if depth >= _DEPTH:
            return []
        return [
            p
            for p in folders
            if not CHECKPOINT.fullmatch(p.name)
            and not any(fnmatchcase(p.name, pattern) for pattern in _NO_OUTPUTS)
            and not is_repository(p)
            and (not p.is_symlink() or (depth == 0 and not _leads_into(p, self._top)))
        ]


def _leads_into(link: Path, folder: Path) -> bool:
    try:
        return link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):
        return True  # a loop: it leads nowhere


def _has_model(there: Sequence[Path], *, near: bool = False) -> bool:
    """Whether a folder is a save: weights, and what tells that they are a model's - `near` the given folder
    whatever they are called - or the list of a model's parts, with a part."""
    if any(map(are_weights, there)):
        return near or any(fnmatchcase(p.name, pattern) for p in there for pattern in _OF_MODELS)
    return _has_parts(there) and any(_holds_weights(p) for p in there if may_be_folder(p))


def _has_parts(there: Sequence[Path]) -> bool:
    return any(p.name in OF_PARTS for p in there)


def _holds_weights(folder: Path) -> bool:
    try:
        return holds_weights(folder)
    except UnsupportedFile:
        return False


def _listed(folder: Path) -> list[Path]:
    try:
        return listed(folder)
    except UnsupportedFile:
        return []


def _is_of_shelf(file: Path) -> bool:
    return file.name.startswith(".") or fnmatchcase(file.name, "metadata_*.json")
