"""Local: a repository in a folder. Owns durability: what is visible has been synced to the disk.

A key is written under `tmp/`, synced, and then given its name by a call that refuses a taken one.
Reading creates nothing; folders appear with the first write.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

from stemmata.errors import (
    InvalidArgument,
    KeyExists,
    KeyMissing,
    OutcomeUnknown,
    PutIfAbsentUnsupported,
    StorageFailed,
    StorageProblem,
)
from stemmata.ids import random_hex
from stemmata.storage import publish
from stemmata.storage.base import Buffer, NewObject, StoredKey
from stemmata.storage.descriptors import (
    NEW_FILE,
    READ,
    begin_sync,
    read_into,
    read_range,
    refresh_names,
    sync_file,
    sync_folder,
    write_all,
)
from stemmata.storage.failures import read_failure, reason_of, write_failure
from stemmata.storage.forks import held_at_forks
from stemmata.storage.keys import check_key, check_prefix, check_range, is_key
from stemmata.storage.mounts import is_network, mount_of
from stemmata.storage.publish import Means, NoMeans

_SYNCED_AT_ONCE = 8 << 20
"""Bytes of a file that is being written after which the disk is told to begin with them."""
_SYNCS = 4
_BETWEEN_SYNCS = 0.05
"""How often a name is synced before it counts as lost, and seconds between."""
_ABSENT = (FileNotFoundError, NotADirectoryError)
_T = TypeVar("_T")


@lru_cache(maxsize=256)  # a pack is read piece by piece: this would be half of what asking for one costs
def _path_of(root: Path, key: str) -> Path:
    return root / check_key(key)


def _open(path: Path) -> int:
    return os.open(path, READ)


class LocalStorage:
    """A folder on a file system with hard links, or with a rename that refuses to replace."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        if "\0" in os.fspath(root):
            raise InvalidArgument(argument="path", reason=f"{os.fspath(root)!r} holds a zero byte")
        self.root = Path(root).absolute()
        self.where = str(self.root)
        self.cache_folder: Path | None = self.root / "cache"
        self._lock = held_at_forks(threading.Lock())
        self._means: Means | None = None
        self._granted: tuple[int, int] | None = None
        self._synced: set[Path] = set()
        """Folders whose own entry in their parent this object has synced."""

    @cached_property
    def reads_pieces(self) -> bool:
        return not is_network(mount_of(self.root))

    def put_new(self, key: str, data: Buffer) -> None:
        # A look first: a lost race costs no temporary file then. The naming call decides all the same.
        if os.path.lexists(self._path(key)):
            raise KeyExists(key=key)
        new = self.start_new(key)
        try:
            new.write(data)
            new.commit()
        finally:
            new.abort()

    def start_new(self, key: str) -> NewObject:
        path = self._path(key)
        return self._begin(key, path, self._find_means())

    def replace(self, key: str, data: Buffer) -> None:
        new = self._begin(key, self._path(key), Means.OVER)
        try:
            new.write(data)
            new.commit()
        finally:
            new.abort()

    def _begin(self, key: str, path: Path, means: Means) -> _LocalObject:
        temp = self.root / "tmp" / random_hex(16)
        try:
            # 0o666 less the umask: a repository may belong to a group.
            fd = os.open(temp, NEW_FILE, 0o666)
        except FileNotFoundError:
            self._make_folder(temp.parent)
            try:
                fd = os.open(temp, NEW_FILE, 0o666)
            except OSError as error:
                raise write_failure(error, self.where) from error
        except OSError as error:
            raise write_failure(error, self.where) from error
        self._let_read(fd)
        return _LocalObject(self, key, path, temp, fd, means)

    def _let_read(self, fd: int) -> None:
        """A new file is for at least those who may read the repository itself: one of its writers whose umask
        is stricter would lock all others out of every version, for the log is read whole."""
        wanted = self._modes[0]
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if wanted & ~mode:
            with contextlib.suppress(OSError):  # a file system that has no modes
                os.fchmod(fd, mode | wanted)

    @property
    def _modes(self) -> tuple[int, int]:
        """What stemmata.json lets people do with it, and the folder it lies in with that; 0 where it is not
        there yet."""
        if self._granted is None:
            try:
                file = stat.S_IMODE((self.root / "stemmata.json").stat().st_mode) & 0o666
                self._granted = file, stat.S_IMODE(self.root.stat().st_mode) & 0o777
            except OSError:
                return 0, 0
        return self._granted

    def make_durable(self, key: str) -> None:
        folder = self._path(key).parent
        self.size(key)
        for left in reversed(range(_SYNCS)):
            try:
                # Its bytes were synced before it had a name, and the folders above before that.
                sync_folder(folder)
                return
            except OSError as error:
                # Too many open files pass; a file system whose journal failed refuses every time.
                if not left:
                    raise write_failure(error, self.where) from error
                time.sleep(_BETWEEN_SYNCS)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)

        def read(fd: int, size: int) -> bytes:
            there = max(0, size - start)
            return read_range(fd, start, there if length is None else min(length, there))

        return self._read(key, read)

    def get_into(self, key: str, start: int, into: memoryview) -> int:
        check_range(start, len(into))
        return self._read(key, lambda fd, _: read_into(fd, start, into))

    def _read(self, key: str, read: Callable[[int, int], _T]) -> _T:
        """`read` with an open key and its size."""
        # No generator as a context manager: each frame of a large object comes this way.
        fd = self._look(key, _open)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise StorageFailed(where=self.where, reason=f"{key} is no ordinary file")
            return read(fd, about.st_size)
        except OSError as error:
            raise read_failure(error, self.where) from error
        finally:
            os.close(fd)

    def size(self, key: str) -> int:
        return self._look(key, Path.stat).st_size

    def _look(self, key: str, call: Callable[[Path], _T]) -> _T:
        """`call` with a key's path. Raises KeyMissing only for what is absent now."""
        path = self._path(key)
        try:
            try:
                return call(path)
            except _ABSENT:
                # NFS remembers for half a minute that a name was absent. Opening its folder makes it ask.
                refresh_names(self.root, path)
                return call(path)
        except _ABSENT:
            raise KeyMissing(key=key) from None
        except PermissionError as error:
            mend = f"{key} is closed to this user; its owner mends that with: chmod -R a+rX (or g+rwX)"
            raise StorageFailed(where=self.where, reason=f"{reason_of(error)}: {mend}") from error
        except OSError as error:
            raise read_failure(error, self.where) from error

    def list(self, prefix: str, after: str = "") -> Iterator[StoredKey]:
        check_prefix(prefix)
        return self._walk(prefix, after)

    def _walk(self, prefix: str, after: str) -> Iterator[StoredKey]:
        try:
            with os.scandir(self.root / prefix) as found:
                # A log has very many entries, of which few are asked for: those are looked at no further.
                listed = ((e, e.is_dir(follow_symlinks=False)) for e in found)
                wanted = ((e, is_folder) for e, is_folder in listed if is_folder or prefix + e.name > after)
                entries = [(e, is_folder) for e, is_folder in wanted if is_key(prefix + e.name)]
        except _ABSENT:
            return
        except OSError as error:
            raise read_failure(error, self.where) from error
        # A folder sorts as its keys do: by its name and the slash.
        for entry, is_folder in sorted(entries, key=lambda e: e[0].name + "/" * e[1]):
            if is_folder:
                yield from self._walk(f"{prefix}{entry.name}/", after)
                continue
            try:
                about = entry.stat()
            except _ABSENT:
                continue  # deleted since
            except OSError as error:
                raise read_failure(error, self.where) from error
            if stat.S_ISREG(about.st_mode):
                yield StoredKey(prefix + entry.name, about.st_size, about.st_mtime)

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink()
        except _ABSENT:
            return
        except OSError as error:
            raise write_failure(error, self.where) from error

    def require_writable(self) -> None:
        self._find_means(again=True)

    def sweep(self, before: float) -> int:
        """Delete unfinished files that nobody has written to since `before`; how many."""
        done = 0
        try:
            with os.scandir(self.root / "tmp") as found:
                for entry in found:
                    if entry.stat(follow_symlinks=False).st_mtime < before and not entry.is_dir():
                        Path(entry.path).unlink(missing_ok=True)
                        done += 1
        except _ABSENT:
            pass  # another collector's, or no writer has ever been here
        except OSError as error:
            raise write_failure(error, self.where) from error
        return done

    def _path(self, key: str) -> Path:
        return _path_of(self.root, key)

    def _find_means(self, again: bool = False) -> Means:
        """What puts if absent here, found by trial before the first write."""
        with self._lock:
            if self._means is None or again:
                temp = self.root / "tmp"
                self._make_folder(temp)
                try:
                    self._means = publish.probe(temp)
                except NoMeans:
                    raise PutIfAbsentUnsupported(where=self.where) from None
                except OSError as error:
                    raise write_failure(error, self.where) from error
            return self._means

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and sync its name, and those of the folders above it up to the root.

        Also for a folder that was there: another process may have made it and not yet synced it.
        """
        try:
            line = (folder, *folder.parents)
            missing = {f for f in line if not f.exists()}
            folder.mkdir(parents=True, exist_ok=True)
            for each in missing:
                if each != self.root and each.is_relative_to(self.root):
                    mode = stat.S_IMODE(each.stat().st_mode)
                    if self._modes[1] & ~mode:
                        each.chmod(mode | self._modes[1])
            fresh = []
            for each in line:
                if each in self._synced or not (each.is_relative_to(self.root) or each in missing):
                    break
                try:
                    sync_folder(each.parent)
                except PermissionError:
                    # The folder above the root may be closed to readers: made by another, long ago.
                    if each != self.root:
                        raise
                fresh.append(each)
            self._synced.update(fresh)
        except OSError as error:
            raise write_failure(error, self.where) from error

    def _name(self, key: str, path: Path, temp: Path, means: Means) -> None:
        """Give the finished file its name, durably."""
        if path.parent not in self._synced:
            self._make_folder(path.parent)
        try:
            self._give_name(path, temp, means)
        except FileExistsError:
            raise KeyExists(key=key) from None
        except OSError as error:
            if means is Means.OVER:
                raise write_failure(error, self.where) from error
            raise self._unnamed(error, key, path, temp) from error
        try:
            # The folder too: a name alone may vanish after power loss.
            sync_folder(path.parent)
        except OSError as error:
            raise OutcomeUnknown(key=key, reason=reason_of(error)) from error

    def _give_name(self, path: Path, temp: Path, means: Means) -> None:
        call = publish.call_of(means)
        try:
            call(temp, path)
        except FileNotFoundError:
            # Someone has tidied away the folder that was made earlier.
            self._synced.discard(path.parent)
            self._make_folder(path.parent)
            call(temp, path)

    def _unnamed(self, error: OSError, key: str, path: Path, temp: Path) -> StorageProblem:
        """A naming call failed for another reason than a taken name: is the name there now?"""
        try:
            temp.lstat()
            taken = os.path.lexists(path)
        except OSError:
            return OutcomeUnknown(key=key, reason=reason_of(error))
        return KeyExists(key=key) if taken else write_failure(error, self.where)


class _LocalObject:
    """A file under `tmp/` that may get its name."""

    def __init__(
        self, storage: LocalStorage, key: str, path: Path, temp: Path, fd: int, means: Means
    ) -> None:
        self._storage, self._key, self._path, self._temp = storage, key, path, temp
        self._fd: int | None = fd
        self._means = means
        self._failed = False
        self._written = 0
        self._begun = 0

    def write(self, data: Buffer) -> None:
        fd = self._open_fd()
        try:
            write_all(fd, data)
        except OSError as error:
            self._failed = True
            raise write_failure(error, self._storage.where) from error
        self._written += memoryview(data).nbytes
        if self._written - self._begun >= _SYNCED_AT_ONCE:
            begin_sync(fd, self._begun, self._written - self._begun)
            self._begun = self._written

    def commit(self) -> None:
        fd = self._open_fd()
        try:
            if self._failed:
                raise StorageFailed(where=self._storage.where, reason="an earlier write failed")
            try:
                sync_file(fd)
                self._fd = None
                os.close(fd)  # some network drives report a full disk here
            except OSError as error:
                raise write_failure(error, self._storage.where) from error
            self._storage._name(self._key, self._path, self._temp, self._means)
        finally:
            self.abort()

    def abort(self) -> None:
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):
            if fd is not None:
                os.close(fd)
        with contextlib.suppress(OSError):
            self._temp.unlink()

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self._key} is no longer being written")
        return self._fd
