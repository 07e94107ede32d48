"""Places: which folders of a tree are a training's output each. Owns how deep is looked.

A folder's output may be the folder itself or those in it, whoever wrote them. Deeper, only folders that hold
checkpoints are outputs of their own: sweeps write below folders of dates, times and values, as
`outputs/2024-01-01/10-00-00/checkpoint-5`, and weights there may be parts of one model. Links are not
followed, but for those that lie directly in the given folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from stemmata.describe import WEIGHTS
from stemmata.errors import UnsupportedFile
from stemmata.intake.folders import CHECKPOINT, OF_PARTS, TRAINERS, are_weights
from stemmata.sources.files import unsupported
from stemmata.sources.rules import is_repository
from stemmata.storage.failures import reason_of

_DEPTH = 6
_FOLDERS = 10_000
"""That are listed in one look, not counting those that lie directly in the given one."""
_NO_OUTPUTS = (".*", "__pycache__", "optimizer_*", "global_step*", "pytorch_model_fsdp*", "tmp-checkpoint-*")
_ENDS = tuple(WEIGHTS)
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
    top, is_cut = _walked(folder)
    if top.has_steps or top.has_weights or top.has_parts:
        outputs = [top, *(node for node in _below(top) if node.has_steps)]
    else:
        outputs = [node for node in top.children if node.has_steps or node.has_weights]
        deep = [node for near in top.children for node in _below(near) if node.has_steps]
        by_trainers = any(node.has_steps or node.is_trainers for node in outputs)
        if not deep and (not outputs or (not by_trainers and _files_beside(folder))):
            return Tree([Place(folder)], is_cut=is_cut)
        outputs += deep
    paths = {node.path for node in outputs}
    # A link as `latest` is no run beside the one that it leads to.
    paths -= {path for path in paths if path.is_symlink() and _target(path) in paths}
    laid = _Laid(paths, Tree(is_cut=is_cut))
    laid.tree.skipped = laid.folder(top, False).weights
    laid.tree.places.sort(key=lambda place: place.path)
    return laid.tree


@dataclass(slots=True)
class _Node:
    """A folder that was looked at, by the names in it."""

    path: Path
    folders: list[str]
    """Those that may be looked into."""
    has_steps: bool
    has_weights: bool
    has_named: bool
    """Whether its weights are a model's by the names beside them."""
    has_parts: bool
    is_trainers: bool
    is_closed: bool = False
    """Whether nothing in it is looked at, nor named: it leads astray, or is no output by its name."""
    children: list[_Node] = field(default_factory=list)

    @property
    def is_pipeline(self) -> bool:
        return self.has_parts and any(child.has_weights for child in self.children)


def _walked(folder: Path) -> tuple[_Node, bool]:
    """What lies in `folder`, the nearest first, as far as is looked; and whether there was more.

    Raises UnsupportedFile if it cannot be listed itself.
    """
    top = _looked_into(folder)
    level, count = [top], 0
    for depth in range(1, _DEPTH + 1):
        above, level = level, []
        for node in above:
            for name in node.folders:
                path = node.path / name
                no_output = any(fnmatchcase(name, pattern) for pattern in _NO_OUTPUTS)
                if depth > 1:
                    if no_output or path.is_symlink() or is_repository(path):
                        continue
                    if count == _FOLDERS:
                        return top, True
                    count += 1
                try:
                    child = _looked_into(path)
                except UnsupportedFile:
                    continue  # as a disk's lost+found: nobody may look, and no training wrote there
                child.is_closed = depth == 1 and (
                    no_output or is_repository(path) or (path.is_symlink() and _leads_astray(path, folder))
                )
                node.children.append(child)
                if not child.is_closed:
                    level.append(child)
    return top, False


def _looked_into(folder: Path) -> _Node:
    names, folders = list[str](), list[str]()
    # By what the listing itself tells: to ask for each of a data set's files would take minutes on a share.
    for name, is_folder in _entries(folder):
        names.append(name)
        if is_folder:
            folders.append(name)
    has_weights = any(name.endswith(_ENDS) and are_weights(Path(name)) for name in names)
    has_parts = any(name in OF_PARTS for name in names)
    return _Node(
        folder,
        sorted(name for name in folders if not CHECKPOINT.fullmatch(name) and not name.startswith(".")),
        has_steps=any(map(CHECKPOINT.fullmatch, folders)),
        has_weights=has_weights,
        has_named=has_weights and any(fnmatchcase(n, pattern) for n in names for pattern in _OF_MODELS),
        has_parts=has_parts,
        is_trainers=any(name in TRAINERS for name in names),
    )


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """The names in a folder, and whether each may be a folder's; none if it vanished. Raises
    UnsupportedFile."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.is_dir()
                except OSError:
                    yield entry.name, True  # which its examination says
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unsupported(folder, f"it cannot be listed: {reason_of(error)}") from None


def _below(node: _Node) -> Iterator[_Node]:
    for child in node.children:
        if not child.is_closed:
            yield child
            yield from _below(child)


@dataclass(slots=True)
class _Below:
    """What lies in a folder: outputs, and folders of weights that are of none."""

    outputs: list[Path] = field(default_factory=list)
    weights: list[Path] = field(default_factory=list)

    def __iadd__(self, other: _Below) -> _Below:
        self.outputs += other.outputs
        self.weights += other.weights
        return self


@dataclass(slots=True)
class _Laid:
    """Whose each folder of a tree is, once it is known which are outputs."""

    outputs: set[Path]
    tree: Tree

    def folder(self, node: _Node, within: bool) -> _Below:
        """`within` an output: what lies there is not named file by file."""
        if node.path in self.outputs:
            return self._output(node)
        below = _Below()
        if node.is_closed:
            return below
        for child in node.children:
            below += self.folder(child, within)
        if node.has_weights or node.is_pipeline:
            return _Below(below.outputs, [node.path])  # whatever lies in it is of it
        if below.outputs and not within:
            self.tree.beside += _files_beside(node.path)
        return below

    def _output(self, node: _Node) -> _Below:
        nested, saves, others = list[Path](), list[Path](), list[Path]()
        for child in node.children:
            below = self.folder(child, True)
            nested += below.outputs
            is_save = (child.has_named or child.is_pipeline) and not below.outputs
            (saves if is_save else others).extend(below.weights)
        if node.has_weights or node.is_pipeline or not node.has_steps:
            # They are in the version of the folder itself, but for what lies in another output.
            saves, others = [], [p for p in others if any(p.is_relative_to(n) for n in nested)]
        self.tree.places.append(Place(node.path, tuple(saves), tuple(nested)))
        return _Below([node.path, *nested], others)


def _files_beside(folder: Path) -> list[Path]:
    try:
        names = [name for name, is_folder in _entries(folder) if not is_folder]
    except UnsupportedFile:
        return []
    return [folder / name for name in sorted(names) if not _is_of_shelf(name)]


def _is_of_shelf(name: str) -> bool:
    return name.startswith(".") or fnmatchcase(name, "metadata_*.json")


def _target(link: Path) -> Path | None:
    try:
        return link.resolve()
    except (OSError, RuntimeError):
        return None  # a loop: it leads nowhere


def _leads_astray(link: Path, folder: Path) -> bool:
    """Whether a link leads to what is looked at anyway, or to nothing."""
    target = _target(link)
    return target is None or target.is_relative_to(folder) or folder.is_relative_to(target)
