"""Cached: one checkout per version that many readers share. Owns noticing that somebody changed it.

    <cache>/checkouts/<version id>/files/…            what is handed out
    <cache>/checkouts/<version id>/manifest.json      what every file looked like when it was verified

Both appear by one rename. They are compared each time: the manifest saves hashing, it is no
evidence about anything but this cache (I8). A checkout may be without the files of weights, for who reads
configuration alone; it is completed in its place when somebody asks for them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import msgspec

from stemmata.checkouts import eviction
from stemmata.checkouts.reading import ReadObject
from stemmata.checkouts.writing import OCCUPIED, Progress, fill
from stemmata.errors import StorageFailed, StorageReadOnly
from stemmata.ids import VersionId, random_hex
from stemmata.storage.descriptors import may_write
from stemmata.storage.failures import write_failure
from stemmata.trees import Tree, TreeFile, check_paths

_MAX_MANIFEST = 1 << 30
_ATTEMPTS = 5
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz", ".h5", ".onnx"})


_Marks: TypeAlias = tuple[int, int, int, int]


class _Manifest(msgspec.Struct, frozen=True):
    """Per file: size, inode, time of the last write and of the last change of any kind, in ns."""

    files: dict[str, _Marks]


_decoder = msgspec.json.Decoder(_Manifest)


def shared(
    cache_folder: Path,
    version: VersionId,
    tree: Tree,
    read_object: ReadObject,
    progress: Progress | None = None,
    *,
    weights: bool = True,
) -> Path:
    """A folder with the files of `version`, read-only, shared by all who ask for it.

    Without `weights` it may lack what `is_weights` tells. Checked whenever it is handed out; made
    again if a file is missing, changed or new. Raises as `write` does; nothing is handed out then.
    """
    home = _home(cache_folder, version)
    if (found := _sound(home, tree, weights=weights)) is not None:
        return found
    eviction.limit()  # one that is none is told before anything is made
    check_paths([f.path for f in tree.files], tree.empty_folders)
    wanted = _wanted(tree, weights=weights)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with _alone(home.parent / f".{version.hex}.lock") as alone:
            if not any(_is_sound(home, each) for each in wanted):
                if alone:
                    _sweep(home)
                lacking = alone and weights and _is_sound(home, _light(tree))
                if not (lacking and _complete(home, tree, read_object, progress)):
                    _make(home, wanted, read_object, progress)
        eviction.sweep(home.parent)
        eviction.make_room(home.parent)
    except OSError as error:
        raise write_failure(error, str(home.parent)) from error
    return home / "files"


def hand_out(
    cache_folders: Sequence[Path],
    version: VersionId,
    tree: Tree,
    read_object: ReadObject,
    *,
    weights: bool = True,
) -> Path:
    """As `shared`, from the first of these caches, the best one first, that this user may write to.

    A cache that others write to as well may have places in it that are theirs alone. What is sound in any
    of them is handed out before one is made.
    """
    for folder in cache_folders:
        if (found := _sound(_home(folder, version), tree, weights=weights)) is not None:
            return found
    *better, last = cache_folders
    for folder in better:
        try:
            return shared(folder, version, tree, read_object, weights=weights)
        except (StorageReadOnly, StorageFailed):
            continue
    return shared(last, version, tree, read_object, weights=weights)


def find(cache_folder: Path, version: VersionId, tree: Tree) -> Path | None:
    """The folder that `shared` would hand out, if it is there with all its files."""
    home = _home(cache_folder, version)
    if not _is_sound(home, tree):
        return None
    eviction.note_use(home)
    return home / "files"


def _sound(home: Path, tree: Tree, *, weights: bool) -> Path | None:
    """What is there to be handed out; it counts as in use before it is looked at."""
    eviction.note_use(home)
    return home / "files" if any(_is_sound(home, each) for each in _wanted(tree, weights=weights)) else None


def _wanted(tree: Tree, *, weights: bool) -> list[Tree]:
    return [tree] if weights else [tree, _light(tree)]


def is_weights(file: TreeFile) -> bool:
    """Whether a file is one of those that hold weights, and not what is said of them."""
    return bool(file.container) or PurePosixPath(file.path).suffix in _WEIGHTS


def _light(tree: Tree) -> Tree:
    return Tree([file for file in tree.files if not is_weights(file)], tree.empty_folders)


def _home(cache_folder: Path, version: VersionId) -> Path:
    return cache_folder.absolute() / "checkouts" / version.hex


def _make(home: Path, wanted: Sequence[Tree], read: ReadObject, progress: Progress | None) -> None:
    """Make the last of `wanted`; any of them may be there when it is put in place."""
    if home.is_dir() and not home.is_symlink() and not may_write(home):
        # Said before anything is decoded: another user's, and sound to that one maybe.
        raise StorageReadOnly(where=str(home), reason="no permission")
    temp = home.parent / f".{home.name}.{random_hex(8)}"
    tree = wanted[-1]
    try:
        temp.mkdir()
        (temp / "files").mkdir()
        _fill(temp / "files", tree.files, tree.empty_folders, read, progress)
        _note(temp, temp / "files", tree)
        _put(temp, home, wanted)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _complete(home: Path, tree: Tree, read: ReadObject, progress: Progress | None) -> bool:
    """Add the files of weights to a checkout that lacks them alone; who reads the others reads on.

    Returns whether it is sound then: it may have been changed, or evicted by another process, meanwhile.
    """
    if not (may_write(home) and may_write(home / "files")):
        # Said before the weights are decoded: another user made it, and not for a group.
        raise StorageReadOnly(where=str(home), reason="no permission")
    temp = home.parent / f".{home.name}.{random_hex(8)}"
    missing = [file for file in tree.files if is_weights(file)]
    try:
        # As they were found sound: what somebody does to them from now on is to be seen by their marks.
        known = _decoder.decode((home / "manifest.json").read_bytes()).files
        temp.mkdir()
        (temp / "files").mkdir()
        _fill(temp / "files", missing, [], read, progress)
        # Weights may take longer than one counts as in use.
        eviction.note_use(home)
        for file in missing:
            (home / "files" / file.path).parent.mkdir(parents=True, exist_ok=True)
            (temp / "files" / file.path).rename(home / "files" / file.path)
        # Killed before this, it is neither of the two, and made anew.
        _note(temp, home / "files", tree, {f.path: known[f.path] for f in _light(tree).files})
        (temp / "manifest.json").replace(home / "manifest.json")
    except FileNotFoundError:
        return False
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return _is_sound(home, tree)


def _fill(
    folder: Path,
    files: Sequence[TreeFile],
    folders: Sequence[str],
    read: ReadObject,
    progress: Progress | None,
) -> None:
    fill(folder, files, folders, read, progress)
    for file in files:
        path = folder / file.path
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def _note(home: Path, files: Path, tree: Tree, known: Mapping[str, _Marks] | None = None) -> None:
    """Write down how the files look; those that are `known` as that says."""
    known = known or {}
    marks = {f.path: known.get(f.path) or _marks((files / f.path).lstat()) for f in tree.files}
    (home / "manifest.json").write_bytes(msgspec.json.encode(_Manifest(marks)))


def _sweep(home: Path) -> None:
    """Remove what makers that were killed have left behind."""
    for path in home.parent.glob(f".{home.name}.*"):
        if path.suffix != ".lock":
            shutil.rmtree(path, ignore_errors=True)


def _put(temp: Path, home: Path, wanted: Sequence[Tree]) -> None:
    """Rename into place; an unsound one makes way, a sound one of another process stays."""
    for _ in range(_ATTEMPTS):
        try:
            temp.rename(home)
            return
        except OSError as error:
            # Not by whether it is there: it may have made way since.
            if error.errno not in OCCUPIED and not (os.name == "nt" and isinstance(error, PermissionError)):
                raise
        if any(_is_sound(home, each) for each in wanted):
            return
        aside = home.parent / f".{home.name}.{random_hex(8)}"
        try:
            home.rename(aside)
        except FileNotFoundError:
            pass  # another process was quicker
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Of a container's image: a folder of a layer below moves nowhere, but may be emptied.
            shutil.rmtree(home, ignore_errors=True)
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)
    raise StorageFailed(where=str(home), reason="other processes keep changing it")


def _is_sound(home: Path, tree: Tree) -> bool:
    """Whether the checkout is what was verified when it was made, and is of this tree."""
    try:
        with open(home / "manifest.json", "rb") as f:
            manifest = _decoder.decode(f.read(_MAX_MANIFEST))
        if (home / "files").is_symlink():
            return False
        found = dict(_walk(home / "files", ""))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    wanted: dict[str, tuple[int, ...] | None] = {f.path: manifest.files.get(f.path) for f in tree.files}
    if any(mark is None or mark[0] != f.size for f, mark in zip(tree.files, wanted.values(), strict=True)):
        return False
    for path in [*wanted, *tree.empty_folders]:
        folder = path.rpartition("/")[0]
        while folder and folder not in wanted:
            wanted[folder] = None
            folder = folder.rpartition("/")[0]
    wanted.update(dict.fromkeys(tree.empty_folders))
    return found == wanted


def _walk(folder: Path, path: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """(path, marks) of everything below; None for a folder, () for what no checkout holds."""
    with os.scandir(folder) as entries:
        for entry in entries:
            below = f"{path}/{entry.name}" if path else entry.name
            about = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode):
                yield below, None
                yield from _walk(folder / entry.name, below)
            else:
                yield below, _marks(about) if stat.S_ISREG(about.st_mode) else ()


def _marks(about: os.stat_result) -> _Marks:
    return (about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Let one process at a time make a checkout, where the system has such locks; yields whether.

    Only to save work: without a lock two of them make the same thing, and the first rename stays.
    """
    fd, alone = None, False
    try:
        import fcntl

        fd = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(fd, fcntl.LOCK_EX)
        alone = True
    except (ImportError, OSError):
        pass  # not there, or not allowed: see above
    try:
        yield alone
    finally:
        if fd is not None:
            if alone:
                # Closing does not end it while a process that was forked meanwhile has it open too.
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)
