"""Code: which commit it was, what was changed since, and the files that no commit has.

Under git the commit names most of it; changed and untracked source files are kept as they were, whole, so
that they can be put back over a checkout of it. Without git the entry script and the local modules are kept.
Refuses files that are large, that are no text, and those made to hold secrets: each is listed as missing.
"""

from __future__ import annotations

import os
import re
import stat
from functools import lru_cache
from pathlib import Path, PurePosixPath

import msgspec

from stemmata.capture import known_secrets, mask, mask_known, to_json
from stemmata.capturing import entries, gitting
from stemmata.capturing.entries import Entry
from stemmata.capturing.missing import Missing, told
from stemmata.capturing.secrets import holds_secrets, is_notebook, is_source, mask_diff, mask_source

MAX_FILE = 1 << 20
MAX_TOTAL = 16 << 20
MAX_FILES = 2000
MAX_DIFF = 1 << 20
_OUTPUT_NAMES = frozenset(("stemmata.json", "training_args.bin", "trainer_state.json", "optimizer.pt"))
OUTPUT_SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
"""How the names of what a training writes end."""
_BY_HAND = (".py", ".ipynb", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".sh")
"""How the names of source end that may lie right beside weights: other kinds libraries write there too."""
_STATES = re.compile(r"checkpoint-\d+$")
_NAMED = 20
"""Untracked files of other kinds that are named one by one."""


class _Kept(msgspec.Struct):
    """Source files, by their path below the root, or their whole path outside of it."""

    secrets: tuple[str, ...]
    files: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)
    missing: list[Missing] = msgspec.field(default_factory=list)
    total: int = 0

    def miss(self, what: str, why: str) -> None:
        self.missing.append(Missing(mask(_clean(what)), why))

    def add(self, path: Path, name: str) -> None:
        """Read a file now, masked; or say why not."""
        name = _clean(name)
        what = f"file {name}"
        if name in self.files:
            return
        if holds_secrets(name):
            self.miss(what, "its name says that it holds secrets; it is not kept")
            return
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                self.miss(what, "it is a link" if stat.S_ISLNK(found.st_mode) else "it is no ordinary file")
            elif found.st_size > MAX_FILE:
                self.miss(what, f"it has {_size(found.st_size)}, and {_size(MAX_FILE)} are kept at most")
            elif self.total + found.st_size > MAX_TOTAL or len(self.files) >= MAX_FILES:
                self.miss(what, f"there is more source than the {_size(MAX_TOTAL)} or {MAX_FILES} files kept")
            else:
                self._keep(name, path.read_bytes()[: MAX_FILE + 1], found.st_mode)
        except OSError as error:
            self.miss(what, f"it cannot be read: {error.strerror}")

    def _keep(self, name: str, data: bytes, mode: int) -> None:
        what = f"file {name}"
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.miss(what, "it is no text")
            return
        try:
            masked = mask_known(_masked(text, name), self.secrets)
        except ValueError:
            self.miss(what, "it is a notebook that cannot be read")
            return
        self.total += len(data)
        self.files[name] = {"text": masked, "executable": bool(mode & stat.S_IXUSR), "masked": masked != text}
        if is_notebook(name):
            self.miss(f"outputs of {name}", "a notebook is kept without its outputs and metadata")
        elif masked != text:
            self.miss(f"secrets in {name}", "what looks like a secret was replaced by ***")


_last: tuple[object, dict[str, bytes]] | None = None


def collect(folder: Path | None = None) -> dict[str, bytes]:
    """`code`, and `code_diff`, `code_files` and `code_cells` where there is anything to put there.

    `folder` is where the code lies; by default the entry script's folder, else the working one. A second
    answer in one process costs one question to git while nothing has changed.
    """
    global _last
    entry = entries.find()
    place = (folder or entries.folder_of(entry)).absolute()
    used = _used(entry)
    tree: gitting.Tree | None = None
    why = ""
    try:
        tree = gitting.tree(place)
    except gitting.NoTree as error:
        why = str(error)
    secrets = known_secrets()
    paths = [*used] if tree is None else [*used, *(tree.top / p for p in (*tree.changed, *_candidates(tree)))]
    key = (entry, place, tree, why, secrets, tuple(map(_stamp, paths)))
    last = _last  # once: another capture may be at it on another thread
    if last is None or last[0] != key:
        last = _last = key, _collect(entry, place, tree, why, used, _Kept(secrets))
    return dict(last[1])


def _collect(
    entry: Entry, place: Path, tree: gitting.Tree | None, why: str, used: list[Path], kept: _Kept
) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    about: dict[str, object] = {}
    root = place
    if tree is None:
        kept.miss("commit", why)
        for path in used:
            kept.add(path, _name(path, place))
    else:
        root = tree.top
        about.update(_of_tree(tree, kept))
        diff = _diff(tree, kept)
        if diff:
            found["code_diff"] = diff.encode("utf-8", "replace")
        _untracked(tree, kept)
        _local(used, tree, kept)
    about["root"] = mask(_clean(str(root)))
    about["entry"] = _entry(entry, root, kept)
    if entry.kind == "notebook":
        cells = [mask_source(cell[:MAX_FILE], "cell.py") for cell in entry.cells]
        found["code_cells"] = to_json({"cells": cells})
    if kept.files:
        found["code_files"] = to_json({"files": kept.files})
    about["missing"] = told(kept.missing)
    return {"code": to_json(about), **found}


def _candidates(tree: gitting.Tree) -> list[str]:
    return [path for path in tree.untracked or () if is_source(path)]


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        found = path.lstat()
    except OSError:
        return str(path), -1, -1
    return str(path), found.st_mtime_ns, found.st_size


def _entry(entry: Entry, root: Path, kept: _Kept) -> dict[str, object]:
    if entry.kind == "prompt":
        kept.miss("entry", "it was typed at a prompt or came from stdin; only imported modules are kept")
    path = None if entry.path is None else mask(_name(entry.path, root))
    return {"kind": entry.kind, "path": path, "module": entry.name}


def _of_tree(tree: gitting.Tree, kept: _Kept) -> dict[str, object]:
    address = gitting.remote(tree.top)
    if gitting.submodules(tree.top):
        kept.miss("changes in submodules", "of a submodule only the commit is kept")
    if tree.unknown:
        kept.miss("uncommitted changes", tree.unknown)
    for path in tree.submodules:
        kept.miss(f"submodule {path}", "it stands at another commit than the one that is committed")
    return {
        "commit": tree.commit,
        "branch": mask(_clean(tree.branch)),
        "remote": mask(_clean(address)) if address else None,
        "dirty": None if tree.unknown else bool(tree.changed or tree.deleted or tree.submodules),
        "changed": sorted(map(_clean, tree.changed)),
        "deleted": sorted(map(_clean, tree.deleted)),
    }


def _diff(tree: gitting.Tree, kept: _Kept) -> str:
    """The changes as people read them. The files themselves are what is put back."""
    for path in tree.changed:
        kept.add(tree.top / path, path)
    shown = [
        path
        for path in (*tree.changed, *tree.deleted)
        # A notebook's lines hold its outputs; the notebook itself is kept without them.
        if not holds_secrets(path) and not is_notebook(path) and not _is_large(tree.top / path)
    ]
    if not shown:
        return ""
    try:
        text = gitting.diff(tree.top, shown)
    except gitting.NoTree as error:
        kept.miss("diff", str(error))
        return ""
    if len(text) > MAX_DIFF:
        kept.miss("the end of the diff", f"it has {_size(len(text))}; {_size(MAX_DIFF)} are kept")
        text = text[: text.rfind("\n", 0, MAX_DIFF) + 1]
    return mask_diff(text)


def _local(used: list[Path], tree: gitting.Tree, kept: _Kept) -> None:
    """Modules in use that git ignores, or that lie outside."""
    inside = {_name(p, tree.top): p for p in used if p.is_relative_to(tree.top)}
    for path in used:
        if not path.is_relative_to(tree.top):
            kept.add(path, str(path))
    try:
        known = gitting.tracked(tree.top, list(inside))
    except gitting.NoTree as error:
        kept.miss("imported modules that git ignores", str(error))
        return
    for name, path in inside.items():
        if name not in known:
            kept.add(path, name)


def _untracked(tree: gitting.Tree, kept: _Kept) -> None:
    if tree.untracked is None:
        kept.miss("untracked files", f"git took longer than {gitting.SECONDS:g} s to list them")
        return
    outputs = _outputs(tree.untracked)
    others = []
    for path in tree.untracked:
        if outputs and not outputs.isdisjoint(_parents(path)) and not _is_by_hand(path, outputs):
            continue  # what a training or a store wrote says nothing of the code
        if "__pycache__" in PurePosixPath(path).parts:
            continue
        if path.endswith("/"):
            kept.miss(f"folder {path}", "it is a git repository of its own")
        elif is_source(path) or holds_secrets(path):
            kept.add(tree.top / path, path)
        else:
            others.append(path)
    for path in others[:_NAMED]:
        kept.miss(f"file {path}", f"it is untracked and no source by its name ({_size_of(tree.top / path)})")
    if len(others) > _NAMED:
        kept.miss(f"{len(others) - _NAMED} more files", "they are untracked and no source by their names")


def _outputs(paths: list[str]) -> set[str]:
    """Folders that hold weights, a Trainer's state or a repository: not the folder of the code itself."""
    found = set()
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder and (name in _OUTPUT_NAMES or name.endswith(OUTPUT_SUFFIXES)):
            found.add(folder)
    return found


def _is_by_hand(path: str, outputs: set[str]) -> bool:
    """Whether a file right beside weights is somebody's own: the settings of an experiment may lie where its
    results do."""
    folder = path.rpartition("/")[0]
    return folder in outputs and not _STATES.search(folder) and path.endswith(_BY_HAND)


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents]


def _used(entry: Entry) -> list[Path]:
    own = [entry.path] if entry.path is not None and entry.kind in ("script", "module", "notebook") else []
    return [*own, *entries.local_modules()]


def _name(path: Path, root: Path) -> str:
    for base in (root, root.resolve()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return str(path)


@lru_cache(maxsize=256)
def _masked(text: str, name: str) -> str:
    """A process that saves often meets the same files each time."""
    return mask_source(text, name)


def _is_large(path: Path) -> bool:
    try:
        return path.lstat().st_size > MAX_FILE
    except OSError:
        return False  # it was deleted: the commit has it


def _size_of(path: Path) -> str:
    try:
        return _size(path.lstat().st_size)
    except OSError:
        return "gone meanwhile"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def _clean(text: str) -> str:
    """A path that is no UTF-8 is told as well as can be."""
    return os.fsencode(text).decode("utf-8", "replace")
