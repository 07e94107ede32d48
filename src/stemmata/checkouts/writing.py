"""Writing: a tree into a folder. Owns that a target holds all of it or is as it was before.

Everything is written and verified in a fresh folder beside the target, which then takes the
target's place; where that may not be, it lies inside, and its files are moved out of it one by one. No
link is followed on the way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from stemmata.checkouts.pouring import LEAST, Open, pour
from stemmata.checkouts.reading import ReadObject, bodies_of, verified
from stemmata.codecs.decoding import prepare
from stemmata.errors import InvalidArgument, NamesCollide, StorageReadOnly, TargetNotEmpty, UnsafePath
from stemmata.ids import random_hex
from stemmata.storage.base import Buffer
from stemmata.storage.descriptors import NEW_FILE, may_write, write_all
from stemmata.storage.failures import write_failure
from stemmata.trees import Tree, TreeFile, check_paths

Progress = Callable[[int], None]

UNFINISHED = ".stemmata-"
_WHILE = 86_400.0
"""Seconds without a write after which what nobody holds is nobody's: locks may end at a computer's own."""
_MAX_DEPTH = 250
"""Folders; a save takes fewer."""
OCCUPIED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})
"""What a rename says where something is already."""


def write(
    tree: Tree,
    read_object: ReadObject,
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress | None = None,
    only: Collection[str] | None = None,
) -> Path:
    """Write the files of `tree` into the folder `target`, which is new or empty.

    `force` allows a folder that holds something: files of the same names are replaced, one by one,
    others are kept. `only` names the files, or folders of files, to write; a text is one name. `progress`
    gets the bytes of each object that was written.

    Raises TargetNotEmpty, UnsafePath, NamesCollide, DamagedFile, InvalidArgument, StorageFull,
    StorageReadOnly, StorageFailed, and what `read_object` raises; the target is as it was before then.
    """
    check_paths([f.path for f in tree.files], tree.empty_folders)
    files, folders = _select(tree, only)
    place = _Target(Path(target), force)
    try:
        with place.beside() as temp:
            fill(temp, files, folders, read_object, progress)
            place.publish(temp, files, folders)
    except OSError as error:
        raise write_failure(error, str(place.path)) from error
    return place.path


def fill(
    folder: Path,
    files: Sequence[TreeFile],
    folders: Sequence[str],
    read: ReadObject,
    progress: Progress | None = None,
) -> None:
    """Write into a fresh folder that nobody else knows of.

    Raises OSError, DamagedFile, UnsafePath, NamesCollide.
    """
    for path in [*folders, *(f.path for f in files)]:
        if path.count("/") > _MAX_DEPTH:
            raise UnsafePath(path=path, reason=f"it lies more than {_MAX_DEPTH} folders deep")
    progress = progress or _nobody
    prepare()
    made = {""}
    for path in folders:
        _make_folders(folder, path, made)
    opened: Open | None = getattr(read, "opened", None) if hasattr(os, "pwrite") else None
    poured = {f.path for f in files if opened is not None and f.size >= LEAST}
    with closing(bodies_of([f for f in files if f.path not in poured], read)) as bodies:
        for file in files:
            _make_folders(folder, file.path.rpartition("/")[0], made)
            try:
                # The umask decides as for any file; a checkout may belong to a group.
                fd = os.open(folder / file.path, NEW_FILE, 0o777 if file.executable else 0o666)
            except FileExistsError:
                # The folder is fresh: two names of the tree are one to this file system.
                raise NamesCollide(path=file.path) from None
            try:
                if opened is not None and file.path in poured:
                    _write_poured(file, fd, opened, read, progress)
                else:
                    _write_whole(file, fd, bodies, progress)
            finally:
                os.close(fd)


def _write_whole(file: TreeFile, fd: int, bodies: Iterator[Buffer], progress: Progress) -> None:
    """Object by object, each verified by itself: what fails is named."""
    for data in verified(file, bodies):
        write_all(fd, data)
        progress(memoryview(data).nbytes)


def _write_poured(file: TreeFile, fd: int, opened: Open, read: ReadObject, progress: Progress) -> None:
    told = 0

    def first(size: int) -> None:
        nonlocal told
        told += size
        progress(size)

    if pour(file, fd, opened, first):
        return

    def again(size: int) -> None:
        # What was told once is not told again.
        nonlocal told
        new = max(0, size - told)
        told = max(0, told - size)
        if new:
            progress(new)

    os.ftruncate(fd, 0)
    with closing(bodies_of([file], read)) as bodies:
        _write_whole(file, fd, bodies, again)


def _nobody(size: int) -> None:
    """Is told, and says nothing."""


def _make_folders(root: Path, path: str, made: set[str]) -> None:
    if path in made:
        return
    _make_folders(root, path.rpartition("/")[0], made)
    try:
        (root / path).mkdir()
    except FileExistsError:
        raise NamesCollide(path=path) from None
    made.add(path)


def _select(tree: Tree, only: Collection[str] | None) -> tuple[list[TreeFile], list[str]]:
    if only is None:
        return tree.files, tree.empty_folders
    named = [only] if isinstance(only, str) else only
    wanted = {path.rstrip("/") for path in named}
    unused = set(wanted)

    def chosen(path: str) -> bool:
        parts = path.split("/")
        hits = wanted & {"/".join(parts[: i + 1]) for i in range(len(parts))}
        unused.difference_update(hits)
        return bool(hits)

    found = [f for f in tree.files if chosen(f.path)], [p for p in tree.empty_folders if chosen(p)]
    if unused:
        raise InvalidArgument(argument="only", reason=f"the version has no file {min(unused)!r}")
    return found


class _Target:
    """The folder to be, and how a finished one gets there."""

    def __init__(self, path: Path, force: bool) -> None:
        self.path = path.absolute()
        if "\0" in str(path):
            raise InvalidArgument(argument="target", reason=f"{str(path)!r} holds a zero byte")
        try:
            if self.path.is_symlink():
                # Whoever named the link meant what it points to.
                self.path = Path(os.path.realpath(self.path))
            about = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._exists = self._merge = self._inherits = False
            return
        except OSError as error:
            if error.errno == errno.ELOOP:
                reason = f"{self.path} cannot be reached: a link on the way leads to itself"
                raise InvalidArgument(argument="target", reason=reason) from None
            raise write_failure(error, str(self.path)) from error
        if not stat.S_ISDIR(about.st_mode):
            raise InvalidArgument(argument="target", reason=f"{self.path} is no folder")
        self._exists = True
        with os.scandir(self.path) as entries:
            # What a checkout that was killed has left in it is nobody's; one that is filled is.
            occupied = any(not is_unfinished(entry.name) or _is_held(Path(entry)) for entry in entries)
        if occupied and not force:
            raise TargetNotEmpty(path=str(self.path))
        # A mounted folder cannot be replaced, nor one in a folder of somebody else's; the one that we
        # stand in should not be.
        fixed = self.path.is_mount() or not may_write(self.path.parent)
        # Whoever made it for a group meant its own rights to be those of what comes into it.
        self._inherits = _is_of_others(self.path, about)
        self._merge = occupied or fixed or self._inherits or _is_here(about)

    @contextlib.contextmanager
    def beside(self) -> Iterator[Path]:
        """A fresh folder on the target's file system; gone at the end, if it is still there."""
        made = self._make_parents()
        parent = self.path.parent
        if self._merge and (self.path.is_mount() or self._inherits or not may_write(parent)):
            parent = self.path
        _sweep(parent)
        # Without the target's own name: that may be as long as a name can be.
        temp = parent / f"{UNFINISHED}{random_hex(8)}"
        lives = None
        try:
            temp.mkdir()
            lives = hold_folder(temp)
            yield temp
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            for folder in made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        finally:
            if lives is not None:
                os.close(lives)
        shutil.rmtree(temp, ignore_errors=True)

    def _make_parents(self) -> list[Path]:
        """Make the folders above the target; those that are new, the deepest first."""
        missing = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return missing

    def publish(self, temp: Path, files: Sequence[TreeFile], folders: Sequence[str]) -> None:
        """Put the finished folder in place."""
        if self._merge:
            self._move_in(temp, files, folders)
            return
        if self._exists:
            temp.chmod(stat.S_IMODE(self.path.stat().st_mode))
            if os.name == "nt":
                self.path.rmdir()  # a rename replaces no folder there
        try:
            temp.rename(self.path)
        except OSError as error:
            if error.errno in OCCUPIED:
                raise TargetNotEmpty(path=str(self.path)) from None
            raise

    def _move_in(self, temp: Path, files: Sequence[TreeFile], folders: Sequence[str]) -> None:
        """Replace file by file; what stands in the way is found before the first one."""
        checked: set[str] = {""}
        for path in folders:
            self._check_folders(path, checked)
        for file in files:
            self._check_folders(file.path.rpartition("/")[0], checked)
            mode = _mode(self.path / file.path)
            if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                raise UnsafePath(path=file.path, reason="something that is no file is in its place")
        for folder in sorted(checked):
            self._require_open(self.path / folder, temp)
        for path in folders:
            (self.path / path).mkdir(parents=True, exist_ok=True)
        for file in files:
            goal = self.path / file.path
            goal.parent.mkdir(parents=True, exist_ok=True)
            (temp / file.path).replace(goal)

    def _require_open(self, folder: Path, temp: Path) -> None:
        """Refuse a folder of the target into which nothing could be renamed. Raises StorageReadOnly."""
        if not folder.exists():
            return
        if folder.stat().st_dev != temp.stat().st_dev:
            raise StorageReadOnly(where=str(folder), reason="it is on another file system than the target")
        if not may_write(folder):
            raise StorageReadOnly(where=str(folder), reason="no permission")

    def _check_folders(self, path: str, checked: set[str]) -> None:
        """Refuse a folder of the target that is a link or a file: writing would leave the target."""
        if path in checked:
            return
        self._check_folders(path.rpartition("/")[0], checked)
        mode = _mode(self.path / path)
        if mode is not None and not stat.S_ISDIR(mode):
            what = "a link" if stat.S_ISLNK(mode) else "no folder"
            raise UnsafePath(path=path, reason=f"in the target it is {what}")
        checked.add(path)


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def _is_of_others(folder: Path, about: os.stat_result) -> bool:
    """Whether a new folder in its place would be another's, of another group, or have other rights."""
    if os.name != "posix":
        return False
    above = folder.parent.stat()
    group = above.st_gid if above.st_mode & stat.S_ISGID else os.getegid()
    if (about.st_uid, about.st_gid) != (os.geteuid(), group):
        return True
    try:
        return any(name.startswith("system.posix_acl") for name in os.listxattr(folder))
    except (AttributeError, OSError):
        return False  # not on this system, or file system


def hold_folder(folder: Path) -> int | None:
    """Lock a folder as the sign that who fills it lives; closing what is returned ends it. None: another one
    holds it, or this system has no such locks."""
    try:
        import fcntl

        # A folder alone: a pipe of that name would be waited for, by whoever looks what is left there.
        held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def _is_held(folder: Path) -> bool:
    held = hold_folder(folder)
    if held is not None:
        os.close(held)
    return held is None


def _sweep(parent: Path) -> None:
    """Remove what checkouts that were killed have left in this folder a while ago."""
    for left in parent.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            newest = max(path.lstat().st_mtime for path in (left, *left.rglob("*")))
            if not is_unfinished(left.name) or time.time() - newest < _WHILE:
                continue
            held = hold_folder(left)
            if held is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(held)


def is_unfinished(name: str) -> bool:
    """Whether a folder of this name is one that a checkout fills before it takes its place."""
    return name.startswith(UNFINISHED) and re.fullmatch(r"[0-9a-f]{16}", name[len(UNFINISHED) :]) is not None


def _is_here(about: os.stat_result) -> bool:
    """Whether this is the working folder, which must stay the one that the shell is in."""
    try:
        here = Path.cwd().stat()
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (about.st_dev, about.st_ino)
